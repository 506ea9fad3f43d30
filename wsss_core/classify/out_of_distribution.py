"""Collection of hard out-of-distribution (OoD) photos: photos of none of the classes that a classifier takes for one.

Lee et al., "Weakly Supervised Semantic Segmentation using Out-of-Distribution Data", CVPR 2022 (Lee's dissertation,
sections 4.3.1 and 4.5). Candidates are ranked by p(c), the classifier's probability of their best class; those with
p(c) >= 0.5 for some class are hard. Among the hard ones are photos that do hold a class, so in the paper a person
looks through them and drops these. Its unattended alternatives (Table 4.6) are here too: photos drawn at random, hard
photos drawn at random, and these with the regions of their classes erased.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wsss_core import keyed
from wsss_core.data.augment import MEAN, normalise, resize, scaled_size
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.models.cam import CamNetwork
from wsss_core.settings import setting
from wsss_core.store.atomic import atomic_path

YES, NO = ("1", "1.0", "yes", "y", "true", "x"), ("0", "0.0", "no", "n", "false", "")
"""What the column `keep` of a reviewed file may say, in any case."""


@dataclass(frozen=True)
class CandidatesSettings:
    """Ranking of the photos of the role "ood" by the classifier that training starts from."""

    long_side: int | None = setting(
        500, "longer side that photos are resized to for the classifier, in pixels; null: as they are", minimum=32
    )
    shown: int = setting(
        1000, "photos on the contact sheet candidates.html, those with the highest p(c); the CSV lists all", minimum=1
    )
    thumbnail: int = setting(160, "longer side of a photo on the contact sheet, in pixels", minimum=16)


@dataclass(frozen=True)
class SelectionSettings:
    """Which candidates are trained on."""

    rule: Literal["hard", "reviewed", "random", "random_hard", "erased"] = setting(
        "hard",
        "hard: p(c) >= threshold for some class, the highest first; reviewed: those that a person kept, as in the "
        "paper; random: any; random_hard: hard ones drawn at random; erased: the same, the regions of their classes "
        "erased",
    )
    threshold: float = setting(
        0.5, "photos with p(c) from here on are hard (hard, random_hard, erased)", minimum=0, maximum=1
    )
    limit: int | None = setting(None, "photos at most; null: all that the rule allows", minimum=1)
    limit_per_class: int | None = setting(
        None,
        "photos at most of each class that they are taken for, the one with their highest p(c), as Fig. 4.5 counts "
        "them; null: no such limit",
        minimum=1,
    )
    draw: int = setting(
        0, "another number, another random subset (all rules but hard, with a limit of either kind)", minimum=0
    )
    reviewed: str | None = setting(
        None, "rule reviewed: CSV with the columns id and keep that the reviewing person saves"
    )
    wait_minutes: float = setting(
        0.0, "rule reviewed: wait this long for the CSV to appear, before stopping with a message", minimum=0
    )
    erase_threshold: float = setting(
        0.2,
        "rule erased: pixels are erased where a map, divided by its maximum, exceeds this; the paper gives no value, "
        "this is the one at which CAM's authors cut objects out",
        minimum=0,
        maximum=1,
    )
    erase_long: int | None = setting(
        500,
        "rule erased: longer side that photos are resized to for these maps, in pixels, as for p(c) of the candidates; "
        "null: as they are",
        minimum=32,
    )


@dataclass(frozen=True)
class Candidate:
    """One photo and the probabilities of all C classes."""

    id: str
    path: str
    probabilities: tuple[float, ...]

    @property
    def best(self) -> int:
        """The most probable class."""
        return max(range(len(self.probabilities)), key=self.probabilities.__getitem__)

    @property
    def probability(self) -> float:
        """p(c) of the most probable class."""
        return max(self.probabilities)


def require_photos(records: Sequence[ImageRecord]) -> None:
    """Raise UserError if there are no OoD photos; it says how to add some."""
    if not records:
        raise UserError(
            "dataset.ood: there are no photos of the role 'ood', and W-OoD learns from photos that hold none of the "
            "classes; name lists or folders of such photos, for example `ood: [background]` "
            "(of the demo data: `background: 30`)"
        )


def require_plain(network: CamNetwork) -> None:
    """Raise UserError if a classifier is not of the architecture "cam", which W-OoD trains."""
    if network.architecture != "cam":
        raise UserError(
            f"init: names a classifier of the architecture {network.architecture!r}; W-OoD goes on with a plain one, "
            "such as the objective bce trains"
        )


def with_long_side(image: np.ndarray, long_side: int | None) -> np.ndarray:
    """An image, uint8 [H, W, 3], resized by its longer side; None leaves it as it is."""
    if long_side is None:
        return image
    return resize(image, scaled_size(image.shape[:2], long_side / max(image.shape[:2])))


def network_input(network: CamNetwork, image: np.ndarray, long_side: int | None) -> Tensor:
    """An image, uint8 [H, W, 3], resized by its longer side and normalised: [1, 3, H', W'] on the network's device."""
    pixels = torch.from_numpy(normalise(with_long_side(image, long_side)))
    return pixels[None].to(network.classifier.weight.device)


@torch.no_grad()
def probabilities(network: CamNetwork, image: np.ndarray, long_side: int | None) -> tuple[float, ...]:
    """p(c) of all C classes for an image, uint8 [H, W, 3]."""
    return tuple(network(network_input(network, image, long_side))[0].sigmoid().tolist())


def ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The highest p(c) first, equal ones by id."""
    return sorted(candidates, key=lambda candidate: (-candidate.probability, candidate.id))


def write_candidates(path: Path, candidates: Sequence[Candidate], class_names: Sequence[str]) -> None:
    """Write `candidates.csv`, in the given order, with an empty column `keep` for the review."""
    head = ["keep", "rank", "id", "path", "class", "probability", *(f"p({name})" for name in class_names)]
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(head)
        for rank, candidate in enumerate(candidates, 1):
            values = [f"{p:.6f}" for p in candidate.probabilities]
            best = candidate.best
            writer.writerow(["", rank, candidate.id, candidate.path, class_names[best], values[best], *values])


def read_candidates(path: Path, class_names: Sequence[str]) -> list[Candidate]:
    """Read `candidates.csv`; probabilities are rounded to six digits.

    Raises
    ------
    UserError
        If the file is missing or is no such file for these classes.
    """
    columns = [f"p({name})" for name in class_names]
    rows, head = _rows(path)
    if not {"id", "path", *columns} <= set(head):
        raise UserError(f"{path}: is not a list of candidates for these classes")
    return [Candidate(row["id"], row["path"], tuple(float(row[name]) for name in columns)) for row in rows]


def read_review(path: Path, ids: Collection[str]) -> set[str]:
    """Ids of the photos that a person kept.

    Parameters
    ----------
    path
        CSV with the columns ``id`` and ``keep`` (1 or yes; 0, no or nothing), others are ignored. Photos without a
        row are not kept.
    ids
        All candidates.

    Raises
    ------
    UserError
        If a column is missing, a row names no candidate or says neither yes nor no, or nothing is kept.
    """
    rows, head = _rows(path)
    missing = [column for column in ("id", "keep") if column not in head]
    if missing:
        raise UserError(
            f"{path}: its first line must name the columns id and keep, found {', '.join(head) or 'nothing'}"
        )
    kept = set()
    for number, row in enumerate(rows, 2):
        name, word = (row["id"] or "").strip(), (row["keep"] or "").strip().lower()
        if not name and not word:
            continue  # spreadsheets write rows of nothing but commas
        if name not in ids:
            raise UserError(f"{path}, row {number}: {name!r} is not the id of a candidate")
        if word not in (*YES, *NO):
            raise UserError(f"{path}, row {number}: keep is {row['keep']!r}; allowed: 1 or yes, 0 or no or nothing")
        if word in YES:
            kept.add(name)
    if not kept:
        raise UserError(
            f"{path}: the column keep says yes to no photo; write 1 beside those that hold none of the classes"
        )
    return kept


def _rows(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Rows and column names of a CSV; spreadsheets may have changed its commas to semicolons or tabs."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    reader = csv.DictReader(lines, delimiter=delimiter)
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        return list(reader), list(reader.fieldnames)
    except csv.Error as error:
        raise UserError(f"{path}: is not a table ({error})") from error


def choose(
    candidates: Sequence[Candidate], settings: SelectionSettings, seed: int, kept: Collection[str] = ()
) -> list[str]:
    """Ids of the photos to train on.

    Random subsets are the first of an order that is keyed by (seed, draw, id): a smaller limit keeps a subset of what
    a larger one keeps, an added photo moves no other, and stages that differ in other settings train on the same.

    Parameters
    ----------
    candidates
        All photos, the highest p(c) first.
    kept
        Ids that a person kept, for the rule "reviewed".

    Raises
    ------
    UserError
        If nothing is left.
    """
    hard = [c for c in candidates if c.probability >= settings.threshold]
    pools = {"random": candidates, "reviewed": [c for c in candidates if c.id in kept]}
    pool = pools.get(settings.rule, hard)
    if not pool:
        highest = max(c.probability for c in candidates)
        raise UserError(
            f"selection.threshold: no photo of {len(candidates)} has p(c) >= {settings.threshold:g} for a class, the "
            f"highest is {highest:.3f}; lower the threshold, or set selection.rule to random"
        )
    if settings.rule != "hard":
        pool = sorted(pool, key=lambda c: keyed.key_bytes(seed, "ood", settings.draw, c.id))
    if settings.limit_per_class is not None:
        pool = first_of_each_class(pool, settings.limit_per_class)
    return [c.id for c in pool[: settings.limit]]


def first_of_each_class(candidates: Sequence[Candidate], limit: int) -> list[Candidate]:
    """The candidates without those that come after `limit` others of the same best class; their order is kept."""
    seen: Counter[int] = Counter()
    kept = []
    for candidate in candidates:
        seen[candidate.best] += 1
        if seen[candidate.best] <= limit:
            kept.append(candidate)
    return kept


def confused(candidate: Candidate, threshold: float) -> list[int]:
    """Classes with p(c) >= threshold, 0-based."""
    return [c for c, p in enumerate(candidate.probabilities) if p >= threshold]


def erased(image: np.ndarray, maps: np.ndarray, threshold: float) -> np.ndarray:
    """The image with the regions of its classes in the mean colour, which a classifier sees as zeros.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    maps
        Class activation maps [K, H, W], each divided by its maximum.
    threshold
        A pixel is erased where any of the maps exceeds this.
    """
    erased = image.copy()
    erased[(maps > threshold).any(0)] = np.round(255 * np.array(MEAN)).astype(np.uint8)
    return erased
