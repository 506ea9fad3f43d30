"""Confusion matrices and what is read off them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wsss_core.constants import IGNORE


def confusion(prediction: Any, target: Any, n_labels: int, ignore: int = IGNORE) -> Any:
    """Count the pixels of every (target, prediction) pair of labels.

    Parameters
    ----------
    prediction, target
        Labels, integers of one shape: arrays, or tensors on one device.
    n_labels
        Number of labels L with background; labels are 0..L-1.
    ignore
        Pixels whose target has this value are skipped, whatever was predicted there.

    Returns
    -------
    int64 [L, L], rows target, columns prediction, of the kind (and on the device) that was given.

    Raises
    ------
    ValueError
        If the shapes differ, or a counted pixel holds a label outside 0..L-1 (in the prediction also `ignore`).
    """
    if tuple(prediction.shape) != tuple(target.shape):
        raise ValueError(f"prediction is {tuple(prediction.shape)}, target is {tuple(target.shape)}")
    count: Any
    integer: Any
    if isinstance(prediction, np.ndarray):
        count, integer = np.bincount, np.int64
    else:
        import torch

        count, integer = torch.bincount, torch.int64
    counted = target != ignore
    rows, columns = _as_type(target[counted], integer), _as_type(prediction[counted], integer)
    for name, labels in (("target", rows), ("prediction", columns)):
        if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= n_labels):
            wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
            raise ValueError(f"{name} holds the label {wrong}, allowed are 0..{n_labels - 1}")
    return count(rows * n_labels + columns, minlength=n_labels * n_labels).reshape(n_labels, n_labels)


def _as_type(labels: Any, integer: Any) -> Any:
    return labels.astype(integer) if isinstance(labels, np.ndarray) else labels.to(integer)


@dataclass(frozen=True)
class Metrics:
    """Per-label scores; each [..., L] for confusion matrices [..., L, L].

    With TP, FP and FN pixels of a label: IoU = TP/(TP+FP+FN), precision = TP/(TP+FP), recall = TP/(TP+FN),
    F1 = 2TP/(2TP+FP+FN). Scores are NaN for labels that the target does not hold; precision also where the
    label is never predicted.

    Attributes
    ----------
    pixels
        Target pixels of each label, int64.
    """

    iou: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    pixels: np.ndarray

    def mean(self, name: str) -> np.ndarray:
        """Mean of one score over the labels that occur in the target (for precision: and are predicted), [...].

        A label that is predicted but never true counts through the pixels it takes from others; it has no score of
        its own here (chainercv gives it IoU 0). NaN if no label occurs.
        """
        values = getattr(self, name)
        known = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            return np.where(known, values, 0.0).sum(-1) / known.sum(-1)


def mask_confusion(prediction: np.ndarray, target: np.ndarray, n_labels: int, *, skip_ignored: bool) -> np.ndarray:
    """Confusion matrix [L, L] of one mask, whose undecided pixels (255) count as background unless they are skipped."""
    if skip_ignored:
        target = np.where(prediction == IGNORE, IGNORE, target)
    return confusion(np.where(prediction == IGNORE, 0, prediction), target, n_labels)


def metrics(confusion: Any) -> Metrics:
    """Scores of every label from one or many confusion matrices.

    Parameters
    ----------
    confusion
        [..., L, L], rows target: array or tensor.
    """
    if not isinstance(confusion, np.ndarray):
        confusion = confusion.cpu().numpy()
    hit = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    target, predicted = confusion.sum(-1), confusion.sum(-2)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = [
            hit / (target + predicted - hit),
            hit / predicted,
            hit / target,
            2 * hit / (target + predicted),
        ]
    iou, precision, recall, f1 = (np.where(target > 0, score, np.nan) for score in scores)
    return Metrics(iou, precision, recall, f1, target)
