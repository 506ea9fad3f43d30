"""The page of `wsss tune`: masks of some photos at many thresholds, beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss_core.report.template import environment

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Tried:
    """One photo.

    Attributes
    ----------
    tags
        Names of its classes.
    photo, target
        Pictures as data URIs: the photo, and the mask it is scored against, if there is one.
    pictures, coverage
        Of each threshold: the photo with its mask as a data URI, and the part of the photo that has a class.
    """

    id: str
    tags: Sequence[str]
    photo: str
    target: str | None
    pictures: Sequence[str]
    coverage: Sequence[float]


@dataclass(frozen=True)
class TuningPage:
    """All that the page shows.

    Attributes
    ----------
    columns
        The thresholds.
    miou
        Mean IoU of each in 0..1; empty without masks.
    best
        The best of them, or "".
    words
        What came out, in sentences.
    setting
        Line of a configuration that sets it.
    """

    run: str
    stage: str
    columns: Sequence[str]
    photos: Sequence[Tried]
    miou: Mapping[str, float]
    best: str
    words: Sequence[str]
    setting: str


def render_tuning(page: TuningPage) -> str:
    """The page as HTML; nothing on it is loaded from elsewhere."""
    from markupsafe import Markup

    from wsss_core.report.palette import style_rules

    return environment(HERE).get_template("tuning.html").render(page=page, css=Markup(style_rules()))
