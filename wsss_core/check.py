"""What a run will meet in its files, looked at before anything runs: nothing is written and no image is opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wsss_core.config import Configuration
from wsss_core.data.listing import dataset_settings, reader
from wsss_core.errors import UserError


def look_ahead(configuration: Configuration) -> list[str]:
    """What the files that a configuration names hold, a line each.

    Files that are not here are told as such and are no mistake: the run may be meant for another machine.

    Raises
    ------
    UserError
        With a line for everything that the run would refuse.
    """
    lines: list[str] = []
    mistakes: list[str] = []
    for look in (_classes,):
        try:
            lines += look(configuration)
        except UserError as error:
            mistakes.append(str(error))
    if mistakes:
        raise UserError("\n  ".join(["the run would stop:", *mistakes]))
    return lines


def _classes(configuration: Configuration) -> Iterator[str]:
    """The classes of the data set."""
    form, settings = configuration.dataset["format"], dataset_settings(configuration.dataset)
    if form != "demo" and not Path(settings.root).is_dir():
        yield f"dataset.root: there is no folder {settings.root} yet"
        return
    names = reader(form)[0].classes(settings)
    yield f"{len(names)} classes: {', '.join(names)}"
