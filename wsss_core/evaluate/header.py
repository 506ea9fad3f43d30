"""What scores are, in the comment lines above them.

A line reads ``# key: value (words)``. The value is what is read back and decided by; the words in brackets explain it
to a person and may be worded in any way. What follows ``crf: yes,`` and ``note:`` is text for a person too: it is read
back as it stands, and nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.store.cut import Cut

Split = Literal["score", "val"]
InTarget = Literal["skip"]
InPrediction = Literal["none", "background", "skip"]

SPLITS = {"score": "images for training whose masks are used for scoring only", "val": "images that no training sees"}
LEARNED = "other images with masks, whose masks were learned from"
IN_PREDICTION = {
    "none": "every pixel is decided",
    "background": "255, undecided, is counted as background",
    "skip": "255, undecided, is not counted",
}


def scored_split(records: Sequence[ImageRecord]) -> Split:
    """What scores of maps and masks of these images are on: "val" if they are for evaluation."""
    return "val" if records and all("val" in record.splits for record in records) else "score"


@dataclass(frozen=True)
class ScoreHeader:
    """What the scores of an evaluation or a curve are.

    Attributes
    ----------
    split
        Which images are scored: "score" (training images whose masks are used for scoring only) or "val"; of maps and
        masks see `scored_split`.
    images
        Number of images scored; 0 where there were no masks.
    choosing
        Number of other images with masks, which chose the threshold and are not scored.
    ignored_in_target
        What is done with pixels that are 255 in the true mask.
    ignored_in_prediction
        What is done with pixels that are 255 in the mask scored; "none" if there can be none, as in maps.
    undecided
        Number of these pixels.
    cut
        How the scored labels were made.
    learned
        Number of other images with masks, whose masks were learned from and which are not scored.

    Raises
    ------
    ValueError
        If a value is none of those allowed.
    """

    split: Split
    images: int
    choosing: int = 0
    ignored_in_target: InTarget = "skip"
    ignored_in_prediction: InPrediction = "none"
    undecided: int = 0
    cut: Cut = Cut("none")
    learned: int = 0

    def __post_init__(self) -> None:
        for value, allowed in (
            (self.split, Split),
            (self.ignored_in_target, InTarget),
            (self.ignored_in_prediction, InPrediction),
        ):
            if value not in get_args(allowed):
                raise ValueError(f"{value!r} is none of {', '.join(get_args(allowed))}")
        if min(self.images, self.choosing, self.learned, self.undecided) < 0:
            raise ValueError("numbers of images and pixels are not negative")

    @property
    def rule(self) -> str:
        """How the threshold was chosen, by name; "" if no threshold took part."""
        if self.cut.rule == "none":
            return ""
        return f"rule {self.cut.rule} of the maps' scores" if self.cut.from_maps else self.cut.rule

    @property
    def reason(self) -> str:
        """What the rule means here, in words for the reader."""
        low, high = self.cut.band or (0.0, 0.0)
        return {
            "none": "no threshold took part",
            "fixed": "no masks used",
            "otsu": "no masks used, each image has a threshold of its own",
            "heldout": f"chosen on {self.choosing} other images with masks",
            "oracle": "chosen with the scored masks",
            "band": f"background below {low:.10g}, foreground above {high:.10g}, undecided between",
            "all": "every threshold in turn; made with the masks, for reporting only",
        }[self.cut.rule]

    def lines(self) -> list[str]:
        """The comment lines, of which `read` makes the same header.

        Examples
        --------
        >>> print(*ScoreHeader("score", 230, 65, cut=Cut("heldout", 0.41)).lines(), sep="\\n")
        # split: score (images for training whose masks are used for scoring only)
        # images: 230
        # choosing: 65 (other images with masks, which chose the threshold)
        # crf: no
        # ignored in target: skip (255 is not counted)
        # ignored in prediction: none (every pixel is decided)
        # undecided: 0 (pixels)
        # threshold rule: heldout (chosen on 65 other images with masks)
        # threshold: 0.41
        # threshold from maps: no
        """
        cut = self.cut
        levels = [level for level in (cut.threshold, *(cut.band or ())) if level is not None]
        from_maps = ("yes", "that at which the maps are scored") if cut.from_maps else ("no", "")
        lines = [
            _line("split", self.split, SPLITS[self.split]),
            _line("images", self.images, "" if self.images else "no masks to score"),
            _line("choosing", self.choosing, "other images with masks, which chose the threshold"),
            *([_line("learned", self.learned, LEARNED)] if self.learned else []),
            _line("crf", f"yes, {cut.crf}" if cut.crf else "no"),
            _line("ignored in target", self.ignored_in_target, "255 is not counted"),
            _line("ignored in prediction", self.ignored_in_prediction, IN_PREDICTION[self.ignored_in_prediction]),
            _line("undecided", self.undecided, "pixels"),
            _line("threshold rule", cut.rule, self.reason),
            _line("threshold", " to ".join(repr(float(level)) for level in levels) or "none"),
            _line("threshold from maps", *from_maps),
        ]
        return lines + [_line("note", note) for note in cut.notes]

    @classmethod
    def read(cls, lines: Sequence[str]) -> ScoreHeader:
        """The header that `lines` wrote, in any order of the lines.

        Raises
        ------
        UserError
            If a line is missing, unknown, there twice, or has a value that is not allowed.
        """
        notes: list[str] = []
        found: dict[str, Any] = {}  # whose words the header and the cut judge
        for line in lines:
            key, colon, text = line.removeprefix("# ").partition(": ")
            if key == "note" and colon:
                notes.append(text)
            elif key in found or not colon:
                raise UserError(f"{line!r} is not a line of a header of scores, or is there twice")
            else:
                found[key] = text if key == "crf" else text.partition(" (")[0]
        try:
            header = cls(
                split=found.pop("split"),
                images=int(found.pop("images")),
                choosing=int(found.pop("choosing")),
                learned=int(found.pop("learned", 0)),
                ignored_in_target=found.pop("ignored in target"),
                ignored_in_prediction=found.pop("ignored in prediction"),
                undecided=int(found.pop("undecided")),
                cut=Cut(
                    rule=found.pop("threshold rule"),
                    **_levels(found.pop("threshold")),
                    from_maps=_is_yes(found.pop("threshold from maps")),
                    crf=_after_yes(found.pop("crf")),
                    notes=tuple(notes),
                ),
            )
        except KeyError as error:
            raise UserError(f"the header of scores lacks the line {error}") from error
        except ValueError as error:
            raise UserError(f"the header of scores holds what it must not: {error}") from error
        if found:
            raise UserError(f"the header of scores has unknown lines: {', '.join(found)}")
        return header


def _line(key: str, value: object, words: str = "") -> str:
    return f"# {key}: {value}" + (f" ({words})" if words else "")


def _levels(text: str) -> dict[str, Any]:
    """The threshold or the band of a cut, from the line ``threshold``."""
    if text == "none":
        return {}
    levels = tuple(map(float, text.split(" to ")))
    return {"threshold": levels[0]} if len(levels) == 1 else {"band": levels}


def _is_yes(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(f"{text!r} is neither yes nor no")
    return text == "yes"


def _after_yes(text: str) -> str:
    """What follows "yes, "; "" after "no"."""
    said, _, details = text.partition(", ")
    if _is_yes(said) != bool(details):
        raise ValueError(f"{text!r} is neither no nor yes with what was done")
    return details
