"""Training of a detector from boxes: Faster R-CNN, whose detections BBAM attributes to pixels.

Lee, Yi, Shin & Yoon, "BBAM: Bounding Box Attribution Map for Weakly Supervised Semantic and Instance Segmentation",
CVPR 2021; J. Lee's dissertation, section 5.3.1. The defaults for ResNet are those of the published code for VOC; COCO
has there ResNet-50, batches of 8 and 180,000 steps. Different from it: the published network has Caffe weights, with
the stride in the first convolution of a block, and enlarges the levels of the pyramid bilinearly; here weights are
torchvision's, and levels are enlarged by nearest neighbour as in the paper of the pyramid.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from wsss_core.boxes.training import Example, RegionNetworkSettings, batches, build, optimizer, stepwise
from wsss_core.data.boxes import Box, plain
from wsss_core.data.decoded import Decoded, read_record
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.models.detector import Detector
from wsss_core.store.shards import fingerprint
from wsss_core.training import Inputs, Plan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DetectorSettings(RegionNetworkSettings):
    """Training of the detector; schedule as published for VOC."""


def plan(settings: DetectorSettings, inputs: Inputs) -> Plan:
    """Training on the boxes of the images of the role "train", but for those of crowds.

    Images without such a box are left out: nothing tells whether they are empty or nobody drew boxes on them.

    Raises
    ------
    UserError
        If no image has a box, or the weights do not fit.
    """
    records, boxes = boxed(inputs.records)
    network = build(Detector, settings, inputs)
    images = Decoded(records, read_record)

    def load(index: int) -> Example:
        corners = np.array([box.corners for box in boxes[index]], np.float32)
        return Example(images[index], corners, np.array([box.label + 1 for box in boxes[index]], np.int64))

    def loss(batch: dict[str, Any]) -> dict[str, Tensor]:
        return network.losses(batch["images"], batch["sizes"], batch["targets"])

    steps = batches(settings, inputs, [record.id for record in records], load)
    rate = stepwise(len(steps), settings.warm_up, settings.decay_at)
    digest = fingerprint([(record.id, plain(found)) for record, found in zip(records, boxes, strict=True)])
    return Plan(network, steps, loss, optimizer(network, settings), rate, digest)


def boxed(records: Sequence[ImageRecord]) -> tuple[list[ImageRecord], list[tuple[Box, ...]]]:
    """The images that have a box other than of a crowd; and these boxes.

    Raises
    ------
    UserError
        If there is none.
    """
    used = [(record, tuple(box for box in record.boxes if not box.crowd)) for record in records]
    used = [(record, boxes) for record, boxes in used if boxes]
    if not used:
        raise UserError(
            "no image of the role 'train' has a box, there is nothing to learn from; a detector needs a data set with "
            "boxes (voc, coco, or a table with them)"
        )
    if len(used) < len(records):
        left_out = len(records) - len(used)
        log.warning("%d of %d images have no boxes; the detector does not learn from them", left_out, len(records))
    log.info("%d boxes on %d images", sum(len(boxes) for _, boxes in used), len(used))
    return [record for record, _ in used], [boxes for _, boxes in used]
