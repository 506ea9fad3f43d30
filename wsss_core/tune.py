"""Thresholds of a stage tried on some photos of a run: shown beside each other and, where there are masks, scored."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from wsss_core.data.decoded import read_image_of
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.evaluate.confusion import mask_confusion, metrics
from wsss_core.evaluate.otsu import otsu_threshold
from wsss_core.jobs.run_files import Labels, RunFiles
from wsss_core.jobs.step import read_step
from wsss_core.pace import Clock
from wsss_core.refine import highest_label, mask_values
from wsss_core.refine.crf import CrfSettings, crf_mask
from wsss_core.report import overlays
from wsss_core.report.choose import sample
from wsss_core.report.tuning import Tried, TuningPage
from wsss_core.store.masks import mask_name, read_mask

log = logging.getLogger(__name__)

OTSU = "otsu"
LEVELS = {f"{percent / 100:.2f}": percent / 100 for percent in range(10, 65, 5)}
"""Thresholds that are tried, by the names of their columns; Otsu's of each photo is the last column."""

LONG_SIDE = 200
"""Longer side of the pictures, in pixels."""

Cut = Callable[[np.ndarray, Tensor, Sequence[int], float], np.ndarray]
"""From a photo, its maps [K, H, W], their classes and a threshold to labels, uint8 [H, W]."""


@dataclass(frozen=True)
class Scores:
    """How thresholds do on photos with masks.

    Attributes
    ----------
    miou
        Of each threshold, over all photos.
    best
        The threshold that is best over all of them.
    honest
        mIoU where every photo is cut at the threshold that is best on the others; None with a single photo.
    """

    miou: dict[str, float]
    best: str
    honest: float | None

    @property
    def advised(self) -> str:
        """The threshold to use: Otsu's, which no mask has chosen, unless the best does better on photos that did not
        choose it."""
        otsu = self.miou.get(OTSU, 0.0)
        return OTSU if self.honest is not None and otsu >= self.honest else self.best


def tune(files: RunFiles, name: str | None, masks: Path | None, count: int) -> TuningPage:
    """Try thresholds on photos of a run.

    Parameters
    ----------
    name
        A seed, or a refinement by the dense CRF; None: the last of the targets that is one.
    masks
        Folder of masks of some photos, uint8 PNGs named as the photos or by their ids: 0 background, c + 1 class c, 255
        undecided.
    count
        Photos shown: those with masks first, then others by a hash of their names.

    Raises
    ------
    UserError
        If there is no such stage or it has no threshold, the data has no background, the maps it stands on are not
        made, or no mask is that of a photo.
    """
    stage = _stage(files, name)
    if files.configuration.dataset.get("background") == "none":
        raise UserError("the data has no background (dataset.background), so there is no threshold to tune")
    found_seed = files.configuration.ancestor(stage, "seeds")
    assert found_seed is not None  # it is one, or the CRF of one
    seed = found_seed.name
    records = {record.id: record for record in files.table.split("train") if record.classes}
    targets = _targets(files, records, masks)
    others = [image_id for image_id in sample(sorted(records), count) if image_id not in targets]
    chosen = [*targets, *others[: max(0, count - len(targets))]]
    cut, reader = _cut(files, stage), Labels(files, files.shards("train"))
    photos, matrices = [], []
    clock = Clock("photo", len(chosen))
    for number, image_id in enumerate(chosen, 1):
        record = records[image_id]
        found = reader.maps(seed, image_id)
        if found is None:
            raise UserError(f"seed {seed}: its maps of image {image_id!r} are not made yet; run the workflow first")
        image = read_image_of(record, record.size)
        labels = _at_every_level(cut, image, *found)
        photos.append(_tried(files, record, image, labels, targets.get(image_id)))
        if image_id in targets:
            n_labels = len(files.labels)
            matrices.append(
                [mask_confusion(one, targets[image_id], n_labels, skip_ignored=False) for one in labels.values()]
            )
        pace = clock.pace(number, last=number == len(chosen))
        if pace:
            log.info("%s", pace)
    columns = [*LEVELS, OTSU]
    scores = scored(np.array(matrices), columns) if matrices else None
    section = files.stages[stage].section
    used = _used(files, stage)
    return TuningPage(
        files.configuration.run,
        stage,
        columns,
        photos,
        {} if scores is None else scores.miou,
        "" if scores is None else scores.best,
        _words(scores, used, len(matrices)),
        _setting(section, stage, scores.advised if scores else OTSU),
    )


def scored(matrices: np.ndarray, columns: Sequence[str]) -> Scores:
    """How thresholds do on photos with masks.

    Parameters
    ----------
    matrices
        Confusion matrices [N photos, T thresholds, L, L].

    Examples
    --------
    >>> good, bad = np.array([[9, 1], [1, 9]]), np.array([[5, 5], [5, 5]])
    >>> found = scored(np.array([[good, bad], [good, bad], [bad, bad]]), ["0.30", "0.60"])
    >>> found.best, round(found.miou["0.30"], 3), round(found.honest, 3)
    ('0.30', 0.622, 0.622)
    """
    total = matrices.sum(0)
    miou = metrics(total).mean("iou")
    apart = None
    if len(matrices) > 1:
        picked = [int(metrics(total - own).mean("iou").argmax()) for own in matrices]
        apart = float(metrics(sum(own[place] for own, place in zip(matrices, picked, strict=True))).mean("iou"))
    values = {column: float(value) for column, value in zip(columns, miou, strict=True)}
    return Scores(values, columns[int(miou.argmax())], apart)


def _stage(files: RunFiles, name: str | None) -> str:
    """The stage that is meant, if it has one threshold of maps of a seed."""
    able = [n for n, stage in files.stages.items() if stage.section == "seeds" or stage.method == "crf"]
    if name is None:
        targets = [n for n in able if n in files.configuration.targets]
        if not targets:
            raise UserError("no target of the run is a seed or a dense CRF, so there is no threshold to choose here")
        return targets[-1]
    if name not in able:
        raise UserError(f"{name}: is no seed and no dense CRF of the run; there are {', '.join(able) or 'none'}")
    return name


def _targets(files: RunFiles, records: dict[str, ImageRecord], masks: Path | None) -> dict[str, np.ndarray]:
    """Masks of photos, by their ids."""
    if masks is None:
        return {}
    if not masks.is_dir():
        raise UserError(f"{masks}: there is no such folder")
    found = {}
    for image_id, record in records.items():
        names = (mask_name(image_id), f"{Path(record.path).stem}.png", f"{Path(record.path).name}.png")
        path = next((masks / name for name in names if (masks / name).is_file()), None)
        if path is not None:
            found[image_id] = read_mask(path, record.size, len(files.labels))
    if not found:
        there = sorted(path.name for path in masks.iterdir())[:3]
        first = next(iter(records.values()), None)
        wanted = f", such as {Path(first.path).stem}.png," if first else ""
        raise UserError(f"{masks}: holds no mask of a tagged photo{wanted} but {', '.join(there) or 'nothing'}")
    return found


def _cut(files: RunFiles, stage: str) -> Cut:
    if files.stages[stage].section == "seeds":
        return lambda image, maps, classes, level: mask_values(highest_label(maps, level).numpy(), classes)
    config = files.run / "config" / files.stages[stage].section / stage / "masks.json"
    settings: CrfSettings = read_step(config).settings
    return lambda image, maps, classes, level: crf_mask(image, maps, classes, level, settings)


def _at_every_level(cut: Cut, image: np.ndarray, maps: Tensor, classes: Sequence[int]) -> dict[str, np.ndarray]:
    levels = LEVELS | {OTSU: otsu_threshold(maps)}
    return {column: cut(image, maps, classes, level) for column, level in levels.items()}


def _tried(
    files: RunFiles, record: ImageRecord, image: np.ndarray, labels: dict[str, np.ndarray], target: np.ndarray | None
) -> Tried:
    size = overlays.fitted(*record.size, LONG_SIDE)
    small = overlays.resized(image, size)

    def shown(mask: np.ndarray) -> str:
        return overlays.data_uri(overlays.mask_overlay(small, overlays.resized_labels(mask, size)), quality=70)

    return Tried(
        record.id,
        [files.table.class_names[c] for c in record.classes],
        overlays.data_uri(small, quality=70),
        None if target is None else shown(target),
        [shown(mask) for mask in labels.values()],
        [float((mask != 0).mean()) for mask in labels.values()],
    )


def _used(files: RunFiles, stage: str) -> str:
    """The threshold that the run uses, as the columns are called; "" if it is none of them."""
    settings = files.stages[stage].settings
    given = settings["scores"] if files.stages[stage].section == "seeds" else settings["masks"]
    value = OTSU if given.get("rule") == OTSU else given["threshold"]
    return value if isinstance(value, str) else f"{value:.2f}"


def _words(scores: Scores | None, used: str, count: int) -> list[str]:
    """What came out, in sentences."""
    if scores is None:
        return [
            "No masks were given, so nothing is scored: look for the column whose masks reach the objects' edges.",
            "Otsu's threshold, one for each photo, needs no masks, and is the place to start.",
        ]
    found = [f"On {count} masks {scores.best} is best, with a mean IoU of {100 * scores.miou[scores.best]:.1f} %."]
    if scores.honest is not None:
        found.append(
            f"Chosen on all but one photo and scored on that one, in turn, it is {100 * scores.honest:.1f} %: what to "
            "expect of other photos."
        )
    if scores.advised != scores.best:
        found.append(
            f"Otsu's threshold, one for each photo, has {100 * scores.miou[OTSU]:.1f} %, and no mask has chosen it: "
            "use it."
        )
    if used in scores.miou and used not in (scores.best, scores.advised):
        found.append(f"The run's own, {used}, has {100 * scores.miou[used]:.1f} %.")
    if count < 5:
        found.append("That is few masks: another one may move the best by much.")
    return found


def _setting(section: str, stage: str, best: str) -> str:
    """The line of a configuration that sets a threshold."""
    if section != "seeds":
        return f"{section}: {{{stage}: {{threshold: {best}}}}}"
    rule = "rule: otsu" if best == OTSU else f"threshold: {best}"
    return f"{section}: {{{stage}: {{score: {{{rule}}}}}}}"
