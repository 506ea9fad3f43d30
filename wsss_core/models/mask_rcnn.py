"""Mask R-CNN (He, Gkioxari, Dollár & Girshick, ICCV 2017): a detector with a branch that gives every object a mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from wsss_core.models.backbones import Backbone
from wsss_core.models.detector import Detections, Detector, Target, in_image, opened, region_pool

CELLS = 28
"""Side of a mask in cells, whatever the size of its object."""


class MaskRcnn(Detector):
    """The detector, with a mask of 28 x 28 cells for every class of a region.

    Parameters
    ----------
    network, n_classes, channels, sizes
        As for `Detector`.
    """

    kind = "instances"

    def __init__(self, network: Backbone, n_classes: int, *, channels: int = 256, **sizes: Any) -> None:
        super().__init__(network, n_classes, channels=channels, **sizes)
        self.mask_pool = region_pool(CELLS // 2)
        self.mask_head = MaskRCNNHeads(channels, (channels,) * 4, 1)
        self.mask_predictor = MaskRCNNPredictor(channels, channels, n_classes)
        # As Detectron2: torchvision draws with a deviation of sqrt(2 / C), by which few classes' losses diverge.
        nn.init.normal_(self.mask_predictor.mask_fcn_logits.weight, std=0.001)

    def examples(
        self, images: Tensor, sizes: Sequence[tuple[int, int]], targets: list[Target]
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """What there is to learn of a batch, in training mode.

        Parameters
        ----------
        images, sizes, targets
            As for `losses`; the targets have "masks", uint8 [n, H, W] in pixels of the input: 1 the object, 0 not, 255
            unknown.

        Returns
        -------
        The terms of the detector's loss; and of the P regions that meet an object, logits of the mask of its class,
        [P, 28, 28], and what is known of that mask, uint8 [P, 28, 28].
        """
        features = self.pyramid(images)
        terms, regions, matched, labels = self._losses(features, images, sizes, targets)
        objects = [found > 0 for found in labels]
        boxes = [region[met] for region, met in zip(regions, objects, strict=True)]
        classes = torch.cat([found[met] - 1 for found, met in zip(labels, objects, strict=True)])
        known = [
            cut_out(target["masks"], number[met], box)
            for target, number, met, box in zip(targets, matched, objects, boxes, strict=True)
        ]
        return terms, self.mask_logits(features, boxes, classes), torch.cat(known)

    def mask_logits(self, features: dict[str, Tensor], boxes: Sequence[Tensor], classes: Tensor) -> Tensor:
        """Logits [N, 28, 28] of the masks of classes [N], in boxes [n_i, 4] of each image, in pixels of the input."""
        logits = self.mask_predictor(self.mask_head(self.mask_pool(features, list(boxes), [])))
        return logits[torch.arange(len(classes), device=classes.device), classes].float()

    @torch.no_grad()
    def detect_masks(self, image: np.ndarray) -> tuple[Detections, Tensor]:
        """The objects in an image uint8 [H, W, 3], as `detect`; and probabilities [n, 28, 28] within their boxes."""
        seen = self.input_of(image)
        features = self.pyramid(seen)
        found = self._found(features, seen)
        masks = self.mask_logits(features, [found.boxes], found.classes).sigmoid()
        return in_image(found, seen.shape[2:], image.shape[:2]), masks


def cut_out(masks: Tensor, numbers: Tensor, boxes: Tensor) -> Tensor:
    """Masks within boxes, at the nearest pixel to the centre of each of 28 x 28 cells.

    Parameters
    ----------
    masks
        Of the objects of one image, [n, H, W], of any type.
    numbers
        Which mask goes with each box, int64 [P].
    boxes
        [P, 4] in pixels.

    Returns
    -------
    [P, 28, 28] of the type of the masks.
    """
    shares = (torch.arange(CELLS, device=boxes.device) + 0.5) / CELLS
    columns, rows = (
        (boxes[:, axis, None] + shares * (boxes[:, axis + 2] - boxes[:, axis])[:, None]).floor().long()
        for axis in (0, 1)
    )
    rows, columns = rows.clamp(0, masks.shape[1] - 1), columns.clamp(0, masks.shape[2] - 1)
    return masks[numbers[:, None, None], rows[:, :, None], columns[:, None, :]]


def open_instance_network(path: Path | str, device: torch.device | str = "cpu") -> MaskRcnn:
    """A trained Mask R-CNN in evaluation mode on a device, without gradients of its weights.

    Parameters
    ----------
    path
        ``model.pt`` of a stage that trains one.
    device
        Such as "cpu" or "cuda".

    Raises
    ------
    UserError
        If the file is missing or is not the checkpoint of such a network.

    Examples
    --------
    >>> from wsss_core.models.backbones import backbone
    >>> from wsss_core.store.checkpoints import save_network
    >>> fresh = MaskRcnn(backbone("small", 32), 2, channels=8, short_side=64, long_side=96)
    >>> save_network(Path("model.pt"), fresh.kind, fresh.state_dict(), {**fresh.about, "class_names": ["cat", "dog"]})
    >>> open_instance_network("model.pt").class_names
    ('cat', 'dog')
    """
    return opened(MaskRcnn, path, device)
