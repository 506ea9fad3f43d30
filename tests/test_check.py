"""`wsss check`: a configuration and the files that it names, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from PIL import Image

from wsss_core import cli

TABLE = {"format": "table", "root": "photos"}


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A working folder with three photos of cats and dogs, and their tags."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    for name in ("a", "b", "c"):
        Image.new("RGB", (40, 30)).save(folder / f"images/{name}.jpg")
    (folder / "labels.csv").write_text("image,labels\na,cat\nb,dog\nc,cat dog\n")
    return folder


def check(capsys, **configuration) -> tuple[int, str]:
    """Exit status and all words of `wsss check` on a configuration."""
    Path("mine.yaml").write_text(yaml.safe_dump({"run": "mine", "dataset": TABLE} | configuration))
    status = cli.main(["check", "mine.yaml"])
    said = capsys.readouterr()
    return status, said.out + said.err


def test_it_says_what_the_files_hold(photos, capsys):
    assert check(capsys) == (0, "run mine: table data\n2 classes: cat, dog\n")


def test_files_that_are_not_here_are_no_mistake(photos, capsys):
    status, said = check(capsys, dataset={"format": "voc", "root": "VOCdevkit/VOC2012"})
    assert status == 0 and "dataset.root: there is no folder VOCdevkit/VOC2012 yet" in said


@pytest.mark.parametrize("word", ["background", "Mean"])
def test_a_reserved_word_among_the_tags_stops_it(photos, capsys, word):
    with open(photos / "labels.csv", "a") as handle:
        handle.write(f"a,{word}\n")
    status, said = check(capsys)
    assert status == 2 and f"labels.csv: {word!r} cannot be the name of a class" in said
