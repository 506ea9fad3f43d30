"""Every module that the registry names is what its step takes it for.

mypy reads the tables here too (`make lint`): it holds each module against the protocol, with all types.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from operator import attrgetter

import pytest

from wsss_core.boxes import AttributionMethod, ObjectMethod, bbam, detector, grabcut, simple_grad, smooth_grad
from wsss_core.boxes import fill as filled_boxes
from wsss_core.boxes import grad_cam as object_cam
from wsss_core.boxes import masks as attributed
from wsss_core.boxes import sam as boxed_sam
from wsss_core.classify import bce, ficklenet, mixup_cam, sc_cam, seam, w_ood
from wsss_core.data import coco, demo, parts, tags, voc
from wsss_core.data.reading import Reader
from wsss_core.instances import mask_rcnn
from wsss_core.refine import (
    LabelMaker,
    MaskMethod,
    Walk,
    affinity,
    corrected,
    crf,
    fill,
    instances,
    marks,
    mixed,
    par,
    saliency,
    sam,
    seed_threshold,
    threshold,
    truth,
    walk_crf,
)
from wsss_core.refine.irn import labels as irn_labels
from wsss_core.refine.irn import network as irn_network
from wsss_core.refine.irn import walk as irn_walk
from wsss_core.refine.psa import labels as psa_labels
from wsss_core.refine.psa import masks as psa_masks
from wsss_core.refine.psa import network as psa_network
from wsss_core.refine.psa import walk as psa_walk
from wsss_core.registry import DATASETS, all_steps, imported
from wsss_core.seeds import (
    BatchedSeedMethod,
    MapRefinement,
    MapSource,
    SeedMethod,
    advcam,
    advcam_rib,
    cam,
    external,
    grad_cam,
    regions,
    rib,
)
from wsss_core.seeds import ficklenet as ficklenet_seeds
from wsss_core.seeds import seam as seam_seeds
from wsss_core.segment import by_source, cct, deeplab_v2, dsrg, pseudo_label, smp
from wsss_core.training import Objective

READERS: tuple[Reader, ...] = (coco, demo, parts, tags, voc)
CLASSIFIERS: tuple[Objective, ...] = (bce, ficklenet, mixup_cam, sc_cam, seam, w_ood)
NETWORKS: tuple[Objective, ...] = (irn_network, psa_network, deeplab_v2, dsrg, pseudo_label, by_source, cct, smp)
OBJECT_NETWORKS: tuple[Objective, ...] = (detector, mask_rcnn)
ATTRIBUTIONS: tuple[AttributionMethod, ...] = (bbam, simple_grad, smooth_grad, object_cam)
OBJECTS: tuple[ObjectMethod, ...] = (attributed, filled_boxes, grabcut, boxed_sam)
SEEDS: tuple[SeedMethod, ...] = (advcam, advcam_rib, cam, ficklenet_seeds, grad_cam, rib, seam_seeds)
BATCHED_SEEDS: tuple[BatchedSeedMethod, ...] = (cam,)
MAP_SOURCES: tuple[MapSource, ...] = (external,)
MAP_REFINEMENTS: tuple[MapRefinement, ...] = (regions,)
LABELS: tuple[LabelMaker, ...] = (irn_labels, psa_labels)
WALKS: tuple[Walk, ...] = (affinity, irn_walk, psa_walk)
MASKS: tuple[MaskMethod, ...] = (
    affinity,
    corrected,
    marks,
    crf,
    fill,
    instances,
    mixed,
    par,
    psa_masks,
    saliency,
    sam,
    seed_threshold,
    threshold,
    truth,
    walk_crf,
)

PLUGS = {
    "index": ("read", READERS),
    "train": ("plan", (*CLASSIFIERS, *NETWORKS, *OBJECT_NETWORKS)),
    "maps": ("maker", SEEDS),
    "maps_from_maps": ("refined", MAP_REFINEMENTS),
    "maps_from_files": ("maps", MAP_SOURCES),
    "labels": ("labels", LABELS),
    "walk": ("walk", WALKS),
    "masks": ("maker", MASKS),
    "attributions": ("attributions", ATTRIBUTIONS),
    "instances": ("maker", OBJECTS),
}
"""Steps that call a module of the method, to the function that they call and to all these modules."""

NAMED = {(step.name, step.settings) for step in all_steps() if step.name in PLUGS and step.settings}
NAMED |= {("index", settings) for settings in DATASETS.values()}
"""Such a step and its settings class, "module:Class", as the registry names them."""


@pytest.mark.parametrize("step", PLUGS)
def test_every_module_of_the_registry_is_in_the_tables(step):
    named = {settings.partition(":")[0] for name, settings in NAMED if name == step}
    assert {module.__name__ for module in PLUGS[step][1]} == named


@pytest.mark.parametrize(("step", "settings"), sorted(NAMED))
def test_modules_take_the_settings_that_the_registry_names(step, settings):
    module = import_module(settings.partition(":")[0])
    annotation = inspect.signature(getattr(module, PLUGS[step][0])).parameters["settings"].annotation
    assert attrgetter(annotation)(module) is imported(settings)


def test_seed_methods_that_take_several_images_are_in_the_tables():
    assert {module for module in SEEDS if isinstance(module, BatchedSeedMethod)} == set(BATCHED_SEEDS)
