"""What every training reads first and writes last: the images to train on, the trained network and its history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from wsss_core.data.table import ImageRecord, ImageTable, read_table
from wsss_core.errors import UserError
from wsss_core.store.atomic import atomic_path
from wsss_core.store.checkpoints import save_network


def images_to_train_on(table: Path) -> tuple[ImageTable, tuple[ImageRecord, ...]]:
    """The image table, and its images of the role "train"; UserError if there are none."""
    images = read_table(table)
    records = images.split("train")
    if not records:
        raise UserError(f"{table}: no image plays the role 'train'")
    return images, records


def write_trained(
    model: Path,
    history: Path,
    state: Path,
    kind: str,
    network: nn.Module,
    meta: Mapping[str, Any],
    rows: Sequence[Mapping[str, float]],
) -> None:
    """Write a trained network as `save_network` does, and the rows that `training.fit` returned as a CSV.

    The file that the training would be resumed from, `state`, is removed last: a kill before that loses nothing.
    """
    save_network(model, kind, network.state_dict(), meta)
    with atomic_path(history) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    state.unlink(missing_ok=True)
