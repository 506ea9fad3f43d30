"""A few lines about any file of a run, for `wsss inspect`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wsss_core.data.table import read_table
from wsss_core.errors import UserError
from wsss_core.store.labels import LABELS, LabelMap
from wsss_core.store.posteriors import POSTERIORS, Posteriors
from wsss_core.store.scores import SCORES, ScoreMaps
from wsss_core.store.seeds import SEEDS, SeedMaps
from wsss_core.store.shards import RecordStore


def describe(path: Path) -> str:
    """Text that says what a file of seeds, scores, posteriors or labels, a checkpoint or an image table holds.

    Raises
    ------
    UserError
        If the file is none of these.
    """
    readers = {".h5": _hdf5, ".pt": _checkpoint, ".csv": _table}
    if path.suffix not in readers:
        raise UserError(f"{path}: only .h5, .pt and image table .csv files can be inspected")
    return readers[path.suffix](path)


def _hdf5(path: Path) -> str:
    store: RecordStore[Any] = RecordStore(path, SEEDS, SCORES, POSTERIORS, LABELS)
    lines = [f"{len(store)} images", json.dumps(store.attrs, indent=1)]
    for image_id, record in itertools.islice(store.items(), 5):
        lines.append(f"{image_id}: {record.size[1]}x{record.size[0]}, {_content(record)}")
    return "\n".join(lines)


def _content(record: SeedMaps | ScoreMaps | Posteriors | LabelMap) -> str:
    """What a record holds, in words."""
    maps: Mapping[Any, Any]
    match record:
        case SeedMaps():
            maps = record.maps
        case ScoreMaps():
            maps = {f"stride {record.stride}": record.scores}
        case Posteriors():
            maps = {"stride 1": record.values}
        case LabelMap():
            return f"labels {np.unique(record.values).tolist()}"
    return f"classes {list(record.classes)}, maps { {name: tuple(values.shape) for name, values in maps.items()} }"


def _checkpoint(path: Path) -> str:
    from wsss_core.store.checkpoints import read_checkpoint

    content = read_checkpoint(path)
    parameters = sum(tensor.numel() for tensor in content["state"].values())
    return f"{content['kind']}, {parameters:,} numbers\n{json.dumps(content['meta'], indent=1)}"


def _table(path: Path) -> str:
    table = read_table(path)
    lines = [f"{len(table.records)} images, {len(table.class_names)} classes"]
    for split in ("train", "score", "val", "ood"):
        lines.append(f"{split}: {len(table.split(split))} images")
    for index, name in enumerate(table.class_names):
        lines.append(f"  {name}: {sum(index in record.classes for record in table.records)} images")
    return "\n".join(lines)
