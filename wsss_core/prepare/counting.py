"""Numbers of files and lines, against the published ones."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from wsss_core.errors import UserError


def require(count: int, published: int, what: str) -> None:
    """Raise UserError if a count is not the published one."""
    if count != published:
        raise UserError(f"{what}: {count} instead of the published {published}")


def names(folder: Path, ending: str) -> set[str]:
    """Names, without the ending, of the files in a folder that have it; empty where there is no such folder."""
    try:
        found = [entry.name for entry in os.scandir(folder)]
    except FileNotFoundError:
        return set()
    return {name.removesuffix(ending) for name in found if name.endswith(ending)}


def lines(path: Path) -> list[str]:
    """The lines of a list that are not blank; none where there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise UserError(f"{path}: is no list ({error})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def missing(wanted: Iterable[str], present: set[str]) -> str | None:
    """The first that is not there, in their order; None if all are."""
    return next((name for name in wanted if name not in present), None)
