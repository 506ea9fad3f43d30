"""True masks of objects, for networks that are supervised in full: the rows that weaker labels are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wsss_core.data.instances import true_instances
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.store.instances import Instances


@dataclass(frozen=True)
class TruthSettings:
    """True masks, which have no settings."""


def require_truth(stage: str, records: Sequence[ImageRecord]) -> None:
    """Raise UserError if an image that holds a class has no true masks of single objects."""
    lacking = [record.id for record in records if record.classes and not record.instances]
    if lacking:
        raise UserError(
            f"{stage}: {len(lacking)} of {len(records)} images for training have no true masks of single objects, such "
            f"as {lacking[0]!r}; give the data set some (dataset.instances), or train on pseudo-masks"
        )


def objects_of(record: ImageRecord) -> Instances:
    """The true objects of an image; none in one that has no class."""
    return true_instances(record) if record.instances else Instances.of(record.size)
