"""Make the label masks of one shard of images by a refinement."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from wsss_core.constants import IGNORE
from wsss_core.data.table import ImageRecord, read_manifest
from wsss_core.execution import Execution
from wsss_core.jobs.inputs import open_records, read_threshold
from wsss_core.jobs.processes import in_processes
from wsss_core.jobs.step import read_step
from wsss_core.kernels import parts
from wsss_core.pace import Clock
from wsss_core.refine import MaskInputs, MaskMaker, MaskMethod
from wsss_core.store.atomic import atomic_folder
from wsss_core.store.cut import read_about, write_about
from wsss_core.store.instances import INSTANCES
from wsss_core.store.masks import mask_name, read_mask, write_mask
from wsss_core.store.scores import SCORES
from wsss_core.store.seeds import SEEDS

log = logging.getLogger(__name__)


def run(
    *,
    config: Path,
    manifest: Path,
    maps: Path | None,
    scores: Path | None,
    start: Path | None,
    model: Path | None,
    instances: Path | None,
    otherwise: Path | None,
    threshold: Path | None,
    masks: Path,
    execution: Execution,
) -> None:
    """Write one mask per image of the shard.

    On a GPU, one process does all, and refinements that offer it work on several images together. On a CPU, each image
    is worked on by one thread, and ``execution.threads`` of them at a time, in as many processes; the masks are the
    same bytes for any number.

    Parameters
    ----------
    config
        Settings file of the step; the method's part in it is a `wsss_core.refine.MaskMethod`.
    manifest
        Manifest of the shard.
    maps
        Seed shard, for refinements of a seed.
    scores
        Score shard, for refinements of a walk.
    start
        Folder of PNGs to start from, for refinements of masks.
    model
        Checkpoint of the segmentation network trained on these, if the refinement uses it.
    instances
        Shard of instances, for refinements of the masks of single objects.
    otherwise
        Folder of other PNGs, for refinements of two sources of masks.
    threshold
        Threshold file of the maps' scores; only needed if the settings ask for it.
    masks
        Folder of PNGs to write, each named by `mask_name`.

    Raises
    ------
    UserError
        If the threshold is not known, an image, its maps or its mask are missing or cannot be read, or the class lists
        differ.
    """
    task = Task(config, manifest, maps, scores, start, model, instances, otherwise, threshold, execution)
    made = task.maker()
    records = read_manifest(manifest).records
    groups = parts(records, lambda record: record.height * record.width, made.pixels)
    began, counts, done = time.monotonic(), np.zeros(256, dtype=np.int64), 0
    clock = Clock("image", len(records))
    with atomic_folder(masks) as folder:
        if execution.torch_device().type == "cuda" or min(execution.threads, len(groups)) <= 1:
            written: Iterator[np.ndarray] = (_write(made, folder, group) for group in groups)
        else:
            written = in_processes(execution.threads, partial(_in_worker, task, folder), groups)
        for group, found in zip(groups, written, strict=True):
            counts += found
            done += len(group)
            pace = clock.pace(done)
            if pace:
                log.info("%s", pace)
        write_about(folder, made.cut)
    shares = 100 * np.array([counts[0], counts[1:IGNORE].sum(), counts[IGNORE]]) / max(1, counts.sum())
    words = "%d masks: %.1f %% background, %.1f %% foreground, %.1f %% undecided; %s; %.1f s"
    log.info(words, len(records), *shares, made.cut, time.monotonic() - began)


@dataclass(frozen=True)
class Task:
    """What every process that makes masks of a shard is told; paths as for `run`."""

    config: Path
    manifest: Path
    maps: Path | None
    scores: Path | None
    start: Path | None
    model: Path | None
    instances: Path | None
    otherwise: Path | None
    threshold: Path | None
    execution: Execution

    def maker(self) -> MaskMaker:
        """What makes masks, with all that it works on opened."""
        step = read_step(self.config)
        method: MaskMethod = step.plug
        return method.maker(step.settings, self.inputs())

    def inputs(self) -> MaskInputs:
        """What the masks are made from."""
        table = read_manifest(self.manifest)
        device = self.execution.torch_device()
        n_labels = len(table.class_names) + 1
        found = MaskInputs(table.class_names, device, chosen=read_threshold(self.threshold), model=self.model)
        if self.maps is not None:
            found = replace(found, maps=open_records(self.maps, table, SEEDS))
        if self.scores is not None:
            found = replace(found, maps=open_records(self.scores, table, SCORES))
        if self.instances is not None:
            found = replace(found, instances=open_records(self.instances, table, INSTANCES))
        if self.start is not None:
            found = replace(found, masks=_reader(self.start, n_labels), cut=read_about(self.start))
        if self.otherwise is not None:
            found = replace(found, otherwise=_reader(self.otherwise, n_labels))
        return found


def _reader(folder: Path, n_labels: int) -> Callable[[ImageRecord], np.ndarray]:
    return lambda record: read_mask(folder / mask_name(record.id), record.size, n_labels)


def _write(made: MaskMaker, folder: Path, records: Sequence[ImageRecord]) -> np.ndarray:
    """Write the masks of some images; the number of pixels of each label."""
    counts = np.zeros(256, dtype=np.int64)
    for record, labels in zip(records, made.make(records), strict=True):
        write_mask(folder / mask_name(record.id), labels)
        counts += np.bincount(labels.ravel(), minlength=256)
    return counts


def _in_worker(task: Task, folder: Path, records: Sequence[ImageRecord]) -> np.ndarray:
    return _write(_opened(task), folder, records)


@cache
def _opened(task: Task) -> MaskMaker:
    """The refinement with its inputs, opened once by each process."""
    return task.maker()
