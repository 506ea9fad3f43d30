"""Every method by name: the one place that knows which file implements what.

Nothing is imported here but names, so the workflow can read it without torch. To add a method, write its file
(settings dataclass and functions) and add a line below; `wsss schema` then writes its settings into the schema.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Step:
    """One rule of a stage.

    Attributes
    ----------
    settings
        "module:Class" of the step's settings.
    code
        Modules whose source (with all they import from this package) the step's results depend on.
    key
        Key of the stage in the configuration that holds these settings; "" for the stage's own level.
    """

    settings: str
    code: tuple[str, ...]
    key: str = ""


@dataclass(frozen=True)
class Method:
    """One kind of stage.

    Attributes
    ----------
    steps
        Name of the step (its rule and its settings file) to `Step`.
    edges
        Keys that name an upstream stage, to the section where it is found, or "section/method" where only
        that method will do, or "section/method|method" where one of these will.
    """

    steps: dict[str, Step]
    edges: dict[str, str] = field(default_factory=dict)


_SCORES = Step("wsss_core.evaluate.sweep:ScoreSettings", ("wsss_core.stages.score_maps",), key="score")
_EVALUATION = Step("wsss_core.evaluate.sweep:MaskScoreSettings", ("wsss_core.stages.score_masks",), key="evaluation")


def _classifier(name: str, settings: str, *, init: str = "") -> Method:
    """An objective; `init` says where the classifier is found that it starts from, if it does."""
    module = f"wsss_core.classify.{name}"
    train = Step(f"{module}:{settings}", ("wsss_core.stages.classify", module))
    return Method({"train": train}, {"init": init} if init else {})


def _seed(name: str, settings: str, *, classifier: str = "classifiers") -> Method:
    """A seed method; `classifier` narrows the objectives it works on."""
    module = f"wsss_core.seeds.{name}"
    maps = Step(f"{module}:{settings}", ("wsss_core.stages.seed", module))
    return Method({"maps": maps, "scores": _SCORES}, {"classifier": classifier})


def _w_ood() -> Method:
    """W-OoD, which chooses its out-of-distribution photos before it trains."""
    module = "wsss_core.classify.out_of_distribution"
    candidates = Step(f"{module}:CandidateSettings", ("wsss_core.stages.ood_candidates",), "candidates")
    selection = Step(f"{module}:SelectionSettings", ("wsss_core.stages.ood_selection",), "selection")
    trained = _classifier("w_ood", "WOodSettings", init="classifiers")
    return Method({"candidates": candidates, "selection": selection, **trained.steps}, trained.edges)


def _segmentation(name: str, settings: str) -> Method:
    """A training objective of segmentation networks."""
    module = f"wsss_core.segment.{name}"
    predict = Step("wsss_core.segment.predict:PredictSettings", ("wsss_core.stages.segment_predict",), key="predict")
    train = Step(f"{module}:{settings}", ("wsss_core.stages.segment_train", module))
    return Method({"train": train, "predict": predict, "evaluation": _EVALUATION}, {"masks": "refinements"})


METHODS: dict[str, dict[str, Method]] = {
    "classifiers": {
        "bce": _classifier("bce", "BceSettings"),
        "seam": _classifier("seam", "SeamSettings"),
        "ficklenet": _classifier("ficklenet", "FickleNetSettings"),
        "mixup_cam": _classifier("mixup_cam", "MixupCamSettings"),
        "sc_cam": _classifier("sc_cam", "ScCamSettings", init="classifiers"),
        "w_ood": _w_ood(),
    },
    "seeds": {
        "cam": _seed("cam", "CamSettings"),
        "rib": _seed("rib", "RibSettings"),
        "advcam": _seed("advcam", "AdvCamSettings"),
        "advcam_rib": _seed("advcam_rib", "AdvCamRibSettings"),
        "grad_cam": _seed("grad_cam", "GradCamSettings"),
        "ficklenet": _seed("ficklenet", "FickleNetSeedSettings", classifier="classifiers/ficklenet"),
        "seam": _seed("seam", "SeamSettings", classifier="classifiers/seam"),
    },
    "refinements": {
        "crf": Method(
            {
                "masks": Step("wsss_core.refine.crf:CrfSettings", ("wsss_core.stages.crf_masks",)),
                "evaluation": _EVALUATION,
            },
            {"seed": "seeds"},
        ),
        "irn": Method(
            {
                "labels": Step("wsss_core.refine.irn_labels:LabelSettings", ("wsss_core.stages.irn_labels",), "labels"),
                "network": Step("wsss_core.refine.irn:NetworkSettings", ("wsss_core.stages.irn_train",), "network"),
                "walk": Step("wsss_core.refine.walk:WalkSettings", ("wsss_core.stages.irn_walk",), "walk"),
                "scores": _SCORES,
                "masks": Step("wsss_core.refine.threshold:MaskSettings", ("wsss_core.stages.walk_masks",), "masks"),
                "evaluation": _EVALUATION,
            },
            {"seed": "seeds"},
        ),
        "threshold": Method(
            {
                "masks": Step("wsss_core.refine.threshold:MaskSettings", ("wsss_core.stages.walk_masks",)),
                "evaluation": _EVALUATION,
            },
            {"walk": "refinements/irn|psa"},
        ),
        "psa": Method(
            {
                "labels": Step("wsss_core.refine.psa_labels:LabelSettings", ("wsss_core.stages.psa_labels",), "labels"),
                "network": Step("wsss_core.refine.psa:NetworkSettings", ("wsss_core.stages.psa_train",), "network"),
                "walk": Step("wsss_core.refine.psa_walk:WalkSettings", ("wsss_core.stages.psa_walk",), "walk"),
                "scores": replace(_SCORES, settings="wsss_core.refine.psa_masks:PsaScoreSettings"),
                "masks": Step("wsss_core.refine.psa_masks:PsaMaskSettings", ("wsss_core.stages.walk_masks",), "masks"),
                "evaluation": _EVALUATION,
            },
            {"seed": "seeds"},
        ),
        "seed_threshold": Method(
            {
                "masks": Step(
                    "wsss_core.refine.seed_threshold:SeedThresholdSettings", ("wsss_core.stages.seed_threshold_masks",)
                ),
                "evaluation": _EVALUATION,
            },
            {"seed": "seeds"},
        ),
        "saliency": Method(
            {
                "masks": Step("wsss_core.refine.saliency:SaliencySettings", ("wsss_core.stages.saliency_masks",)),
                "evaluation": _EVALUATION,
            },
            {"masks": "refinements"},
        ),
        "fill": Method(
            {
                "masks": Step("wsss_core.refine.fill:FillSettings", ("wsss_core.stages.fill_masks",)),
                "evaluation": _EVALUATION,
            },
            {"masks": "refinements", "segmentation": "segmentations"},
        ),
    },
    "segmentations": {
        "deeplab_v2": _segmentation("deeplab_v2", "DeepLabV2Settings"),
        "dsrg": _segmentation("dsrg", "DsrgSettings"),
    },
}

ARCHITECTURES = {
    "cam": "wsss_core.models.cam:CamNetwork",
    "seam": "wsss_core.models.seam:SeamNetwork",
    "ficklenet": "wsss_core.models.ficklenet:FickleNetwork",
    "embedded_cam": "wsss_core.models.embedded:EmbeddedCamNetwork",
    "sc_cam": "wsss_core.models.sc_cam:ScCamNetwork",
}
"""Networks of classifiers, by the name their checkpoints carry; built as
``Class(backbone, n_classes, **architecture_settings)``."""

DATASETS = {
    "voc": "wsss_core.data.voc:VocSettings",
    "coco": "wsss_core.data.coco:CocoSettings",
    "table": "wsss_core.data.tags:TableSettings",
    "demo": "wsss_core.data.demo:DemoSettings",
}
"""Formats of a data set: the settings of their readers."""

DISCRIMINATOR = {
    "classifiers": "objective",
    "seeds": "method",
    "refinements": "method",
    "segmentations": "network",
    "dataset": "format",
}
"""The key of a stage that says which method it is, per section."""

CHECKS = {
    "figures": "wsss_core.evaluate.figures:figure_mistakes",
    "report": "wsss_core.report.settings:report_mistakes",
}
"""Sections of a configuration that name stages, to what looks for mistakes in these names: a function of the section's
settings, of all stages by name, and of the names of those that are targets; it returns one line a mistake."""


def imported(path: str) -> Any:
    """What a "module:name" of this file names; the module is imported by this call and not before."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
