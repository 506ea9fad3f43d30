"""ImageNet weights of torchvision's backbones, fetched once into torch's cache by torch's own download.

The file is that of the weights which the papers start from (``IMAGENET1K_V1``). Its name ends with the beginning of its
SHA-256, against which what was fetched is checked.
"""

from __future__ import annotations

import logging
import urllib.error
from pathlib import Path

import torch

from wsss_core.constants import IMAGENET
from wsss_core.errors import UserError

log = logging.getLogger(__name__)


def published(backbone: str) -> str:
    """Address of a backbone's weight file.

    Raises
    ------
    UserError
        If torchvision has none.

    Examples
    --------
    >>> published("mobilenet_v2").rpartition("/")[2]
    'mobilenet_v2-b0353104.pth'
    """
    import torchvision.models  # takes seconds, for an address

    try:
        return torchvision.models.get_model_weights(backbone)["IMAGENET1K_V1"].url
    except ValueError:
        raise UserError(
            f"weights: {IMAGENET} is for backbones of torchvision, which {backbone} is not; name a weight file, or set "
            "null"
        ) from None


def cached(backbone: str) -> Path:
    """Where torch keeps the weight file of a backbone, whether it is there or not; errors as for `published`."""
    return _place(published(backbone))


def require_cached(backbone: str) -> Path:
    """The weight file of a backbone.

    Raises
    ------
    UserError
        If it was not fetched, with what to do without a network.
    """
    path = cached(backbone)
    if not path.exists():
        raise UserError(f"{path.name} was not fetched: {_by_hand(published(backbone))}")
    return path


def fetch(backbone: str, *, offline: bool = False, url: str | None = None) -> Path:
    """The weight file of a backbone, fetched if it is not in torch's cache.

    Parameters
    ----------
    offline
        Look into the cache alone.
    url
        Another address; None: torchvision's.

    Raises
    ------
    UserError
        If it cannot be had, in one line that names file, folder and digest.
    """
    address = url or published(backbone)
    path = _place(address)
    if path.exists():
        log.info("%s: is there already", path)
        return path
    if offline:
        raise UserError(f"{path.name} is not in the cache: {_by_hand(address)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(address, str(path), _digest(path), progress=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise UserError(f"{path.name} cannot be fetched ({error}): {_by_hand(address)}") from error
    return path


def _place(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _digest(path: Path) -> str:
    """The beginning of the SHA-256 with which the name of a weight file ends."""
    return path.stem.rpartition("-")[2]


def _by_hand(url: str) -> str:
    """What to do without a network, in one line: file, folder and digest."""
    path = _place(url)
    return (
        f"fetch {url} where there is a network (its SHA-256 begins with {_digest(path)}), and put it into "
        f"{path.parent}; or name a weight file in place of {IMAGENET}"
    )
