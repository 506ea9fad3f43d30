"""Values against their schema: defaults filled, numbers coerced, and every mistake told in words.

The schema is `config.schema.json` beside this file, which `wsss schema` writes from the settings classes.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from wsss_core.constants import NAME, NAME_WORDS
from wsss_core.errors import UserError

SCHEMA = Path(__file__).with_name("config.schema.json")
BOUNDS = {"minimum": "≥", "maximum": "≤", "exclusiveMinimum": ">", "exclusiveMaximum": "<", "minItems": "items ≥"}
"""Words of the schema that bound a value, as messages and pages write them."""

ONE_FOLDER = "file systems of macOS and Windows take both for one folder"
"""Why names that differ in upper and lower case alone are refused."""


@cache
def read_schema() -> dict[str, Any]:
    """The JSON schema of a configuration; `$defs` holds the settings of every method, without sweeps."""
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


@dataclass
class Mistakes:
    """The mistakes found so far; they are gathered, so that a user reads all of them at once.

    Attributes
    ----------
    lines
        One a mistake: where it is, and what is allowed there.
    """

    lines: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lines)

    def add(self, where: str, what: str) -> None:
        """Note a mistake; `where` is a dotted key, such as seeds.rib.steps."""
        self.lines.append(f"{where}: {what}")

    def extend(self, lines: Iterable[str]) -> None:
        """Note mistakes that are in words already."""
        self.lines.extend(lines)

    def stop(self) -> None:
        """Raise UserError with all mistakes, if there are any."""
        if self.lines:
            count = "a mistake" if len(self.lines) == 1 else f"{len(self.lines)} mistakes"
            raise UserError("\n  ".join([f"the configuration has {count}:", *self.lines]))


def filled(
    given: Any, schema: Mapping[str, Any], where: str, mistakes: Mistakes, skip: Collection[str] = ()
) -> dict[str, Any]:
    """A mapping with defaults filled and numbers coerced.

    Parameters
    ----------
    given
        What the user wrote; anything but a mapping is a mistake.
    schema
        Of an object.
    where
        Dotted key of the mapping; "" for the whole configuration.
    mistakes
        Where mistakes are noted. The result is of use only if there are none.
    skip
        Keys that are looked at elsewhere, and left out.
    """
    if not isinstance(given, Mapping):
        mistakes.add(where or "configuration", f"must be a mapping, not {shown(given)}")
        given = {}
    properties = schema["properties"]
    dot = f"{where}." if where else ""
    for key in given:
        if key not in properties and key not in skip:
            mistakes.add(f"{dot}{key}", f"unknown key{meant(str(key), properties)}")
    values = {}
    for key, known in properties.items():
        if key in skip:
            continue
        if key in given:
            values[key] = _value(given[key], known, f"{dot}{key}", mistakes)
        elif "default" in known:
            values[key] = _value(known["default"], known, f"{dot}{key}", mistakes)
        else:
            mistakes.add(f"{dot}{key}", f"is missing ({known.get('description', 'required')})")
    return values


def choice(given: Mapping[str, Any], key: str, where: str, options: Collection[str], mistakes: Mistakes) -> str | None:
    """The value of a key that must be one of some words; None if it is not."""
    value = given.get(key)
    if value is None:
        near = difflib.get_close_matches(key, map(str, given), n=1)
        misspelt = f" (is it {near[0]!r}?)" if near else ""
        mistakes.add(f"{where}.{key}", f"is missing{misspelt}; allowed: {', '.join(options)}")
    elif not isinstance(value, str) or value not in options:
        mistakes.add(f"{where}.{key}", f"{shown(value)} is not allowed; allowed: {', '.join(options)}")
    else:
        return value
    return None


def object_schema(schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The part of a setting's schema that takes settings of its own (also of "settings or null"), if any."""
    return next((option for option in schema.get("anyOf", [schema]) if "properties" in option), None)


def accepts_array(schema: Mapping[str, Any]) -> bool:
    """Whether a setting takes a list, so that a list of single values is no sweep."""
    return "array" in _types(schema) or any(accepts_array(option) for option in schema.get("anyOf", []))


def allowed_words(schema: Mapping[str, Any]) -> str:
    """What a schema allows, in words."""
    if "anyOf" in schema:
        options = [_bounded(option, schema) for option in schema["anyOf"]]
        return " or ".join(map(allowed_words, options)).replace("or allowed: ", "or ")
    if "title" in schema:
        return f"allowed: {schema['title']}"
    if "enum" in schema:
        return "allowed: " + ", ".join(str(option) for option in schema["enum"])
    if schema.get("pattern") == f"^{NAME}$":
        return f"allowed: {NAME_WORDS}"
    text = "allowed: " + (" or ".join(_types(schema)) or "anything")
    if "items" in schema:
        fixed = schema.get("minItems") and schema.get("minItems") == schema.get("maxItems")
        count = f"{schema['minItems']} " if fixed else ""
        text = f"allowed: a list of {count}{schema['items'].get('type', 'values')}s"
        text += _limits(schema["items"]) if schema["items"].get("type") in ("number", "integer") else ""
    return text + ("" if "maxItems" in schema else _limits(schema))


def _bounded(option: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """One option of a setting's schema, with what the schema says beside its options of numbers and of lists."""
    if option.get("type") in ("number", "integer"):
        return {**option, **{key: schema[key] for key in BOUNDS if key in schema}}
    if "items" in option:
        return {**option, "items": option["items"] | schema.get("items", {})}
    return option


def _limits(schema: Mapping[str, Any]) -> str:
    """The bounds that a schema sets, in words that follow a type."""
    limits = [f"{sign} {schema[key]}" for key, sign in BOUNDS.items() if key in schema]
    return f" {' and '.join(limits)}" if limits else ""


def meant(word: str, options: Collection[str]) -> str:
    """The end of a message about an unknown word: the one that was meant, or all that are allowed."""
    close = difflib.get_close_matches(word, options, n=1)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f"; allowed: {', '.join(map(str, options))}" if options else ""


def shown(value: Any) -> str:
    """A value as a message quotes it."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _value(value: Any, schema: Mapping[str, Any], where: str, mistakes: Mistakes) -> Any:
    from jsonschema import Draft202012Validator

    nested = object_schema(schema)
    if nested is not None and isinstance(value, Mapping):
        return filled(value, nested, where, mistakes)
    if isinstance(value, list) and "properties" in schema.get("items", {}):
        return [filled(item, schema["items"], f"{where}[{k}]", mistakes) for k, item in enumerate(value)]
    value = _coerced(value, schema)
    if not Draft202012Validator(schema).is_valid(value):
        hint = _text_hint(value, schema)
        mistakes.add(where, f"{shown(value)} is not allowed; {allowed_words(schema)}{hint}")
    elif not _finite(value):
        mistakes.add(where, f"{shown(value)} is not allowed; {allowed_words(schema)}, and finite")
    elif schema.get("ascending") and value is not None and value != sorted(value):
        mistakes.add(where, f"{shown(value)} is not allowed; the first number must not exceed the second")
    elif "positive" in schema and min(value[: schema["positive"]]) <= 0:
        mistakes.add(where, f"{shown(value)} is not allowed; every number but the last must exceed 0")
    return value


def _coerced(value: Any, schema: Mapping[str, Any]) -> Any:
    """10 for 10.0 where integers are meant and the reverse, so that both are the same step."""
    for option in schema.get("anyOf", []):
        value = _coerced(value, option)
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and "number" in _types(schema):
        return float(value)
    if isinstance(value, float) and value.is_integer() and "integer" in _types(schema):
        return int(value)
    if isinstance(value, list) and "items" in schema:
        return [_coerced(item, schema["items"]) for item in value]
    return value


def _finite(value: Any) -> bool:
    """Whether a value holds neither an infinite number nor one that is none (``.inf``, ``.nan`` and ``1.0e+999``)."""
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _types(schema: Mapping[str, Any]) -> list[str]:
    types = schema.get("type", [])
    return [types] if isinstance(types, str) else types


def _text_hint(value: Any, schema: Mapping[str, Any]) -> str:
    """Why a number came as text, if it did."""
    if not isinstance(value, str) or not any(kind in str(schema) for kind in ("'number'", "'integer'")):
        return ""
    if re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        mantissa, exponent = re.split("[eE]", value)
        mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
        sign = "" if exponent[0] in "+-" else "+"
        return f" (YAML reads {value} as text: write {mantissa}e{sign}{exponent})"
    if re.fullmatch(r"[+-]?\d+(\.\d*)?", value):
        why = "below the top level, --config makes text of numbers, --configfile does not"
        return f" (it is text: write it without quotes; {why})"
    return ""
