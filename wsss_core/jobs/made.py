"""What a job leaves beside its product: with which settings it was made, what it is, and what it took.

A product whose record disagrees with the settings file beside it, or with the product itself, is not what the run says
it is: a job of an earlier start may have ended after a newer one, or somebody changed it. `overtaken` finds these.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from wsss_core.jobs.inputs import file_digest
from wsss_core.jobs.step import read_step
from wsss_core.registry import RUN_STEPS, Step
from wsss_core.store.alone import alone
from wsss_core.store.atomic import write_text
from wsss_core.store.sealed import seal_of

FOLDER = "made"
"""Of the records, in the folder of a run; below it they lie as the settings files do in ``config``."""


@dataclass(frozen=True)
class Made:
    """The record of a job.

    Attributes
    ----------
    settings
        Digest of the settings file that the job read.
    product
        The product, from the run's folder.
    stamp
        Time of change in nanoseconds, and size, as the job left it: a file that has them still is not looked into.
    digest
        Of the product's content; of a folder's, of the names and sizes of its files.
    seconds, memory_mb
        Wall-clock time of the job, and the largest resident memory of one of its processes.
    """

    settings: str
    product: str
    stamp: tuple[int, int]
    digest: str
    seconds: float
    memory_mb: float


def product_path(run: Path, stage: str, step: Step, shard: str = "") -> Path:
    """The file or folder that a job makes.

    Parameters
    ----------
    stage
        "section/name", or what a step of the run is about, as in the settings file.
    shard
        Name of the shard; "" for a step that runs once.
    """
    name = step.product.format(shard=shard, name=stage.partition("/")[2])
    return run / name if step.name in RUN_STEPS and stage != "dataset" else run / stage / name


def record_path(run: Path, stage: str, step: Step, shard: str = "") -> Path:
    """The record of a job."""
    return run / FOLDER / stage / f"{step.name}{f'.{shard}' if shard else ''}.json"


@contextmanager
def recorded(config: Path, paths: Iterable[Path]) -> Iterator[None]:
    """Run a step in the block, alone on its product, and record what it made; a step by hand, whose files do not lie as
    in a run, only runs.

    Parameters
    ----------
    config
        The step's settings file.
    paths
        All others that the step was given.
    """
    found = _place(config, [Path(os.path.abspath(path)) for path in paths])
    if found is None:
        yield
        return
    run, record, product = found
    with alone(run / ".state" / "locks" / record.relative_to(run / FOLDER).with_suffix(".lock")):
        record.unlink(missing_ok=True)
        settings, began = file_digest(config), time.monotonic()
        yield
        if product.exists():
            made = Made(
                settings,
                product.relative_to(run).as_posix(),
                _stamp(product),
                product_digest(product),
                round(time.monotonic() - began, 4),
                _largest_memory(),
            )
            write_text(record, json.dumps(asdict(made)))


def _place(config: Path, paths: list[Path]) -> tuple[Path, Path, Path] | None:
    """The run's folder, the record and the product of a job, told by how its files lie."""
    config = Path(os.path.abspath(config))
    held = read_step(config)
    run = config.parents[held.stage.count("/") + 2] if len(config.parents) > held.stage.count("/") + 2 else None
    if run is None or config != run / "config" / held.stage / f"{held.step.name}.json":
        return None
    shard = ""
    if held.step.each == "shard":
        pattern = re.escape(str(product_path(run, held.stage, held.step, "SHARD"))).replace("SHARD", r"(\d+-of-\d+)")
        matches = [match for path in paths if (match := re.fullmatch(pattern, str(path)))]
        if not matches:
            return None
        shard = matches[0][1]
    product = product_path(run, held.stage, held.step, shard)
    if not any(product.is_relative_to(path) for path in paths):
        return None
    return run, record_path(run, held.stage, held.step, shard), product


def read_made(record: Path) -> Made | None:
    """The record of a job; None if there is none that can be read."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        return Made(**content | {"stamp": tuple(content["stamp"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def overtaken(run: Path) -> dict[Path, str]:
    """The products of a run that are not what it says they are, and why; those that were deleted are none."""
    found = {}
    for record in sorted((run / FOLDER).rglob("*.json")):
        made = read_made(record)
        if made is None or not (run / made.product).exists():
            continue
        name = re.sub(r"\.\d+-of-\d+(?=\.json$)", "", record.name)
        settings = run / "config" / record.parent.relative_to(run / FOLDER) / name
        reason = _disagreement(made, run / made.product, settings)
        if reason:
            found[run / made.product] = reason
    return found


def _disagreement(made: Made, product: Path, settings: Path) -> str:
    if settings.is_file() and file_digest(settings) != made.settings:
        return (
            f"was made with other settings than {settings} holds, as where a job of an earlier start ends after a "
            "newer one"
        )
    looked_into = product.is_dir() or _stamp(product) != made.stamp  # a folder does not tell when its files change
    if looked_into and product_digest(product) != made.digest:
        return "is not as its step wrote it: it was changed or replaced since"
    return ""


def overtaken_lines(run: Path) -> list[str]:
    """What to tell the user of such products; nothing where there are none."""
    found = overtaken(run)
    return [
        f"{path}: {reason}. Delete it, and it is made again{f' ({len(found)} such in all)' if len(found) > 1 else ''}"
        for path, reason in list(found.items())[:1]
    ]


def product_digest(path: Path) -> str:
    """Digest of a product: of a sealed file its seal, of another file its bytes, of a folder names and sizes.

    Hidden files in a folder do not count: Snakemake leaves one there.
    """
    if path.is_dir():
        files = [file for file in path.rglob("*") if not file.name.startswith(".")]
        listed = sorted((file.relative_to(path).as_posix(), file.stat().st_size) for file in files)
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    return seal_of(path) or file_digest(path)


def _stamp(path: Path) -> tuple[int, int]:
    state = path.stat()
    return (state.st_mtime_ns, state.st_size)


def _largest_memory() -> float:
    kilobytes = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(kilobytes / 1024, 2)
