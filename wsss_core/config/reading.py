"""The file of a configuration as it was written: YAML, or JSON as Snakemake takes it too; no key may stand twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
    if twice:
        lines = [f"{path}: a key that stands twice counts once, the first is dropped; make one of both:", *twice]
        raise UserError("\n  ".join(lines))
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: a configuration is a mapping of keys, this is {type(content).__name__}")
    return content


def parsed(text: str, name: str) -> tuple[Any, list[str]]:
    """What a text of JSON or YAML holds, and the keys that stand twice in one mapping of it.

    Parameters
    ----------
    name
        File, for the errors of YAML.

    Raises
    ------
    yaml.YAMLError
        If it is neither.

    Examples
    --------
    >>> parsed("a: 1\\nb: 2\\na: 3\\n", "some.yaml")
    ({'a': 3, 'b': 2}, ['a, in lines 1 and 3'])
    """
    try:
        return _json(text)
    except ValueError:
        return _yaml(text, name)


def _json(text: str) -> tuple[Any, list[str]]:
    """Content, and the keys that stand twice."""
    twice: list[str] = []

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(key for key, _ in pairs)
        twice.extend(key for key, count in counts.items() if count > 1)
        return dict(pairs)

    return json.loads(text, object_pairs_hook=mapping), twice


def _yaml(text: str, name: str) -> tuple[Any, list[str]]:
    """Content, and the keys that stand twice with their lines; errors name the file."""
    import yaml

    loader = yaml.SafeLoader(text)
    loader.name = name
    try:
        node = loader.get_single_node()
        if node is None:
            return None, []
        twice = [*_twice(node, "", set())]  # first, as the construction writes what is merged (<<) into the nodes
        return loader.construct_document(node), twice
    finally:
        loader.dispose()


def _twice(node: Any, where: str, seen: set[Any]) -> Iterator[str]:
    """Dotted keys of a node of YAML that stand twice in one mapping, with their lines; what is `seen` is left out."""
    import yaml

    if node in seen:  # an alias
        return
    seen.add(node)
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _twice(item, f"{where}[{number}]", seen)
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[tuple[str, str], Any] = {}
    for key, value in node.value:
        name = f"{where}.{key.value}" if where else str(key.value)
        before = first.setdefault((key.tag, str(key.value)), key)
        if before is not key:
            yield f"{name}, in lines {before.start_mark.line + 1} and {key.start_mark.line + 1}"
        yield from _twice(value, name, seen)


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
