"""Rank out-of-distribution photos by what a classifier takes them for."""

from __future__ import annotations

import logging
from pathlib import Path

from wsss_core.classify.contact_sheet import Shown, contact_sheet, thumbnail
from wsss_core.classify.out_of_distribution import (
    Candidate,
    CandidatesSettings,
    probabilities,
    ranked,
    require_photos,
    require_plain,
    write_candidates,
)
from wsss_core.data.decoded import read_record
from wsss_core.data.table import read_table
from wsss_core.execution import Execution
from wsss_core.jobs.classifier import open_classifier
from wsss_core.jobs.step import read_step
from wsss_core.store.atomic import write_text

log = logging.getLogger(__name__)


def run(*, config: Path, table: Path, classifier: Path, candidates: Path, sheet: Path, execution: Execution) -> None:
    """Write `candidates.csv` and the contact sheet for the person who reviews it.

    Parameters
    ----------
    config
        Settings file of the step.
    table
        Image table of the role "ood".
    classifier
        Checkpoint of the classifier that training starts from.
    candidates
        CSV to write, of all photos.
    sheet
        HTML page to write, of the first of them.

    Raises
    ------
    UserError
        If there are no photos, one cannot be read, or the classifier is for other classes or not a plain one.
    """
    step = read_step(config)
    settings: CandidatesSettings = step.settings
    photos = read_table(table)
    require_photos(photos.records)
    network = open_classifier(classifier, photos.class_names, execution.torch_device())
    require_plain(network)
    records = {record.id: record for record in photos.records}
    found = ranked(
        [
            Candidate(record.id, record.path, probabilities(network, read_record(record), settings.long_side))
            for record in photos.records
        ]
    )
    log.info("%d candidates, %d with p(c) >= 0.5", len(found), sum(c.probability >= 0.5 for c in found))
    write_candidates(candidates, found, photos.class_names)
    shown = [
        Shown(
            candidate.id,
            photos.class_names[candidate.best],
            candidate.probability,
            thumbnail(read_record(records[candidate.id]), settings.thumbnail),
        )
        for candidate in found[: settings.shown]
    ]
    title = f"Out-of-distribution candidates of {step.stage}"
    write_text(sheet, contact_sheet(title, shown, len(found), photos.class_names))
