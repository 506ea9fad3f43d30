"""Trained networks: parameters by name with what they are, in one file."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsss_core import __version__
from wsss_core.errors import UserError, whole
from wsss_core.store.atomic import atomic_path
from wsss_core.store.sealed import is_whole, require_as_sealed, seal

log = logging.getLogger(__name__)

FORMAT = 1
"""Of a checkpoint; a file of a later one is refused."""


def save_network(path: Path, kind: str, network_state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write a network atomically; equal content gives equal bytes.

    Parameters
    ----------
    kind
        What the network is ("classifier", "irn", "segmentation"); checked on reading.
    network_state
        Its ``state_dict()``, on any device.
    meta
        At least "backbone" and "class_names"; plain values only.

    Raises
    ------
    UserError
        If a parameter is not finite; what stood there before stays.
    """
    require_finite(network_state, f"{path}: not written")
    content = {
        "kind": kind,
        "format": FORMAT,
        "version": __version__,
        "meta": dict(meta),
        "state": {name: value.detach().cpu().contiguous() for name, value in network_state.items()},
    }
    buffer = io.BytesIO()  # torch.save to a path would write the temporary file's name into the archive
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
        seal(temporary)


def load_network(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a network written by `save_network`: its parameters, on the CPU, and its meta data.

    Raises
    ------
    UserError
        If the file is missing, is not such a file, holds another kind of network, or numbers that are not finite.
    """
    content = read_checkpoint(path)
    if content["kind"] != kind:
        raise UserError(f"{path}: holds a network of kind {content['kind']!r}, not {kind!r}")
    require_finite(content["state"], str(path))
    return content["state"], content["meta"]


def require_finite(state: Mapping[str, Tensor], what: str) -> None:
    """Raise UserError, which begins with `what`, naming the parameters that hold NaN or infinite numbers."""
    require_tensors(state, what)
    numbers = {name: value for name, value in state.items() if value.is_floating_point() and not value.is_meta}
    wrong = [name for name, value in numbers.items() if not value.isfinite().all()]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"{what}: numbers that are not finite (NaN or infinite) in {', '.join(wrong[:3])}{more}")


def require_tensors(state: Mapping[str, Any], what: str) -> None:
    """Raise UserError, which begins with `what`, naming the values that are no dense tensors of real numbers."""
    odd = [name for name, value in state.items() if not _is_plain(value)]
    if odd:
        raise UserError(f"{what}: {', '.join(map(str, odd[:3]))} is no tensor of numbers in memory")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """All that a file written by `save_network` holds: "kind", "version", "meta" and "state"; errors as for that."""
    content = load_file(path, "checkpoint")
    if not isinstance(content, dict) or not {"kind", "meta", "state"} <= set(content):
        raise UserError(f"{path}: is not a checkpoint of this program")
    version = content.get("format", FORMAT)
    if not isinstance(version, int) or version != FORMAT:  # a damaged file may hold a tensor there
        raise UserError(f"{path}: is of format {version!r}, this version reads {FORMAT}: use a newer one")
    if not isinstance(content["meta"], dict) or not isinstance(content["state"], dict):
        raise UserError(f"{path}: is not a checkpoint of this program: meta or state is no mapping")
    names = content["meta"].get("class_names", [])
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: its class names are no list of texts")
    return content


@contextmanager
def fitting(path: Path | str) -> Iterator[None]:
    """Build a network of a checkpoint in the block: what does not fit there is a UserError that names the file."""
    try:
        yield
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from error
    except Exception as error:  # a name that is missing or of another type, a tensor of another shape
        raise UserError(
            f"{path}: holds a network of another form than it says, or of another version ({whole(error)})"
        ) from error


def _is_plain(value: Any) -> bool:
    """Whether something is a tensor of real numbers, dense; a network that is only planned has its tensors nowhere."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_complex()


def load_file(path: Path, what: str) -> Any:
    """What a file of `torch.save` holds, its tensors on the CPU; no code in it is run.

    Parameters
    ----------
    what
        What the file should be ("weight file"), for the message.

    Raises
    ------
    UserError
        If it is absent or cannot be read so, or bears a seal (`wsss_core.store.sealed`) and has changed since. The
        message says what the file is instead, where its beginning tells, and holds all that torch says.
    """
    path = Path(path)
    if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
        raise UserError(f"{path}: {what} not found")
    require_as_sealed(path)  # torch does not look: nearly every flipped bit would be another weight
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise UserError(f"{path}: is not a readable {what}; {_instead(path, error)}{whole(error)}") from error


def save_state(path: Path, content: Mapping[str, Any]) -> None:
    """Write what an interrupted step goes on with, for `load_state`."""
    with atomic_path(path) as temporary:
        torch.save(dict(content), temporary)
        seal(temporary)


def load_state(path: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """What `save_state` wrote, its tensors on a device; None if the file is absent or damaged, which a log line says.

    Examples
    --------
    >>> save_state(Path("state.pt"), {"step": 3})
    >>> load_state(Path("state.pt"))
    {'step': 3}
    >>> _ = Path("state.pt").write_bytes(Path("state.pt").read_bytes()[:-200])
    >>> load_state(Path("state.pt")) is None
    True
    """
    if not os.path.isfile(path):
        return None
    try:
        if is_whole(path):
            content = torch.load(path, map_location=device, weights_only=True)
            if isinstance(content, dict):
                return content
    except Exception as error:  # torch raises many kinds; it is a cache, of which nothing is lost
        log.warning("%s: cannot be read (%s)", path, whole(error))
    log.warning("%s: is damaged, so what it holds is computed again", path)
    return None


def _instead(path: Path, error: Exception) -> str:
    """What to do about a file that torch does not read, if that can be told."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError:
        return ""
    if not head:
        return "it is empty, so copy or download it again. "
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS in place of the file, so fetch that (git lfs pull). "
    if head.lstrip().startswith(b"<"):
        return "it is a web page, so the download went wrong. "
    if head[8:9] == b"{":
        return "it looks like a file of safetensors, so save its tensors again with torch.save. "
    if "Unsupported global" in str(error):
        return (
            "it holds Python objects beside tensors, which are never loaded here as they can run code; where you trust "
            "the file, load it yourself and save its tensors alone, torch.save(model.state_dict(), …). "
        )
    return ""
