"""Damaged files: those that were once not dealt with as they must be, and some new ones of every reader."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from tests.fuzz.readers import READERS
from tests.fuzz.trials import CORPUS, Trials, folder_of, kept, unpacked

pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad:UserWarning")


@pytest.mark.parametrize("name", READERS)
def test_valid_files_are_read_and_files_that_once_failed_do_so_no_more(name):
    with Trials(READERS[name]) as trials:
        for file, content in trials.valid.items():
            assert trials.read(file, content).kind == "read"
        outcomes = {path.name: trials.read(file, unpacked(path)) for file, path in kept(READERS[name])}
    assert {file: outcome for file, outcome in outcomes.items() if not outcome.good} == {}


def test_the_corpus_is_of_readers_that_there_are():
    assert {folder.name for folder in CORPUS.iterdir()} <= {folder_of(name) for name in READERS}


@pytest.mark.skipif(find_spec("hypothesis") is None, reason="Hypothesis draws the damage")
@pytest.mark.parametrize("name", READERS)
def test_newly_damaged_files_are_refused_or_read_as_they_were(name):
    from tests.fuzz.__main__ import fuzz

    tally = fuzz(READERS[name], 20, seed=1, keeping=False)
    assert tally.failures == {}


def test_what_hangs_crashes_escapes_or_is_misread_is_told(tmp_path, monkeypatch):
    from tests.fuzz import trials as module
    from tests.fuzz.readers import Reader

    def read(folder):
        text = (folder / "x").read_text()
        if text == "hang":
            while True:
                pass
        if text == "crash":
            import os

            os._exit(3)
        return {"escape": lambda: 1 / 0, "eat": lambda: bytes(2**36)}.get(text, lambda: text)()

    reader = Reader("x", {"x": "text"}, lambda folder: (folder / "x").write_text("valid"), read, guarded=True)
    monkeypatch.setattr(module, "SECONDS", 0.5)
    with Trials(reader) as trials:
        kinds = {
            word: trials.read("x", word.encode()).kind for word in ("valid", "hang", "crash", "escape", "eat", "other")
        }
    assert kinds == {
        "valid": "read",
        "hang": "hung",
        "crash": "died",
        "escape": "escaped",
        "eat": "escaped",
        "other": "misread",
    }
