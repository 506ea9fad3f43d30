"""Libraries that only some need: extras of the package, imported where they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from wsss_core.errors import UserError


def extra(module: str, name: str) -> Any:
    """A module of an optional library.

    Parameters
    ----------
    module
        Dotted name.
    name
        The extra of this package that brings it.

    Raises
    ------
    UserError
        If it is not installed; the message says how to do that.

    Examples
    --------
    >>> extra("no_such_library", "onnx")
    Traceback (most recent call last):
    wsss_core.errors.UserError: this needs no_such_library: pip install 'wsss[onnx]'
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"this needs {error.name}: pip install 'wsss[{name}]'") from error
