"""The network of FickleNet: a classifier whose convolution sees a random choice of cells in every window.

Lee, Kim, Lee, Lee & Yoon, "FickleNet: Weakly and Semi-supervised Semantic Image Segmentation using Stochastic
Inference", CVPR 2019 (Lee's dissertation, section 3.2.1). The paper expands the feature map so that the windows of an
s x s convolution no longer overlap, drops cells of the expanded map, and convolves it with stride s. The choice of
cells is the same for all channels, so the sum over channels can be taken first: every cell has one *vote* for each
place that it can take in a window, and dropping cells drops votes. That is the same arithmetic without the expanded
map, whose D channels need s * s times the memory of the features, and votes do not depend on the choice: any number
of choices shares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.errors import UserError
from wsss_core.models.backbones import Backbone
from wsss_core.models.backbones import backbone as build
from wsss_core.models.cam import CamNetwork


class FickleNetwork(CamNetwork):
    """`CamNetwork` with an s x s convolution for a classifier, whose windows lose cells at random in training mode.

    In evaluation mode no cell is dropped, and `forward` and `maps` are those of the plain convolution; for random
    passes see `votes` and `weights`. The classifier is not a 1x1 convolution, so methods that need one
    (`wsss_core.seeds.demands`) refuse this network.

    Parameters
    ----------
    backbone
        Its last tap holds the features; rebuilt where it has another stride than `stride`.
    n_classes
        Number of foreground classes C.
    size
        Side s of the windows in cells, odd.
    dropout
        Probability p with which a cell of a window is dropped. The window's centre never is.
    stride
        Of the features, in pixels; None leaves the backbone as it is.

    Attributes
    ----------
    classifier
        s x s convolution [C, D, s, s] without bias, zero-padded by s // 2.

    Raises
    ------
    UserError
        If the size is even.
    """

    architecture = "ficklenet"

    def __init__(
        self,
        backbone: Backbone,
        n_classes: int,
        size: int = 9,
        dropout: float = 0.9,
        stride: Literal[8, 16] | None = None,
    ) -> None:
        if size % 2 == 0:
            raise UserError(f"size: a window of {size} x {size} cells has no centre; choose an odd number")
        if stride not in (None, backbone.strides[-1]):
            backbone = build(backbone.name, stride)
        super().__init__(backbone, n_classes)
        self.classifier = nn.Conv2d(backbone.out_channels, n_classes, size, padding=size // 2, bias=False)
        self.size, self.dropout = size, dropout

    @property
    def architecture_settings(self) -> dict[str, Any]:
        """Arguments of the constructor beside the backbone and the number of classes; plain values."""
        return {"size": self.size, "dropout": self.dropout, "stride": self.backbone.strides[-1]}

    def classify(self, features: Tensor, classes: Sequence[int] | None = None) -> Tensor:
        """Logit maps [B, K, h, w] of features [B, D, h, w] without dropping cells, for the given classes or for all."""
        return F.conv2d(features, self._kernels(classes), padding=self.size // 2)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C]; in training mode with a random choice of cells for every window of every image."""
        features = self.features(images)
        if not self.training:
            return self.classify(features).mean((2, 3))
        shape = (len(features), self.size**2, *features.shape[2:])
        votes = self.votes(features)
        return relevance(votes, self.weights(torch.rand(shape, device=features.device))).mean((2, 3))

    def votes(self, features: Tensor, classes: Sequence[int] | None = None) -> Tensor:
        """What each cell adds to the logit of the window in which it takes a given place.

        Parameters
        ----------
        features
            [B, D, h, w].

        Returns
        -------
        [B, K, s * s, h, w]; the place (i, j) of a window is index i * s + j, and a cell takes it in the window
        centred i - s // 2 rows above it and j - s // 2 columns left of it.
        """
        kernels = self._kernels(classes).permute(0, 2, 3, 1).flatten(0, 2)
        return F.conv2d(features, kernels[..., None, None]).unflatten(1, (-1, self.size**2))

    def weights(self, draws: Tensor) -> Tensor:
        """Weights of votes under a random choice of cells, in place of `draws`.

        A vote is dropped with probability p and otherwise counts 1 / (1 - p), as dropout has it; a window's own centre
        always counts 1, so the mean over choices is the plain convolution. Votes in windows whose centre lies outside
        the grid count 0, as there are no such windows.

        Parameters
        ----------
        draws
            Uniform in [0, 1), [N, s * s, h, w]: one for every cell at each place of a window.
        """
        weights = draws.ge_(self.dropout).mul_(1 / (1 - self.dropout))
        weights[:, self.size**2 // 2] = 1
        return weights.mul_(_inside(self.size, *draws.shape[2:]).to(draws.device))

    def _kernels(self, classes: Sequence[int] | None) -> Tensor:
        return self.classifier.weight if classes is None else self.classifier.weight[list(classes)]


def relevance(votes: Tensor, weights: Tensor) -> Tensor:
    """Sum of each cell's votes, under one choice of cells an image.

    With S the sum of all windows' logits this is ``sum_d x_d dS/dx_d``, cell by cell: the classifier is linear, so the
    element-wise Grad-CAM of FickleNet before its ReLU needs no backward pass, and its mean over cells is the pooled
    logit.

    Parameters
    ----------
    votes
        [B, K, s * s, h, w], or B = 1 for choices on one image.
    weights
        [N, s * s, h, w], N = B or any number if B = 1.

    Returns
    -------
    [N, K, h, w].
    """
    if len(votes) == 1:
        return torch.einsum("kphw,nphw->nkhw", votes[0], weights)
    return torch.einsum("nkphw,nphw->nkhw", votes, weights)


def _inside(size: int, height: int, width: int) -> Tensor:
    """1 where the window in which a cell takes a place has its centre on the grid, else 0: [s * s, h, w]."""
    offsets = torch.arange(size)[:, None] - size // 2
    rows, columns = (torch.arange(length) - offsets for length in (height, width))
    rows, columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1).float()
