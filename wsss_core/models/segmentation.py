"""What segmentation networks have in common."""

from __future__ import annotations

from typing import Any

from wsss_core.models.backbones import BackboneNetwork


class SegmentationNetwork(BackboneNetwork):
    """A network from normalised RGB images [B, 3, H, W] to logits: in evaluation mode [B, L, h, w], on any grid that
    covers the images.

    Attributes
    ----------
    class_names
        Names of the foreground classes where the network was read from a checkpoint, otherwise empty.
    architecture
        What `wsss_core.segment.predict` builds it by.
    """

    kind = "segmentation"
    architecture: str

    def __init__(self) -> None:
        super().__init__()
        self.class_names: tuple[str, ...] = ()

    @property
    def about(self) -> dict[str, Any]:
        """Backbone and architecture."""
        return super().about | {"architecture": self.architecture}
