"""The contact sheet: every photo with its maps and masks, to be sorted and looked through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss_core.report.template import environment

HERE = Path(__file__).parent

A_PAGE = 240
"""Photos a page; more would make it slow to open."""


@dataclass(frozen=True)
class Shown:
    """One photo on the sheet.

    Attributes
    ----------
    tags
        Names of its classes.
    coverage
        Part of its pixels that have a class.
    confidence
        Mean of the strongest class map where a class was found, in 0..1.
    picture
        Photo, maps and mask beside each other, as a data URI.
    """

    id: str
    tags: Sequence[str]
    coverage: float
    confidence: float
    picture: str


@dataclass(frozen=True)
class SheetPage:
    """One page of the sheet.

    Attributes
    ----------
    number, pages
        Which of how many it is, from 1.
    columns
        What stands beside each other in every picture.
    total
        Number of all photos, of which `shown` may be a part.
    """

    run: str
    number: int
    pages: int
    columns: Sequence[str]
    photos: Sequence[Shown]
    shown: int
    total: int


def page_name(number: int) -> str:
    """File name of a page.

    Examples
    --------
    >>> page_name(1), page_name(2)
    ('index.html', '2.html')
    """
    return "index.html" if number == 1 else f"{number}.html"


def render_sheet(page: SheetPage) -> str:
    """A page as HTML; nothing on it is loaded from elsewhere."""
    from markupsafe import Markup

    from wsss_core.report.palette import style_rules

    templates = environment(HERE)
    templates.globals["page_name"] = page_name
    return templates.get_template("sheet.html").render(page=page, css=Markup(style_rules()))
