"""Imports point downward only: the floors of the package, from the roof to the ground."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import REPOSITORY

FLOORS = (
    {"cli"},
    {
        "workflow",
        "schema",
        "describe",
        "check",
        "tune",
        "plan_labels",
        "predict",
        "objects",
        "export",
        "import_annotations",
        "export_model",
        "init",
        "prepare",
        "status",
    },
    {"steps"},
    {"jobs"},
    {"classify", "seeds", "refine", "instances", "toy", "exchange"},
    {"segment", "boxes", "report"},
    {"training"},
    {"models", "kernels", "evaluate"},
    {"data"},
    {"store"},
    {"config"},
    {"registry", "settings", "execution", "keyed", "signature", "code_digest", "documents", "pace", "extras"},
    {"errors", "constants"},
    {"__version__"},
)
"""Files and folders of the package; each may import what is on lower floors, and a folder's files one another.

The package's own `__init__.py` stands outside: it is the face that shows callers names of every floor, and nothing in
the house but the version number comes from there.
"""
FACE = REPOSITORY / "wsss_core" / "__init__.py"


def room(module: str) -> str:
    """File or folder of the package that a dotted name lies in; every file or folder of `steps` is one of its own."""
    parts = module.split(".")[1:]
    return ".".join(parts[:2] if parts[0] == "steps" else parts[:1])


def floor(module: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room(module).partition(".")[0] in rooms)


def imports(path: Path) -> Iterator[str]:
    """Dotted names of the package that a file imports anywhere in it, also for type checkers alone."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module.startswith("wsss_core"))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("wsss_core."))


def test_imports_point_downward_only():
    modules = {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts): path
        for path in REPOSITORY.glob("wsss_core/**/*.py")
        if path != FACE
    }
    upward = [
        f"{module} imports {name}"
        for module, path in sorted(modules.items())
        for name in imports(path)
        if room(name) != room(module) and floor(name) <= floor(module)
    ]
    assert not upward
    assert {room(module).partition(".")[0] for module in modules} == set().union(*FLOORS) - {"__version__"}
