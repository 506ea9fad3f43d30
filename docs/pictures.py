"""Draws the pictures of the README and the documentation from a finished run.

python docs/pictures.py results/demo docs/images
"""

from __future__ import annotations

import argparse
import base64
import io
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from PIL import Image

from wsss_core.report.page import Cell, Gallery
from wsss_core.stages.report import galleries
from wsss_core.stages.run_files import RunFiles


def main() -> None:
    """Write one picture per gallery of the run's report: ``training.webp``, ``validation.webp``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("out", type=Path, help="folder of the pictures")
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--columns", nargs="*", help="stages to show; all by default")
    options = parser.parse_args()
    content = json.loads((options.run / "config" / "report.json").read_text(encoding="utf-8"))
    content["report"] = {"images": 3 * options.rows}
    options.out.mkdir(parents=True, exist_ok=True)
    for gallery in galleries(RunFiles(options.run, content)):
        path = options.out / f"{gallery.title.split()[0].lower()}.webp"
        draw(gallery, path, options.rows, options.columns)
        print(path)


def draw(gallery: Gallery, path: Path, rows: int, columns: list[str] | None = None) -> None:
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
