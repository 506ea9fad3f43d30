"""Files of MXNet's parameters, read without MXNet.

The ImageNet weights of ResNet-38d that PSA, SEAM and SC-CAM start from are published by the network's authors as such a
file (``ilsvrc-cls_rna-a1_cls1000_ep-0001.params``). It is a list of arrays, little-endian throughout:

    uint64 0x112, uint64 0, uint64 count, the arrays, uint64 count, and for each name: uint64 length, bytes

and an array is, by the four bytes that it begins with,

    0xF993FAC9 or 0xF993FACA    int32 storage (0: dense), then as below; 0xF993FACA has an int32 number of sides
    0xF993FAC8                  uint32 number of sides, int64 sides; then as below
    else                        these bytes are the number of sides, followed by uint32 sides; then as below
    always                      int32 kind of device, int32 its number, int32 type, the values

An array without sides has nothing behind these. Names begin with ``arg:`` or ``aux:``.
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsss_core.errors import UserError

MAGIC = struct.pack("<Q", 0x112)
OLD, DENSE, NUMPY_SHAPES = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
TYPES = ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8")
MOST_SIDES = 32

_PLACE = re.compile(r"(?:arg:|aux:)?(res|bn)(\d)(?:a|b(\d+))_(branch\w+?)_(weight|gamma|beta|moving_mean|moving_var)")
_LAST = re.compile(r"(?:arg:|aux:)?bn7_(gamma|beta|moving_mean|moving_var)")
_PARTS = {"weight": "weight", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
_PARTS["moving_var"] = "running_var"


def is_mxnet(path: Path) -> bool:
    """Whether a file begins as MXNet's lists of arrays do."""
    with open(path, "rb") as handle:
        return handle.read(len(MAGIC)) == MAGIC


def read_mxnet(path: Path) -> dict[str, Tensor]:
    """The arrays of a file by name; those of ResNet-38d under the names that PSA gives them.

    Raises
    ------
    UserError
        If the file is cut off, or holds something else than dense arrays by name.
    """
    reader = _Reader(path)
    reader.numbers("<QQ")
    arrays = [reader.array() for _ in range(reader.count())]
    names = [reader.text() for _ in range(reader.count())]
    if len(names) != len(arrays) or len(set(names)) != len(names):
        raise UserError(f"{path}: has {len(arrays)} arrays of MXNet and {len(set(names))} names")
    return {psa_name(name): array for name, array in zip(names, arrays, strict=True)}


def psa_name(name: str) -> str:
    """The name that PSA gives a parameter of MXNet's ResNet-38d; any other name without what MXNet puts before it.

    Examples
    --------
    >>> psa_name("arg:res3b1_branch2a_weight"), psa_name("aux:bn6a_branch2b1_moving_var")
    ('b3_1.conv_branch2a.weight', 'b6.bn_branch2b1.running_var')
    >>> psa_name("arg:conv1a_weight"), psa_name("arg:bn7_gamma"), psa_name("arg:linear1000_bias")
    ('conv1a.weight', 'bn7.weight', 'linear1000.bias')
    """
    if found := _PLACE.fullmatch(name):
        kind, block, repeated, branch, part = found.groups()
        place = f"b{block}" if repeated is None else f"b{block}_{repeated}"
        return f"{place}.{'conv' if kind == 'res' else 'bn'}_{branch}.{_PARTS[part]}"
    if found := _LAST.fullmatch(name):
        return f"bn7.{_PARTS[found[1]]}"
    name = name.removeprefix("arg:").removeprefix("aux:")
    return re.sub(r"_(weight|bias)$", r".\1", name)


class _Reader:
    """A file read from its beginning; whatever does not fit its size is told before memory is taken for it."""

    def __init__(self, path: Path) -> None:
        self._path, self._content, self._place = path, memoryview(path.read_bytes()), 0

    def bytes(self, size: int) -> memoryview:
        if not 0 <= size <= len(self._content) - self._place:
            raise UserError(f"{self._path}: parameters of MXNet that are cut off or damaged, at byte {self._place}")
        self._place += size
        return self._content[self._place - size : self._place]

    def numbers(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self.bytes(struct.calcsize(form)))

    def count(self) -> int:
        (count,) = self.numbers("<Q")
        if count > len(self._content):
            raise UserError(f"{self._path}: parameters of MXNet that are cut off or damaged, at byte {self._place}")
        return count

    def text(self) -> str:
        return str(self.bytes(self.count()), "utf-8", "replace")

    def array(self) -> Tensor:
        (first,) = self.numbers("<I")
        if first in (DENSE, NUMPY_SHAPES) and self.numbers("<i") != (0,):
            raise UserError(f"{self._path}: holds a sparse array of MXNet, which is not read")
        sides = self.numbers("<I")[0] if first in (OLD, DENSE, NUMPY_SHAPES) else first
        if sides > MOST_SIDES:
            raise UserError(f"{self._path}: parameters of MXNet that are cut off or damaged, at byte {self._place}")
        shape = self.numbers(f"<{sides}{'I' if sides == first else 'q'}")
        if not shape and first != NUMPY_SHAPES:
            return torch.empty(0)
        _, _, kind = self.numbers("<iii")
        if not 0 <= kind < len(TYPES) or min(shape, default=0) < 0:
            raise UserError(f"{self._path}: an array of MXNet of the type {kind} and the shape {shape} is not read")
        dtype = np.dtype(TYPES[kind])
        values = np.frombuffer(self.bytes(math.prod(shape) * dtype.itemsize), dtype)
        return torch.from_numpy(values.reshape(shape).astype(dtype.newbyteorder("="), copy=True))
