"""Stage: classifiers' features of training images in the plane."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from wsss_core import keyed
from wsss_core.data.augment import normalise
from wsss_core.data.decoded import read_record
from wsss_core.data.table import ImageRecord, read_table
from wsss_core.errors import UserError
from wsss_core.evaluate.embedding import FeatureSettings, embed, tsne_seed
from wsss_core.execution import Execution
from wsss_core.models.cam import CamNetwork
from wsss_core.report.figures import Cloud, clouds_svg
from wsss_core.settings import from_mapping
from wsss_core.stages.classifier import open_classifier
from wsss_core.stages.step import read_step
from wsss_core.store.atomic import write_text

log = logging.getLogger(__name__)


def run(
    *, config: Path, table: Path, classifiers: Sequence[Path], features: Path, figure: Path, execution: Execution
) -> None:
    """Write where t-SNE puts the pooled features of the same images for each classifier, and draw it.

    Shown are images of the role "train" with exactly one class, and images of the role "ood" under the class that the
    first classifier finds in them most.

    Parameters
    ----------
    config
        JSON of `Configuration.features_json`.
    table
        `images.csv`.
    classifiers
        Checkpoints, in the order of the settings.
    features
        CSV of image, role, class, classifier, x, y.
    figure
        SVG.

    Raises
    ------
    UserError
        If a class is unknown, or fewer than four images can be shown.
    """
    step = read_step(config)
    settings = from_mapping(FeatureSettings, step.settings)
    images = read_table(table)
    device = execution.torch_device()
    unknown = [name for name in settings.classes if name not in images.class_names]
    if unknown:
        raise UserError(
            f"report.features.classes: there is no class {', '.join(unknown)}; known: {', '.join(images.class_names)}"
        )
    wanted = settings.classes or images.class_names
    networks = [open_classifier(path, images.class_names, device) for path in classifiers]
    records = [r for r in images.split("train") if len(r.classes) == 1 and images.class_names[r.classes[0]] in wanted]
    records += images.split("ood")
    records = sorted(
        sorted(records, key=lambda r: keyed.key_bytes("features", r.id))[: settings.images], key=lambda r: r.id
    )
    pooled = [gap_features(network, records) for network in networks]
    groups = [images.class_names[r.classes[0]] if r.classes else "" for r in records]
    if records:
        with torch.no_grad():
            found = (
                networks[0].classifier(torch.from_numpy(pooled[0])[:, :, None, None].to(device)).flatten(1).argmax(1)
            )
        groups = [group or images.class_names[int(c)] for group, c in zip(groups, found, strict=True)]
    kept = [k for k, group in enumerate(groups) if group in wanted]
    if len(kept) < 4:
        raise UserError(f"report.features: {len(kept)} images hold exactly one of the classes shown; four are needed")
    clouds = []
    for name, values in zip(settings.classifiers, pooled, strict=True):
        log.info("t-SNE of %d images for %s", len(kept), name)
        seed = tsne_seed(step.seed, name.partition("@")[0])  # variants of a sweep draw alike
        clouds.append(Cloud(name, embed(values[kept], settings.perplexity, seed)))
    shown, classes = [records[k] for k in kept], [groups[k] for k in kept]
    write_text(features, _csv(shown, classes, clouds))
    order = np.argsort([list(wanted).index(name) for name in classes], kind="stable")
    write_text(
        figure,
        clouds_svg(
            [Cloud(cloud.title, cloud.places[order]) for cloud in clouds],
            [classes[k] for k in order],
            [not shown[k].classes for k in order],
        ),
    )


@torch.no_grad()
def gap_features(network: CamNetwork, records: Sequence[ImageRecord]) -> np.ndarray:
    """Features averaged over all cells, float32 [N, D], of whole images at their own size."""
    device = network.classifier.weight.device
    rows = [
        network.features(torch.from_numpy(normalise(read_record(record)))[None].to(device))
        .mean((2, 3))[0]
        .cpu()
        .numpy()
        for record in records
    ]
    return np.stack(rows) if rows else np.zeros((0, network.classifier.in_channels), np.float32)


def _csv(records: Sequence[ImageRecord], classes: Sequence[str], clouds: Sequence[Cloud]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "role", "class", "classifier", "x", "y"])
    for cloud in clouds:
        for record, name, (x, y) in zip(records, classes, cloud.places.tolist(), strict=True):
            writer.writerow(
                [record.id, "train" if record.classes else "ood", name, cloud.title, f"{x:.5f}", f"{y:.5f}"]
            )
    return text.getvalue()
