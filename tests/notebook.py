"""Runs a notebook: for its test, and as a command that stores it with its outputs.

python -m tests.notebook examples/one_photo.ipynb
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tests.conftest import REPOSITORY


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with new outputs, run from its first cell to its last in a folder.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    run = NotebookClient(
        notebook,
        timeout=300,
        resources={"metadata": {"path": str(folder)}},
        coalesce_streams=True,
        record_timing=False,
    )
    notebook = run.execute(env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    notebook.metadata.language_info = {"name": "python"}
    return notebook


if __name__ == "__main__":
    for name in sys.argv[1:]:
        nbformat.write(executed(Path(name), Path(name).parent), name)
