"""Headers of scores, and what masks say of how they were cut: read back exactly, whatever the words."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest

from wsss_core.errors import UserError
from wsss_core.evaluate.header import ScoreHeader
from wsss_core.store.cut import ABOUT, CHOSEN, Cut, read_about, write_about

TEXTS = ("", "10 iterations, unary: label (soft)", "a: b, c", "no", "yes")
CUTS = [
    *(Cut(rule, value, from_maps=maps) for rule in CHOSEN for value in (0.0, 0.27, 1 / 3) for maps in (False, True)),
    *(Cut("band", band=band) for band in ((0.2, 0.3), (0.0, 2 / 3))),
    *(Cut("otsu", from_maps=maps) for maps in (False, True)),
    Cut("none"),
    Cut("all"),
]
TOLD = [
    replace(cut, crf=crf, notes=notes)
    for cut, crf, notes in itertools.product(CUTS, TEXTS, [(), TEXTS, ("same", "same")])
]
HEADERS = [
    ScoreHeader(split, images, choosing, "skip", treated, undecided, cut)
    for split, (images, choosing), treated, undecided, cut in itertools.product(
        ("score", "val"), ((0, 0), (230, 0), (230, 65)), ("none", "background", "skip"), (0, 17), TOLD
    )
]


def test_what_was_written_is_read():
    for header in HEADERS:
        assert ScoreHeader.read(header.lines()) == header
        assert ScoreHeader.read(header.lines()[::-1]).cut.rule == header.cut.rule


def test_what_masks_say_is_read(tmp_path):
    for cut in [*CUTS, *TOLD[: 3 * len(TEXTS)]]:
        write_about(tmp_path, cut)
        assert read_about(tmp_path) == cut


def reworded(line: str) -> str:
    """The line with other explanations: those in brackets, and all text that is for the reader alone."""
    key, _, text = line.partition(": ")
    if key == "# note":
        return f"{key}: oracle, chosen with the scored masks (12 pixels)"
    if key == "# crf":
        return line if text == "no" else f"{key}: yes, none (oracle)"
    value, opened, _ = text.partition(" (")
    return f"{key}: {value}" + " (fixed, oracle, 12 pixels; chose the threshold)" * bool(opened)


def test_words_decide_nothing():
    for header in HEADERS:
        told = [reworded(line) for line in header.lines()]
        read = ScoreHeader.read(told)
        assert replace(read, cut=replace(read.cut, crf="", notes=())) == replace(
            header, cut=replace(header.cut, crf="", notes=())
        )
        assert read.cut.leaks == header.cut.leaks == (header.cut.rule == "oracle")
        assert bool(read.cut.crf) == bool(header.cut.crf)
        bare = [line if line.startswith("# note") else line.partition(" (")[0] for line in header.lines()]
        assert ScoreHeader.read(bare).cut.rule == header.cut.rule


LINES = ScoreHeader("score", 230, 65, "skip", "skip", 3, Cut("heldout", 0.41, crf="once", notes=("said",))).lines()


@pytest.mark.parametrize("line", LINES[:-1])
def test_every_line_is_needed_once(line):
    with pytest.raises(UserError, match="lacks the line"):
        ScoreHeader.read([other for other in LINES if other != line])
    with pytest.raises(UserError, match="twice"):
        ScoreHeader.read([*LINES, line])


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("split", "# split: train"),
        ("images", "# images: many"),
        ("choosing", "# choosing: -1"),
        ("ignored in target", "# ignored in target: background"),
        ("ignored in prediction", "# ignored in prediction: 255"),
        ("threshold rule", "# threshold rule: heldout, chosen on others"),
        ("threshold rule", "# threshold rule: none"),
        ("threshold", "# threshold: none"),
        ("threshold", "# threshold: nan"),
        ("threshold", "# threshold: 0.2 to 0.3"),
        ("threshold", "# threshold: 0.1 to 0.2 to 0.3"),
        ("threshold from maps", "# threshold from maps: perhaps"),
        ("crf", "# crf: perhaps"),
        ("crf", "# crf: yes"),
    ],
)
def test_values_that_are_not_allowed_are_refused(key, line):
    with pytest.raises(UserError, match="holds what it must not"):
        ScoreHeader.read([line if other.startswith(f"# {key}: ") else other for other in LINES])


def test_unknown_lines_are_refused():
    with pytest.raises(UserError, match="unknown lines: oracle"):
        ScoreHeader.read([*LINES, "# oracle: no"])
    with pytest.raises(UserError, match="not a line of a header"):
        ScoreHeader.read([*LINES, "# words"])


@pytest.mark.parametrize(
    "fields",
    [
        {"rule": "guessed"},
        {"rule": "fixed"},
        {"rule": "none", "threshold": 0.3},
        {"rule": "fixed", "threshold": 1.2},
        {"rule": "band"},
        {"rule": "band", "band": (0.2,)},
        {"rule": "fixed", "threshold": 0.2, "band": (0.2, 0.3)},
        {"rule": "none", "from_maps": True},
        {"rule": "band", "band": (0.2, 0.3), "from_maps": True},
        {"rule": "otsu", "threshold": 0.3},
        {"rule": "none", "crf": "two\nlines"},
        {"rule": "none", "notes": ("line\n",)},
    ],
)
def test_a_cut_is_consistent(fields):
    with pytest.raises(ValueError):
        Cut(**fields)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"rule": "fixed", "threshold": 0.3}',
        json.dumps({"crf": "no", "threshold": "0.3, fixed, no masks used"}),
    ],
)
def test_masks_that_do_not_say_how_they_were_cut_are_refused(tmp_path, content):
    with pytest.raises(UserError, match="does not say how the masks were cut"):
        read_about(tmp_path)
    (tmp_path / ABOUT).write_text(content)
    with pytest.raises(UserError, match="make the masks again"):
        read_about(tmp_path)


def test_of_an_about_file_no_field_may_be_missing_unknown_or_of_another_type(tmp_path):
    write_about(tmp_path, Cut("fixed", 0.3))
    content = json.loads((tmp_path / ABOUT).read_text())
    for key in content:
        (tmp_path / ABOUT).write_text(json.dumps({k: v for k, v in content.items() if k != key}))
        with pytest.raises(UserError, match=key):
            read_about(tmp_path)
    for change in ({"oracle": True}, {"threshold": "0.3"}, {"notes": [3]}):
        (tmp_path / ABOUT).write_text(json.dumps(content | change))
        with pytest.raises(UserError, match="make the masks again"):
            read_about(tmp_path)
