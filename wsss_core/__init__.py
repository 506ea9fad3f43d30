"""Weakly supervised semantic segmentation: cheap labels in, pixel masks and a trained network out.

The library beneath the Snakemake workflow: pure functions on tensors and arrays (`seeds`, `refine`, `kernels`,
`segment`, `evaluate`), file formats (`store`), and `steps` that read files, call those functions and write files. It
knows nothing of Snakemake, but for `workflow`, which starts it.

For notebooks and scripts, the names of `__all__` can be had from here::

    import wsss_core as wsss

    network = wsss.open_classifier("results/mine/classifiers/bce/model.pt")
    maps = wsss.cam_seed(network, wsss.read_image("photo.jpg"), [0], wsss.CamSettings())

Each is imported when it is first asked for, so that importing the package costs nothing. docs/python.md shows them all.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the table below once more, for type checkers; a test compares the two
    from wsss_core.config import Configuration as Configuration
    from wsss_core.config import read_configuration as read_configuration
    from wsss_core.data.decode import read_image as read_image
    from wsss_core.errors import UserError as UserError
    from wsss_core.evaluate.otsu import otsu_threshold as otsu_threshold
    from wsss_core.evaluate.results import read_results as read_results
    from wsss_core.kernels.dense_crf import dense_crf as dense_crf
    from wsss_core.kernels.dense_crf import unary_from_labels as unary_from_labels
    from wsss_core.kernels.dense_crf import unary_from_probabilities as unary_from_probabilities
    from wsss_core.kernels.random_walk import propagate as propagate
    from wsss_core.models.trained import open_classifier as open_classifier
    from wsss_core.refine.crf import CrfSettings as CrfSettings
    from wsss_core.refine.crf import crf_mask as crf_mask
    from wsss_core.seeds.cam import CamSettings as CamSettings
    from wsss_core.seeds.cam import cam_seed as cam_seed
    from wsss_core.seeds.rib import RibSettings as RibSettings
    from wsss_core.seeds.rib import photo_pool as photo_pool
    from wsss_core.seeds.rib import rib_seed as rib_seed
    from wsss_core.segment.predict import Predictor as Predictor
    from wsss_core.segment.predict import PredictSettings as PredictSettings
    from wsss_core.store.masks import read_mask as read_mask
    from wsss_core.store.masks import write_mask as write_mask
    from wsss_core.store.seeds import SeedMaps as SeedMaps
    from wsss_core.store.seeds import SeedStore as SeedStore

__version__ = "0.1.0"

_HOMES = {
    "Configuration": "wsss_core.config",
    "read_configuration": "wsss_core.config",
    "read_image": "wsss_core.data.decode",
    "UserError": "wsss_core.errors",
    "otsu_threshold": "wsss_core.evaluate.otsu",
    "read_results": "wsss_core.evaluate.results",
    "dense_crf": "wsss_core.kernels.dense_crf",
    "unary_from_labels": "wsss_core.kernels.dense_crf",
    "unary_from_probabilities": "wsss_core.kernels.dense_crf",
    "propagate": "wsss_core.kernels.random_walk",
    "open_classifier": "wsss_core.models.trained",
    "CrfSettings": "wsss_core.refine.crf",
    "crf_mask": "wsss_core.refine.crf",
    "CamSettings": "wsss_core.seeds.cam",
    "cam_seed": "wsss_core.seeds.cam",
    "RibSettings": "wsss_core.seeds.rib",
    "photo_pool": "wsss_core.seeds.rib",
    "rib_seed": "wsss_core.seeds.rib",
    "PredictSettings": "wsss_core.segment.predict",
    "Predictor": "wsss_core.segment.predict",
    "read_mask": "wsss_core.store.masks",
    "write_mask": "wsss_core.store.masks",
    "SeedMaps": "wsss_core.store.seeds",
    "SeedStore": "wsss_core.store.seeds",
}
"""Public name to the module that has it under the same name."""

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
