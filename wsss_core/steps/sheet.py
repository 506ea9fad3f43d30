"""Write the contact sheet of a run: every photo with its maps and masks, on pages to be sorted and looked through."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsss_core.data.decode import read_image
from wsss_core.data.table import ImageRecord
from wsss_core.evaluate.mask_signs import confidence
from wsss_core.execution import Execution
from wsss_core.jobs.configuration import read_run_configuration
from wsss_core.jobs.run_files import Labels, RunFiles
from wsss_core.pace import Clock
from wsss_core.report import overlays
from wsss_core.report.choose import sample
from wsss_core.report.sheet import A_PAGE, SheetPage, Shown, page_name, render_sheet
from wsss_core.store.atomic import atomic_folder

log = logging.getLogger(__name__)

LONG_SIDE = 260
"""Longer side of each part of a picture, in pixels."""


def run(*, config: Path, run: Path, sheet: Path, execution: Execution) -> None:
    """Write the pages: of the last pseudo-masks among the targets and the seed that they stand on, or of the last seed.

    Parameters
    ----------
    config
        Settings file of the step: the whole configuration, whose setting ``report.sheet`` says how many photos are
        shown at most.
    run
        Folder of the run.
    sheet
        Folder to write: ``index.html``, ``2.html`` and so on.

    Raises
    ------
    UserError
        If the configuration, the image table, a photo or a file of a stage cannot be read.
    """
    files = RunFiles(Path(run), read_run_configuration(config))
    names = shown_stages(files)
    records = {record.id: record for record in files.table.split("train")}
    chosen = sample(sorted(records), files.configuration.report["sheet"]) if names else []
    reader = Labels(files, files.shards("train"))
    photos, clock = [], Clock("image", len(chosen), 0)
    for number, image_id in enumerate(chosen, 1):
        photos.append(_photo(files, reader, records[image_id], names))
        pace = clock.pace(number, last=number == len(chosen))
        if pace:
            log.info("%s", pace)
    parts = [photos[start : start + A_PAGE] for start in range(0, len(photos), A_PAGE)] or [[]]
    with atomic_folder(sheet) as temporary:
        for number, part in enumerate(parts, 1):
            page = SheetPage(
                files.configuration.run, number, len(parts), ("photo", *names), part, len(chosen), len(records)
            )
            (temporary / page_name(number)).write_text(render_sheet(page), encoding="utf-8")


def shown_stages(files: RunFiles) -> list[str]:
    """The seed and the pseudo-masks that the sheet shows; nothing if the targets have neither."""
    for name in reversed(files.having("refinements", "masks")):
        seed = files.configuration.ancestor(name, "seeds")
        if name in files.configuration.targets and seed is not None:
            return [seed.name, name]
    return files.having("seeds", "maps")[-1:]


def _photo(files: RunFiles, reader: Labels, record: ImageRecord, names: Sequence[str]) -> Shown:
    size = overlays.fitted(*record.size, LONG_SIDE)
    small = overlays.resized(read_image(Path(record.path)), size)
    seed, last = names[0], names[-1]
    found = reader.maps(seed, record.id)
    maps, classes = (found[0].numpy(), found[1]) if found else (np.zeros((0, *record.size), np.float32), ())
    labels = reader.labels(last, record)
    labels = np.zeros(record.size, np.uint8) if labels is None else labels
    threshold = reader.threshold(seed, found[0]) if found and len(classes) else None
    pictures = [small, overlays.heat_overlay(small, overlays.resized_maps(maps, size), classes, threshold)]
    if last != seed:
        pictures.append(overlays.mask_overlay(small, overlays.resized_labels(labels, size)))
    gap = np.full((size[0], 6, 3), 128, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)][1:]
    return Shown(
        record.id,
        [files.table.class_names[c] for c in record.classes],
        float(np.isin(labels, [c + 1 for c in record.classes]).mean()),
        confidence(maps, labels),
        overlays.data_uri(np.concatenate(parts, 1), quality=70),
    )
