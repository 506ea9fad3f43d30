"""Prediction with a trained segmentation network.

From Python it takes two lines::

    import wsss_core as wsss
    labels, probabilities = wsss.Predictor("model.pt").predict(wsss.read_image("photo.jpg"))

The functions below do the same with a network that is already in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.data.resampling import views
from wsss_core.execution import placed
from wsss_core.kernels.dense_crf import dense_crf_batch, unary_from_probabilities
from wsss_core.models import cct, deeplab, smp
from wsss_core.models.deeplab import CAFFE_MEAN
from wsss_core.models.segmentation import SegmentationNetwork
from wsss_core.settings import setting
from wsss_core.store.checkpoints import fitting, load_network

BUILDERS: dict[str, Callable[[str, int, Mapping[str, Any]], SegmentationNetwork]] = {
    "deeplab_v2": deeplab.restored,
    "cct": cct.restored,
    "smp": smp.restored,
}
"""Networks by the architecture that their checkpoints name (DeepLab-v2 where they name none): from the backbone's name,
the number of labels and the settings of the training."""


@dataclass(frozen=True)
class CrfSettings:
    """Dense CRF on predicted probabilities; defaults as in deeplab-pytorch."""

    gaussian: tuple[float, float] = setting(
        (1.0, 3.0), "smoothness: deviation in pixels, weight", positive=1, items={"minimum": 0}
    )
    bilateral: tuple[float, float, float] = setting(
        (67.0, 3.0, 4.0),
        "appearance: deviation in pixels, deviation in grey levels, weight",
        positive=2,
        items={"minimum": 0},
    )
    iterations: int = setting(10, "mean-field iterations", minimum=0)
    image: Literal["photo", "official_wrap"] = setting(
        "photo",
        "image the CRF sees: the photo; or official_wrap: the mean-subtracted photo cast to 8 bits, whose negative "
        "values wrap to bright ones, as in deeplab-pytorch and the papers that used its CRF unchanged",
    )


@dataclass(frozen=True)
class PredictSettings:
    """Prediction with a segmentation network."""

    crf: CrfSettings | None = setting(None, "dense CRF after the network; null for none, {} for the usual one")
    flip: bool = setting(False, "average the probabilities with those of the mirrored image")
    scales: tuple[float, ...] = setting(
        (1.0,),
        "image scales whose probabilities are averaged",
        minItems=1,
        items={"exclusiveMinimum": 0},
    )


def load_segmenter(path: Path | str, device: torch.device | str = "cpu") -> SegmentationNetwork:
    """A trained network in evaluation mode; its ``class_names`` are those of the foreground labels.

    Raises
    ------
    UserError
        If the file is missing or not the checkpoint of a segmentation network.
    """
    state, meta = load_network(Path(path), SegmentationNetwork.kind)
    with fitting(path):
        build = BUILDERS[meta.get("architecture", "deeplab_v2")]
        network = build(meta["backbone"], len(meta["class_names"]) + 1, meta["settings"])
        network.load_state_dict(state)
    network.class_names = tuple(meta["class_names"])
    return placed(network, torch.device(device)).eval()


def predict_probabilities(
    network: SegmentationNetwork, image: np.ndarray, settings: PredictSettings | None = None
) -> np.ndarray:
    """Class probabilities of one image: the softmax of the enlarged logits, then the CRF if the settings ask for it.

    Parameters
    ----------
    network
        In evaluation mode, on any device.
    image
        uint8 [H, W, 3], RGB.

    Returns
    -------
    float32 [L, H, W], background first, each pixel summing to 1.
    """
    return probabilities_of(network, [image], settings)[0].cpu().numpy()


def predict_labels(
    network: SegmentationNetwork, image: np.ndarray, settings: PredictSettings | None = None
) -> np.ndarray:
    """The most probable label of every pixel, uint8 [H, W]; arguments as for `predict_probabilities`."""
    return predict_labels_of(network, [image], settings)[0]


def predict_labels_of(
    network: SegmentationNetwork, images: Sequence[np.ndarray], settings: PredictSettings | None = None
) -> np.ndarray:
    """`predict_labels` of images of one size, which pass through the network together: uint8 [N, H, W]."""
    return probabilities_of(network, images, settings).argmax(1).byte().cpu().numpy()


@torch.no_grad()
def probabilities_of(
    network: SegmentationNetwork, images: Sequence[np.ndarray], settings: PredictSettings | None
) -> Tensor:
    """`predict_probabilities` of images of one size, on the network's device: [N, L, H, W]."""
    settings = settings or PredictSettings()
    device = next(network.parameters()).device
    total = torch.zeros(())
    for scale in settings.scales:
        seen = views(images, scale, device)
        seen = seen if settings.flip else seen[::2]
        logits = F.interpolate(network(seen).float(), images[0].shape[:2], mode="bilinear", align_corners=False)
        probabilities = logits.softmax(1)
        total = total + probabilities[:: 1 + settings.flip]
        if settings.flip:
            total = total + probabilities[1::2].flip(-1)
    mean = total / (len(settings.scales) * (1 + settings.flip))
    return mean if settings.crf is None else apply_crf(images, mean, settings.crf)


def apply_crf(images: Sequence[np.ndarray], probabilities: Tensor, settings: CrfSettings) -> Tensor:
    """Posteriors [N, L, H, W] of the dense CRF whose unary are the probabilities [N, L, H, W]."""
    posteriors = dense_crf_batch(
        [wrapped(image) if settings.image == "official_wrap" else image for image in images],
        list(unary_from_probabilities(probabilities)),
        gaussian=settings.gaussian,
        bilateral=settings.bilateral,
        iterations=settings.iterations,
    )
    return torch.stack(posteriors)


def wrapped(image: np.ndarray) -> np.ndarray:
    """The image minus `CAFFE_MEAN`, truncated to integers and taken modulo 256, uint8 [H, W, 3]."""
    return ((image.astype(np.float32) - np.asarray(CAFFE_MEAN, np.float32)).astype(np.int32) & 255).astype(np.uint8)


class Predictor:
    """A trained network with its settings, for notebooks and scripts.

    Parameters
    ----------
    path
        Checkpoint of a segmentation network.
    crf
        Refine with the dense CRF, in its usual settings unless `settings` has others.
    device
        Such as "cpu" or "cuda".
    settings
        Scales, flipping and CRF.

    Attributes
    ----------
    class_names
        Names of the foreground classes; label c + 1 is class c.

    Examples
    --------
    >>> from wsss_core.models.deeplab import deeplab_v2
    >>> from wsss_core.store.checkpoints import save_network
    >>> settings = {"rates": [1, 2], "output_stride": 8, "msc_scales": [], "variant": "paper"}
    >>> network = deeplab_v2("small", 3, settings["rates"], scales=())
    >>> meta = {"backbone": "small", "class_names": ["cat", "dog"], "settings": settings}
    >>> save_network(Path("model.pt"), "segmentation", network.state_dict(), meta)
    >>> predictor = Predictor("model.pt", crf=True)
    >>> labels, probabilities = predictor.predict(np.zeros((40, 60, 3), dtype=np.uint8))
    >>> predictor.class_names, labels.shape, probabilities.shape
    (('cat', 'dog'), (40, 60), (3, 40, 60))
    """

    def __init__(
        self,
        path: Path | str,
        *,
        crf: bool = False,
        device: torch.device | str = "cpu",
        settings: PredictSettings | None = None,
    ) -> None:
        settings = settings or PredictSettings()
        self.network = load_segmenter(path, device)
        self.settings = replace(settings, crf=settings.crf or CrfSettings()) if crf else settings
        self.class_names = self.network.class_names

    def predict(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels uint8 [H, W] and probabilities float32 [L, H, W] of an image uint8 [H, W, 3]."""
        probabilities = predict_probabilities(self.network, image, self.settings)
        return probabilities.argmax(0).astype(np.uint8), probabilities
