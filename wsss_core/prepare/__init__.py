"""Public data sets from their official archives, in the folders that the run files name: what `wsss prepare` does.

`archives` fetches an archive and compares its digest, `unpacking` writes what is wanted of it, and a file for each data
set (`voc12`, `coco14`) says which archives it is made of, where their files belong, and how many there must be.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from wsss_core.prepare.archives import Archives


class DataSet(Protocol):
    """A module that prepares a data set."""

    def prepare(self, folder: Path, archives: Archives, tell: Callable[[str], None], /) -> None:
        """Make what is missing below a folder, count what is there, and tell it line by line."""
        ...


def prepare(name: str, folder: Path, archives: Path | None, offline: bool, tell: Callable[[str], None]) -> None:
    """Prepare a data set.

    What is there already stays as it is, so that a preparation that was interrupted goes on, and one that is complete
    needs no archive.

    Parameters
    ----------
    name
        One of `wsss_core.registry.DATA_SETS`.
    folder
        Where its folder shall lie; ``data`` for the run files that are shipped.
    archives
        Folder of the archives, in which those that are missing are fetched; None: the folder ``archives`` beside it.
    offline
        Fetch nothing.
    tell
        Called with each line of what was done.

    Raises
    ------
    UserError
        If an archive cannot be had, is another than the published one or holds what it should not, a file of somebody
        else is in the way, or the numbers of files differ from the published ones.
    """
    module: DataSet = importlib.import_module(f"wsss_core.prepare.{name}")
    module.prepare(folder, Archives(archives or folder / "archives", offline), tell)
