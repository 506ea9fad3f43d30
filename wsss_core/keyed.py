"""Randomness keyed by what it is for, never by order or worker.

A draw depends only on its key, such as ``(run seed, "seeds/rib", image id, step)``: a shard gives the
same bytes alone, in another order, after a restart, or on another number of workers.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np


def key_bytes(*key: int | str) -> bytes:
    """32 bytes that identify a key; ``("a", "bc")`` and ``("ab", "c")`` differ."""
    digest = hashlib.blake2b(digest_size=32)
    for part in key:
        text = f"{type(part).__name__}:{part}".encode()
        digest.update(len(text).to_bytes(8, "little") + text)
    return digest.digest()


def generator(*key: int | str) -> np.random.Generator:
    """NumPy generator for a key.

    Examples
    --------
    >>> bool(generator(0, "rib", "2007_000032", 3).random() == generator(0, "rib", "2007_000032", 3).random())
    True
    """
    return np.random.default_rng(np.frombuffer(key_bytes(*key), dtype=np.uint32))


def chance(*key: int | str) -> float:
    """A number in [0, 1) that depends on the key alone, uniform over keys."""
    return (int.from_bytes(key_bytes(*key)[:8], "big") >> 11) / 2**53  # a float has 53 bits: exact, and never 1


def integer(*key: int | str) -> int:
    """A non-negative integer below 2**63 for a key, for libraries that take an integer seed."""
    return int.from_bytes(key_bytes(*key)[:8], "little") >> 1


@lru_cache(maxsize=2, typed=True)  # a batch may end one epoch and begin the next
def epoch_order(seed: int, stage: str, epoch: int, count: int) -> np.ndarray:
    """Order in which an epoch of a training sees its images: a permutation of 0..count-1, not to be changed."""
    order = generator(seed, stage, "epoch", epoch).permutation(count)
    order.setflags(write=False)
    return order
