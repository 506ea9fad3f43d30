"""What the stages that train on top of a backbone share: which backbone, with which initial weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import nn

from wsss_core import keyed
from wsss_core.errors import UserError
from wsss_core.models.backbones import Backbone, backbone, load_weights
from wsss_core.stages.inputs import check_classes, file_digest
from wsss_core.stages.step import StepConfig
from wsss_core.store.checkpoints import load_network

log = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)


class BackboneSettings(Protocol):
    """Settings that name a backbone and its weights."""

    backbone: str | None
    weights: str | None


def network_on_backbone(
    architecture: Callable[[Backbone], Network],
    settings: BackboneSettings,
    step: StepConfig,
    classifier: Path | None,
    class_names: Sequence[str],
) -> tuple[str, Network, str]:
    """Name of the backbone, the network with its initial weights, and a digest of where these come from.

    Parameters
    ----------
    architecture
        From a backbone to the network, which has it as its attribute ``backbone``.
    settings
        Settings of the step `network`.
    step
        Its seed and stage key the random initial weights.
    classifier
        Checkpoint of the upstream classifier, for its backbone's name and weights.

    Raises
    ------
    UserError
        If the classifier is needed and absent, or is of another backbone or class list, or the weights do not fit.
    """
    if classifier is None and (settings.backbone is None or settings.weights == "classifier"):
        raise UserError("network.backbone or network.weights name the classifier's, but none was given")
    content, meta = load_network(classifier, "classifier") if classifier is not None else ({}, {})
    if classifier is not None:
        check_classes(classifier, meta["class_names"], class_names)
    name = settings.backbone or meta["backbone"]
    torch.manual_seed(keyed.integer(step.seed, step.key, "initial weights"))
    network = architecture(backbone(name))
    if settings.weights is None:
        log.warning("the backbone %s has random initial weights: set network.weights for good results", name)
        return name, network, "random"
    if settings.weights != "classifier":
        network.backbone.load(load_weights(Path(settings.weights)))
        return name, network, file_digest(Path(settings.weights))
    if meta["backbone"] != name:
        raise UserError(
            f"network.weights is classifier, but {classifier} has the backbone {meta['backbone']}, not {name}"
        )
    prefix = "backbone."
    network.backbone.load_state_dict({k.removeprefix(prefix): v for k, v in content.items() if k.startswith(prefix)})
    return name, network, file_digest(classifier)
