"""A few lines about any file of a run, for `wsss inspect`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss_core.errors import UserError
from wsss_core.store.posteriors import Posteriors, PosteriorStore
from wsss_core.store.scores import ScoreMaps, ScoreStore
from wsss_core.store.seeds import SeedMaps, SeedStore
from wsss_core.store.shards import kind_of

STORES = {"seeds": SeedStore, "scores": ScoreStore, "posteriors": PosteriorStore}


def describe(path: Path) -> str:
    """Text that says what a file of seeds, scores or posteriors, a checkpoint or an image table holds.

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
    kind = kind_of(path)
    if kind not in STORES:
        raise UserError(f"{path}: holds {kind or 'no'} records, not {', '.join(STORES)}")
    store = STORES[kind](path)
    lines = [f"{len(store)} images", json.dumps(store.attrs, indent=1)]
    for image_id, maps in itertools.islice(store.items(), 5):
        shapes = {scale: tuple(values.shape) for scale, values in _arrays(maps).items()}
        lines.append(f"{image_id}: {maps.size[1]}x{maps.size[0]}, classes {list(maps.classes)}, maps {shapes}")
    return "\n".join(lines)


def _arrays(maps: SeedMaps | ScoreMaps | Posteriors) -> Mapping[Any, Any]:
    if isinstance(maps, SeedMaps):
        return maps.maps
    return {"stride 1": maps.values} if isinstance(maps, Posteriors) else {f"stride {maps.stride}": maps.scores}


def _checkpoint(path: Path) -> str:
    from wsss_core.store.checkpoints import read_checkpoint

    content = read_checkpoint(path)
    parameters = sum(tensor.numel() for tensor in content["state"].values())
    return f"{content['kind']}, {parameters:,} numbers\n{json.dumps(content['meta'], indent=1)}"


def _table(path: Path) -> str:
    from wsss_core.data.table import read_table

    table = read_table(path)
    lines = [f"{len(table.records)} images, {len(table.class_names)} classes"]
    for split in ("train", "score", "val", "ood"):
        lines.append(f"{split}: {len(table.split(split))} images")
    for index, name in enumerate(table.class_names):
        lines.append(f"  {name}: {sum(index in record.classes for record in table.records)} images")
    return "\n".join(lines)
