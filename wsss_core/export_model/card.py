"""The model card of a network that leaves: what it is for, what it takes, what it learned from, and how good it is.

Its numbers are read from the run that the checkpoint lies in; what cannot be known from there is said to be unknown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from wsss_core.data.augment import MEAN, STD
from wsss_core.data.table import read_table
from wsss_core.evaluate.health import read_health
from wsss_core.evaluate.tables import MEAN_ROW, read_evaluation


def card(
    checkpoint: Path, content: Mapping[str, Any], formats: Sequence[str], agreed: Sequence[str], licence: str
) -> str:
    """The card as Markdown, with the front matter that model hubs read.

    Parameters
    ----------
    checkpoint
        ``RUN/<section>/<stage>/model.pt``, or a copy elsewhere, of which less is known.
    content
        As `read_checkpoint` gives it.
    formats
        Files that lie beside the card.
    agreed
        Lines that say what was written and compared.
    licence
        "" where it is not decided.
    """
    kind, meta = content["kind"], content["meta"]
    classes = meta["class_names"]
    front = {
        "license": licence or "unknown",
        "library_name": "wsss",
        "pipeline_tag": "image-segmentation" if kind == "segmentation" else "image-classification",
    }
    if kind == "segmentation":
        what = (
            "A segmentation network: it gives every pixel of a photo a label, trained on masks made from cheap labels."
        )
        given = (
            "`probabilities` [B, L, H, W]: label 0 is background, label c + 1 is class c below; each pixel sums to 1."
        )
    else:
        what = "A classifier of whole photos, whose class activation maps say where in a photo a class was seen."
        given = (
            "`probabilities` [B, C]: of each class by itself. `maps` [B, C, h, w]: where it was seen, 0 to 1 each, on a"
            " grid that is coarser than the photo."
        )
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=True).strip(),
        "---",
        "",
        f"# {meta['backbone']}, {kind}",
        "",
        what,
        "",
    ]
    lines += ["Written by `wsss export-model`.", "", "## Classes", ""]
    lines += [f"{number}. {name}" for number, name in enumerate(classes, int(kind == "segmentation"))]
    lines += ["", "## What it takes and gives", ""]
    if "onnx" in formats:
        lines += [
            "`model.onnx` takes `photos` [B, 3, H, W] of any size: float32, RGB, grey levels from 0 to 255, which it"
            f" normalises itself. It gives {given}",
            "",
        ]
    if "safetensors" in formats:
        mean, deviation = (", ".join(map(str, values)) for values in (MEAN, STD))
        lines += [
            "`model.safetensors` holds the parameters under the names of this program's networks, which take RGB"
            f" in 0..1, minus the mean ({mean}), divided by ({deviation}). Its metadata hold the classes, as JSON.",
            "",
        ]
    lines += [*(f"* {Path(line.partition(': ')[0]).name}: {line.partition(': ')[2]}" for line in agreed), ""]
    lines += ["## Training data", "", *_data(checkpoint, classes), "", "## Evaluation", "", *_evaluation(checkpoint)]
    settings = json.dumps(meta.get("settings"), indent=1, sort_keys=True)
    method, seed = meta.get("method", "unknown"), meta.get("seed", "unknown")
    lines += [
        "",
        "## Training",
        "",
        f"Method `{method}`, seed {seed}, with these settings:",
        "",
        f"```json\n{settings}\n```",
    ]
    words = licence or (
        "Not decided. It depends on the photos trained on and on the weights started from; name it with `--licence`."
    )
    lines += ["", "## Licence", "", words]
    return "\n".join(lines) + "\n"


def _data(checkpoint: Path, classes: Sequence[str]) -> list[str]:
    """The photos of the role "train" in numbers."""
    path = checkpoint.resolve().parent.parent.parent / "dataset/images.csv"
    if not path.exists():
        return ["Unknown: the checkpoint does not lie in its run."]
    records = read_table(path).split("train")
    counts = Counter(c for record in records for c in record.classes)
    lines = [f"{len(records)} photos with tags.", "", "| class | photos with its tag |", "|---|---|"]
    return [*lines, *(f"| {name} | {counts[number]} |" for number, name in enumerate(classes))]


def _evaluation(checkpoint: Path) -> list[str]:
    """The scores that stand beside the checkpoint."""
    scores, tags = checkpoint.with_name("evaluation.csv"), checkpoint.with_name("tag_scores.json")
    if scores.exists():
        found = read_evaluation(scores)
        if not found.rows:
            return ["Not scored: there were no true masks."]
        split = "photos of the role val" if found.header.split == "val" else "training photos with true masks"
        lines = [f"On {found.header.images} {split}, against true masks.", "", "| label | IoU |", "|---|---|"]
        return [
            *lines,
            *(f"| {name} | {row['iou']:.3f} |" for name, row in found.rows.items() if name != MEAN_ROW),
            f"| **mean** | **{found.rows[MEAN_ROW]['iou']:.3f}** |",
        ]
    if tags.exists():
        signs = read_health(tags)["classes"]
        lines = ["On its own training photos, a sign of whether it learned anything and no more:", ""]
        columns = sorted(
            {key for sign in signs.values() for key, value in sign.items() if isinstance(value, int | float)}
        )
        lines += [f"| class | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
        return [
            *lines,
            *(f"| {name} | {' | '.join(_cell(sign.get(c)) for c in columns)} |" for name, sign in signs.items()),
        ]
    return ["Unknown: no scores lie beside the checkpoint."]


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3g}"
