"""From seed maps to label masks: dense CRF, IRN and its random walk, filling of undecided pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsss_core.errors import UserError
from wsss_core.store.cut import Cut


def cut_at(threshold: float | str, chosen: Mapping[str, Any] | None) -> Cut:
    """The threshold behind a setting, and who chose it.

    Parameters
    ----------
    threshold
        A number; "score": the value that the score rule of the maps chose; "oracle": the best value in hindsight,
        which uses the masks.
    chosen
        Content of the threshold file, ``{"rule", "value", "oracle": {"value", "miou"}}``; None if there is none.

    Raises
    ------
    UserError
        If the setting asks for what was not computed.

    Examples
    --------
    >>> cut_at(0.3, None)
    Cut(rule='fixed', threshold=0.3, band=None, from_maps=False, crf='', notes=())
    >>> cut_at("score", {"rule": "heldout", "value": 0.25})
    Cut(rule='heldout', threshold=0.25, band=None, from_maps=True, crf='', notes=())
    """
    if not isinstance(threshold, str):
        return Cut("fixed", float(threshold))
    if chosen is None:
        raise UserError(f"threshold {threshold!r} needs the scores of the maps, and no threshold file was given")
    if threshold == "score":
        return Cut(chosen["rule"], float(chosen["value"]), from_maps=True)
    if "oracle" not in chosen:
        raise UserError("threshold 'oracle' needs masks to choose it with, and the data set has none to score")
    return Cut("oracle", float(chosen["oracle"]["value"]))


def highest_label(maps: Tensor, threshold: float) -> Tensor:
    """Index of the highest map counted from 1, or 0 where none exceeds the threshold.

    Parameters
    ----------
    maps
        [K, H, W].

    Returns
    -------
    int64 [H, W] in 0..K: the argmax with a plane of the constant threshold in front.
    """
    plane = torch.full((1, *maps.shape[1:]), threshold, dtype=maps.dtype, device=maps.device)
    return torch.cat([plane, maps]).argmax(0)


def mask_values(indices: Any, classes: Sequence[int]) -> np.ndarray:
    """Mask labels from indices among present classes: 0 stays background, k becomes ``classes[k - 1] + 1``.

    Examples
    --------
    >>> mask_values(np.array([[0, 1, 2]]), (4, 11)).tolist()
    [[0, 5, 12]]
    """
    return np.array([0, *(c + 1 for c in classes)], dtype=np.uint8)[np.asarray(indices)]
