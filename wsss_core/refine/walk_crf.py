"""Label masks by a dense CRF on walked scores: what papers write as "RW + dCRF", or as a second "+CRF" column."""

from __future__ import annotations

from dataclasses import dataclass

from wsss_core.refine import MaskInputs, MaskMaker, Threshold, crf
from wsss_core.refine.crf import CrfSettings
from wsss_core.settings import setting


@dataclass(frozen=True)
class WalkCrfSettings(CrfSettings):
    """Dense CRF on walked scores."""

    threshold: Threshold = setting(
        "score",
        "background threshold on scores in [0, 1]; otsu: that of each image's own scores, no masks used; score: what "
        "the walk's score rule chose; oracle: the best value in hindsight, which uses the masks",
        minimum=0,
        maximum=1,
    )


def maker(settings: WalkCrfSettings, inputs: MaskInputs) -> MaskMaker:
    """`wsss_core.refine.crf.maker`, of walked scores."""
    return crf.maker(settings, inputs)
