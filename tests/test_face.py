"""What `import wsss_core` offers: everything by name, and nothing before it is asked for."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import wsss_core
from tests.conftest import REPOSITORY
from wsss_core.code_digest import closure


def test_importing_the_package_imports_nothing_else():
    code = "import sys, wsss_core; dir(wsss_core); print({'numpy', 'torch', 'wsss_core.seeds'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", wsss_core.__all__)
def test_every_public_name_can_be_had_and_is_listed(name):
    value = getattr(wsss_core, name)
    assert name in dir(wsss_core)
    if name != "__version__":
        assert value.__name__ == name and value.__doc__


def test_type_checkers_are_told_the_same():
    tree = ast.parse(Path(wsss_core.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {alias.asname: node.module for node in block.body for alias in node.names}
    assert told == wsss_core._HOMES


def test_other_names_are_not_attributes():
    with pytest.raises(AttributeError, match="no attribute 'cam_sed'"):
        wsss_core.cam_sed  # noqa: B018


def test_the_face_is_in_no_digest():
    reached = {path.name for path in closure(["wsss_core.errors", "wsss_core"])}
    assert reached == {"errors.py"}


def test_the_library_does_not_use_its_face():
    """A digest would not see what a module imports that way."""
    package = Path(wsss_core.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.module == "wsss_core":
                assert not {alias.name for alias in node.names} & set(wsss_core._HOMES), path


def test_the_page_of_functions_has_every_public_name():
    page = (REPOSITORY / "docs/api.md").read_text()
    listed = {line.rpartition(".")[2] for line in page.splitlines() if line.startswith("::: ")}
    assert listed == set(wsss_core.__all__) - {"__version__"}
