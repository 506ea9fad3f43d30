"""What the command line knows of a step without importing it."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from wsss_core.registry import all_steps
from wsss_core.signature import STEPS, PathParameter, Signature, read_signature

NAMES = sorted({step.name for step in all_steps()})


FILE = '''"""Do it well.

More.
"""

def run(*, {parameters}, execution):
    """Do it.

    {section}
    {dashes}
{described}
    """
'''


def read(folder: Path, parameters: str, described: str, section: str = "Parameters") -> Signature:
    """Signature of a step that is written first."""
    text = FILE.format(parameters=parameters, section=section, dashes="-" * len(section), described=described)
    (folder / "made.py").write_text(text)
    return read_signature("made", folder)


def test_every_file_of_a_step_is_registered_and_every_registered_step_has_one():
    files = {path.stem for path in STEPS.iterdir() if path.stem not in ("__init__", "__pycache__")}
    assert files == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_step_is_described(name):
    signature = read_signature(name)
    assert signature.summary and not signature.summary.endswith(".")
    assert signature.paths[0].name == "config" and signature.paths[0].count is None
    assert all(path.text for path in signature.paths)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_is_what_the_step_takes(name):
    taken = inspect.signature(importlib.import_module(f"wsss_core.steps.{name}").run).parameters.values()
    assert {parameter.kind for parameter in taken} == {inspect.Parameter.KEYWORD_ONLY}
    kinds = {None: "Path", "?": "Path | None", "*": "Sequence[Path]"}
    found = {path.name: kinds[path.count] for path in read_signature(name).paths}
    assert found | {"execution": "Execution"} == {parameter.name: parameter.annotation for parameter in taken}


DESCRIBED = """
    table, other
        The `table`,
        100 % of it.
    many
        Folders.

    Raises
    ------
    UserError
        If not.
"""


def test_one_path_one_or_none_and_any_number(tmp_path):
    signature = read(tmp_path, "table: Path, other: Path | None, many: Sequence[Path]", DESCRIBED.strip("\n"))
    assert signature.summary == "do it well"
    assert signature.paths == (
        PathParameter("table", None, "The table, 100 %% of it"),
        PathParameter("other", "?", "The table, 100 %% of it"),
        PathParameter("many", "*", "Folders"),
    )


@pytest.mark.parametrize(
    ("parameter", "name", "section"),
    [
        ("table: int", "table", "Parameters"),
        ("table", "table", "Parameters"),
        ("table: Path", "tabel", "Parameters"),
        ("table: Path", "table", "Raises"),
    ],
)
def test_a_parameter_that_is_no_path_or_not_described_is_an_error(parameter, name, section, tmp_path):
    with pytest.raises(ValueError, match=r"made\.py: parameter table of run is no path, or is not described"):
        read(tmp_path, parameter, f"    {name}\n        The table.", section)
