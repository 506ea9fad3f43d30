"""Faster R-CNN on a feature pyramid (Ren et al., NeurIPS 2015; Lin et al., CVPR 2017), of torchvision's parts.

The backbones are the project's own, at stride 32 and with fixed batch normalisation. Labels are 0 for the background
and c + 1 for class c; classes, as in `Detections` and `wsss_core.data.boxes.Box`, count from 0.

Images are never padded to a multiple of 32. Where a side is none, a cell of the pyramid reaches beyond the image, so
neither the places of the anchors nor those of the pooled regions may be worked out from the size of a feature map, as
torchvision does it: both follow from the strides here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import initLevelMapper

from wsss_core.data.augment import normalise, resize, scaled_size
from wsss_core.execution import placed
from wsss_core.models.backbones import Backbone, BackboneNetwork, backbone
from wsss_core.models.pyramid import pooled
from wsss_core.store.checkpoints import fitting, load_network

STRIDES = (4, 8, 16, 32, 64)
"""Pixels between the cells of the levels of the pyramid. Regions are pooled from all but the last."""

ASPECT_RATIOS = (0.5, 1.0, 2.0)
"""Height by width of the three anchors of a cell."""

CODER_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Offsets (x, y, w, h) are multiplied by these where they are encoded."""

Target = dict[str, Tensor]
"""What is known of one image: "boxes" float32 [n, 4] in input pixels, and "labels" int64 [n], class c as c + 1."""


class Detections(NamedTuple):
    """The n objects found in one image, the surest first.

    Attributes
    ----------
    boxes
        (x0, y0, x1, y1) in pixels, x1 and y1 exclusive, float32 [n, 4].
    classes
        0-based, int64 [n].
    scores
        Probability of the class in [0, 1], float32 [n].
    """

    boxes: Tensor
    classes: Tensor
    scores: Tensor


class Detector(BackboneNetwork):
    """Faster R-CNN with a feature pyramid.

    Called with images and regions, it says what each region shows (`forward`); `losses` is for training, and `detect`
    finds the objects of an image.

    Parameters
    ----------
    network
        Backbone at stride 32, whose last four taps the pyramid is built on.
    n_classes
        Number of foreground classes C.
    channels
        Of the pyramid; the two layers of the head have four times as many.
    anchors
        Side of the square anchor of each of the five levels, in pixels of the input.
    short_side, long_side
        Size of the input, see `input_size`.
    regions
        Regions of an image that the heads learn from at a step, at most a quarter of them objects.
    drawn
        Regions drawn `around` every box in training, beside the proposals.

    Attributes
    ----------
    class_names
        Names of the foreground classes where the network was read from a checkpoint, otherwise empty.
    """

    kind = "detector"

    def __init__(
        self,
        network: Backbone,
        n_classes: int,
        *,
        channels: int = 256,
        anchors: Sequence[int] = (32, 64, 128, 256, 512),
        short_side: int = 800,
        long_side: int = 1333,
        regions: int = 512,
        drawn: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = network
        self.n_classes, self.channels, self.anchors = n_classes, channels, tuple(anchors)
        self.short_side, self.long_side = short_side, long_side
        self.regions, self.drawn = regions, drawn
        self.fpn = FeaturePyramidNetwork(list(network.channels[1:]), channels, LastLevelMaxPool())
        self.rpn = RegionProposalNetwork(
            _Anchors([(side,) for side in anchors], [ASPECT_RATIOS] * len(STRIDES)),
            _FullPrecisionHead(channels, len(ASPECT_RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2000, "testing": 1000},
            post_nms_top_n={"training": 2000, "testing": 1000},
            nms_thresh=0.7,
        )
        predictor = FastRCNNPredictor(4 * channels, n_classes + 1)
        for layer, deviation in ((predictor.cls_score, 0.01), (predictor.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)
        self.heads = RoIHeads(
            region_pool(7),
            TwoMLPHead(channels * 7 * 7, 4 * channels),
            predictor,
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=regions,
            positive_fraction=0.25,
            bbox_reg_weights=CODER_WEIGHTS,
            score_thresh=0.05,
            nms_thresh=0.5,
            detections_per_img=100,
        )
        self.class_names: tuple[str, ...] = ()

    @property
    def about(self) -> dict[str, Any]:
        """Backbone and arguments of the constructor, for `opened`."""
        names = ("channels", "anchors", "short_side", "long_side", "regions", "drawn")
        arguments = {name: getattr(self, name) for name in names}
        return super().about | {"architecture_settings": arguments | {"anchors": list(self.anchors)}}

    def input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of the input for an image of (H, W) pixels: see `fitted_size`."""
        return fitted_size(size, self.short_side, self.long_side)

    def input_of(self, image: np.ndarray) -> Tensor:
        """An image uint8 [H, W, 3] as the network sees it: float32 [1, 3, H', W'], resized and normalised."""
        seen = normalise(resize(image, self.input_size(image.shape[:2])))
        return torch.from_numpy(seen)[None].to(next(self.parameters()).device)

    def pyramid(self, images: Tensor) -> dict[str, Tensor]:
        """Levels "0" to "3" and "pool" of normalised images [B, 3, H, W], each [B, channels, ceil(H / stride), ...]."""
        return self.fpn({str(level): tap for level, tap in enumerate(self.backbone(images)[1:])})

    def forward(self, images: Tensor, proposals: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What regions of images show, differentiable with respect to the images.

        Parameters
        ----------
        images
            Normalised, [B, 3, H, W].
        proposals
            For each image the regions [n_i, 4], (x0, y0, x1, y1) in pixels of the input.

        Returns
        -------
        Probabilities [N, C + 1] of the labels, N the sum of all n_i, in order; and encoded offsets [N, C + 1, 4] from
        the region to the object, for each label, which `decode` turns into boxes. Of the pyramid only what the regions
        touch is worked out.
        """
        taps = self.backbone(images)[1:]
        return _answers(*self._scored(pooled(self.fpn, self.heads.box_roi_pool, taps, proposals)))

    def judged(self, features: Mapping[str, Tensor], proposals: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What regions of images with these features show: of those of `pyramid` the same as `forward`."""
        return _answers(*self._judged(features, proposals))

    def decode(self, offsets: Tensor, proposals: Tensor) -> Tensor:
        """Boxes [N, C + 1, 4] from encoded offsets [N, C + 1, 4] and the regions [N, 4] that they start from."""
        return self.heads.box_coder.decode_single(offsets.flatten(1), proposals).view_as(offsets)

    def losses(self, images: Tensor, sizes: Sequence[tuple[int, int]], targets: list[Target]) -> dict[str, Tensor]:
        """Losses of a batch, in training mode.

        Parameters
        ----------
        images
            Normalised, [B, 3, H, W]; padded with 0 at the right and below.
        sizes
            (H, W) of each image without its padding.

        Returns
        -------
        "loss", the sum of the others: "objectness" and "proposals" (classes and places of the anchors), "classes" and
        "boxes" (those of the regions).
        """
        return summed(self._losses(self.pyramid(images), images, sizes, targets)[0])

    @torch.no_grad()
    def detect(self, image: np.ndarray) -> Detections:
        """The objects in an image uint8 [H, W, 3], in evaluation mode: at most 100 of a score above 0.05."""
        seen = self.input_of(image)
        return in_image(self._found(self.pyramid(seen), seen), seen.shape[2:], image.shape[:2])

    def _judged(self, features: Mapping[str, Tensor], proposals: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits [N, C + 1] and offsets [N, 4 (C + 1)] of regions."""
        return self._scored(self.heads.box_roi_pool(dict(features), list(proposals), []))

    def _scored(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, C + 1] and offsets [N, 4 (C + 1)] of what was pooled from regions, [N, channels, 7, 7]."""
        logits, offsets = self.heads.box_predictor(self.heads.box_head(regions))
        return logits.float(), offsets.float()

    def _losses(
        self, features: dict[str, Tensor], images: Tensor, sizes: Sequence[tuple[int, int]], targets: list[Target]
    ) -> tuple[dict[str, Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Terms of the loss; and of each image the regions learned from, the objects that they meet, their labels."""
        shapes = [(int(height), int(width)) for height, width in sizes]
        proposals, found = self.rpn(ImageList(images, shapes), features, targets)
        if self.drawn:
            boxes = [around(target["boxes"], self.drawn) for target in targets]
            proposals = [torch.cat(both) for both in zip(proposals, boxes, strict=True)]
        regions, matched, labels, wanted = self.heads.select_training_samples(proposals, targets)
        logits, offsets = self._judged(features, regions)
        terms = {"objectness": found["loss_objectness"], "proposals": found["loss_rpn_box_reg"]}
        terms |= zip(("classes", "boxes"), fastrcnn_loss(logits, offsets, labels, wanted), strict=True)
        return terms, regions, matched, labels

    def _found(self, features: dict[str, Tensor], images: Tensor) -> Detections:
        """The objects of one image, in pixels of the input."""
        sizes = [tuple(images.shape[2:])]
        proposals, _ = self.rpn(ImageList(images, sizes), features)
        logits, offsets = self._judged(features, proposals)
        boxes, scores, labels = self.heads.postprocess_detections(logits, offsets, proposals, sizes)
        return Detections(boxes[0], labels[0] - 1, scores[0])


def _answers(logits: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    return logits.softmax(1), offsets.unflatten(1, (-1, 4))


Network = TypeVar("Network", bound=Detector)


def open_detector(path: Path | str, device: torch.device | str = "cpu") -> Detector:
    """A trained detector in evaluation mode on a device, without gradients of its weights.

    Parameters
    ----------
    path
        ``model.pt`` of a stage that trains one.
    device
        Such as "cpu" or "cuda".

    Raises
    ------
    UserError
        If the file is missing or is not the checkpoint of a detector.

    Examples
    --------
    >>> from wsss_core.store.checkpoints import save_network
    >>> fresh = Detector(backbone("small", 32), 2, channels=8, short_side=64, long_side=96)
    >>> save_network(Path("model.pt"), fresh.kind, fresh.state_dict(), {**fresh.about, "class_names": ["cat", "dog"]})
    >>> network = open_detector("model.pt")
    >>> network.class_names, network.input_size((100, 120))
    (('cat', 'dog'), (64, 77))
    """
    return opened(Detector, path, device)


def opened(architecture: type[Network], path: Path | str, device: torch.device | str) -> Network:
    """As `open_detector`, for a detector or a network that adds to it."""
    state, meta = load_network(Path(path), architecture.kind)
    with fitting(path):
        names = tuple(meta["class_names"])
        network = architecture(backbone(meta["backbone"], 32), len(names), **meta["architecture_settings"])
        network.load_state_dict(state)
    network.class_names = names
    return placed(network, torch.device(device)).eval().requires_grad_(False)


def fitted_size(size: tuple[int, int], short_side: int, long_side: int) -> tuple[int, int]:
    """(H, W) at which the shorter side has a length, or the longer one its limit, if that is reached before.

    Examples
    --------
    >>> fitted_size((375, 500), 800, 1333), fitted_size((100, 500), 800, 1333)
    ((800, 1067), (267, 1333))
    """
    return scaled_size(size, min(short_side / min(size), long_side / max(size)))


def in_image(found: Detections, seen: Sequence[int], size: Sequence[int]) -> Detections:
    """Objects found in an input of (H, W) `seen`, in pixels of an image of (H, W) `size`."""
    down, across = size[0] / seen[0], size[1] / seen[1]
    return found._replace(boxes=found.boxes * found.boxes.new_tensor([across, down, across, down]))


def around(boxes: Tensor, count: int) -> Tensor:
    """Regions [n count, 4] drawn around boxes [n, 4]: corners move by up to 0.3 of the sides, as BBAM draws its own."""
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moves = 0.6 * torch.rand(count, len(boxes), 4, device=boxes.device) - 0.3
    return (boxes + moves * sides).flatten(0, 1)


def region_pool(cells: int) -> MultiScaleRoIAlign:
    """RoIAlign of cells x cells from the level that suits the size of a region (Lin et al., Eq. 1)."""
    pool = MultiScaleRoIAlign([str(level) for level in range(4)], cells, sampling_ratio=2)
    pool.scales = [1 / stride for stride in STRIDES[:4]]  # what it would otherwise guess from the first image it sees
    pool.map_levels = initLevelMapper(2, 5)
    return pool


def summed(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Terms of a loss with their sum, "loss", in front."""
    return {"loss": torch.stack(list(terms.values())).sum(), **terms}


class _Anchors(AnchorGenerator):
    """Anchors at multiples of the strides."""

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """For each image the anchors [A, 4] of all levels."""
        first = feature_maps[0]
        self.set_cell_anchors(torch.float32, first.device)
        strides = [[torch.tensor(stride, device=first.device)] * 2 for stride in STRIDES]
        anchors = torch.cat(self.grid_anchors([list(level.shape[2:]) for level in feature_maps], strides))
        return [anchors] * len(image_list.image_sizes)


class _FullPrecisionHead(RPNHead):
    """Its results as float32, also where the arithmetic is bfloat16, in which 800 and 801 pixels are the same."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits [B, A, h, w] and offsets [B, 4 A, h, w] of every level."""
        logits, offsets = super().forward(x)
        return [level.float() for level in logits], [level.float() for level in offsets]
