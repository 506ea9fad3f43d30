"""What seed methods ask of a classifier: the objective it was trained with, or logit maps from a 1x1 convolution."""

from __future__ import annotations

import logging
from typing import TypeVar

from wsss_core.errors import UserError
from wsss_core.models.cam import CamNetwork
from wsss_core.models.seam import SeamNetwork

log = logging.getLogger(__name__)

Network = TypeVar("Network", bound=CamNetwork)


def check_pointwise(network: CamNetwork, method: str) -> None:
    """Refuse a classifier whose cells are classified in company, as those of FickleNet are.

    One whose maps are refined by more than the classifier (SEAM) is said to have only those of the classifier used.

    Parameters
    ----------
    method
        Name of the seed method, for the message.

    Raises
    ------
    UserError
        If the classifier is not a 1x1 convolution.
    """
    sides = network.classifier.kernel_size
    if sides != (1, 1):
        shape = "x".join(map(str, sides))
        raise UserError(
            f"classifier: the seed method {method} needs a 1x1 convolution for a classifier, and that of "
            f"{network.architecture} is {shape}; name another one, or use the seed method ficklenet, cam or grad_cam"
        )
    if isinstance(network, SeamNetwork):
        log.warning(
            "classifier: was trained by SEAM, and %s works on its activation maps before SEAM's correlation refines "
            "them; the refined ones are those of the seed method seam",
            method,
        )


def check_objective(network: CamNetwork, kind: type[Network]) -> Network:
    """The classifier, if it was trained with the objective of the same name as the seed method.

    Parameters
    ----------
    kind
        Network of that objective, whose architecture has its name too.

    Raises
    ------
    UserError
        If the classifier is of another kind.
    """
    if not isinstance(network, kind):
        raise UserError(
            f"classifier: the seed method {kind.architecture} needs one of the objective {kind.architecture}, not one "
            f"of kind {network.architecture}"
        )
    return network
