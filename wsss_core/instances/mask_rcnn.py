"""Instance segmentation by Mask R-CNN, learned from masks of which a part of the pixels is unknown.

He, Gkioxari, Dollár & Girshick, ICCV 2017; J. Lee's dissertation, section 5.3.4 (BBAM, CVPR 2021). The mask of an
object may be given in part: pixels of the object, pixels that are not, and pixels of which nothing is known. At every
step, for every region that meets an object, the cells of its mask of 28 x 28 of which nothing is known may join: the
object, where its probability is above 0.9, or the rest, where it is below 0.1; first those that touch a given cell of
the same kind (8 neighbours), then those that touch these, until nothing changes. With F and B the cells of the object
and of the rest after this, over all regions of the batch, and q the probability::

    L_mask = ( - 1/|F| sum_F log q  -  1/|B| sum_B log(1 - q) ) / 2

An empty set costs nothing. Cells that were given never change, and growing starts from them at every step. The document
refers to DSRG for growing; thresholds and loss are those of its published code, and so are the defaults for ResNet, for
VOC. Masks that are known everywhere are learned from in the same way, which is full supervision.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.boxes.training import Example, RegionNetworkSettings, Scale, batches, build, optimizer, scales, stepwise
from wsss_core.constants import IGNORE
from wsss_core.data.boxes import LEAST_SIDE
from wsss_core.data.decoded import Decoded, read_record
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.models.detector import summed
from wsss_core.models.mask_rcnn import MaskRcnn
from wsss_core.segment.predict import CrfSettings, apply_crf
from wsss_core.settings import setting
from wsss_core.store.instances import INSTANCES, Instances, InstanceStore
from wsss_core.store.shards import fingerprint
from wsss_core.training import Inputs, Plan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskRcnnSettings(RegionNetworkSettings):
    """Training of Mask R-CNN; schedule as published for VOC."""

    usual: ClassVar[Mapping[str, Scale]] = scales(Scale(256, 512, 0, tuple(range(416, 513, 24)), 800, 8, 0.008))
    usual_epochs: ClassVar[int] = 15

    short_sides: tuple[int, ...] | None = setting(
        None,
        "lengths in pixels of the shorter side, of which an image in training gets one at random; null: 416, 440, … "
        "512 for ResNet, 192, 224 and 256 for MobileNetV2, 96 and 128 for small",
        minItems=1,
        items={"minimum": 32},
    )
    long_side: int | None = setting(
        None,
        "limit of the longer side in pixels, in training and after it; null: 800 if `short_side` is 512 for ResNet, "
        "427 if it is 256 for MobileNetV2, 213 if it is 128 for small, and in proportion",
        minimum=32,
    )
    iterations: int | None = setting(
        None, "training steps; null: as many as show every image 15 times, but at least 600", minimum=1
    )
    batch_size: int | None = setting(None, "images a step; null: 8 for ResNet, 4 for the others", minimum=1)
    learning_rate: float | None = setting(
        None, "of SGD; null: 0.008 for ResNet, 0.01 for MobileNetV2, 0.02 for small", exclusiveMinimum=0
    )
    decay_at: tuple[float, ...] = setting(
        (0.8,),
        "parts of the training after which the rate is divided by ten, each time",
        items={"minimum": 0, "maximum": 1},
    )
    grow_above: float = setting(
        0.9,
        "an unknown cell beside the object joins it if its probability is above; 1: none does",
        minimum=0,
        maximum=1,
    )
    grow_below: float = setting(
        0.1,
        "an unknown cell beside the rest joins that if its probability is below; 0: none does",
        minimum=0,
        maximum=1,
    )


@dataclass(frozen=True)
class InstancePredictSettings:
    """Prediction with Mask R-CNN."""

    threshold: float = setting(0.5, "probability from which a pixel belongs to the object", minimum=0, maximum=1)
    crf: CrfSettings | None = setting(
        None,
        "dense CRF on the probabilities of every object, which takes a second or so for each; null for none, {} for "
        "the usual one",
    )


def plan(settings: MaskRcnnSettings, inputs: Inputs) -> Plan:
    """Training on the masks of single objects of the images of the role "train", but for crowds.

    Images that hold no object are left out, as a detector does it (`wsss_core.boxes.detector.plan`).

    Raises
    ------
    UserError
        If masks are missing or wrong, there is no object, or the weights do not fit.
    """
    records, files, digest = surveyed(inputs)
    network = build(MaskRcnn, settings, inputs)
    examples = Decoded(records, lambda record: example(record, files[record.id]))

    def loss(batch: dict[str, Any]) -> dict[str, Tensor]:
        terms, logits, known = network.examples(batch["images"], batch["sizes"], batch["targets"])
        masks = grown_mask_loss(logits, known, settings.grow_above, settings.grow_below)
        return summed(terms | {"masks": masks})

    steps = batches(settings, inputs, [record.id for record in records], examples.__getitem__)
    rate = stepwise(len(steps), settings.warm_up, settings.decay_at)
    return Plan(network, steps, loss, optimizer(network, settings), rate, digest)


def surveyed(inputs: Inputs) -> tuple[list[ImageRecord], dict[str, Path], str]:
    """The images that hold an object to learn from, the shards that hold their masks, and a digest of all masks.

    Raises
    ------
    UserError
        If an image has no record, or one of another size, or no image holds an object.
    """
    files = inputs.label_files(INSTANCES, "masks of single objects")
    counts, digests = {}, []
    by_shard: dict[Path, list[ImageRecord]] = {}
    for record in inputs.records:
        by_shard.setdefault(files[record.id], []).append(record)
    for path, records in by_shard.items():
        store = InstanceStore(path)
        for record in records:
            found = store[record.id]
            if tuple(found.size) != record.size:
                raise UserError(f"{path}: image {record.id!r} is {record.size}, its masks are for {tuple(found.size)}")
            counts[record.id] = int(learned(found).sum())
            digests.append((record.id, store.fingerprint(record.id)))
    used = [record for record in inputs.records if counts[record.id]]
    if not used:
        raise UserError("the masks hold no object, there is nothing to train on")
    if len(used) < len(inputs.records):
        log.warning(
            "%d of %d images hold no object; the network does not learn from them",
            len(inputs.records) - len(used),
            len(inputs.records),
        )
    log.info("%d objects on %d images", sum(counts.values()), len(used))
    return used, files, fingerprint(sorted(digests))


def learned(found: Instances) -> np.ndarray:
    """Which objects are learned from, bool [n]: no crowds, and none with a side below `LEAST_SIDE` pixels."""
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    return ~found.crowd & (sides >= LEAST_SIDE).all(1)


def example(record: ImageRecord, path: Path) -> Example:
    """An image with the masks of its objects, of a shard that holds them."""
    found = InstanceStore(path)[record.id]  # opened anew: an HDF5 file must not be shared with loader processes
    used = learned(found)
    planes = np.where(found.ignored[used], np.uint8(IGNORE), found.masks[used].astype(np.uint8))
    return Example(read_record(record), found.boxes[used], found.classes[used] + 1, planes)


def grown_mask_loss(logits: Tensor, known: Tensor, above: float = 0.9, below: float = 0.1) -> Tensor:
    """Loss of masks with unknown cells, some of which become known: see the module.

    Parameters
    ----------
    logits
        Of P masks, [P, h, w].
    known
        [P, h, w]: 1 the object, 0 not, 255 unknown.
    above, below
        Thresholds of the probability for growing, exclusive; 1 and 0 for none.

    Examples
    --------
    >>> logits = torch.tensor([[[4.0, 4.0, -4.0, 4.0]]])
    >>> known = torch.tensor([[[1, 255, 255, 0]]])
    >>> grown(known, logits.sigmoid(), 0.9, 0.1).tolist()
    [[[1, 1, 0, 0]]]
    >>> round(float(grown_mask_loss(logits, known)), 3)
    1.018
    """
    cells = grown(known, logits.detach().sigmoid(), above, below)
    costs = ((cells == 1, F.softplus(-logits)), (cells == 0, F.softplus(logits)))
    means = [(cost * chosen).sum() / chosen.sum().clamp_min(1) for chosen, cost in costs]
    return (means[0] + means[1]) / 2


def grown(known: Tensor, probabilities: Tensor, above: float, below: float) -> Tensor:
    """Masks with the unknown cells that join the object or the rest; arguments and result as in `grown_mask_loss`.

    Parameters
    ----------
    probabilities
        Of the object, [P, h, w].
    """
    result = known.clone()
    for label, joins in ((1, probabilities > above), (0, probabilities < below)):
        region, candidates = known == label, joins & (known == IGNORE)
        size = -1
        while size != (size := int(region.sum())):
            beside = F.max_pool2d(region[:, None].to(probabilities.dtype), 3, stride=1, padding=1)[:, 0] > 0
            region = region | (candidates & beside)
        result[region] = label
    return result


def predict(network: MaskRcnn, image: np.ndarray, settings: InstancePredictSettings | None = None) -> Instances:
    """The objects in one image, the surest first: at most 100, of a score above 0.05, each of a pixel at least.

    Parameters
    ----------
    network
        In evaluation mode, on any device.
    image
        uint8 [H, W, 3], RGB.

    Returns
    -------
    Boxes are those of the detector; masks are enlarged to the image bilinearly within these, and may overlap.
    """
    settings = settings or InstancePredictSettings()
    size = image.shape[:2]
    found, masks = network.detect_masks(image)
    planes = []
    for mask, box in zip(masks, found.boxes, strict=True):
        inside = pasted(mask, box, size)
        if settings.crf is not None:
            inside = apply_crf([image], torch.stack([1 - inside, inside])[None], settings.crf)[0, 1]
        planes.append((inside >= settings.threshold).cpu().numpy())
    kept = [number for number, plane in enumerate(planes) if plane.any()]
    classes, boxes, scores = (part.cpu().numpy()[kept] for part in (found.classes, found.boxes, found.scores))
    return Instances.of(size, classes, boxes, [planes[number] for number in kept], scores)


def pasted(mask: Tensor, box: Tensor, size: Sequence[int]) -> Tensor:
    """Probabilities [h, w] within a box [4] as those of the pixels of an image, [H, W]; 0 outside the box.

    A pixel's value is bilinear between the centres of cells; beyond the outermost centres it is that of the cell.
    """
    (height, width), (x0, y0, x1, y1) = size, box.tolist()
    left, top, right, bottom = max(0, int(x0)), max(0, int(y0)), min(width, ceil(x1)), min(height, ceil(y1))
    columns = (torch.arange(left, right, device=mask.device) + 0.5 - x0) / (x1 - x0)
    rows = (torch.arange(top, bottom, device=mask.device) + 0.5 - y0) / (y1 - y0)
    places = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), 2)
    values = F.grid_sample(mask[None, None], 2 * places[None] - 1, padding_mode="border", align_corners=False)[0, 0]
    plane = mask.new_zeros(height, width)
    plane[top:bottom, left:right] = values * ((places > 0) & (places < 1)).all(2)
    return plane
