"""Draws the pictures of the README and the documentation from a finished run.

python docs/pictures.py results/demo docs/images
python docs/pictures.py results/demo-methods docs/images/methods --pages
python docs/pictures.py results/demo-boxes docs/images --objects --columns bbam from-bbam grabcut filled
"""

from __future__ import annotations

import argparse
import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from PIL import Image

from wsss_core.config import Configuration
from wsss_core.jobs.configuration import read_run_configuration
from wsss_core.jobs.run_files import RunFiles
from wsss_core.report.page import Cell, Gallery
from wsss_core.steps.report.galleries import galleries
from wsss_core.steps.report.objects import object_galleries

PAGES = {
    "advcam": ("cam", "advcam", "advcam-free"),
    "advcam_rib": ("rib", "advcam", "advcam-rib"),
    "cam": ("cam",),
    "crf": ("rib", "rib-crf"),
    "deeplab_v2": ("deeplab",),
    "dsrg": ("deeplab", "dsrg"),
    "ficklenet": ("cam", "fickle-maps"),
    "grad_cam": ("cam", "grad-cam"),
    "irn": ("rib", "rib-irn"),
    "mixup_cam": ("cam", "mixup-cam"),
    "psa": ("rib", "rib-psa"),
    "rib": ("cam", "rib"),
    "saliency": ("rib-crf", "rib-salient"),
    "sc_cam": ("cam", "sc-cam"),
    "seam": ("seam-cam", "seam-maps"),
    "seed_threshold": ("rib", "rib-masks"),
    "w_ood": ("cam", "wood-cam"),
}
"""Stages of config/demo-methods.yaml on each page of docs/methods.

`rib-salient` was added by hand, as it needs a folder of saliency masks: `{method: saliency, masks: rib-crf, folder: …}`
with the true masks of all classes together.
"""


def main() -> None:
    """Write one picture per gallery of the run's report, ``training.webp`` and ``validation.webp``, or one per page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("out", type=Path, help="folder of the pictures")
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--columns", nargs="*", help="stages to show; all by default")
    parser.add_argument("--pages", action="store_true", help="a picture of two rows for every page of docs/methods")
    parser.add_argument("--objects", action="store_true", help="pictures of single objects, as objects.webp")
    options = parser.parse_args()
    configuration = read_run_configuration(options.run / "config" / "run" / "report.json")
    options.out.mkdir(parents=True, exist_ok=True)
    if options.objects:
        run = RunFiles(options.run, replace(configuration, report={"images": 3 * options.rows}))
        draw(object_galleries(run)[0], options.out / "objects.webp", options.rows, options.columns)
    elif options.pages:
        for page, stages in PAGES.items():
            if missing := set(stages) - configuration.stages.keys():
                print(f"{page}: the run has no stage {', '.join(sorted(missing))}")
                continue
            found = shown(options.run, replace(configuration, targets=stages), rows=2)
            gallery = next(g for g in found if stages[-1] in dict(g.columns))
            draw(gallery, options.out / f"{page}.webp", 2, stages)
    else:
        for gallery in shown(options.run, configuration, options.rows):
            draw(gallery, options.out / f"{gallery.title.split()[0].lower()}.webp", options.rows, options.columns)


def shown(run: Path, configuration: Configuration, rows: int) -> list[Gallery]:
    """The galleries of the targets and what they are built upon, with room for every third row to be shown."""
    return galleries(RunFiles(run, replace(configuration, report={"images": 3 * rows})))


def draw(gallery: Gallery, path: Path, rows: int, columns: Sequence[str] | None = None) -> None:
    """Draw every third row of a gallery, from best to worst."""
    names = [name for name, _ in gallery.columns]
    shown = [k for k, n in enumerate(names) if not columns or n in ("image", "truth", *columns)]
    chosen = gallery.rows[1::3][:rows] or gallery.rows[:rows]
    sizes = [_picture(row.cells[0]).size for row in chosen]
    heights = [height / width + 0.14 for width, height in sizes]
    figure, axes = plt.subplots(
        len(chosen),
        len(shown),
        figsize=(2 * len(shown), 2 * sum(heights) + 0.2),
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )
    for line, row in zip(axes, chosen, strict=True):
        for axis, k in zip(line, shown, strict=True):
            axis.axis("off")
            cell = row.cells[k]
            if cell.uri:
                axis.imshow(_picture(cell))
            if cell.score is not None:
                axis.set_title(f"{100 * cell.score:.1f}", fontsize=9, color="#5b626c", y=0, va="top", pad=-3)
    for axis, k in zip(axes[0], shown, strict=True):
        axis.annotate(
            names[k],
            (0.5, 1.04),
            xycoords="axes fraction",
            ha="center",
            va="bottom",
            fontsize=11,
            fontweight="bold",
        )
    figure.subplots_adjust(left=0.005, right=0.995, top=0.93, bottom=0.05, wspace=0.04, hspace=0.16)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=140, facecolor="white")
    plt.close(figure)
    Image.open(buffer).convert("RGB").save(path, quality=85, method=6)


def _picture(cell: Cell) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(cell.uri.partition(",")[2])))


if __name__ == "__main__":
    main()
