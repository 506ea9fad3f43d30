"""Texts of JSON and YAML, with the keys that stand twice, of which every reader keeps the last without a word."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

MOST = 1_000_000
"""Values that a text of YAML may stand for beyond its letters, aliases followed."""


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
        _require_few(node, name, MOST + len(text), {}, set())
        twice = [*_twice(node, "", set())]  # first, as the construction writes what is merged (<<) into the nodes
        return loader.construct_document(node), twice
    except (
        ValueError,
        AttributeError,
        LookupError,
        TypeError,
        OverflowError,
    ) as error:  # a date or number that is none
        raise yaml.YAMLError(f"{name}: {error}") from error
    finally:
        loader.dispose()


def _require_few(node: Any, name: str, most: int, sizes: dict[Any, int], above: set[Any]) -> int:
    """Number of values that a node of YAML stands for, aliases followed.

    A few lines of aliases of aliases can stand for thousands of millions, and one of what it stands in for no end.

    Raises
    ------
    yaml.YAMLError
        If they are more than `most`, or the node stands within itself.
    """
    import yaml

    if node in above:
        raise yaml.YAMLError(f"{name}: an alias stands within what it stands for")
    if node not in sizes:
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        inner = parts if isinstance(node, yaml.CollectionNode) else ()
        sizes[node] = 1 + sum(_require_few(part, name, most, sizes, above | {node}) for part in inner)
        if sizes[node] > most:
            raise yaml.YAMLError(f"{name}: its aliases stand for more than {most} values")
    return sizes[node]


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
