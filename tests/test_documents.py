"""The documents tell the truth: examples run, and facts that stand elsewhere too agree."""

import doctest
import re
import tomllib

import nbformat
import pytest
import yaml

import wsss_core
from tests.conftest import REPOSITORY
from tests.notebook import executed
from wsss_core import cli

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *REPOSITORY.glob("docs/**/*.md")]


def test_the_pages_name_commands_targets_and_files_that_exist(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    commands = set(re.findall(r"^  ([\w-]+) ", capsys.readouterr().out, re.MULTILINE))
    rules = "".join(path.read_text(encoding="utf-8") for path in REPOSITORY.glob("rules/*.smk"))
    rules += (REPOSITORY / "Snakefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(?:rule|checkpoint) (\w+):", rules, re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        start = r"(?:^|`|; )\s*"
        assert set(re.findall(start + r"wsss ([a-z][\w-]*)", text, re.MULTILINE)) <= commands, page
        assert set(re.findall(start + r"snakemake (?:--cores \w+ )?([a-z]\w*)", text, re.MULTILINE)) <= targets, page
        named = re.findall(r"`((?:wsss_core|tests|rules|profiles|examples)/[\w/.-]+)`", text)
        assert not [name for name in named if not (REPOSITORY / name).exists()], page


def test_the_examples_of_the_python_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
    examples = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    test = doctest.DocTestParser().get_doctest(examples, {}, "docs/python.md", None, 0)
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert test.examples and not said, "".join(said)


def test_the_python_page_shows_every_public_name():
    page = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
    used = set(re.findall(r"wsss\.(\w+)", page))
    assert set(wsss_core.__all__) - {"__version__", "SeedMaps", "Configuration"} <= used <= set(wsss_core.__all__)


def test_the_citation_is_of_this_version_and_names_the_methods_papers():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation["version"], citation["license"]) == (wsss_core.__version__, project["license"])
    cited = {reference["doi"].rpartition("arXiv.")[2] for reference in citation["references"] if "doi" in reference}
    pages = "".join(page.read_text(encoding="utf-8") for page in (REPOSITORY / "docs" / "methods").glob("*.md"))
    assert set(re.findall(r"arxiv\.org/abs/([\d.]+\d)", pages)) <= cited


def test_the_notebook_runs_and_is_stored_with_its_outputs(tmp_path):
    path = REPOSITORY / "examples" / "one_photo.ipynb"
    stored, fresh = nbformat.read(path, as_version=4), executed(path, tmp_path)
    assert kinds_of_output(stored) == kinds_of_output(fresh)
    assert path.stat().st_size < 300_000


def kinds_of_output(notebook):
    """What each cell shows: texts, pictures or values."""
    return [[output.output_type for output in cell.get("outputs", ())] for cell in notebook.cells]
