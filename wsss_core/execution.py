"""How a step is executed: device, threads, workers. Nothing here may change a result beyond rounding."""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from wsss_core.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

Made = TypeVar("Made")
Network = TypeVar("Network", bound="nn.Module")


@dataclass(frozen=True)
class Execution:
    """Execution options of one command.

    Attributes
    ----------
    device
        "cpu", "cuda", or "auto": CUDA where a device is visible.
    threads
        CPU threads for tensor arithmetic.
    workers
        Loader processes; 0 loads in the main process.
    precision
        "float32", or "mixed": networks compute in bfloat16, with float32 weights, logit maps and losses. Worth it on
        GPUs and on CPUs that multiply bfloat16 themselves (AVX512-BF16, AMX).
    images_at_once
        Images that a seed method which takes them one by one works on at a time on a GPU, each in a process of its own.
    tensorboard
        Whether trainings write event files.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    workers: int = 0
    precision: Literal["float32", "mixed"] = "float32"
    images_at_once: int = 1
    tensorboard: bool = False

    def set_threads(self) -> None:
        """Let this process use so many threads for tensor arithmetic."""
        import torch

        torch.set_num_threads(max(1, self.threads))

    def require_device(self) -> None:
        """Raise UserError if a GPU is asked for and torch finds none."""
        if self.device != "cuda":
            return
        import torch

        if not torch.cuda.is_available():
            raise UserError("device cuda: torch finds no GPU that it can use; auto takes the CPU where there is none")

    def torch_device(self) -> torch.device:
        """The device itself."""
        import torch

        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def autocast(self, device: str, *, weights_change: bool = False) -> AbstractContextManager:
        """Context in which networks compute in this precision.

        Parameters
        ----------
        device
            Kind of device, "cpu" or "cuda".
        weights_change
            The block updates weights, so their bfloat16 copies must not be kept.
        """
        import torch

        mixed = self.precision == "mixed"
        return torch.autocast(device, torch.bfloat16, enabled=mixed, cache_enabled=not weights_change)


def placed(network: Network, device: torch.device) -> Network:
    """The network on a device; on a GPU its weights lie with their channels last, if that suits them there."""
    import torch

    if device.type == "cuda" and suits_channels_last(network):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack this
    return network.to(device)


def suits_channels_last(network: nn.Module) -> bool:
    """Whether a network's weights and images should lie with their channels last: not with depthwise convolutions.

    A CPU computes their gradients in bfloat16 more slowly that way than in float32. On a GPU, cuDNN takes one to six
    seconds for every new size of an image before their first step, and a twentieth of one if channels come first
    (MobileNetV2 on an H200, docs/performance.md).
    """
    from torch import nn

    return not any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in network.modules())


def in_precision(execution: Execution, network: nn.Module, make: Callable[..., Made]) -> Callable[..., Made]:
    """What a method does with a network, in the execution's precision.

    For bfloat16, weights lie with their channels last, if that suits the network.
    """
    import torch

    if execution.precision == "mixed" and suits_channels_last(network):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack this

    def made(*inputs: Any) -> Made:
        with execution.autocast(next(network.parameters()).device.type, weights_change=True):
            return make(*inputs)

    return made


SPINS = 3000
"""Turns for which a waiting thread looks whether there is work again, some tens of microseconds, before it sleeps."""


def let_threads_sleep() -> None:
    """Let waiting OpenMP threads of this process, and of those that it starts, sleep soon; call before importing torch.

    By default GNU's OpenMP spins for milliseconds. On a machine with other work to do, a spinning thread keeps a core
    from the very thread that it waits for. Whoever has set GOMP_SPINCOUNT or OMP_WAIT_POLICY has decided already.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))


KEPT_BYTES, MAPPED_BYTES = 2**29, 2**25
"""Freed memory that a process keeps for itself, and the size from which a block is mapped on its own and returned."""


def keep_freed_memory() -> None:
    """Let this process use freed memory again in place of returning it, where the C library is glibc.

    By default glibc returns freed memory beyond some tens of MB at once. The feature maps of a network reach that at
    every layer, and fetching the pages again takes a tenth or more of a seed method's time on a CPU.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)
    mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


@contextmanager
def gpu_lease(device: str, folder: Path | None = None, poll: float = 0.5) -> Iterator[str | None]:
    """Hold one GPU of this machine for the block, so that parallel jobs never share a device.

    A lock file per device in a node-local folder; the kernel drops the lock when the process ends,
    whatever ends it. Must be entered before torch is imported. Under SLURM, on CPU, or with no GPU
    there is nothing to choose and the block runs at once.

    Yields
    ------
    The leased device number as a string, or None.
    """
    numbers = [] if device == "cpu" or "SLURM_JOB_ID" in os.environ else _visible_gpus()
    if not numbers:
        yield None
        return
    folder = folder or Path(gettempdir()) / f"wsss-gpu-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        for number in random.sample(numbers, len(numbers)):
            handle = os.open(folder / f"{number.replace('/', '-')}.lock", os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                continue
            os.environ["CUDA_VISIBLE_DEVICES"] = number
            try:
                yield number
            finally:
                os.close(handle)
            return
        time.sleep(poll)


def _visible_gpus() -> list[str]:
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [number.strip() for number in listed.split(",") if number.strip()]
    return sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
