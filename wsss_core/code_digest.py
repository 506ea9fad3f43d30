"""Digest of the source that a step reaches by import, so that editing library code reruns what uses it.

Only this package's own modules count, found by reading ``import`` statements (nothing is executed), but for those that
a type checker alone sees (``if TYPE_CHECKING:``).
Comments, layout and docstrings do not count, nor do the version number (the package's own ``__init__.py``) and the
registry, whose lines name modules that count themselves.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def code_digest(modules: Iterable[str], package: Path = PACKAGE) -> str:
    """Digest of the given modules and of everything in `package` they import, directly or not.

    Parameters
    ----------
    modules
        Dotted names inside the package, such as ``wsss_core.seeds.rib``.
    """
    digest = hashlib.sha256()
    for path in closure(modules, package):
        digest.update(str(path.relative_to(package)).encode())
        digest.update(_normalised(path))
    return digest.hexdigest()[:16]


def file_digests(package: Path = PACKAGE) -> dict[str, str]:
    """Every source file of the package, by its path from the package's folder, to a digest of what counts of it."""
    paths = sorted(package.rglob("*.py"))
    return {path.relative_to(package).as_posix(): hashlib.sha256(_normalised(path)).hexdigest()[:16] for path in paths}


def closure(modules: Iterable[str], package: Path = PACKAGE) -> list[Path]:
    """Source files of the package that the modules reach by import, sorted."""
    todo = [path for name in modules for path in _files(name, package)]
    seen: set[Path] = set()
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo.extend(found for name in _imports(path, package) for found in _files(name, package))
    return sorted(seen)


def _files(name: str, package: Path) -> list[Path]:
    """The files that importing a dotted name runs, as far as they lie in the package."""
    parts = name.split(".")
    if parts[0] != package.name:
        return []
    found = []
    for length in range(1, len(parts) + 1):
        path = package.parent.joinpath(*parts[:length])
        found += [f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()]
    return [path for path in found if path.relative_to(package).as_posix() not in ("__init__.py", "registry.py")]


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


@cache
def _imports(path: Path, package: Path) -> tuple[str, ...]:
    here = path.relative_to(package.parent).with_suffix("").parts[:-1]
    names: list[str] = []
    for node in _walk(_tree(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(here[: len(here) - node.level + 1]) if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return tuple(names)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a tree but what stands under ``if TYPE_CHECKING:``."""
    yield node
    if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        for child in ast.iter_child_nodes(node):
            yield from _walk(child)


@cache
def _normalised(path: Path) -> bytes:
    """Dump of the syntax tree with docstrings emptied."""
    tree = _tree(path)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                first.value.value = ""
    return ast.dump(tree).encode()
