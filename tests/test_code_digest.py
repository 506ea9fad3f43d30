"""Editing library code touches exactly the stages that use it."""

import shutil

import pytest

from wsss_core import code_digest as module
from wsss_core.code_digest import closure, code_digest


@pytest.fixture
def package(tmp_path):
    root = tmp_path / "wsss_core"
    for name, text in {
        "__init__.py": '"""Top."""\n__version__ = "1"\n',
        "a.py": '"""Doc."""\nfrom wsss_core.b import f\n',
        "b.py": "def f():\n    from .sub import c\n    return c.X  # comment\n",
        "c.py": "Y = 1\n",
        "sub/__init__.py": "",
        "sub/c.py": "X = 1\n",
    }.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_text(text)
    return root


def digest(package):
    for function in (module._tree, module._imports, module._normalised):
        function.cache_clear()
    return code_digest(["wsss_core.a"], package)


def test_closure_follows_imports_inside_functions(package):
    found = [str(p.relative_to(package)) for p in closure(["wsss_core.a"], package)]
    assert found == ["a.py", "b.py", "sub/__init__.py", "sub/c.py"]


@pytest.mark.parametrize(
    ("file", "text", "changes"),
    [
        ("sub/c.py", "X = 2\n", True),
        ("c.py", "Y = 2\n", False),
        ("b.py", "def f():\n    from .sub import c\n\n    return c.X  # other comment\n", False),
        ("a.py", '"""Other doc."""\nfrom wsss_core.b import f\n', False),
        ("__init__.py", '__version__ = "2"\n', False),
    ],
)
def test_only_used_code_counts(package, file, text, changes):
    before = digest(package)
    (package / file).write_text(text)
    assert (digest(package) != before) == changes


def test_moved_package_has_the_same_digest(package, tmp_path):
    before = digest(package)
    moved = shutil.copytree(package, tmp_path / "elsewhere" / "wsss_core")
    assert digest(moved) == before
