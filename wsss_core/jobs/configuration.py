"""What the steps of the whole run read: all of the configuration."""

from __future__ import annotations

from pathlib import Path

from wsss_core.config import Configuration, read_run
from wsss_core.errors import UserError
from wsss_core.jobs.step import read_step


def read_run_configuration(path: Path) -> Configuration:
    """The configuration that the settings file of a step of the whole run holds.

    Raises
    ------
    UserError
        If the file is missing or is not one.
    """
    try:
        return read_run(read_step(path).settings)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not the settings file of a step of the whole run ({error!r})") from error
