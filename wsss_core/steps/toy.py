"""Run the toy experiment of RIB."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from wsss_core.execution import Execution
from wsss_core.jobs.step import read_step
from wsss_core.store.atomic import atomic_path, write_text
from wsss_core.toy.data import DIGITS, toy_images
from wsss_core.toy.experiment import (
    ToySettings,
    accuracy,
    chosen_rate,
    first_maximum,
    hgr_table,
    iteration_maps,
    layer_maps,
    own_maximum,
    scaled,
    train,
)
from wsss_core.toy.figures import Example, hgr_figure
from wsss_core.toy.network import LAYERS

log = logging.getLogger(__name__)


def run(*, config: Path, folder: Path, execution: Execution) -> None:
    """Train, measure, adapt and measure again.

    Parameters
    ----------
    config
        Settings file of the step.
    folder
        Where ``hgr_layers.csv``, ``layers.svg``, ``hgr_iterations.csv`` and ``iterations.svg`` are written.

    Raises
    ------
    UserError
        If the digits cannot be read.
    """
    step = read_step(config)
    settings: ToySettings = step.settings
    source = Path(settings.mnist) if settings.mnist else None
    learned, measured, tried = toy_images(
        source,
        measured=settings.measured,
        tried=settings.tried if settings.rate is None else 0,
        marked=settings.marked,
        seed=step.seed,
    )
    log.info("%d images to train on, %d of them marked", len(learned.images), learned.marks.any((1, 2)).sum())
    network = train(learned, settings, step.seed, execution)
    log.info("accuracy: trained %.3f, measured %.3f", accuracy(network, learned), accuracy(network, measured))

    shown = [int(np.argmax(measured.classes == label)) for label in range(len(DIGITS))]

    def write(
        maps: np.ndarray, unit: np.ndarray, name: str, column: str, values: range, names: list[str], title: str
    ) -> None:
        table = hgr_table(maps, unit, measured.regions, settings.threshold, column, values)
        divided = scaled(maps, unit)
        examples = [Example(measured.images[k], divided[k], measured.marks[k]) for k in shown]
        with atomic_path(folder / f"hgr_{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
        write_text(folder / f"{name}.svg", hgr_figure(table, names, examples, title=title, label=column))
        for region, rows in table.groupby("region", sort=False):
            log.info("HGR by %s, %s: %s", column, region, " ".join(f"{100 * value:.1f}" for value in rows["hgr"]))

    gradients = [f"G{layer}" for layer in range(1, LAYERS + 1)]
    maps = layer_maps(network, measured)
    write(maps, own_maximum(maps), "layers", "layer", range(1, LAYERS + 1), gradients, "Gradients by layer")
    rate = chosen_rate(network, tried, learned, settings, step.seed)
    log.info("RIB's rate: %g", rate)
    maps = iteration_maps(network, measured, learned, settings, rate, step.seed)
    iterations = range(settings.steps + 1)
    title = f"Gradients of the logit under RIB, rate {rate:g}"
    write(maps, first_maximum(maps), "iterations", "iteration", iterations, [str(k) for k in iterations], title)
