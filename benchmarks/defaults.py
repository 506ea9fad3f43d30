"""How good masks from default settings are where photos are few, against settings chosen with the true masks.

    python -m benchmarks.defaults PHOTOS WEIGHTS TABLE.csv [--sizes N ...] [--draws N]

PHOTOS is a folder in VOC's layout with ``labels.csv`` (image,labels), ``classes.txt`` and a list ``background`` of
photos without any class; WEIGHTS is torchvision's MobileNetV2. Every row of the table is one draw of photos, whose ids
decide by a hash what is drawn. Rows that the table holds already are not computed again.

With --signs a second table, TABLE.signs.csv, has the signs of health of every training, also of some that are too
short, and what its maps scored.

"Default" is what a configuration with nothing but the data, the backbone and the weights gives, at the sizes of crops
that suit the photos, with Otsu's thresholds. "Tuned" is the best in hindsight, on the masks that are scored: of
`CANDIDATES` and of all thresholds of the maps, then for the CRF of `CRF_THRESHOLDS`.
"""

from __future__ import annotations

import argparse
import csv
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from wsss_core import keyed, training
from wsss_core.classify import bce
from wsss_core.classify.tag_scores import Tried, folds_of, tag_scores, try_image
from wsss_core.data.augment import multi_hot, normalise
from wsss_core.data.decode import read_image
from wsss_core.data.table import ImageRecord, ImageTable
from wsss_core.evaluate.confusion import mask_confusion, metrics
from wsss_core.evaluate.health import above_chance
from wsss_core.evaluate.mask_signs import mask_signs
from wsss_core.evaluate.otsu import otsu_threshold
from wsss_core.evaluate.sweep import ScoresSettings
from wsss_core.evaluate.thresholds import score_thresholds
from wsss_core.execution import Execution
from wsss_core.models.backbones import load_weights
from wsss_core.models.cam import CamNetwork
from wsss_core.refine import highest_label, mask_values
from wsss_core.refine.crf import CrfSettings, crf_mask
from wsss_core.seeds.cam import CamSettings, cam_seed
from wsss_core.store.masks import read_mask
from wsss_core.store.seeds import SeedMaps

DEFAULT = bce.BceSettings(backbone="mobilenet_v2", long_side=(224, 352), crop=256)
TOO_SHORT = "3 epochs at 0.1"
CANDIDATES = {
    "default": DEFAULT,
    "12 epochs at 1.0": replace(DEFAULT, epochs=12, learning_rate=0.1, classifier_rate=10.0),
    "30 epochs at 1.0": replace(DEFAULT, epochs=30, learning_rate=0.1, classifier_rate=10.0),
}
"""Trainings of the classifier; all keep the backbone's weights."""

POOR = {TOO_SHORT: replace(DEFAULT, epochs=3), "1 epoch at 0.1": replace(DEFAULT, epochs=1)}
"""Trainings that are too short, for the signs of health alone."""

CRF_THRESHOLDS = (0.3, 0.4, 0.5, 0.6)
"""Thresholds of the CRF, beside Otsu's, of which the best in hindsight is taken."""

PAIRS = (("cow", "car"), ("bird", "cat"), ("sheep", "aeroplane"))
SINGLE = ("cow", "car", "flower")
"""Classes of the draws with two classes, and with one against photos without it."""

SIZES = (14, 30, 60, 150, 295)
SIGNS = ("precision", "unseen", "zero_maps", "empty", "kept", "coverage", "pieces", "agreement")
COLUMNS = ("task", "photos", "draw", "scored", "cam", "cam_tuned", "crf", "crf_tuned", "tuned_training", "tuned_crf")


@dataclass(frozen=True)
class Photo:
    """A photo with the names of its classes; `mask` is None where nothing is known of its pixels."""

    id: str
    path: Path
    tags: tuple[str, ...]
    mask: Path | None


@dataclass(frozen=True)
class Cell:
    """One draw of photos and the classes that are learned."""

    task: str
    draw: int
    photos: tuple[Photo, ...]
    classes: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells its row apart."""
        return self.task, str(len(self.photos)), str(self.draw)


def read_photos(root: Path) -> tuple[list[Photo], tuple[str, ...]]:
    """All photos for training and those without any class, and the names of the classes."""
    with open(root / "labels.csv", newline="") as handle:
        tags = {Path(row["image"]).stem: tuple(row["labels"].split()) for row in csv.DictReader(handle)}
    classes = tuple((root / "classes.txt").read_text().split()[1:])
    photos = []
    for name in ("train", "background"):
        for image_id in (root / f"ImageSets/Segmentation/{name}.txt").read_text().split():
            mask = root / f"SegmentationClass/{image_id}.png"
            path = root / f"JPEGImages/{image_id}.jpg"
            photos.append(Photo(image_id, path, tags.get(image_id, ()), mask if name == "train" else None))
    return photos, classes


def cells(photos: Sequence[Photo], classes: Sequence[str], sizes: Sequence[int], draws: int) -> Iterator[Cell]:
    """The draws of all tasks that there are enough photos for, small ones first."""
    tagged = [photo for photo in photos if photo.mask]
    empty = [photo for photo in photos if not photo.mask]
    for size in sizes:
        for draw in range(draws if size < len(tagged) else 1):
            if size <= len(tagged):
                yield Cell("all classes", draw, tuple(drawn(tagged, size, draw)), tuple(classes))
        for draw, pair in enumerate(PAIRS[:draws]):
            among = [photo for photo in tagged if set(pair) & set(photo.tags)]
            if size <= len(among):
                yield Cell("two classes", draw, tuple(drawn(among, size, draw)), pair)
        for draw, name in enumerate(SINGLE[:draws]):
            with_it = [photo for photo in tagged if name in photo.tags]
            if size // 2 <= min(len(with_it), len(empty)):
                both = drawn(with_it, size // 2, draw) + drawn(empty, size - size // 2, draw)
                yield Cell("one class, half without", draw, tuple(both), (name,))


def drawn(photos: Sequence[Photo], count: int, draw: int) -> list[Photo]:
    """Some of the photos, by a hash of their ids."""
    return sorted(photos, key=lambda photo: keyed.key_bytes("draw", draw, photo.id))[:count]


def measure(
    cell: Cell,
    weights: Mapping[str, torch.Tensor],
    known: Sequence[str],
    tell: Callable[[dict[str, object]], None] | None,
) -> dict[str, object]:
    """The row of a cell; `known` are the names of all classes in the masks, `tell` gets the signs of every training."""
    table = _table(cell)
    scored = {photo.id: photo for photo in cell.photos if photo.mask}
    truth = {image_id: _truth(photo, cell.classes, known) for image_id, photo in scored.items()}
    maps: dict[str, dict[str, SeedMaps]] = {}
    found = {}
    for name, settings in (CANDIDATES | (POOR if tell else {})).items():
        network = _trained(settings, table, weights)
        maps[name] = _maps(network, [record for record in table.records if record.id in scored])
        pairs = _pairs(maps[name], truth)
        one = score_thresholds(pairs, [], list(scored), ScoresSettings(rule="otsu"), len(cell.classes) + 1)
        if name in CANDIDATES:
            found[name] = one
        if tell:
            tell({"training": name, **_signs(cell, network, table, maps[name]), "cam": _miou(one.at_chosen)})
    hindsight = {name: max(one.miou(one.best), _miou(one.at_chosen)) for name, one in found.items()}
    best = max(hindsight, key=hindsight.__getitem__)
    crf = {
        (name, threshold): _crf_miou(cell, maps[name], truth, threshold)
        for name, threshold in dict.fromkeys(
            [("default", None), (best, None), *((best, threshold) for threshold in CRF_THRESHOLDS)]
        )
    }
    chosen = max(crf, key=crf.__getitem__)
    return {
        "task": cell.task,
        "photos": len(cell.photos),
        "draw": cell.draw,
        "scored": len(scored),
        "cam": _miou(found["default"].at_chosen),
        "cam_tuned": hindsight[best],
        "crf": crf["default", None],
        "crf_tuned": crf[chosen],
        "tuned_training": best,
        "tuned_crf": "otsu" if chosen[1] is None else chosen[1],
    }


def _table(cell: Cell) -> ImageTable:
    records = []
    for photo in sorted(cell.photos, key=lambda photo: photo.id):
        height, width = read_image(photo.path).shape[:2]
        tags = tuple(sorted(cell.classes.index(tag) for tag in photo.tags if tag in cell.classes))
        records.append(ImageRecord(photo.id, str(photo.path), height, width, ("train",), tags))
    return ImageTable(cell.classes, tuple(records))


def _truth(photo: Photo, classes: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """The true mask in the numbers of `classes`; other classes are background."""
    assert photo.mask is not None
    numbers = np.zeros(256, dtype=np.uint8)
    numbers[255] = 255
    for number, name in enumerate(classes):
        numbers[1 + known.index(name)] = 1 + number
    return numbers[read_mask(photo.mask)]


def _trained(settings: bce.BceSettings, table: ImageTable, weights: Mapping[str, torch.Tensor]) -> CamNetwork:
    torch.manual_seed(keyed.integer(0, "classifiers/bce", "initial weights"))
    plan = bce.plan(settings, training.Inputs(table, weights, 0, "classifiers/bce"))
    plan.network.train()
    training.fit(plan.network, plan.batches, plan.loss, plan.optimizer, plan.rate, seed=0, execution=Execution())
    assert isinstance(plan.network, CamNetwork)
    return plan.network.eval()


def _maps(network: CamNetwork, records: Sequence[ImageRecord]) -> dict[str, SeedMaps]:
    return {r.id: cam_seed(network, read_image(Path(r.path)), r.classes, CamSettings()) for r in records}


def _pairs(maps: Mapping[str, SeedMaps], truth: Mapping[str, np.ndarray]) -> Callable[[Sequence[str]], Iterator]:
    return lambda image_ids: ((maps[image_id], truth[image_id]) for image_id in image_ids)


def _signs(cell: Cell, network: CamNetwork, table: ImageTable, maps: Mapping[str, SeedMaps]) -> dict[str, float | None]:
    """The signs of a classifier and of its masks at Otsu's thresholds; agreement is that with their CRF."""
    parts = [try_image(network, torch.from_numpy(normalise(read_image(Path(r.path))))[None]) for r in table.records]
    tried = Tried(*(torch.stack(part).numpy() for part in zip(*parts, strict=True)))
    labels = multi_hot([record.classes for record in table.records], len(cell.classes)).numpy().astype(bool)
    signs = tag_scores(tried, labels, cell.classes, folds_of([r.id for r in table.records], 5)).values()
    masks = []
    paths = {photo.id: photo.path for photo in cell.photos}
    for image_id, one in maps.items():
        full = one.full()
        level = otsu_threshold(full)
        cut = mask_values(highest_label(full, level), one.classes)
        masks.append((crf_mask(read_image(paths[image_id]), full, one.classes, level, CrfSettings()), one.classes, cut))
    look = mask_signs(masks, len(cell.classes))
    assert look is not None
    tags = sum(one["images"] for one in signs)
    ways = {
        key: [above_chance(one[key], one["chance"]) for one in signs if one[key] is not None]
        for key in ("precision", "unseen")
    }
    return {
        **{key: float(np.mean(values)) if values else None for key, values in ways.items()},
        "zero_maps": sum(one["zero_maps"] * one["images"] for one in signs if one["images"]) / tags,
        "empty": look.empty,
        "kept": look.kept,
        "coverage": float(np.mean([value for value in look.coverage if value is not None])),
        "pieces": float(np.mean([value for value in look.pieces if value is not None])),
        "agreement": look.agreement,
    }


def _crf_miou(
    cell: Cell, maps: Mapping[str, SeedMaps], truth: Mapping[str, np.ndarray], threshold: float | None
) -> float:
    paths = {photo.id: photo.path for photo in cell.photos}
    total = np.zeros((len(cell.classes) + 1,) * 2, dtype=np.int64)
    for image_id, one in maps.items():
        full = one.full()
        level = otsu_threshold(full) if threshold is None else threshold
        mask = crf_mask(read_image(paths[image_id]), full, one.classes, level, CrfSettings())
        total += mask_confusion(mask, truth[image_id], len(total), skip_ignored=False)
    return _miou(metrics(total))


def _miou(scores: object) -> float:
    return round(float(scores.mean("iou")), 4)  # type: ignore[attr-defined]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.defaults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS")
    parser.add_argument("table", type=Path, metavar="TABLE.csv")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of photos (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=3, help="draws of each (default: %(default)s)")
    parser.add_argument("--signs", action="store_true", help="also write the signs of health")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    photos, classes = read_photos(options.photos)
    done = set()
    if options.table.exists():
        with open(options.table, newline="") as handle:
            done = {(row["task"], row["photos"], row["draw"]) for row in csv.DictReader(handle)}
    weights = load_weights(options.weights)
    signs = options.table.with_suffix(".signs.csv")
    with open(options.table, "a", newline="") as handle, open(signs, "a", newline="") as signs_handle:
        writer = csv.DictWriter(handle, COLUMNS)
        signs_writer = csv.DictWriter(signs_handle, ("task", "photos", "draw", "training", *SIGNS, "cam"))
        if not handle.tell():
            writer.writeheader()
        if not signs_handle.tell():
            signs_writer.writeheader()
        for cell in cells(photos, classes, options.sizes, options.draws):
            if cell.key not in done:
                start = time.process_time()
                which = dict(zip(("task", "photos", "draw"), cell.key, strict=True))

                def tell(signs: dict[str, object], which: dict[str, str] = which) -> None:
                    signs_writer.writerow(which | signs)
                    signs_handle.flush()

                row = measure(cell, weights, classes, tell if options.signs else None)
                writer.writerow(row)
                handle.flush()
                print(*row.values(), f"{time.process_time() - start:.0f} CPU s", flush=True)


if __name__ == "__main__":
    main()
