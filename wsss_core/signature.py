"""What a step takes, read from its source: nothing is imported, so a command line costs no torch."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

STEPS = Path(__file__).resolve().parent / "steps"

COUNTS: dict[str, Literal["?", "*"] | None] = {"Path": None, "Path | None": "?", "Sequence[Path]": "*"}
"""Type of a parameter to how many paths it is, as `argparse` counts: one, one or none, any number."""


@dataclass(frozen=True)
class PathParameter:
    """One path, or several, that a step reads or writes.

    Attributes
    ----------
    count
        As `argparse` counts: None is one, "?" one or none, "*" any number.
    text
        What it is, from the docstring.
    """

    name: str
    count: Literal["?", "*"] | None
    text: str


@dataclass(frozen=True)
class Signature:
    """What the function ``run`` of a step takes beside how it is executed.

    Attributes
    ----------
    summary
        First line of the step's file, as a command's help: without the full stop.
    """

    summary: str
    paths: tuple[PathParameter, ...]


@cache
def read_signature(step: str, folder: Path = STEPS) -> Signature:
    """Signature of ``run(*, …, execution)`` in the file of a step.

    Raises
    ------
    ValueError
        If a parameter is no path, or the docstring does not describe it.
    """
    file = next(path for path in (folder / f"{step}.py", folder / step / "__init__.py") if path.is_file())
    tree = ast.parse(file.read_bytes())
    run = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "run")
    described = _parameters(ast.get_docstring(run) or "")
    paths = []
    for argument in run.args.kwonlyargs:
        if argument.arg == "execution":
            continue
        kind = ast.unparse(argument.annotation) if argument.annotation else ""
        if kind not in COUNTS or argument.arg not in described:
            raise ValueError(f"{file}: parameter {argument.arg} of run is no path, or is not described")
        paths.append(PathParameter(argument.arg, COUNTS[kind], described[argument.arg]))
    summary = (ast.get_docstring(tree) or "").partition("\n")[0].rstrip(".")
    return Signature(summary[:1].lower() + summary[1:], tuple(paths))


def _parameters(docstring: str) -> dict[str, str]:
    """Names in the section "Parameters" of a numpydoc docstring to their descriptions, as one line of plain text."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?:\n\n\w+\n-+\n|\Z)", docstring, flags=re.DOTALL | re.MULTILINE)
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section[1].splitlines() if section else []:
        if line and not line.startswith(" "):
            names = line.split(", ")
            found |= dict.fromkeys(names, "")
        else:
            for name in names:
                found[name] = f"{found[name]} {line.strip()}".strip()
    return {name: text.replace("`", "").replace("%", "%%").rstrip(".") for name, text in found.items()}
