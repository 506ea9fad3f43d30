"""What a segmentation network starts from: the weights of its backbone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from torch import Tensor

from wsss_core.errors import UserError
from wsss_core.models.backbones import Backbone
from wsss_core.training import Inputs

log = logging.getLogger(__name__)


def load_backbone(
    backbone: Backbone,
    weights: str | None,
    inputs: Inputs,
    renamed: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
) -> None:
    """Load what the setting `weights` asks for: a weight file, the classifier upstream, or nothing.

    Parameters
    ----------
    renamed
        From the content of a weight file to torchvision's names, if it has others.

    Raises
    ------
    UserError
        If it does not fit the backbone.
    """
    if weights == "classifier":
        _load_classifier(backbone, inputs)
    elif inputs.weights is not None:
        backbone.load(renamed(inputs.weights))
    elif backbone.name != "small":
        log.warning("%s starts from random weights: set `weights` to a file of ImageNet weights", backbone.name)


def _load_classifier(backbone: Backbone, inputs: Inputs) -> None:
    if inputs.classifier is None:
        raise UserError("weights: classifier, but there is no classifier upstream of these masks")
    other = inputs.classifier.backbone
    if other.name != backbone.name:
        raise UserError(f"weights: classifier, but the classifier has the backbone {other.name}, not {backbone.name}")
    backbone.load_state_dict(other.state_dict())
