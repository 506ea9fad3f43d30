"""Networks from the pixels of a photo to what others want to know: the form in which they leave."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.constants import EPSILON
from wsss_core.data.augment import MEAN, STD
from wsss_core.models.cam import CamNetwork
from wsss_core.models.segmentation import SegmentationNetwork
from wsss_core.models.trained import open_classifier
from wsss_core.segment.predict import load_segmenter
from wsss_core.store.checkpoints import read_checkpoint


class Exported(nn.Module):
    """A network that takes photos as they are: float32 [B, 3, H, W], RGB, grey levels from 0 to 255.

    Attributes
    ----------
    outputs
        Names of what `forward` returns.
    axes
        Of each output, the names of its axes.
    class_names
        Of the foreground classes.
    """

    outputs: tuple[str, ...]
    axes: tuple[str, ...]

    def __init__(self, network: CamNetwork | SegmentationNetwork) -> None:
        super().__init__()
        self.network = network
        self.class_names = network.class_names
        self.register_buffer("mean", torch.tensor(MEAN, dtype=torch.float32).view(3, 1, 1) * 255)
        self.register_buffer("deviation", torch.tensor(STD, dtype=torch.float32).view(3, 1, 1) * 255)

    def normalised(self, photos: Tensor) -> Tensor:
        """What the network was trained on."""
        return (photos - self.get_buffer("mean")) / self.get_buffer("deviation")


class Segmenter(Exported):
    """Probabilities [B, L, H, W] of every label, background first, as `predict_probabilities` finds them."""

    outputs = ("probabilities",)
    axes = ("[B, L, H, W], background first, each pixel summing to 1",)

    def forward(self, photos: Tensor) -> Tensor:
        """The softmax of the enlarged logits."""
        logits = self.network(self.normalised(photos))
        return F.interpolate(logits, photos.shape[2:], mode="bilinear", align_corners=False).softmax(1)


class Classifier(Exported):
    """Probabilities [B, C] of the classes, and their activation maps [B, C, h, w] at the network's own grid.

    Maps are those of `cam_seed` at one scale without the mirror image: negative values are 0, and the largest of each
    is 1.
    """

    outputs = ("probabilities", "maps")
    axes = (
        "[B, C], each from 0 to 1",
        "[B, C, h, w], each from 0 to 1; the grid is coarser than the photo by the stride",
    )

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        """Sigmoids of the logits, and maps."""
        images = self.normalised(photos)
        network = self.network
        assert isinstance(network, CamNetwork)
        maps = network.maps(images).relu()
        return network(images).sigmoid(), maps / (maps.amax((2, 3), keepdim=True) + EPSILON)


def wrapped(checkpoint: Path) -> Exported:
    """The network of a checkpoint in the form in which it leaves, in evaluation mode on the CPU."""
    if read_checkpoint(checkpoint)["kind"] == SegmentationNetwork.kind:
        return Segmenter(load_segmenter(checkpoint)).eval()
    return Classifier(open_classifier(checkpoint)).eval()
