"""Files of numpy as other programs leave them, read without running anything that they hold.

``.npy`` files of this field often hold a pickled dictionary. A pickle is a little program; of what it may call, only
what arrays, numbers and tensors are built of is there, and anything else is refused.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wsss_core.errors import UserError
from wsss_core.store.shards import require_inside

Arrays = np.ndarray | dict[Any, Any]
"""One array, or several by name."""

_NUMPY = {"_reconstruct", "ndarray", "dtype", "scalar", "_frombuffer", "_DType_reconstruct"}
_OTHERS = {("collections", "OrderedDict"), ("_codecs", "encode"), ("torch._utils", "_rebuild_tensor_v2")}


def read_arrays(path: Path) -> Arrays:
    """What a ``.npy``, ``.npz`` or ``.h5`` file holds: an array, or arrays by name.

    Raises
    ------
    UserError
        If the file is missing, is none of these, or holds anything else but dictionaries, lists, texts, numbers, arrays
        and tensors.

    Examples
    --------
    >>> np.save("dictionary.npy", {3: np.ones((2, 2))})
    >>> read_arrays(Path("dictionary.npy"))[3].shape
    (2, 2)
    """
    try:
        return _READERS[path.suffix.lower()](path)
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"{path}: is no file of arrays ({', '.join(_READERS)})") from error
    except Exception as error:  # whatever a damaged file makes the libraries raise
        raise UserError(f"{path}: cannot be read as arrays ({error or type(error).__name__})") from error


def _npy(path: Path) -> Arrays:
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
        if not kind.hasobject:
            return np.load(path, allow_pickle=False)
        held = _Unpickler(file, path).load()
        if shape == () and isinstance(held, np.ndarray):
            held = held.item()
        if not isinstance(held, dict):
            raise UserError(f"{path}: holds a {type(held).__name__}, not an array or a dictionary of arrays")
        return plain(held)


def _npz(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as held:
        return {name: held[name] for name in held.files}


def _hdf5(path: Path) -> Arrays:
    import h5py

    with h5py.File(path) as file:
        for name in file:
            require_inside(file, name)
        found = {name: one[()] for name, one in file.items() if isinstance(one, h5py.Dataset)}
    return {name: np.char.decode(one) if one.dtype.kind == "S" else _texts(one) for name, one in found.items()}


def _texts(values: np.ndarray) -> np.ndarray:
    """HDF5's texts of any length as texts."""
    if values.dtype.kind != "O":
        return values
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values.ravel()]).reshape(values.shape)


_READERS = {".npy": _npy, ".npz": _npz, ".h5": _hdf5, ".hdf5": _hdf5}


def plain(held: Mapping[Any, Any]) -> dict[Any, Any]:
    """A dictionary whose tensors are arrays."""
    return {key: value.numpy() if hasattr(value, "numpy") else value for key, value in held.items()}


class _Unpickler(pickle.Unpickler):
    """Builds what arrays, numbers and tensors are made of, and nothing else."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and (name in _NUMPY or module == "numpy.dtypes"):
            return super().find_class(module, name)
        if (module, name) in _OTHERS:
            return super().find_class(module, name)
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _storage
        raise UserError(f"{self.path}: asks for {module}.{name}, which is neither an array nor a number; it is not run")


def _storage(content: bytes) -> Any:
    """The numbers of a tensor, by torch's own reader that runs nothing."""
    import torch

    return torch.load(io.BytesIO(content), weights_only=True)
