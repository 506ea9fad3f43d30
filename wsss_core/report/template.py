"""How the templates of pages are filled in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


def environment(folder: Path, *, escaped: bool = True) -> jinja2.Environment:
    """Templates in a folder: lines of control leave no line, and a name that is not given is an error.

    Parameters
    ----------
    escaped
        Whether values become text of HTML.
    """
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=escaped,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
