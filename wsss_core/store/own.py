"""Files where the user wants them: one that is there already is replaced only if it was made here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from wsss_core.errors import UserError


def require_own(path: Path, is_own: Callable[[Path], bool]) -> None:
    """Raise UserError if something is at `path` that was not made here.

    Parameters
    ----------
    is_own
        Whether the file at `path` was made here. It may raise anything: a file that cannot be read is nobody's to
        replace.

    Examples
    --------
    >>> require_own(Path("a.csv"), says("image,labels"))
    >>> _ = Path("a.csv").write_text("my notes")
    >>> require_own(Path("a.csv"), says("image,labels"))
    Traceback (most recent call last):
    ...
    wsss_core.errors.UserError: a.csv: is left as it is, since it was not made here; move it, or write elsewhere
    """
    if not os.path.lexists(path):
        return
    try:
        own = is_own(path)
    except Exception:  # whatever a decoder raises
        own = False
    if not own:
        raise UserError(f"{path}: is left as it is, since it was not made here; move it, or write elsewhere")


def says(words: str) -> Callable[[Path], bool]:
    """Tells the text files that hold some words, which only those made here do."""
    return lambda path: words in path.read_text(encoding="utf-8")
