"""Editing library code touches exactly the steps that use it."""

from __future__ import annotations

import shutil

import pytest

from wsss_core import code_digest as module
from wsss_core import registry
from wsss_core.code_digest import closure, code_digest
from wsss_core.registry import METHODS


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


def reached(step: registry.Step) -> set[str]:
    """Files of the package that the results of a step depend on."""
    return {path.relative_to(module.PACKAGE).as_posix() for path in closure(step.code)}


@pytest.mark.parametrize("step", [*registry.all_steps()], ids=lambda step: "-".join([step.name, step.module]))
def test_no_step_depends_on_another_nor_on_how_configurations_are_read(step):
    files = reached(step)
    own = (f"steps/{step.name}.py", f"steps/{step.name}/")
    others = {name for name in files if name.startswith("steps/") and not name.startswith(own)}
    assert others == {"steps/__init__.py"}
    if step.name not in ("results", "health", "sheet", "report"):
        assert not {name for name in files if name.startswith(("config/", "cli.", "report/page"))}


@pytest.mark.parametrize("name", registry.DATASETS)
def test_no_reader_of_data_depends_on_how_configurations_are_read(name):
    files = {
        path.relative_to(module.PACKAGE).as_posix()
        for path in closure(registry.find_step("dataset", name, "index").code)
    }
    assert not {file for file in files if file.startswith(("config/", "cli."))}


@pytest.mark.parametrize(
    ("name", "file", "modules"),
    [
        ("train", "segment/dsrg.py", {"segment.dsrg"}),
        ("maps", "seeds/rib.py", {"seeds.rib", "seeds.advcam_rib"}),
        ("labels", "refine/psa/labels.py", {"refine.psa.labels"}),
        ("masks", "refine/crf.py", {"refine.crf", "refine.walk_crf"}),
    ],
)
def test_a_method_is_reached_by_what_is_built_on_it_alone(name, file, modules):
    steps = [step for step in registry.all_steps() if step.name == name and file in reached(step)]
    assert {step.module.removeprefix("wsss_core.") for step in steps} == modules


def test_moved_package_has_the_same_digest(package, tmp_path):
    before = digest(package)
    moved = shutil.copytree(package, tmp_path / "elsewhere" / "wsss_core")
    assert digest(moved) == before


def test_what_a_type_checker_alone_imports_does_not_count(package):
    before = digest(package)
    text = (package / "b.py").read_text()
    (package / "b.py").write_text(f"if TYPE_CHECKING:\n    from wsss_core import c\n{text}")
    with_import = digest(package)
    (package / "c.py").write_text("Y = 2\n")
    assert before != with_import == digest(package)


def test_masks_cut_from_maps_depend_on_no_network_and_no_configuration():
    """The step is shared with refinements that load networks and run a dense CRF."""
    used = {
        str(path.relative_to(module.PACKAGE))
        for path in closure(METHODS["refinements"]["threshold"].steps["masks"].code)
    }
    assert {"steps/masks.py", "refine/threshold.py", "store/scores.py"} <= used
    assert not {"models/deeplab.py", "models/backbones/base.py", "kernels/dense_crf.py", "config/__init__.py"} & used
