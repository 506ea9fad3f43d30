"""What a step reads of the configuration: its own settings file, and nothing else."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss_core import keyed
from wsss_core.errors import UserError
from wsss_core.registry import Step, find_step, imported
from wsss_core.settings import from_mapping


@dataclass(frozen=True)
class StepConfig:
    """The content of a step's settings file.

    Attributes
    ----------
    stage
        "section/name", as messages name it.
    key
        The key of the stage's random draws, without swept values: variants of a sweep differ by their settings alone,
        repetitions by their draws alone.
    step
        What the registry says of the step.
    method
        Name of the method, and in `plug` its part in this step: a module.
    seed
        Seed of the run.
    settings
        An instance of the step's settings class; where it has none, the mapping that the file holds.
    digest
        Digest of the whole file.
    held_out
        Evaluation of masks: the part of the scored images, by `is_held_out`, that chose their threshold.
    labelled
        Evaluation of masks: of all true masks that these are built on, share and draw of the images that were learned
        from, by `is_labelled`.
    """

    stage: str
    key: str
    step: Step
    method: str
    seed: int
    settings: Any
    digest: str
    held_out: float = 0.0
    labelled: Sequence[tuple[float, int]] = ()

    @property
    def plug(self) -> Any:
        """The module that holds the method's part in this step."""
        return importlib.import_module(self.step.module)


def read_step(path: Path) -> StepConfig:
    """Read a step's settings file.

    Raises
    ------
    UserError
        If the file is missing or is not one.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = json.loads(text)
        stage, method = content["stage"], content["method"]
        step = find_step(stage, method, content["step"])
        settings = content["settings"]
        if step.settings:
            settings = from_mapping(imported(step.settings), settings)
        return StepConfig(
            stage,
            content["key"],
            step,
            method,
            content["seed"],
            settings,
            keyed.key_bytes(text.strip()).hex(),
            content.get("held_out", 0.0),
            tuple(map(tuple, content.get("labelled", ()))),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: is not the settings file of a step ({error!r})") from error
