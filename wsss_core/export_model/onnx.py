"""A network as a file of ONNX, for photos of any size, compared with torch before it is kept."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsss_core.errors import UserError, whole
from wsss_core.export_model.wrapped import Exported
from wsss_core.extras import extra
from wsss_core.store.atomic import atomic_path

FURTHEST = 1e-3
"""Largest difference from torch that an exported network may have, in probabilities and maps from 0 to 1."""


def write(path: Path, network: Exported, photos: Sequence[np.ndarray]) -> list[str]:
    """Write ``model.onnx``; returns lines that say how far its answers are from torch's.

    Parameters
    ----------
    photos
        uint8 [H, W, 3], on which the two are compared.

    Raises
    ------
    UserError
        If a library is missing, the network cannot be converted, or an answer differs: by more than `FURTHEST`, or in
        the label of a pixel (the tag of a class) whose two likeliest are not as near as the difference.
    """
    onnx, runtime = extra("onnx", "onnx"), extra("onnxruntime", "onnx")
    extra("onnxscript", "onnx")
    with atomic_path(path) as temporary:
        onnx.save(converted(network), temporary)
        session = runtime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        furthest, changed, total = compared(session, network, photos)
        if furthest > FURTHEST or changed:
            raise UserError(
                f"{path}: not written, since onnxruntime's answers differ from torch's by {furthest:.1e}, and in "
                f"{changed} of {total} labels; please report it with the versions of onnx, onnxscript and torch"
            )
    size = ", ".join(f"{photo.shape[1]}x{photo.shape[0]}" for photo in photos)
    return [
        f"{path}: answers as torch's on {len(photos)} photos ({size}): the largest difference is {furthest:.1e}, and "
        f"{total:,} labels are equal"
    ]


def converted(network: Exported) -> Any:
    """The network as a model of ONNX (a `ModelProto`), whose input ``photos`` has a free number and size of photos."""
    free = torch.export.Dim.DYNAMIC
    example = torch.rand(2, 3, 161, 193) * 255
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecations inside torch
        for name in ("torch.onnx", "onnxscript", "onnx_ir"):
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: free, 2: free, 3: free},),
                input_names=["photos"],
                output_names=list(network.outputs),
                verbose=False,
            )
        except Exception as error:  # the exporter wraps whatever it meets
            raise UserError(f"this network cannot be written as ONNX: {whole(error)[:400]}") from error
    assert program is not None
    model = program.model_proto
    for key, value in (
        ("class_names", json.dumps(network.class_names)),
        ("input", "photos: float32 [B, 3, H, W], RGB, grey levels from 0 to 255, of any size"),
        *zip(network.outputs, network.axes, strict=True),
    ):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model


def compared(session: Any, network: Exported, photos: Sequence[np.ndarray]) -> tuple[float, int, int]:
    """The largest difference of all answers, how many labels differ by more than ties, and how many there are."""
    furthest, changed, total = 0.0, 0, 0
    for photo in photos:
        pixels = as_input(photo)
        with torch.no_grad():
            answers = network(pixels)
        answers = answers if isinstance(answers, tuple) else (answers,)
        theirs = [torch.from_numpy(a) for a in session.run(None, {"photos": pixels.numpy()})]
        apart = max(float((a - b).abs().max()) for a, b in zip(answers, theirs, strict=True))
        furthest = max(furthest, apart) if np.isfinite(apart) else np.inf
        ours, other = labels_of(answers[0]), labels_of(theirs[0])
        changed += int(((ours != other) & (margin(answers[0]) > 2 * apart)).sum())
        total += ours.numel()
    return furthest, changed, total


def as_input(photo: np.ndarray) -> torch.Tensor:
    """What exported networks take of a photo uint8 [H, W, 3]: float32 [1, 3, H, W] in grey levels from 0 to 255."""
    return torch.from_numpy(np.ascontiguousarray(photo.transpose(2, 0, 1))).float()[None]


def labels_of(probabilities: torch.Tensor) -> torch.Tensor:
    """The likeliest label of every pixel of [B, L, H, W]; of [B, C], which classes are likelier than not."""
    return probabilities.argmax(1) if probabilities.ndim == 4 else probabilities > 0.5


def margin(probabilities: torch.Tensor) -> torch.Tensor:
    """How far each label is from being another: the distance of the two highest, or twice that from one half."""
    if probabilities.ndim == 4:
        first, second = probabilities.topk(2, 1).values.unbind(1)
        return first - second
    return 2 * (probabilities - 0.5).abs()
