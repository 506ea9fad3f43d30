"""What a stage reads of the configuration: its own step's JSON, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss_core import keyed
from wsss_core.errors import UserError


@dataclass(frozen=True)
class StepConfig:
    """What a stage reads of its JSON.

    Attributes
    ----------
    stage
        "section/name", as messages say it.
    key
        The same without swept values, the key of its random draws: variants of a sweep draw alike.
    digest
        Digest of the whole JSON text.
    held_out
        Evaluation of masks: the part of the scored images, by `is_held_out`, that chose their threshold.
    """

    stage: str
    key: str
    step: str
    method: str
    seed: int
    settings: Mapping[str, Any]
    digest: str
    held_out: float = 0.0


def read_step(path: Path) -> StepConfig:
    """Read a step's JSON file.

    Raises
    ------
    UserError
        If the file is missing or is not a step's configuration.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = json.loads(text)
        digest = keyed.key_bytes(text.strip()).hex()
        return StepConfig(
            content["stage"],
            content.get("key", content["stage"]),
            content.get("step", ""),
            content.get("method", ""),
            content["seed"],
            content["settings"],
            digest,
            content.get("held_out", 0.0),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not a step's configuration ({error!r})") from error
