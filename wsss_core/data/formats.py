"""The readers of all formats of a data set, by name."""

from __future__ import annotations

import importlib

from wsss_core.data.reading import Reader
from wsss_core.registry import DATASETS


def reader(form: str) -> tuple[Reader, type]:
    """Module and settings class of a data set's format."""
    module, name = DATASETS[form].split(":")
    loaded = importlib.import_module(module)
    return loaded, getattr(loaded, name)
