"""Choose which out-of-distribution photos are trained on."""

from __future__ import annotations

import hashlib
import io
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from wsss_core.classify.out_of_distribution import (
    Candidate,
    SelectionSettings,
    choose,
    confused,
    erased,
    read_candidates,
    read_review,
    with_long_side,
)
from wsss_core.data.decoded import read_record
from wsss_core.data.table import ImageRecord, ImageTable, read_table, write_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.jobs.classifier import open_classifier
from wsss_core.jobs.step import read_step
from wsss_core.models.cam import CamNetwork
from wsss_core.seeds.cam import CamSettings, cam_seed
from wsss_core.store.atomic import atomic_folder
from wsss_core.store.masks import mask_name

log = logging.getLogger(__name__)

POLL_SECONDS = 5.0


def run(
    *,
    config: Path,
    table: Path,
    candidates: Path,
    classifier: Path,
    selected: Path,
    pictures: Path,
    execution: Execution,
) -> None:
    """Write the image table of the photos to train on, in order of id.

    Parameters
    ----------
    config
        Settings file of the step.
    table
        Image table of the role "ood".
    candidates
        CSV of the candidates; the contact sheet lies beside it.
    classifier
        Checkpoint of the classifier whose maps say what is erased.
    selected
        Image table to write, ``ood.csv`` of the stage.
    pictures
        Folder of the erased photos, which the table then names; empty for the other rules.

    Raises
    ------
    UserError
        If the reviewed file is missing (the message says what to do) or wrong, or nothing is left.
    """
    step = read_step(config)
    settings: SelectionSettings = step.settings
    photos = read_table(table)
    found = read_candidates(candidates, photos.class_names)
    kept = _reviewed(settings, candidates, step.stage, found) if settings.rule == "reviewed" else ()
    chosen = set(choose(found, settings, step.seed, kept))
    log.info("%d of %d candidates are kept (rule %s)", len(chosen), len(found), settings.rule)
    if settings.limit is not None and len(chosen) < settings.limit:
        log.warning("selection.limit is %d, but the rule leaves only %d photos", settings.limit, len(chosen))
    records = [record for record in photos.records if record.id in chosen]
    with atomic_folder(pictures) as folder:
        if settings.rule == "erased":
            network = open_classifier(classifier, photos.class_names, execution.torch_device())
            by_id = {candidate.id: candidate for candidate in found}
            records = [_erase(r, by_id[r.id], network, settings, folder, pictures) for r in records]
    write_table(selected, ImageTable(photos.class_names, tuple(records)))


def _reviewed(settings: SelectionSettings, candidates: Path, stage: str, found: Sequence[Candidate]) -> set[str]:
    """Ids that the person kept; waits for the file as long as the settings allow."""
    key = f"{stage.replace('/', '.')}.selection"
    if settings.reviewed is None:
        raise UserError(
            f"{key}.reviewed: is missing; name the CSV that the review will be saved as, {key}.rule needs it"
        )
    path = Path(settings.reviewed)
    sheet = candidates.with_suffix(".html")
    ends = time.monotonic() + 60 * settings.wait_minutes
    if not path.exists() and settings.wait_minutes:
        log.info("waiting %g minutes for %s, the review of %s", settings.wait_minutes, path, sheet)
    while not path.exists() and time.monotonic() < ends:
        time.sleep(min(POLL_SECONDS, max(0.0, ends - time.monotonic())))
    if not path.exists():
        raise UserError(
            f"{stage} waits for a person: open {sheet} in a browser, drop the photos that show a class, press "
            f"'Save reviewed CSV' and move the saved file to {path} (or copy {candidates} to {path} and write 1 into "
            "the column keep beside every photo to keep); then run snakemake again"
        )
    return read_review(path, {candidate.id for candidate in found})


def _erase(
    record: ImageRecord,
    candidate: Candidate,
    network: CamNetwork,
    settings: SelectionSettings,
    folder: Path,
    final: Path,
) -> ImageRecord:
    """Write the photo without the regions of the classes it is taken for; the record of the written file."""
    image = read_record(record)
    found = cam_seed(
        network, with_long_side(image, settings.erase_long), confused(candidate, settings.threshold), CamSettings()
    )
    maps = replace(found, size=image.shape[:2]).full().cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(erased(image, maps, settings.erase_threshold)).save(buffer, format="PNG")
    name = mask_name(record.id)
    (folder / name).write_bytes(buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:32]
    return replace(record, path=str(final / name), digest=digest)
