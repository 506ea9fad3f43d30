"""Place classifiers' features of images in the plane."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsss_core.data.decoded import Decoded, read_record
from wsss_core.data.table import ImageRecord, read_table
from wsss_core.errors import UserError
from wsss_core.evaluate.embedding import FeaturesSettings, embed, groups_of, shown_images, tsne_seed
from wsss_core.execution import Execution
from wsss_core.jobs.classifier import open_classifier
from wsss_core.jobs.step import read_step
from wsss_core.models.cam import pooled_features
from wsss_core.report.figures import Cloud, clouds_svg
from wsss_core.store.atomic import write_text
from wsss_core.store.cells import cell

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
        Settings file of the step.
    table
        Image table.
    classifiers
        Checkpoints, in the order of the settings.
    features
        CSV to write, of image, role, class, classifier, x, y.
    figure
        SVG to write.

    Raises
    ------
    UserError
        If a class is unknown, or fewer than four images can be shown.
    """
    step = read_step(config)
    settings: FeaturesSettings = step.settings
    images = read_table(table)
    unknown = [name for name in settings.classes if name not in images.class_names]
    if unknown:
        raise UserError(
            f"report.features.classes: there is no class {', '.join(unknown)}; known: {', '.join(images.class_names)}"
        )
    wanted = settings.classes or images.class_names
    networks = [open_classifier(path, images.class_names, execution.torch_device()) for path in classifiers]
    records = shown_images(images, wanted, settings.images)
    pooled = [pooled_features(network, Decoded(records, read_record)) for network in networks]
    weights = networks[0].classifier.weight.flatten(1).cpu().numpy()
    classes = [images.class_names[c] for c in groups_of(records, pooled[0], weights)]
    kept = [k for k, name in enumerate(classes) if name in wanted]
    if len(kept) < 4:
        raise UserError(f"report.features: {len(kept)} images hold exactly one of the classes shown; four are needed")
    clouds = []
    for name, values in zip(settings.classifiers, pooled, strict=True):
        log.info("t-SNE of %d images for %s", len(kept), name)
        clouds.append(Cloud(name, embed(values[kept], settings.perplexity, tsne_seed(step.seed, name))))
    shown, groups = [records[k] for k in kept], [classes[k] for k in kept]
    write_text(features, _csv(shown, groups, clouds))
    order = np.argsort([list(wanted).index(name) for name in groups], kind="stable")
    drawn = [Cloud(cloud.title, cloud.places[order]) for cloud in clouds]
    write_text(figure, clouds_svg(drawn, [groups[k] for k in order], [not shown[k].classes for k in order]))


def _csv(records: Sequence[ImageRecord], classes: Sequence[str], clouds: Sequence[Cloud]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "role", "class", "classifier", "x", "y"])
    for cloud in clouds:
        for record, name, (x, y) in zip(records, classes, cloud.places.tolist(), strict=True):
            writer.writerow(
                [cell(record.id), "train" if record.classes else "ood", cell(name), cloud.title, f"{x:.5f}", f"{y:.5f}"]
            )
    return text.getvalue()
