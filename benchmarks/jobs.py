"""Whole jobs of the workflow, from files to files: one process against several, whose start is included."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import Work, cores, largest_difference, rib
from benchmarks.inputs import classifier, photo_files
from wsss_core.data.table import ImageRecord, ImageTable, write_manifest, write_table
from wsss_core.execution import Execution
from wsss_core.refine.crf import CrfSettings
from wsss_core.steps import maps, masks
from wsss_core.store.checkpoints import save_network
from wsss_core.store.masks import mask_name, read_mask
from wsss_core.store.seeds import SEEDS, SeedMaps, SeedStore
from wsss_core.store.shards import build

CLASS_NAMES = tuple(f"class {number}" for number in range(20))

AT_ONCE = 4
"""Images at once on a GPU."""

CRF = {"tiny": (3, (40, 52)), "quick": (16, (188, 250)), "full": (32, (375, 500))}
"""Number and size of the images of a job."""

RIB = {"tiny": 3, "quick": 16, "full": 64}
"""Images of a job, otherwise as in `benchmarks.rib`."""


def works(size: str, device: str) -> list[Work]:
    """On a CPU the dense CRF, with a process for every core; on a GPU RIB, with several images at once."""
    if device == "cpu":
        from benchmarks import dense_crf  # needs pydensecrf, which the row of a GPU does without

        count, (height, width) = CRF[size]
        return [
            Work(
                f"job: dense CRF of {count} images of {height}×{width}, all cores against one",
                prepare=partial(_crf_job, count, (height, width)),
                baseline=lambda job: job(Execution("cpu")),
                ours=lambda job: job(Execution("cpu", threads=cores())),
                limit=0,
                difference=largest_difference,
                floor=lambda: dense_crf.floor(1, count * height * width),
            )
        ]
    count, case = RIB[size], rib.CASES[size, device]
    height, width = case.image
    return [
        Work(
            f"job: RIB of {count} images of {height}×{width} in bfloat16, {AT_ONCE} at once against one",
            prepare=partial(_rib_job, count, case),
            baseline=lambda job: job(1),
            ours=lambda job: job(AT_ONCE),
            limit=0.1,
            difference=largest_difference,
            floor=lambda: (count * rib.floor(case)[0], 0.0),
        )
    ]


def _crf_job(count: int, size: tuple[int, int], device: torch.device) -> Callable[[Execution], tuple[Tensor, ...]]:
    folder, table = _images(count, size)
    draw = torch.Generator().manual_seed(0)
    height, width = (-(-side // 16) for side in size)
    stored = {
        record.id: SeedMaps(record.classes, {1.0: torch.rand(2, height, width, generator=draw)}, size)
        for record in table.records
    }
    attrs = {"class_names": table.class_names}
    digests = dict.fromkeys(stored, "")
    build(folder / "maps.h5", SEEDS, digests, stored.__getitem__, attrs, cache=folder / "cache.h5")
    _write_step(folder, "refinements", "crf", "masks", CrfSettings())

    def run(execution: Execution) -> tuple[Tensor, ...]:
        execution.set_threads()
        masks.run(
            config=folder / "step.json",
            manifest=folder / "shard.json",
            maps=folder / "maps.h5",
            scores=None,
            start=None,
            model=None,
            instances=None,
            otherwise=None,
            threshold=None,
            masks=folder / "masks",
            execution=execution,
        )
        return tuple(torch.from_numpy(read_mask(folder / "masks" / mask_name(record.id))) for record in table.records)

    return run


def _rib_job(count: int, case: rib.Case, device: torch.device) -> Callable[[int], tuple[Tensor, ...]]:
    folder, table = _images(count, case.image)
    write_table(folder / "images.csv", table)
    network = classifier(case.backbone, len(CLASS_NAMES), torch.device("cpu"))
    meta = network.about | {"class_names": list(CLASS_NAMES)}
    save_network(folder / "model.pt", network.kind, network.state_dict(), meta)
    _write_step(folder, "seeds", "rib", "maps", replace(case.settings(), pool_long=(case.crop, case.crop)))

    def run(at_once: int) -> tuple[Tensor, ...]:
        (folder / "cache.h5").unlink(missing_ok=True)
        execution = Execution(device.type, precision="mixed", images_at_once=at_once)
        execution.set_threads()
        maps.run(
            config=folder / "step.json",
            classifier=folder / "model.pt",
            health=None,
            manifest=folder / "shard.json",
            table=folder / "images.csv",
            maps=folder / "maps.h5",
            cache=folder / "cache.h5",
            execution=execution,
        )
        store = SeedStore(folder / "maps.h5")
        return tuple(store[image_id].full() for image_id in store)

    return run


def _images(count: int, size: tuple[int, int]) -> tuple[Path, ImageTable]:
    """Photos in a folder, each with two classes, and beside them the manifest of a shard of all."""
    records = []
    for number, path in enumerate(photo_files(count, size)):
        first = 2 * number % len(CLASS_NAMES)
        records.append(ImageRecord(f"{number:03d}", str(path), *size, ("train",), (first, first + 1)))
    folder = Path(records[0].path).parent
    write_manifest(folder / "shard.json", CLASS_NAMES, records)
    return folder, ImageTable(CLASS_NAMES, tuple(records))


def _write_step(folder: Path, section: str, method: str, step: str, settings: Any) -> None:
    stage = f"{section}/benchmark"
    content = {"stage": stage, "key": stage, "method": method, "step": step, "seed": 0, "settings": asdict(settings)}
    (folder / "step.json").write_text(json.dumps(content))
