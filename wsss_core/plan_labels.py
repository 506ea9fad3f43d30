"""What the next hour of labelling should be spent on: scores of finished runs against what their labels cost.

Every image that a network learns from, directly or by what it is built on, costs the time of its dearest label: a true
mask contains a box, and a box a tag. The seconds are those that J. Lee's dissertation (table 2.1) gives for an image of
PASCAL VOC. With h_k the hours that went into labels of the kind k, scores are fitted by least squares with::

    mIoU = b_0 + sum_k b_k log(1 + h_k),    b >= 0

so that every kind pays less the more there is of it, and the next hour of kind k is worth b_k / (1 + h_k). That is a
straight ruler on few points: it says which kind to try next, not what will come out.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from wsss_core.config.graph import reached
from wsss_core.constants import MEAN_ROW
from wsss_core.errors import UserError
from wsss_core.evaluate.figures import FigureSettings, Series
from wsss_core.evaluate.labelled import is_labelled
from wsss_core.evaluate.tables import read_evaluation
from wsss_core.jobs.run_files import RunFiles
from wsss_core.report.figures import figure_svg

SECONDS = {"tags": 20.0, "boxes": 38.1, "masks": 239.7}
"""Time to label an image of VOC, by the kind of its dearest label (Lee's dissertation, table 2.1)."""
TITLE = "Scores over hours of labelling"
"""Heading of the figure."""


@dataclass(frozen=True)
class Learned:
    """One network and what it learned from.

    Attributes
    ----------
    run, stage
        Where it is found.
    images
        Kind of label to the number of training images of which it is the dearest that is used.
    miou
        On images that no training sees, in [0, 1].
    """

    run: str
    stage: str
    images: Mapping[str, int]
    miou: float

    def hours(self, seconds: Mapping[str, float]) -> dict[str, float]:
        """Hours of labelling by kind.

        Examples
        --------
        >>> Learned("a", "b", {"tags": 180, "boxes": 0, "masks": 15}, 0.5).hours(SECONDS)
        {'tags': 1.0, 'boxes': 0.0, 'masks': 0.99875}
        """
        return {kind: self.images[kind] * seconds[kind] / 3600 for kind in seconds}


@dataclass(frozen=True)
class Plan:
    """What labels of each kind were worth.

    Attributes
    ----------
    base
        mIoU without labels, as the fit has it.
    worth
        Kind to b_k of the fit; 0 where more of it did not help, or no run differs in it.
    next_hour
        Kind to what the next hour of it is worth, in mIoU, from where the best network stands.
    error
        Root of the mean square of what the fit misses.
    """

    base: float
    worth: Mapping[str, float]
    next_hour: Mapping[str, float]
    error: float

    @property
    def sentences(self) -> str:
        """The plan in words."""
        worth = ", ".join(f"{kind} {100 * value:+.2f}" for kind, value in self.next_hour.items())
        advice = f"Spend it on {self.advice}." if self.advice else "None of them has helped so far."
        return (
            f"The next hour is worth, in points of mIoU: {worth} (the fit misses the scores by {100 * self.error:.1f} "
            f"points). {advice}"
        )

    @property
    def advice(self) -> str:
        """The kind whose next hour is worth the most; "" if none is worth anything."""
        best = max(self.next_hour, key=lambda kind: self.next_hour[kind])
        return best if self.next_hour[best] > 0 else ""


def learned_of(files: RunFiles) -> list[Learned]:
    """The networks of a run that are scored on images that no training sees."""
    configuration = files.configuration
    above = {name: stage.upstream.values() for name, stage in files.stages.items()}
    found = []
    for name in files.having("segmentations", "evaluation.csv"):
        mean = read_evaluation(files.folder(name) / "evaluation.csv").rows.get(MEAN_ROW)
        if mean is None:
            continue
        sections = {files.stages[up].section for up in reached([name], above)}
        shares = configuration.truths_of(name).values()
        counts = dict.fromkeys(SECONDS, 0)
        for record in files.table.split("train"):
            if any(is_labelled(record.id, share, draw) for share, draw in shares):
                counts["masks"] += 1
            elif record.boxes and sections & {"instances", "detectors"}:
                counts["boxes"] += 1
            elif "classifiers" in sections:
                counts["tags"] += 1
        found.append(Learned(configuration.run, name, counts, mean["iou"]))
    return found


def plan(networks: Sequence[Learned], seconds: Mapping[str, float] = SECONDS) -> Plan:
    """What labels of each kind were worth to some networks.

    Raises
    ------
    UserError
        If there are too few networks of different labels to tell.

    Examples
    --------
    >>> runs = [Learned("r", f"{n}", {"tags": 720, "boxes": 0, "masks": n}, 0.4 + 0.1 * n / 60) for n in (0, 30, 60)]
    >>> plan(runs).advice
    'masks'
    """
    hours = np.array([[network.hours(seconds)[kind] for kind in seconds] for network in networks])
    different = len({tuple(row) for row in hours.tolist()})
    varied = [k for k in range(len(seconds)) if networks and np.ptp(hours[:, k]) > 0]
    if different < len(varied) + 1 or not varied:
        raise UserError(
            f"{different} networks that learned from different labels are too few to tell what {max(1, len(varied))} "
            "kinds of labels are worth: take more runs, with other shares of boxes (dataset.box_share) and of true "
            "masks (refinements, method truth, images)"
        )
    scores = np.array([network.miou for network in networks])
    design = np.column_stack([np.ones(len(networks)), np.log1p(hours[:, varied])])
    weights, missed = nnls(design, scores)
    kinds = list(seconds)
    worth = dict.fromkeys(kinds, 0.0) | {kinds[k]: float(w) for k, w in zip(varied, weights[1:], strict=True)}
    best = hours[int(scores.argmax())]
    return Plan(
        float(weights[0]),
        worth,
        {kind: worth[kind] / (1 + float(best[k])) for k, kind in enumerate(kinds)},
        float(missed) / math.sqrt(len(networks)),
    )


def seconds_of(words: Sequence[str]) -> dict[str, float]:
    """`SECONDS`, some of them replaced as words say.

    Raises
    ------
    UserError
        If a word is not of the form KIND=N with N > 0.

    Examples
    --------
    >>> seconds_of(["boxes=7"])
    {'tags': 20.0, 'boxes': 7.0, 'masks': 239.7}
    """
    found = dict(SECONDS)
    for word in words:
        kind, _, value = word.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if kind not in SECONDS or not 0 < number < math.inf:
            raise UserError(f"--seconds {word}: give {', '.join(f'{name}=N' for name in SECONDS)} with N > 0")
        found[kind] = number
    return found


def csv_text(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows of a table as CSV."""
    written = io.StringIO()
    writer = csv.DictWriter(written, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue()


def text(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows of a table as columns for a terminal."""
    columns = list(rows[0])
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in columns}
    lines = [dict(zip(columns, columns, strict=True)), *rows]
    return "\n".join("  ".join(line[column].ljust(widths[column]) for column in columns).rstrip() for line in lines)


def figure(networks: Sequence[Learned], seconds: Mapping[str, float] = SECONDS) -> str:
    """mIoU over the hours of labelling, a line a stage, as the text of an SVG file."""
    lines = [
        Series(stage, tuple((round(sum(n.hours(seconds).values()), 2), n.miou) for n in networks if n.stage == stage))
        for stage in dict.fromkeys(network.stage for network in networks)
    ]
    return figure_svg(FigureSettings(name="labels", x="hours of labelling", title=TITLE), lines)


def table(networks: Sequence[Learned], seconds: Mapping[str, float] = SECONDS) -> list[dict[str, str]]:
    """A row a network, the cheapest labels first: images by kind, hours, mIoU in percent, and part of the best."""
    best = max((network.miou for network in networks), default=math.nan)
    rows = []
    for network in sorted(networks, key=lambda n: (sum(n.hours(seconds).values()), n.run, n.stage)):
        hours = sum(network.hours(seconds).values())
        rows.append(
            {
                "run": network.run,
                "stage": network.stage,
                **{kind: str(network.images[kind]) for kind in seconds},
                "hours": f"{hours:.2f}",
                "miou": f"{100 * network.miou:.1f}",
                "of_best": f"{100 * network.miou / best:.1f}",
            }
        )
    return rows
