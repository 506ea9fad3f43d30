"""Names in tables that people open with a spreadsheet, which takes a cell that begins with = for a formula."""

from __future__ import annotations

FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""What a formula begins with, for one program or another."""


def cell(name: object) -> str:
    """A name as the cell of a table: behind an apostrophe if it would be taken for a formula.

    Examples
    --------
    >>> cell("cow"), cell("=HYPERLINK(…)"), cell("'=x")
    ('cow', "'=HYPERLINK(…)", "''=x")
    """
    text = str(name)
    return f"'{text}" if text.lstrip("'").startswith(FORMULAS) else text


def name_of(text: str) -> str:
    """The name that `cell` made a cell of.

    Examples
    --------
    >>> [name_of(cell(name)) for name in ("cow", "-1", "'=x", "'quoted'")]
    ['cow', '-1', "'=x", "'quoted'"]
    """
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(FORMULAS) else text
