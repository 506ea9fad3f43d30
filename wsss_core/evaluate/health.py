"""Signs of how good a run is, found without true masks, and what they say in words.

None of these signs is a score. docs/results.md, "Signs of health", has how far each goes with the mIoU.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsss_core.errors import UserError
from wsss_core.store.atomic import write_text


@dataclass(frozen=True)
class Finding:
    """A sign that is out of its range.

    Attributes
    ----------
    severity
        "stop" where nothing can come of what is built upon the stage, otherwise "warning".
    stage
        Name of the stage.
    sign
        Key of the sign.
    value, limit
        What was found, and the limit that it passes.
    text
        What it means and what to do, for the user.
    """

    severity: Literal["stop", "warning"]
    stage: str
    sign: str
    value: float
    limit: float
    text: str

    def line(self) -> str:
        """As it is printed."""
        return f"{self.stage}: {self.text}"


def findings(mappings: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Findings as a health file holds them."""
    return [Finding(**mapping) for mapping in mappings]


def write_health(path: Path, content: Mapping[str, Any], found: Sequence[Finding]) -> None:
    """Write a health file: signs and findings, as JSON."""
    whole = {**content, "findings": [asdict(finding) for finding in found]}
    write_text(path, json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_health(path: Path) -> dict[str, Any]:
    """Content of a health file, with the key "findings".

    Raises
    ------
    UserError
        If it is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for one in findings(content["findings"]):
            texts, numbers = (one.severity, one.stage, one.sign, one.text), (one.value, one.limit)
            if not (all(isinstance(x, str) for x in texts) and all(isinstance(x, int | float) for x in numbers)):
                raise ValueError("a finding holds something else than texts and numbers")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: is not a health file of this version ({error})") from None
    return content


def require_no_stop(path: Path) -> None:
    """Stop where a health file holds a finding that stops, unless the user goes on all the same.

    Raises
    ------
    UserError
        With the finding, and how to go on.
    """
    content = read_health(path)
    stops = [finding for finding in findings(content["findings"]) if finding.severity == "stop"]
    if stops and content.get("stop", True):
        raise UserError(
            f"{stops[0].line()}. {path} has the figures; to go on all the same, give the classifier "
            "tag_scores: {stop: false}"
        )


def health_lines(files: Iterable[Path]) -> list[str]:
    """What the findings of health files say, a line each; of files that are not there nothing is said."""
    lines = []
    for path in files:
        try:
            found = findings(read_health(path)["findings"]) if path.exists() else []
        except UserError as error:
            lines.append(f"warning: {error}")
        else:
            lines += [f"{finding.severity}: {finding.line()}" for finding in found]
    return lines


def expected_precision(positives: int, images: int) -> float:
    """Average precision that a random order of the images has on average.

    Parameters
    ----------
    positives
        Images with the tag, at least 1.
    images
        All images.

    Notes
    -----
    At the rank k of an image with the tag, (positives - 1) (k - 1) / (images - 1) others stand before it on average.
    For many images it is the share of images with the tag, for few it is larger.

    Examples
    --------
    >>> round(expected_precision(1, 2), 3), round(expected_precision(100, 1000), 3)
    (0.75, 0.106)
    """
    if images == 1:
        return 1.0
    harmonic = float((1 / np.arange(1, images + 1)).sum()) / images
    return (positives - 1) / (images - 1) * (1 - harmonic) + harmonic


def above_chance(precision: float, chance: float) -> float:
    """Part of the way from a random order (0) to a perfect one (1).

    Examples
    --------
    >>> above_chance(0.75, 0.5), above_chance(0.5, 0.5)
    (0.5, 0.0)
    """
    return (precision - chance) / (1 - chance) if chance < 1 else 0.0


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are known; None without any."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def rounded(value: float | None) -> float | None:
    """To the four places that a health file holds."""
    return None if value is None else round(value, 4)
