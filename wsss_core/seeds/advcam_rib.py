"""AdvCAM and RIB together: in every state that RIB gives the classifier, the image climbs as in AdvCAM.

Lee's dissertation, section 4.6, Table 4.7: W-OoD with AdvCAM 59.1, with RIB 56.8, with both 60.7 mIoU of seeds on VOC.
It does not say how the two are put together, and no code for it is known to us. Both sum class activation maps along a
way, RIB over states θ_k of the classifier and AdvCAM over images x_t, so here the sum is over both::

    RIB     M = sum_k CAM(x; θ_k)
    AdvCAM  M = sum_t CAM(x_t; θ_0)
    both    M = sum_k AdvCAM(x; θ_k) = sum_k sum_t CAM(x_t; θ_k)

The climb starts from the image itself in every state, and RIB adapts the classifier to that image, not to climbed ones,
so the states are those of RIB alone. With λ = 0 the maps are AdvCAM's, and with ξ = 0 RIB's with Grad-CAM in place of
CAM (official), up to a factor for each scale.

Not chosen: AdvCAM in the last state alone is as cheap as AdvCAM, but in RIB the sum matters more than the last state
(docs/methods/rib.md); adapting to the climbed image lets the two, which raise the same logit, drive each other past
what either was tuned for; adding the two methods' finished maps does not combine them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from wsss_core.data.table import ImageRecord
from wsss_core.models.cam import CamNetwork
from wsss_core.seeds import Inputs
from wsss_core.seeds.advcam import AdvCamSettings, advcam_seed
from wsss_core.seeds.demands import check_pointwise
from wsss_core.seeds.rib import Pool, RibSettings, adapt, auxiliary_pool
from wsss_core.settings import setting
from wsss_core.store.seeds import SeedMaps


@dataclass(frozen=True)
class AdvCamRibSettings:
    """AdvCAM and RIB together; defaults of each as published for VOC with ResNet-50."""

    rib: RibSettings = setting(
        RibSettings, "how the classifier is adapted; of its scales, those from 1 up are in the loss (official)"
    )
    advcam: AdvCamSettings = setting(AdvCamSettings, "how maps are made in each state; its scales are summed")
    interval: int = setting(
        1, "maps are made in the states 0, interval, 2 interval, ...; more than 1 saves work", minimum=1
    )


def maker(settings: AdvCamRibSettings, inputs: Inputs) -> Callable[[ImageRecord, np.ndarray], SeedMaps]:
    """The method as the step calls it, with the training images as auxiliary pool."""
    check_pointwise(inputs.network, "advcam_rib")
    pool = auxiliary_pool(settings.rib, inputs)
    return lambda record, image: advcam_rib_seed(inputs.network, image, record.classes, settings, pool(record))


def advcam_rib_seed(
    network: CamNetwork, image: np.ndarray, classes: Sequence[int], settings: AdvCamRibSettings, pool: Pool
) -> SeedMaps:
    """AdvCAM's maps of one image, summed over the states of RIB. The network is left exactly as it was.

    Parameters
    ----------
    network
        Trained classifier.
    image
        uint8 [H, W, 3], RGB.
    classes
        The K present classes, 0-based.
    pool
        RIB's auxiliary images, see `wsss_core.seeds.rib.Pool`.

    Returns
    -------
    One map [K, h_s, w_s] for each scale of AdvCAM. Statistics: RIB's, and ``climb``, by how much AdvCAM raised the
    target's summed logits in each state where it made maps.

    Raises
    ------
    UserError
        As for `wsss_core.seeds.rib.rib_seed`.
    """
    sums: dict[float, Tensor] = {}
    climbs = []

    def observe(state: int) -> None:
        if state % settings.interval == 0:
            seed = advcam_seed(network, image, classes, settings.advcam)
            for scale, maps in seed.maps.items():
                sums[scale] = sums[scale] + maps if scale in sums else maps
            curve = seed.statistics["target"]
            climbs.append(curve[-1] - curve[0])

    scales = tuple(scale for scale in settings.rib.scales if scale >= 1)
    trace = adapt(network, image, classes, replace(settings.rib, scales=scales), pool, observe=observe)
    return SeedMaps(tuple(classes), sums, image.shape[:2], trace.statistics() | {"climb": climbs}, network.stride)
