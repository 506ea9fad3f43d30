"""High-dimensional Gaussian filtering on the permutohedral lattice, in torch, on CPU or GPU.

Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Eurographics 2010. Pixels are
splatted to the d + 1 corners of the simplex that holds their feature vector, the lattice is blurred along its d + 1
axes with the weights 1/2, 1, 1/2, and pixels read their corners back. Corners are numbered by sorting packed
coordinates instead of hashing, and sums run over sorted segments, so results are the same bits in every run: nothing is
added by atomic operations, whose order would vary on a GPU.

Several images share one lattice without touching: the number of a pixel's image is the first of its coordinates, and no
axis of the blur leads along it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PIECE = 128
"""Most pixels that are added one after another at a corner: in a plain area a corner holds thousands, and a GPU would
wait for the one thread that adds them."""


class Lattice:
    """The lattice of N feature vectors; building it depends on them alone, so many filterings can share it.

    Parameters
    ----------
    features
        float32 [N, d], divided by the standard deviations of the kernel.
    images
        int64 [N], from 0: the image that each vector belongs to. Values pass between vectors of one image only, and
        each image is filtered as it would be alone. None for one image.

    Raises
    ------
    OverflowError
        If the features spread so far that lattice coordinates do not fit 63 bits.
    """

    def __init__(self, features: Tensor, images: Tensor | None = None) -> None:
        cells, rank, self.weights = _simplices(features)
        n, d = features.shape
        low = cells[:, :d].amin(0) - 2
        spans = (cells[:, :d].amax(0) + 2 - low).tolist()
        strides = [1]
        for span in spans[:0:-1]:
            strides.insert(0, strides[0] * span)
        cells_of_an_image = (d + 1) * strides[0] * spans[0]
        count = 1 if images is None else int(images.max()) + 1
        if cells_of_an_image * count >= 2**63:
            raise OverflowError("the features of the dense CRF spread too far for the lattice; are they finite?")
        steps = torch.tensor(strides, device=features.device) * (d + 1)
        corners = torch.arange(d + 1, device=features.device)
        first = ((cells[:, :d] - low) * steps).sum(1, keepdim=True) + corners
        if images is not None:
            first += images[:, None] * cells_of_an_image
        behind = torch.where(rank[:, None, :d] > d - corners[:, None], steps, 0).sum(2)
        ordered, order = (first - behind).flatten().sort(stable=True)
        codes, numbers, counts = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
        self.corners = torch.empty_like(order).scatter_(0, order, numbers).reshape(n, d + 1)
        self._pixels, self._splat_weights = order // (d + 1), self.weights.flatten()[order]
        self._pieces, self._segments = _pieces(counts)
        self._points = len(codes)
        self._neighbours = [_neighbours(codes, corner_step, d, steps) for corner_step in [*steps.tolist(), 0]]

    def filter(self, values: Tensor) -> Tensor:
        """Filter `values` [N, C]; the kernel is not normalised."""
        lattice = values.new_zeros(self._points + 1, values.shape[1])
        splatted = _weighted_sums(values, self._pixels, self._pieces, self._splat_weights)
        lattice[:-1] = splatted if self._segments is None else _sums(splatted, self._segments)
        for before, after in self._neighbours:
            lattice[:-1] += 0.5 * (lattice.index_select(0, before) + lattice.index_select(0, after))
        return _weighted_sums(lattice, self.corners, None, self.weights)


def _pieces(counts: Tensor) -> tuple[Tensor, Tensor | None]:
    """Starts of the pieces of at most `PIECE` entries that segments of `counts` entries are cut into, and the first
    piece of each segment; None if every segment is one piece."""
    starts = counts.cumsum(0) - counts
    if len(counts) == 0 or counts.max() <= PIECE:
        return starts, None
    pieces = (counts + PIECE - 1) // PIECE
    first = pieces.cumsum(0) - pieces
    within = torch.arange(int(pieces.sum()), device=counts.device) - first.repeat_interleave(pieces)
    return starts.repeat_interleave(pieces) + PIECE * within, first


def _sums(rows: Tensor, segments: Tensor) -> Tensor:
    """Sums of the rows of each segment by its start."""
    return F.embedding_bag(torch.arange(len(rows), device=rows.device), rows, segments, mode="sum")


def _weighted_sums(rows: Tensor, index: Tensor, segments: Tensor | None, weights: Tensor) -> Tensor:
    """Weighted sums of rows: of each row of `index` [N, k], or of each segment of `index` [E] by its start."""
    return F.embedding_bag(index, rows, segments, mode="sum", per_sample_weights=weights)


def _simplices(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cell of the nearest lattice point of remainder 0, rank of each coordinate, barycentric weights; each [N, d + 1].

    A corner of remainder r has the coordinates ``(d + 1) * (cell - (rank > d - r)) + r``.
    """
    d = features.shape[1]
    axes = torch.arange(1, d + 1, device=features.device, dtype=features.dtype)
    scaled = features * ((2 / 3) ** 0.5 * (d + 1) / (axes * (axes + 1)).sqrt())
    after = scaled.flip(1).cumsum(1).flip(1)
    elevated = torch.cat([after[:, :1], after - scaled - axes * scaled], 1)
    cells = (elevated / (d + 1)).round()
    residual = elevated - cells * (d + 1)
    rank = residual.argsort(dim=1, descending=True, stable=True).argsort(1)
    rank = rank + cells.sum(1, keepdim=True).long()
    wrapped = (rank < 0).long() - (rank > d).long()
    rank, cells = rank + wrapped * (d + 1), cells.long() + wrapped
    fraction = elevated / (d + 1) - cells
    by_rank = torch.zeros_like(fraction).scatter_(1, rank, fraction).flip(1)
    weights = torch.cat([1 + by_rank[:, :1] - by_rank[:, -1:], by_rank[:, 1:] - by_rank[:, :-1]], 1)
    return cells, rank, weights


def _neighbours(codes: Tensor, step: int, d: int, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the lattice point before and after each one along an axis; the number of points where there is none.

    The next point has the remainder r - 1 and the cell of this axis + 1; from remainder 0 it is d and all cells - 1.
    """
    ahead = codes + step + torch.where(codes % (d + 1) == 0, d - int(steps.sum()), -1)
    place = torch.searchsorted(codes, ahead).clamp_max(len(codes) - 1)
    found = codes[place] == ahead
    after = torch.where(found, place, len(codes))
    before = torch.full_like(after, len(codes))
    before[place[found]] = torch.nonzero(found)[:, 0]
    return before, after
