"""Prediction of photos that are too large to pass through a network at once: tile by tile, without seams.

Only the logits are computed in tiles. Each tile begins on a cell of the network's grid and sees `Tiling.overlap` pixels
beyond its own on every side, whose cells are dropped; the cells of all tiles together are the grid of the whole photo.
From there on nothing knows of tiles: the maximum over the network's input scales, the enlarging to the photo's pixels,
the softmax and the mean over scales and mirror images are those of `predict_probabilities`, some rows at a time.

The result equals that of the untiled photo, to the rounding of floating-point sums, if a cell sees no pixel further
away than the overlap at any of the network's input scales. It may differ near seams where the network sees further, by
what the pixels beyond weigh; and everywhere for a network with group normalisation (the backbone "small"), whose every
cell depends on all pixels that pass together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.data.augment import normalise, resize, scaled_size
from wsss_core.errors import UserError
from wsss_core.models.deeplab import DeepLabV2
from wsss_core.segment.predict import PredictSettings

BAND_VALUES = 2**23
"""Probabilities that are computed at a time, of some rows of a photo."""


@dataclass(frozen=True)
class Tiling:
    """How large photos are divided.

    Attributes
    ----------
    side
        Pixels of a tile's own, along a side.
    overlap
        Pixels that it sees beyond them, on every side.
    """

    side: int = 1024
    overlap: int = 256

    def divides(self, size: tuple[int, int]) -> bool:
        """Whether a photo (H, W) is larger than one tile with all that it sees."""
        return max(size) > self.side + 2 * self.overlap


@torch.no_grad()
def probability_bands(
    network: DeepLabV2, image: np.ndarray, settings: PredictSettings, tiling: Tiling
) -> Iterator[tuple[slice, Tensor]]:
    """`predict_probabilities` of a large photo, as bands of its rows from the top down.

    Parameters
    ----------
    network
        In evaluation mode, on any device.
    image
        uint8 [H, W, 3], RGB.

    Yields
    ------
    The rows, and their probabilities float32 [L, rows, W] on the network's device. In memory are the image, its grids
    of logits [L, H / stride, W / stride], one tile in the network and one band.

    Raises
    ------
    UserError
        If the settings ask for the CRF, every pixel of which depends on all others.

    Examples
    --------
    >>> from wsss_core.models.deeplab import deeplab_v2
    >>> network, image = deeplab_v2("small", 3).eval(), np.zeros((70, 50, 3), np.uint8)
    >>> bands = list(probability_bands(network, image, PredictSettings(), Tiling(side=32, overlap=8)))
    >>> [(rows.start, rows.stop, tuple(probabilities.shape)) for rows, probabilities in bands]
    [(0, 70, (3, 70, 50))]
    """
    if settings.crf is not None:
        raise UserError(
            "the dense CRF needs the whole photo at once, so that it goes with no tiles: leave one of the two"
        )
    height, width = image.shape[:2]
    grids = []
    for scale in settings.scales:
        scaled = resize(image, scaled_size((height, width), scale))
        grids.append((_logits(network, scaled, tiling), False))
        if settings.flip:
            grids.append((_logits(network, scaled[:, ::-1], tiling), True))
    count = max(1, BAND_VALUES // (len(grids[0][0]) * width))
    for start in range(0, height, count):
        rows = slice(start, min(start + count, height))
        total = torch.zeros(())
        for grid, mirrored in grids:
            lines = _Taps.of(grid.shape[1], height, grid.shape[1] / height, rows)
            columns = _Taps.of(grid.shape[2], width, grid.shape[2] / width, slice(0, width))
            probabilities = _interpolated(grid, lines, columns).softmax(0)
            total = total + (probabilities.flip(-1) if mirrored else probabilities)
        yield rows, total / len(grids)


def predict_labels_in_tiles(
    network: DeepLabV2, image: np.ndarray, settings: PredictSettings | None = None, tiling: Tiling | None = None
) -> np.ndarray:
    """The most probable label of every pixel of a large photo, uint8 [H, W]; arguments as for `probability_bands`."""
    labels = np.empty(image.shape[:2], np.uint8)
    for rows, probabilities in probability_bands(network, image, settings or PredictSettings(), tiling or Tiling()):
        labels[rows] = probabilities.argmax(0).byte().cpu().numpy()
    return labels


def _logits(network: DeepLabV2, image: np.ndarray, tiling: Tiling) -> Tensor:
    """What the network's `forward` finds of a whole image uint8 [H, W, 3]: float32 [L, h, w]."""
    size = image.shape[:2]
    highest = _grid(network, image, size, (1.0, 1.0), tiling)
    for scale in network.scales:
        logits = _grid(network, image, *network.reduction(size, scale), tiling)
        enlarged = F.interpolate(logits[None], highest.shape[1:], mode="bilinear", align_corners=False)[0]
        highest = torch.maximum(highest, enlarged)
    return highest


def _grid(
    network: DeepLabV2, image: np.ndarray, size: tuple[int, int], steps: tuple[float, float], tiling: Tiling
) -> Tensor:
    """Logits [L, h, w] of an image at the size (H', W'), `steps` of its pixels apart."""
    stride = network.backbone.strides[-1]
    # whole from the start: parts kept between the large tensors of the tiles would cut the freed memory to pieces
    labels, device = len(network.aspp[0].get_parameter("bias")), next(network.parameters()).device
    grid = torch.empty((labels, *(side // stride + 2 for side in size)), device=device)
    bottom = right = 0
    for own_lines, seen_lines in _spans(size[0], tiling, stride):
        lines = _Taps.of(image.shape[0], size[0], steps[0], seen_lines)
        for own_columns, seen_columns in _spans(size[1], tiling, stride):
            columns = _Taps.of(image.shape[1], size[1], steps[1], seen_columns)
            logits = network.logits(_input(network, image, lines, columns)[None])[0]
            cells = _cells(own_lines, seen_lines, size[0], stride), _cells(own_columns, seen_columns, size[1], stride)
            part = logits[:, cells[0], cells[1]]
            top, left = own_lines.start // stride, own_columns.start // stride
            bottom, right = top + part.shape[1], left + part.shape[2]
            grid[:, top:bottom, left:right] = part
    return grid[:, :bottom, :right]


def _spans(length: int, tiling: Tiling, stride: int) -> Iterator[tuple[slice, slice]]:
    """Along one side, each tile's own pixels and those that it sees; all begin on a cell."""
    side, overlap = (-(-value // stride) * stride for value in (tiling.side, tiling.overlap))
    for start in range(0, length, side):
        end = min(start + side, length)
        yield slice(start, end), slice(max(0, start - overlap), min(length, end + overlap))


def _cells(own: slice, seen: slice, length: int, stride: int) -> slice:
    """Of the cells of what a tile sees, those of its own pixels. The last tile's go to the end, where the pooling of
    the official variant may have one more."""
    return slice((own.start - seen.start) // stride, None if own.stop == length else (own.stop - seen.start) // stride)


@dataclass(frozen=True)
class _Taps:
    """Along one axis, the two pixels that each wanted one lies between, and the weight of the second; as in torch's
    bilinear interpolation without aligned corners."""

    low: Tensor
    high: Tensor
    weight: Tensor

    @classmethod
    def of(cls, length: int, wanted: int, step: float, part: slice) -> _Taps:
        """For the part of `wanted` pixels that lie `step` apart among `length`."""
        if length == wanted and step == 1:
            places = torch.arange(part.start, part.stop)
            return cls(places, places, torch.zeros(len(places)))
        places = ((torch.arange(part.start, part.stop).float() + 0.5) * step - 0.5).clamp_(min=0)
        low = places.long().clamp_(max=length - 1)
        return cls(low, (low + 1).clamp_(max=length - 1), places - low)

    @property
    def extent(self) -> slice:
        """All pixels that are needed."""
        return slice(int(self.low[0]), int(self.high[-1]) + 1)

    def within(self) -> _Taps:
        """The same, counted from the first pixel of the extent."""
        first = self.extent.start
        return _Taps(self.low - first, self.high - first, self.weight)

    def to(self, device: torch.device) -> _Taps:
        return _Taps(self.low.to(device), self.high.to(device), self.weight.to(device))


def _input(network: DeepLabV2, image: np.ndarray, lines: _Taps, columns: _Taps) -> Tensor:
    """What the network's `logits` take of a part of an image, float32 [3, h, w] on its device."""
    device = next(network.parameters()).device
    pixels = torch.from_numpy(normalise(image[lines.extent, columns.extent])).to(device)
    return _interpolated(network.preprocess(pixels[None])[0], lines.within(), columns.within())


def _interpolated(values: Tensor, lines: _Taps, columns: _Taps) -> Tensor:
    """Values [C, H, W] between their pixels: [C, lines, columns]."""
    lines, columns = lines.to(values.device), columns.to(values.device)
    values = torch.lerp(values[:, lines.low], values[:, lines.high], lines.weight[:, None])
    return torch.lerp(values[..., columns.low], values[..., columns.high], columns.weight)
