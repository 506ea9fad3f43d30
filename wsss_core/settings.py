"""Settings as frozen dataclasses, from which the configuration schema is generated.

Every method declares its settings once, with default, description and bounds::

    @dataclass(frozen=True)
    class RibSettings:
        steps: int = setting(10, "fine-tuning steps K", minimum=1)

`wsss schema` writes `config/config.schema.json` from these classes, so defaults, documentation and
validation cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

REQUIRED = dataclasses.MISSING
"""Default of a setting that the user must give (its class needs ``kw_only=True``)."""


@dataclasses.dataclass(frozen=True)
class Text:
    """What text a setting takes, in its type: ``Annotated[str, Text(pattern, title)]``.

    Attributes
    ----------
    pattern
        A regular expression, as in a schema.
    title
        The same for a reader.
    """

    pattern: str
    title: str


def setting(default: Any, description: str, **constraints: Any) -> Any:
    """Declare one dataclass field.

    Parameters
    ----------
    default
        Default value; a nested settings class (called for its default instance) or an immutable value.
    description
        One line for the schema and the documentation: meaning, unit, source.
    **constraints
        JSON-schema keywords, such as ``minimum=0`` or ``exclusiveMaximum=1``, and ``items={"minimum": 0}`` for those
        of a list; beside them ``ascending=True`` for a pair of numbers of which the first must not exceed the second,
        and ``positive=2`` for a list whose first two numbers must exceed 0.
    """
    metadata = {"description": description, **constraints}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def from_mapping(cls: type[T], mapping: Mapping[str, Any]) -> T:
    """Build a settings object from a (validated) mapping; nested mappings become nested settings.

    Raises
    ------
    TypeError
        If the mapping holds a key that the class does not have.
    """
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in mapping.items():
        nested = settings_class(hints.get(key))
        if nested is not None and isinstance(value, Mapping):
            value = from_mapping(nested, value)
        values[key] = _frozen(value)
    return cls(**values)


def settings_class(hint: Any) -> type | None:
    """The settings class named by a type hint (also in ``Settings | None``), or None."""
    candidates = typing.get_args(hint) if _is_union(hint) else (hint,)
    for candidate in candidates:
        if isinstance(candidate, type) and dataclasses.is_dataclass(candidate):
            return candidate
    return None


def json_schema(cls: type) -> dict[str, Any]:
    """JSON schema of a settings class: types from the annotations, the rest from `setting`."""
    hints = typing.get_type_hints(cls, include_extras=True)
    properties, required = {}, []
    for f in dataclasses.fields(cls):
        schema = _type_schema(hints[f.name]) | dict(f.metadata)
        if "items" in f.metadata:
            schema["items"] = _type_schema(hints[f.name]).get("items", {}) | f.metadata["items"]
        if f.default_factory is not REQUIRED:
            schema["default"] = {}
        elif f.default is not REQUIRED:
            schema["default"] = _plain(f.default)
        else:
            required.append(f.name)
        properties[f.name] = schema
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _type_schema(hint: Any) -> dict[str, Any]:
    if _is_union(hint):
        options = [_type_schema(option) for option in typing.get_args(hint)]
        if all(set(option) == {"type"} for option in options):
            return {"type": [option["type"] for option in options]}
        return {"anyOf": options}
    if typing.get_origin(hint) is typing.Annotated:
        plain, text = typing.get_args(hint)
        return _type_schema(plain) | dataclasses.asdict(text)
    if typing.get_origin(hint) is typing.Literal:
        return {"enum": list(typing.get_args(hint))}
    if typing.get_origin(hint) is tuple:
        items, *rest = typing.get_args(hint)
        bounds = {} if rest == [Ellipsis] else {"minItems": 1 + len(rest), "maxItems": 1 + len(rest)}
        return {"type": "array", "items": _type_schema(items), **bounds}
    if settings_class(hint) is not None:
        return json_schema(hint)
    if typing.get_origin(hint) is dict:
        return {"type": "object"}
    names = {int: "integer", float: "number", bool: "boolean", str: "string", types.NoneType: "null"}
    return {"type": names[hint]}
