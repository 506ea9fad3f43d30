"""Trained networks for other programs: what `wsss export-model` does.

Every form has a file of its own here (`onnx`, `tensors`), and `card` says in words and numbers what the network is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsss_core.data.augment import resize
from wsss_core.errors import UserError
from wsss_core.export_model import onnx, tensors
from wsss_core.export_model.card import card
from wsss_core.export_model.wrapped import wrapped
from wsss_core.store.atomic import write_text
from wsss_core.store.checkpoints import read_checkpoint
from wsss_core.store.own import require_own, says


def export_model(
    checkpoint: Path, out: Path, formats: Sequence[str], photos: Sequence[np.ndarray], licence: str
) -> list[str]:
    """Write a trained classifier or segmentation network in other forms, with a model card, ``README.md``.

    Parameters
    ----------
    checkpoint
        ``model.pt`` of a stage.
    out
        Folder to write into.
    formats
        Of "onnx" and "safetensors"; each is a file ``model.<format>``.
    photos
        uint8 [H, W, 3], on which an exported network is compared with the one of torch; without any, drawn ones.
    licence
        What the card says of the licence; "" where it is not decided.

    Returns
    -------
    What was written and how well it agrees, a line each.

    Raises
    ------
    UserError
        If the checkpoint is of another kind, an optional library is missing, or an answer differs; then nothing of
        that form is written.
    """
    content = read_checkpoint(checkpoint)
    if content["kind"] not in ("classifier", "segmentation"):
        kind = content["kind"]
        raise UserError(
            f"{checkpoint}: holds a network of kind {kind!r}; only classifiers and segmentation networks leave"
        )
    readme = out / "README.md"
    made_here = says("wsss export-model")
    require_own(readme, made_here)
    for form in formats:
        require_own(out / f"model.{form}", lambda _: made_here(readme))
    lines = []
    if "onnx" in formats:
        network = wrapped(checkpoint)
        lines += onnx.write(out / "model.onnx", network, photos or drawn_photos())
    if "safetensors" in formats:
        lines += tensors.write(out / "model.safetensors", content)
    write_text(readme, card(checkpoint, content, formats, lines, licence))
    return [*lines, f"{readme}: what the network is"]


def drawn_photos() -> list[np.ndarray]:
    """Three pictures of different sizes, smooth and noisy, uint8 [H, W, 3]; always the same."""
    draw = np.random.default_rng(0)
    sizes = ((240, 320), (321, 200), (176, 176))
    coarse = [resize(draw.integers(0, 256, (8, 8, 3)).astype(np.uint8), size) for size in sizes]
    return [np.clip(c + draw.normal(0, 12, c.shape), 0, 255).astype(np.uint8) for c in coarse]
