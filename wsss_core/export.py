"""What a stage has made, for other programs: what `wsss export` does."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wsss_core.data.table import ImageTable, read_table
from wsss_core.errors import UserError
from wsss_core.exchange import Form, Labelled, SoftForm, SoftMaps, photo_names, write_names
from wsss_core.jobs.shard_names import shard_names
from wsss_core.registry import FORMS, SOFT_FORMS
from wsss_core.store.masks import copy_mask, mask_name, read_mask
from wsss_core.store.scores import SCORES
from wsss_core.store.seeds import SEEDS
from wsss_core.store.shards import RecordStore

PNG = "png"
"""The form that masks have in a run already."""
TABLE = "dataset/images.csv"
"""The images of a run, from its folder."""


def export(folder: Path, out: Path, form: str) -> str:
    """Write what lies in a folder of shards in the form of another program.

    Parameters
    ----------
    folder
        ``masks``, ``predictions``, ``maps`` or ``scores`` of a stage in a run's folder.
    out
        Folder to write into.
    form
        "png", or one of `FORMS`, for masks and predictions; one of `SOFT_FORMS` for maps and scores.

    Returns
    -------
    What was written, in one line.

    Raises
    ------
    UserError
        If there is nothing of the kind, or not all of it yet, the run has no table of images, or a file of somebody
        else would be replaced.
    """
    run = folder.resolve() / "../../.."
    dealt = shard_names(run, "val" if folder.name == "predictions" else "train")
    soft = _made([folder / f"{name}.h5" for name in dealt]) or sorted(folder.glob("[0-9]*-of-*.h5"))
    if soft:
        if form not in SOFT_FORMS:
            raise UserError(f"{folder}: holds maps, not masks; --format {', '.join(SOFT_FORMS)} is for these")
        return _written_maps(soft, out, form, _table(run))
    folders = _made([folder / name for name in dealt]) or sorted(folder.glob("[0-9]*-of-*"))
    masks = {path.name: path for one in folders for path in sorted(one.glob("*.png"))}
    if not masks:
        raise UserError(f"{folder}: holds no shard folders with masks")
    if form in SOFT_FORMS:
        raise UserError(f"{folder}: holds masks, not maps; --format {', '.join([PNG, *FORMS])} is for these")
    if form == PNG:
        return _copied(masks, out, _table(run) if (run / TABLE).exists() else None)
    table = _table(run)
    made: Form = importlib.import_module(f"wsss_core.exchange.{form}")
    made.write(out, _labelled(table, masks), table.class_names)
    return f"{len(masks)} photos and their masks as {form} in {out}"


def _made(shards: list[Path]) -> list[Path]:
    """The shards if all are made, none if none is."""
    missing = [path for path in shards if not path.exists()]
    if missing and len(missing) < len(shards):
        raise UserError(f"{missing[0]}: is not made yet, as {len(missing) - 1} others of {len(shards)}; finish the run")
    return [] if missing else shards


def _table(run: Path) -> ImageTable:
    return read_table(run.resolve() / TABLE)


def _copied(masks: dict[str, Path], out: Path, table: ImageTable | None) -> str:
    """Copies of masks, and the names of their labels where the run has them."""
    if table is not None:
        write_names(out, table.class_names)
    for name, path in masks.items():
        copy_mask(path, out / name)
    return f"{len(masks)} masks in {out}"


def _labelled(table: ImageTable, masks: dict[str, Path]) -> Iterator[Labelled]:
    records = [record for record in table.records if mask_name(record.id) in masks]
    names = photo_names(records)
    for record in records:
        labels = read_mask(masks[mask_name(record.id)], record.size, len(table.class_names) + 1)
        yield Labelled(*names[record.id], Path(record.path), labels)


def _written_maps(shards: list[Path], out: Path, form: str, table: ImageTable) -> str:
    made: SoftForm = importlib.import_module(f"wsss_core.exchange.{form}")
    names = photo_names(table.records)
    stems = {record.id: names[record.id][1] for record in table.records}
    count = 0
    for shard in shards:
        store: RecordStore = RecordStore(shard, SEEDS, SCORES)
        for image_id, record in store.items():
            full = record.full().numpy()
            values = np.clip(np.round(255 * full), 0, 255).astype(np.uint8)
            made.write(out, SoftMaps(stems[image_id], [table.class_names[c] for c in record.classes], values))
            count += 1
    return f"maps of {count} photos as {form} in {out}"
