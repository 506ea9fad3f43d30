"""Weight files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from wsss_core.errors import UserError, whole
from wsss_core.extras import extra
from wsss_core.models.backbones.mxnet import is_mxnet, read_mxnet
from wsss_core.store.checkpoints import load_file


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a weight file (tensors by name, loaded without running any code in it): torch's, one of safetensors,
    or MXNet's parameters.

    Tensors may lie deeper in the file, as in ``{"epoch": 3, "model": {…}}``. Where one entry holds all of them they are
    called by their names within it; where several do, an entry's name comes first (``model.conv1.weight``), and
    `Backbone.load` finds those that fit.

    Raises
    ------
    UserError
        If it is absent or is not a file of tensors by name.
    """
    if path.is_file() and is_mxnet(path):
        return read_mxnet(path)
    safe = path.suffix == ".safetensors"
    tensors = _safetensors(path) if safe else dict(_tensors(load_file(path, "weight file")))
    if not tensors:
        raise UserError(f"{path}: does not hold tensors by name")
    return tensors


def _safetensors(path: Path) -> dict[str, Tensor]:
    """What a file of safetensors holds."""
    if not path.is_file():
        raise UserError(f"{path}: weight file not found")
    library = extra("safetensors.torch", "timm")
    try:
        return library.load_file(path)
    except Exception as error:  # of a kind of its own, and several of Python's, for a damaged file
        raise UserError(f"{path}: is not a readable weight file; {whole(error)}") from error


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors in mappings within mappings, by dotted names; a mapping's only entry with tensors adds no word."""
    if not isinstance(content, Mapping):
        return
    nested = {str(key): dict(_tensors(value)) for key, value in content.items()}
    nested = {key: tensors for key, tensors in nested.items() if tensors}
    plain = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    yield from plain.items()
    for key, tensors in nested.items():
        alone = len(nested) == 1 and not plain
        yield from ((name if alone else f"{key}.{name}", value) for name, value in tensors.items())
