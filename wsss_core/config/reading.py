"""The file of a configuration as it was written: YAML, or JSON as Snakemake takes it too; no key may stand twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss_core.documents import parsed
from wsss_core.errors import UserError


def read_file(path: Path | str) -> Mapping[str, Any]:
    """What a configuration file holds, not yet judged.

    Raises
    ------
    UserError
        If the file cannot be read, is no mapping, or gives a key twice in one mapping: every reader of YAML and of JSON
        keeps the last value and drops the first without a word.
    """
    import yaml

    try:
        content, twice = parsed(Path(path).read_text(encoding="utf-8"), str(path))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: configuration cannot be read ({error})") from error
    except RecursionError as error:
        raise UserError(f"{path}: configuration cannot be read (it is nested too deeply)") from error
    if twice:
        lines = [f"{path}: a key that stands twice counts once, the first is dropped; make one of both:", *twice]
        raise UserError("\n  ".join(lines))
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: a configuration is a mapping of keys, this is {type(content).__name__}")
    return content


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two configurations as one: mappings are merged, everything else is taken from the second where it has it.

    Examples
    --------
    >>> merged({"seeds": {"cam": {"method": "cam"}}, "seed": 0}, {"seeds": {"cam": {"scales": [1]}}, "seed": 1})
    {'seeds': {'cam': {'method': 'cam', 'scales': [1]}}, 'seed': 1}
    """
    both = {
        key: merged(first[key], value)
        for key, value in second.items()
        if isinstance(value, Mapping) and isinstance(first.get(key), Mapping)
    }
    return {**first, **second, **both}
