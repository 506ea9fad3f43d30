"""Label masks cut straight from seed maps: no CRF, no walk.

What networks that are trained on seeds start from, and the masks that a seed's own evaluation scores.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsss_core.refine import MaskInputs, MaskMaker, Threshold, threshold
from wsss_core.refine.threshold import ThresholdSettings
from wsss_core.settings import setting


@dataclass(frozen=True)
class SeedThresholdSettings(ThresholdSettings):
    """Label masks from seed maps, each class scaled to [0, 1]."""

    threshold: Threshold = setting(
        "score",
        "background threshold: a number; none: no background, every pixel has a class (dataset.background); otsu: that "
        "of each image's own maps, no masks used; score: what the seed's score rule chose; oracle: the best value in "
        "hindsight, which uses the masks",
        minimum=0,
        maximum=1,
    )
    band: tuple[float, float] | None = setting(
        None,
        "(low, high): background below low, foreground above high, undecided (255) between; replaces the threshold",
        ascending=True,
        items={"minimum": 0, "maximum": 1},
    )


def maker(settings: SeedThresholdSettings, inputs: MaskInputs) -> MaskMaker:
    """`wsss_core.refine.threshold.maker`, of seed maps."""
    return threshold.maker(settings, inputs)
