"""One network on photos of several kinds of labels, each kind with a weight and a fixed share of every batch.

A photo's source is the dearest label that it has: a true mask, boxes, or tags alone. Few photos with masks would drown
among many with tags, and a mask made of tags may be wrong where a true one is not. With CE the cross-entropy of
DeepLab-v2, a mean over the decided pixels of a source's n_s crops in a batch of B::

    L = sum over sources s of  w_s (n_s / B) CE(source s)

J. Lee's dissertation, section 6.2, names training on data of several levels of supervision as future work; the weights
and shares are our proposal for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsss_core.errors import UserError
from wsss_core.models.deeplab import DeepLabV2
from wsss_core.segment import deeplab_v2
from wsss_core.segment.batches import SegmentationBatches
from wsss_core.segment.deeplab import DeepLabSettings, batch_logits, plan_on
from wsss_core.segment.samples import Sample, checked, samples_of
from wsss_core.settings import setting
from wsss_core.store.shards import fingerprint
from wsss_core.training import Inputs, Plan

SOURCES = ("masks", "boxes", "tags")


@dataclass(frozen=True)
class SourceWeights:
    """Weight of the loss of each source."""

    masks: float = setting(1.0, "of photos with a true mask", minimum=0)
    boxes: float = setting(1.0, "of photos with boxes", minimum=0)
    tags: float = setting(1.0, "of photos with tags alone", minimum=0)


@dataclass(frozen=True)
class SourceShares:
    """Part of every batch that each source has."""

    masks: float | None = setting(
        None,
        "of photos with a true mask; null: of what the others leave, by the number of photos",
        minimum=0,
        maximum=1,
    )
    boxes: float | None = setting(None, "of photos with boxes; null likewise", minimum=0, maximum=1)
    tags: float | None = setting(None, "of photos with tags alone; null likewise", minimum=0, maximum=1)


@dataclass(frozen=True)
class BySourceSettings(DeepLabSettings):
    """Training of DeepLab-v2 on masks of several sources."""

    source_weights: SourceWeights = setting(SourceWeights, "weight of the loss of each source")
    shares: SourceShares = setting(SourceShares, "part of every batch that each source has")


class SourceBatches:
    """Batches of every source, each as `SegmentationBatches` makes them, by the name of the source.

    Parameters
    ----------
    parts
        Name of each source to its batches; all of one length.
    """

    def __init__(self, parts: Mapping[str, SegmentationBatches]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return min(len(batches) for batches in self.parts.values())

    def __getitem__(self, step: int) -> dict[str, dict[str, Tensor]]:
        return {source: batches[step] for source, batches in self.parts.items()}

    def batch_names(self, step: int) -> list[str]:
        """The images of a step, by the names of their files."""
        return [name for batches in self.parts.values() for name in batches.batch_names(step)]


def plan(settings: BySourceSettings, inputs: Inputs) -> Plan:
    """Training of a new network on the masks of all sources."""
    weights = asdict(settings.source_weights)
    shares = {source: share if weights[source] else 0.0 for source, share in asdict(settings.shares).items()}
    samples, digests = _checked(by_source(inputs), shares, inputs)
    numbers = divided_batch(settings.batch_size, {source: len(found) for source, found in samples.items()}, shares)
    batches = SourceBatches(
        {
            source: SegmentationBatches(
                samples[source],
                len(inputs.class_names) + 1,
                iterations=settings.iterations,
                batch_size=number,
                crop=settings.crop,
                scales=settings.scales,
                seed=inputs.seed,
                stage=f"{inputs.stage}/{source}",
            )
            for source, number in numbers.items()
        }
    )
    return plan_on(
        batches, settings, inputs, lambda network, batch: loss_terms(network, batch, weights), fingerprint(digests)
    )


def by_source(inputs: Inputs) -> dict[str, list[Sample]]:
    """The images of each source: with their true masks where a pixel of these is decided, else with their labels."""
    decided, _ = checked(samples_of(inputs.records, inputs.truth), inputs.class_names)
    known = {sample.image for sample in decided}
    boxed = {Path(record.path) for record in inputs.records if record.boxes}
    others = [s for s in samples_of(inputs.records, inputs.labels) if s.image not in known]
    return {
        "masks": decided,
        "boxes": [sample for sample in others if sample.image in boxed],
        "tags": [sample for sample in others if sample.image not in boxed],
    }


def divided_batch(batch_size: int, counts: Mapping[str, int], shares: Mapping[str, float | None]) -> dict[str, int]:
    """Images of each source in a batch; a source that has none there is left out.

    Parameters
    ----------
    counts
        Source to its number of images.
    shares
        Source to its part of the batch. None: of what the others leave, by the number of images.

    Raises
    ------
    UserError
        If the shares exceed 1 or leave nothing to a source that is open, no source is left, or the batch has fewer
        images than there are sources.

    Examples
    --------
    >>> divided_batch(10, {"masks": 5, "boxes": 20, "tags": 60}, {"masks": 0.4, "boxes": None, "tags": None})
    {'masks': 4, 'boxes': 2, 'tags': 4}
    """
    fixed = sum(share or 0.0 for share in shares.values())
    if fixed > 1 + 1e-9:
        raise UserError(f"shares: together they are {fixed:g}, more than the whole batch")
    open_ones = {source: count for source, count in counts.items() if count and shares[source] is None}
    if open_ones and fixed > 1 - 1e-9:
        raise UserError(f"shares: nothing is left for {', '.join(open_ones)}; set its share to 0, or lower the others")
    free = (1 - fixed) / max(sum(open_ones.values()), 1)
    wanted = {
        source: free * count if share is None else share
        for source, count in counts.items()
        if count and ((share := shares[source]) is None or share > 0)
    }
    if not wanted:
        raise UserError("no photo is left to learn from: all sources that have photos have a share or a weight of 0")
    if batch_size < len(wanted):
        raise UserError(f"batch_size: {batch_size} images are fewer than the sources, {', '.join(wanted)}")
    exact = {source: batch_size * share / sum(wanted.values()) for source, share in wanted.items()}
    numbers = {source: max(1, int(value)) for source, value in exact.items()}
    while (rest := batch_size - sum(numbers.values())) != 0:
        step = 1 if rest > 0 else -1
        movable = [source for source in numbers if numbers[source] + step >= 1]
        numbers[max(movable, key=lambda source: step * (exact[source] - numbers[source]))] += step
    return numbers


def loss_terms(
    network: DeepLabV2, batch: Mapping[str, dict[str, Tensor]], weights: Mapping[str, float]
) -> dict[str, Tensor]:
    """The loss, and beside it the cross-entropy of every source before its weight and share.

    Parameters
    ----------
    network
        In training mode.
    batch
        As `SourceBatches` makes it.
    """
    terms = {
        source: deeplab_v2.loss_terms(batch_logits(network, part), part["labels"])["loss"]
        for source, part in batch.items()
    }
    sizes = {source: len(part["images"]) for source, part in batch.items()}
    whole = sum(sizes.values())
    parts = [weights[source] * sizes[source] / whole * terms[source] for source in terms]
    return {"loss": torch.stack(parts).sum(), **terms}


def _checked(
    samples: Mapping[str, list[Sample]], shares: Mapping[str, float | None], inputs: Inputs
) -> tuple[dict[str, list[Sample]], list[Any]]:
    """The samples that decide a pixel, of sources that are asked for, and the digests of all their masks."""
    found, digests = {}, []
    for source, given in samples.items():
        found[source], digest = checked(given, inputs.class_names) if given and shares[source] != 0 else ([], "")
        digests.append(digest)
    return found, digests
