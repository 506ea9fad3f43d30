"""What an objective computes of all images before it trains, kept in a file: a resumed training goes on with it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from wsss_core.store.checkpoints import load_state, save_state

log = logging.getLogger(__name__)


def kept(path: Path, fingerprint: str, compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors that `compute` returns, on the CPU; from the file, if one was written under the same fingerprint.

    Computing them again may give others where rounding differs, as it does between devices: numbers of clusters may
    change places, and outputs that were trained for one would go on with another.

    Parameters
    ----------
    path
        Where the file is read and written; removing it is the caller's.
    fingerprint
        Of all that the tensors depend on.
    """
    content = load_state(path)
    if content is not None and content.get("fingerprint") == fingerprint and isinstance(content.get("tensors"), dict):
        log.info("%s holds what was computed of the images before", path)
        return content["tensors"]
    tensors = {name: value.cpu() for name, value in compute().items()}
    save_state(path, {"fingerprint": fingerprint, "tensors": tensors})
    return tensors
