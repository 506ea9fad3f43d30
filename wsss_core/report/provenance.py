"""Where the numbers come from: settings against their defaults, and what every stage cost."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Setting:
    """One line of a stage's settings.

    Attributes
    ----------
    default
        The schema's default as text; None if the user must give the setting.
    changed
        Whether the value is not the default.
    """

    key: str
    value: str
    default: str | None
    changed: bool
    description: str = ""


def settings_lines(settings: Mapping[str, Any], schema: Mapping[str, Any], prefix: str = "") -> list[Setting]:
    """All settings under dotted keys, compared with the defaults of their JSON schema.

    Examples
    --------
    >>> schema = {"properties": {"steps": {"type": "integer", "default": 10, "description": "K"}}}
    >>> settings_lines({"steps": 5}, schema)
    [Setting(key='steps', value='5', default='10', changed=True, description='K')]
    """
    lines = []
    for key, value in settings.items():
        known = schema.get("properties", {}).get(key, {})
        nested = next((s for s in known.get("anyOf", [known]) if "properties" in s), None)
        if nested is not None and isinstance(value, Mapping):
            lines += settings_lines(value, nested, f"{prefix}{key}.")
            continue
        has_default = "default" in known
        lines.append(
            Setting(
                f"{prefix}{key}",
                _text(value),
                _text(known["default"]) if has_default else None,
                not has_default or not _same(value, known["default"]),
                known.get("description", ""),
            )
        )
    return lines


@dataclass(frozen=True)
class Cost:
    """What the jobs of one step took together.

    Attributes
    ----------
    seconds
        Sum of the wall-clock times of its jobs.
    longest
        Wall-clock seconds of the longest job.
    memory
        Largest resident memory of a job in MB; None if it ended before it was measured.
    """

    stage: str
    step: str
    jobs: int
    seconds: float
    longest: float
    memory: float | None


_BENCHMARK = re.compile(r"(?P<step>.+?)(?:\.\d+-of-\d+)?\.tsv")


def costs(benchmarks: Sequence[tuple[str, str]]) -> list[Cost]:
    """Add up Snakemake's benchmark files, one line a step, in the order given.

    Parameters
    ----------
    benchmarks
        (path below ``benchmarks/``, text of the file): ``seeds/rib/maps.00-of-04.tsv``.
    """
    jobs: dict[tuple[str, str], list[tuple[float, float | None]]] = {}
    for path, text in benchmarks:
        folder, _, name = path.rpartition("/")
        match = _BENCHMARK.fullmatch(name)
        head, *rows = (line.split("\t") for line in text.splitlines() if line.strip())
        if match and rows:
            row = dict(zip(head, rows[-1], strict=False))
            jobs.setdefault((folder, match["step"]), []).append((_number(row["s"]) or 0.0, _number(row["max_rss"])))
    return [
        Cost(
            stage,
            step,
            len(found),
            sum(s for s, _ in found),
            max(s for s, _ in found),
            max((m for _, m in found if m is not None), default=None),
        )
        for (stage, step), found in jobs.items()
    ]


def duration(seconds: float) -> str:
    """Seconds in words.

    Examples
    --------
    >>> duration(0.44), duration(75), duration(7260)
    ('0.4 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def megabytes(memory: float | None) -> str:
    """Memory in words.

    Examples
    --------
    >>> megabytes(812.3), megabytes(2048), megabytes(None)
    ('812 MB', '2.0 GB', '–')
    """
    if memory is None:
        return "–"
    return f"{memory / 1024:.1f} GB" if memory >= 1000 else f"{memory:.0f} MB"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _same(value: Any, default: Any) -> bool:
    return json.loads(json.dumps(value)) == json.loads(json.dumps(default))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
