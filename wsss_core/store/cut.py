"""How labels were cut from maps, and the file beside a folder's masks that says so."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

from wsss_core.errors import UserError
from wsss_core.settings import from_mapping
from wsss_core.store.atomic import write_text

ABOUT = "about.json"
"""File in a folder of masks: the `Cut` that made them."""

Rule = Literal["none", "fixed", "otsu", "heldout", "oracle", "band", "all"]
"""Who chose the background threshold.

none: no threshold takes part, as in a network's most probable labels; fixed: the settings; otsu: each image's own maps,
a threshold for every image (`wsss_core.evaluate.otsu`); heldout: the masks of other images than those scored; oracle:
the very masks that are scored; band: the settings, two thresholds with undecided pixels between; all: nobody, it is a
curve over every threshold.
"""

CHOSEN = ("fixed", "heldout", "oracle")
"""The rules that end in one threshold."""

SCORED = (*CHOSEN, "otsu")
"""The rules by which maps are scored, and which masks can take over from there."""


@dataclass(frozen=True)
class Cut:
    """How labels were cut from maps.

    Attributes
    ----------
    rule
        See `Rule`.
    threshold
        Background threshold in [0, 1] of the rules fixed, heldout and oracle; otherwise None, as under rule otsu every
        image has its own.
    band
        (low, high) in [0, 1] of the rule band: background below, foreground above, undecided between; otherwise None.
    from_maps
        Whether masks took over the threshold at which their maps are scored, and so the rule that chose it there.
    crf
        What the dense CRF did, one line for the reader ("10 iterations, unary: label"); empty without one.
    notes
        What else happened to the labels, a line each, for the reader alone.

    Raises
    ------
    ValueError
        If the rule is unknown, its threshold or band is missing, of another rule or out of range, or a text has more
        than one line.
    """

    rule: Rule
    threshold: float | None = None
    band: tuple[float, float] | None = None
    from_maps: bool = False
    crf: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise ValueError(f"rule {self.rule!r} is none of {', '.join(get_args(Rule))}")
        if (self.threshold is not None) != (self.rule in CHOSEN):
            raise ValueError(f"rule {self.rule} with the threshold {self.threshold}")
        if (len(self.band or ()) == 2) != (self.rule == "band"):
            raise ValueError(f"rule {self.rule} with the band {self.band}")
        if self.from_maps and self.rule not in SCORED:
            raise ValueError(f"rule {self.rule} takes no threshold from maps")
        levels = [level for level in (self.threshold, *(self.band or ())) if level is not None]
        if not all(0 <= level <= 1 for level in levels):
            raise ValueError(f"thresholds {levels} are not in [0, 1]")
        if any(text.splitlines() not in ([], [text]) for text in (self.crf, *self.notes)):
            raise ValueError("the CRF and each note are texts of one line")

    @property
    def leaks(self) -> bool:
        """Whether the threshold was chosen with the very masks that the labels are scored against."""
        return self.rule == "oracle"

    def noting(self, note: str) -> Cut:
        """The same with one more note."""
        return replace(self, notes=(*self.notes, note))


def write_about(folder: Path, cut: Cut) -> None:
    """Say how the masks of a folder were made."""
    write_text(Path(folder) / ABOUT, json.dumps(asdict(cut), ensure_ascii=False) + "\n")


def read_about(folder: Path) -> Cut:
    """What `write_about` wrote.

    Raises
    ------
    UserError
        If there is no such file, or it lacks a field, has an unknown one, or a value that `Cut` refuses.
    """
    path = Path(folder) / ABOUT
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        differing = set(content) ^ {field.name for field in fields(Cut)}
        if differing:
            raise ValueError(f"unknown or missing: {', '.join(sorted(differing))}")
        return from_mapping(Cut, content)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: does not say how the masks were cut ({error}); make the masks again") from error
