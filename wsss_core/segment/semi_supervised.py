"""What trainings with a few true masks share: the labelled and the unlabelled images, and batches of both.

An image is labelled if its true mask is given (`wsss_core.refine.truth`), and unlabelled otherwise: its tags have
become a pseudo-mask, which may be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from wsss_core.errors import UserError
from wsss_core.segment.batches import SegmentationBatches
from wsss_core.segment.samples import Sample, checked, samples_of
from wsss_core.training import Inputs


@dataclass(frozen=True)
class Divided:
    """The images of a training.

    Attributes
    ----------
    labelled
        With their true masks.
    unlabelled
        With their pseudo-masks.
    digest
        Of the true masks.
    """

    labelled: Sequence[Sample]
    unlabelled: Sequence[Sample]
    digest: str


def divided(inputs: Inputs, *, labelled_alone: bool = False) -> Divided:
    """Tell the labelled images from the others.

    Parameters
    ----------
    labelled_alone
        Leave the others out, so that there need not be any.

    Raises
    ------
    UserError
        If a true mask is missing or wrong, or if all images or none are labelled.
    """
    labelled, digest = checked(samples_of(inputs.records, inputs.truth), inputs.class_names)
    if labelled_alone:
        return Divided(labelled, (), digest)
    known = {sample.image for sample in labelled}
    unlabelled = [sample for sample in samples_of(inputs.records, inputs.labels) if sample.image not in known]
    if not unlabelled:
        raise UserError(
            f"all {len(labelled)} images have true masks, so that there is nothing to learn from images without: give "
            "the stage of true masks a share below 1 (images: 0.1), or train on these masks alone (weights of 0)"
        )
    return Divided(labelled, unlabelled, digest)


class PairedBatches:
    """Two batches a step, of labelled and of unlabelled images.

    Each is as `SegmentationBatches` makes it: every image is seen once an epoch of its own kind, whatever the number of
    the others. A batch is a dict of "labelled" and "unlabelled", and of "step", the number of the step; a kind without
    images is left out.

    Parameters
    ----------
    batch_size
        Images of each kind.
    """

    def __init__(
        self,
        labelled: Sequence[Sample],
        unlabelled: Sequence[Sample],
        n_labels: int,
        *,
        iterations: int,
        batch_size: int,
        crop: int,
        scales: Sequence[float],
        seed: int,
        stage: str,
    ) -> None:
        self.iterations = iterations
        self.parts = {
            kind: SegmentationBatches(
                samples,
                n_labels,
                iterations=iterations,
                batch_size=batch_size,
                crop=crop,
                scales=scales,
                seed=seed,
                stage=f"{stage}/{kind}",
            )
            for kind, samples in (("labelled", labelled), ("unlabelled", unlabelled))
            if samples
        }

    def __len__(self) -> int:
        return self.iterations

    def __getitem__(self, step: int) -> dict[str, dict[str, Tensor] | int]:
        return {**{kind: batches[step] for kind, batches in self.parts.items()}, "step": step}

    def batch_names(self, step: int) -> list[str]:
        """The images of a step, by the names of their files."""
        return [name for batches in self.parts.values() for name in batches.batch_names(step)]
