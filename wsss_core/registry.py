"""Every method and every step, once: the one place that knows which file implements what, and how it is run.

Nothing is imported here but names, so the workflow can read it without torch. To add a method, write its file (or
folder) with its settings, and add a row below; `wsss schema` then writes its settings into the schema.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Step:
    """What Snakemake runs once, for a stage or for a stage and a shard.

    A step has one name: that of its command (``wsss NAME``), of its file in `wsss_core.steps`, of its settings file
    (``NAME.json``) and, with what tells them apart in front or behind where several rules run it, of its rule.

    Attributes
    ----------
    settings
        "module:Class" of the settings. The module is the method's part in the step; "" where all settings of the run
        are read.
    rule
        Name of the rule.
    each
        Whether it runs once, or for each shard of the split.
    split
        The images it works on: "train", "val" or "ood"; "" for none.
    execution
        Options of `wsss_core.execution.Execution` that it heeds, beside the number of threads.
    key
        Key of the stage in the configuration that holds the settings; "" for the stage's own level.
    files
        What it leaves in the stage's folder for people, and a run that asks for the stage makes.
    asked_by
        The one of its settings without which (null) a run leaves the step out; "" if it never does.
    product
        The file or folder whose being there says that the step was done, from the stage's folder; of steps of the run
        itself, but for the index, from the run's. ``{shard}`` and ``{name}`` stand for the names of a shard and of a
        figure.
    scored
        What of the stage it scores ("maps", "walk", "masks" or "predictions"), and the file of the scores; empty if it
        scores nothing.
    """

    name: str
    settings: str
    rule: str
    each: Literal["once", "shard"] = "once"
    split: Literal["train", "val", "ood", ""] = ""
    execution: tuple[str, ...] = ()
    key: str = ""
    files: tuple[str, ...] = ()
    scored: tuple[str, str] | tuple[()] = ()
    product: str = ""
    asked_by: str = ""

    def asked(self, settings: Mapping[str, Any]) -> bool:
        """Whether a run with these settings of the step takes it."""
        return not self.asked_by or settings.get(self.asked_by) is not None

    @property
    def module(self) -> str:
        """Module of the method's part in the step; "" if there is none."""
        return self.settings.partition(":")[0]

    @property
    def code(self) -> tuple[str, ...]:
        """Modules whose source, with all they import from this package, the results depend on."""
        return tuple(filter(None, (f"wsss_core.steps.{self.name}", self.module)))

    @property
    def device(self) -> bool:
        """Whether it can use a GPU."""
        return "device" in self.execution


REPEAT = "repeat"
"""Key of every stage that says which of its repetitions it is."""


@dataclass(frozen=True)
class Method:
    """One kind of stage.

    Attributes
    ----------
    steps
        Its steps by name.
    edges
        Keys that name an upstream stage, to the section where it is found, or "section/method" where only
        that method will do, or "section/method|method" where one of these will.
    """

    steps: Mapping[str, Step]
    edges: Mapping[str, str] = field(default_factory=dict)


def _method(*steps: Step, **edges: str) -> Method:
    return Method({step.name: step for step in steps}, edges)


def _train(section: str, settings: str, *, key: str = "", files: tuple[str, ...] = ("model.pt",)) -> Step:
    options = ("device", "precision", "workers", "tensorboard")
    return Step(
        "train",
        settings,
        f"{section}_train",
        split="train",
        execution=options,
        key=key,
        files=files,
        product=files[0] if files else "network.pt",
    )


_SCORES = "wsss_core.evaluate.sweep:ScoresSettings"


def _scores(section: str, scored: tuple[str, str], settings: str = _SCORES) -> Step:
    """Scores of maps at every threshold."""
    rule = f"{section}_scores"
    files = ("curve.csv", scored[1])
    return Step("scores", settings, rule, split="train", key="score", files=files, scored=scored, product=scored[1])


def _evaluation(section: str, split: Literal["train", "val"], product: str) -> Step:
    """Scores of masks."""
    settings, file = "wsss_core.evaluate.sweep:EvaluationSettings", "evaluation.csv"
    return Step(
        "evaluation",
        settings,
        f"{section}_evaluation",
        split=split,
        key="evaluation",
        files=(file, "domains.csv"),
        scored=(product, file),
        product=file,
    )


_TAG_SCORES = Step(
    "tag_scores",
    "wsss_core.classify.tag_scores:TagScoresSettings",
    "tag_scores",
    split="train",
    execution=("device",),
    key="tag_scores",
    files=("tag_scores.json", "predicted.csv"),
    product="tag_scores.json",
)
"""Whether a trained classifier tells the classes apart."""


def _classifier(name: str, settings: str, **edges: str) -> Method:
    """An objective; the edge ``init`` says where the classifier is found that it starts from, if it does."""
    return _method(_train("classifiers", f"wsss_core.classify.{name}:{settings}"), _TAG_SCORES, **edges)


def _pretrained() -> Method:
    """A classifier that was trained elsewhere."""
    settings = "wsss_core.classify.pretrained:PretrainedSettings"
    files = ("model.pt",)
    return _method(
        Step("pretrained", settings, "classifiers_pretrained", split="train", files=files, product=files[0]),
        _TAG_SCORES,
    )


def _w_ood() -> Method:
    """W-OoD, which chooses its out-of-distribution photos before it trains."""
    module = "wsss_core.classify.out_of_distribution"
    return _method(
        Step(
            "candidates",
            f"{module}:CandidatesSettings",
            "candidates",
            split="ood",
            execution=("device",),
            key="candidates",
            files=("candidates.html",),
            product="candidates.csv",
        ),
        Step(
            "selection",
            f"{module}:SelectionSettings",
            "selection",
            split="ood",
            execution=("device",),
            key="selection",
            product="ood.csv",
        ),
        _train("classifiers", "wsss_core.classify.w_ood:WOodSettings"),
        _TAG_SCORES,
        init="classifiers",
    )


_LOCALISATION = Step(
    "localisation",
    "wsss_core.evaluate.localisation:LocalisationSettings",
    "localisation",
    split="train",
    key="localisation",
    files=("localisation.csv",),
    product="localisation.csv",
    asked_by="rule",
)
"""Scores of maps against boxes, where they are asked for."""


def _seed(name: str, settings: str, *, classifier: str = "classifiers", scores: str = _SCORES) -> Method:
    """A seed method; `classifier` narrows the objectives it works on."""
    options = ("device", "precision", "images_at_once")
    product = "maps/{shard}.h5"
    maps = Step("maps", f"wsss_core.seeds.{name}:{settings}", "maps", "shard", "train", options, product=product)
    return _method(maps, _scores("seeds", ("maps", "evaluation.csv"), scores), _LOCALISATION, classifier=classifier)


def _refined_seed(name: str, settings: str) -> Method:
    """A seed made of the maps of another, without its classifier."""
    product = "maps/{shard}.h5"
    maps = Step(
        "maps_from_maps", f"wsss_core.seeds.{name}:{settings}", "maps_from_maps", "shard", "train", product=product
    )
    return _method(maps, _scores("seeds", ("maps", "evaluation.csv")), _LOCALISATION, seed="seeds")


def _external_seed() -> Method:
    """A seed that other programs have made."""
    product = "maps/{shard}.h5"
    settings = "wsss_core.seeds.external:ExternalSettings"
    maps = Step("maps_from_files", settings, "maps_from_files", "shard", "train", product=product)
    return _method(maps, _scores("seeds", ("maps", "evaluation.csv")), _LOCALISATION)


def _masks(
    settings: str, given: Literal["maps", "prompts", "scores", "masks", "network", "instances"], key: str = ""
) -> Step:
    """Label masks; `given` is what they are made from ("network": masks and the network trained on them; "prompts":
    maps, which a network that was trained elsewhere is prompted with)."""
    options = ("device",) if given in ("network", "prompts") else ()
    return Step("masks", settings, f"masks_from_{given}", "shard", "train", options, key, product="masks/{shard}")


def _refinement(masks: Step, /, **edges: str) -> Method:
    """A refinement of one step: masks, which are scored."""
    return _method(masks, _evaluation("refinements", "train", "masks"), **edges)


def _walked(name: str, *, masks: str, scores: str = _SCORES, pretrained: bool = False) -> Method:
    """A refinement that walks the maps of a seed by a network, which learns from labels made of these, or was trained
    elsewhere; a folder with a file a step."""
    module = f"wsss_core.refine.{name}"
    labels = Step(
        "labels",
        f"{module}.labels:LabelsSettings",
        "labels",
        "shard",
        "train",
        key="labels",
        product="labels/{shard}.h5",
    )
    train = _train("refinements", f"{module}.network:TrainSettings", key="network", files=())
    taken_in = Step(
        "pretrained",
        f"{module}.pretrained:PretrainedSettings",
        "refinements_pretrained",
        split="train",
        key="network",
        product="network.pt",
    )
    return _method(
        *([taken_in] if pretrained else [labels, train]),
        Step(
            "walk",
            f"{module}.walk:WalkSettings",
            "walk",
            "shard",
            "train",
            ("device",),
            key="walk",
            product="scores/{shard}.h5",
        ),
        _scores("refinements", ("walk", "walk.csv"), scores),
        _masks(masks, "scores", key="masks"),
        _evaluation("refinements", "train", "masks"),
        seed="seeds",
    )


def _affinity() -> Method:
    """A refinement that walks the maps of a seed on the features of a backbone, without training."""
    module = "wsss_core.refine.affinity"
    rule, product, file = "refinements_pretrained", "scores/{shard}.h5", "network.pt"
    return _method(
        Step("pretrained", f"{module}:FeaturesSettings", rule, split="train", key="network", product=file),
        Step("walk", f"{module}:WalkSettings", "walk", "shard", "train", ("device",), key="walk", product=product),
        _scores("refinements", ("walk", "walk.csv"), f"{module}:ScoresSettings"),
        _masks(f"{module}:MasksSettings", "scores", key="masks"),
        _evaluation("refinements", "train", "masks"),
        seed="seeds",
    )


def _segmentation(name: str, settings: str, **edges: str) -> Method:
    """A training objective of segmentation networks; `edges` are what it learns from beside label masks."""
    return _method(
        _train("segmentations", f"wsss_core.segment.{name}:{settings}"),
        Step(
            "predictions",
            "wsss_core.segment.predict:PredictSettings",
            "predictions",
            each="shard",
            split="val",
            execution=("device",),
            key="predict",
            product="predictions/{shard}",
        ),
        _evaluation("segmentations", "val", "predictions"),
        masks="refinements",
        **edges,
    )


_EVALUATION_OF_OBJECTS = "wsss_core.evaluate.instances:InstanceScoresSettings"


def _detector(settings: str) -> Method:
    """A network that finds objects, trained on boxes."""
    scores = "box_scores.csv"
    return _method(
        _train("detectors", settings),
        Step(
            "box_scores",
            _EVALUATION_OF_OBJECTS,
            "box_scores",
            split="val",
            execution=("device",),
            key="score",
            files=(scores,),
            product=scores,
        ),
    )


def _attribution(name: str, settings: str) -> Method:
    """What a detector needs to see of each object."""
    module, product = f"wsss_core.boxes.{name}:{settings}", "attributions/{shard}.h5"
    step = Step("attributions", module, "attributions", "shard", "train", ("device",), product=product)
    file = "statistics.csv"
    summary = Step(
        "attribution_statistics",
        "wsss_core.boxes:StatisticsSettings",
        "attribution_statistics",
        split="train",
        key="statistics",
        files=(file,),
        product=file,
    )
    return _method(step, summary, detector="detectors")


def _scores_of_objects(section: str, split: Literal["train", "val"]) -> Step:
    """Scores of the masks of single objects."""
    file = "instance_scores.csv"
    return Step(
        "instance_scores",
        _EVALUATION_OF_OBJECTS,
        f"{section}_scores",
        split=split,
        key="score",
        files=(file,),
        product=file,
    )


def _objects(name: str, settings: str, rule: str, execution: tuple[str, ...] = (), /, **edges: str) -> Method:
    """Masks of single objects, made by the step `name`."""
    step = Step(name, settings, rule, "shard", "train", execution, product="instances/{shard}.h5")
    return _method(step, _scores_of_objects("instances", "train"), **edges)


def _instance_network(settings: str) -> Method:
    """A network that gives every object a mask."""
    return _method(
        _train("instance_networks", settings),
        Step(
            "instance_predictions",
            "wsss_core.instances.mask_rcnn:InstancePredictSettings",
            "instance_predictions",
            "shard",
            "val",
            ("device",),
            key="predict",
            product="predictions/{shard}.h5",
        ),
        _scores_of_objects("instance_networks", "val"),
        instances="instances",
    )


_WALKS = "affinity|irn|irn_pretrained|psa|psa_pretrained"
"""Refinements that walk."""

METHODS: dict[str, dict[str, Method]] = {
    "classifiers": {
        "bce": _classifier("bce", "BceSettings"),
        "seam": _classifier("seam", "SeamSettings"),
        "ficklenet": _classifier("ficklenet", "FickleNetSettings"),
        "mixup_cam": _classifier("mixup_cam", "MixupCamSettings"),
        "sc_cam": _classifier("sc_cam", "ScCamSettings", init="classifiers"),
        "w_ood": _w_ood(),
        "pretrained": _pretrained(),
    },
    "seeds": {
        "cam": _seed("cam", "CamSettings"),
        "rib": _seed("rib", "RibSettings"),
        "advcam": _seed("advcam", "AdvCamSettings"),
        "advcam_rib": _seed("advcam_rib", "AdvCamRibSettings"),
        "grad_cam": _seed("grad_cam", "GradCamSettings"),
        "ficklenet": _seed(
            "ficklenet",
            "FickleNetSeedSettings",
            classifier="classifiers/ficklenet",
            scores="wsss_core.seeds.ficklenet:FickleNetScoresSettings",
        ),
        "seam": _seed("seam", "SeamSettings", classifier="classifiers/seam|pretrained"),
        "regions": _refined_seed("regions", "RegionsSettings"),
        "external": _external_seed(),
    },
    "refinements": {
        "crf": _refinement(_masks("wsss_core.refine.crf:CrfSettings", "maps"), seed="seeds"),
        "irn": _walked("irn", masks="wsss_core.refine.threshold:ThresholdSettings"),
        "irn_pretrained": _walked("irn", masks="wsss_core.refine.threshold:ThresholdSettings", pretrained=True),
        "threshold": _refinement(
            _masks("wsss_core.refine.threshold:ThresholdSettings", "scores"), walk=f"refinements/{_WALKS}"
        ),
        "walk_crf": _refinement(
            _masks("wsss_core.refine.walk_crf:WalkCrfSettings", "scores"), walk=f"refinements/{_WALKS}"
        ),
        "psa": _walked(
            "psa",
            masks="wsss_core.refine.psa.masks:MasksSettings",
            scores="wsss_core.refine.psa.masks:ScoresSettings",
        ),
        "psa_pretrained": _walked(
            "psa",
            masks="wsss_core.refine.psa.masks:MasksSettings",
            scores="wsss_core.refine.psa.masks:ScoresSettings",
            pretrained=True,
        ),
        "affinity": _affinity(),
        "par": _refinement(_masks("wsss_core.refine.par:ParSettings", "maps"), seed="seeds"),
        "sam": _refinement(_masks("wsss_core.refine.sam:SamSettings", "prompts"), seed="seeds"),
        "seed_threshold": _refinement(
            _masks("wsss_core.refine.seed_threshold:SeedThresholdSettings", "maps"), seed="seeds"
        ),
        "saliency": _refinement(_masks("wsss_core.refine.saliency:SaliencySettings", "masks"), masks="refinements"),
        "marks": _refinement(_masks("wsss_core.refine.marks:MarksSettings", "masks"), masks="refinements"),
        "corrected": _refinement(_masks("wsss_core.refine.corrected:CorrectedSettings", "masks"), masks="refinements"),
        "instances": _refinement(
            _masks("wsss_core.refine.instances:MergeSettings", "instances"), instances="instances"
        ),
        "mixed": _refinement(
            _masks("wsss_core.refine.mixed:MixedSettings", "masks"), masks="refinements", otherwise="refinements"
        ),
        "fill": _refinement(
            _masks("wsss_core.refine.fill:FillSettings", "network"), masks="refinements", segmentation="segmentations"
        ),
        "truth": _method(_masks("wsss_core.refine.truth:TruthSettings", "masks")),
    },
    "segmentations": {
        "deeplab_v2": _segmentation("deeplab_v2", "DeepLabV2Settings"),
        "dsrg": _segmentation("dsrg", "DsrgSettings"),
        "pseudo_label": _segmentation("pseudo_label", "PseudoLabelSettings", truth="refinements/truth"),
        "by_source": _segmentation("by_source", "BySourceSettings", truth="refinements/truth"),
        "smp": _segmentation("smp", "SmpSettings"),
        "cct": _segmentation("cct", "CctSettings", truth="refinements/truth"),
    },
    "detectors": {"faster_rcnn": _detector("wsss_core.boxes.detector:DetectorSettings")},
    "attributions": {
        "bbam": _attribution("bbam", "BbamSettings"),
        "simple_grad": _attribution("simple_grad", "SimpleGradSettings"),
        "smooth_grad": _attribution("smooth_grad", "SmoothGradSettings"),
        "grad_cam": _attribution("grad_cam", "GradCamSettings"),
    },
    "instances": {
        "attributed": _objects(
            "instances",
            "wsss_core.boxes.masks:MasksSettings",
            "instances_from_attributions",
            attribution="attributions",
        ),
        "filled": _objects("instances", "wsss_core.boxes.fill:FillSettings", "instances_from_boxes"),
        "grabcut": _objects("instances", "wsss_core.boxes.grabcut:GrabCutSettings", "instances_from_boxes"),
        "sam": _objects("instances", "wsss_core.boxes.sam:SamSettings", "instances_from_prompts", ("device",)),
        "proposals": _objects(
            "fitted_instances",
            "wsss_core.boxes.proposals:ProposalsSettings",
            "fitted_instances",
            instances="instances",
        ),
        "irn": _objects(
            "walked_instances",
            "wsss_core.refine.irn.instances:InstancesSettings",
            "walked_instances",
            ("device", "precision"),
            walk="refinements/irn|irn_pretrained",
        ),
        "truth": _objects("true_instances", "wsss_core.boxes.truth:TruthSettings", "true_instances"),
    },
    "instance_networks": {"mask_rcnn": _instance_network("wsss_core.instances.mask_rcnn:MaskRcnnSettings")},
}

SCORED_SECTIONS = tuple(
    section
    for section, methods in METHODS.items()
    if any(step.scored for method in methods.values() for step in method.steps.values())
)
"""Sections whose stages make label masks, or maps that are cut to masks, which are scored against true masks."""

ARCHITECTURES = {
    "cam": "wsss_core.models.cam:CamNetwork",
    "seam": "wsss_core.models.seam:SeamNetwork",
    "ficklenet": "wsss_core.models.ficklenet:FickleNetwork",
    "embedded_cam": "wsss_core.models.embedded:EmbeddedCamNetwork",
    "sc_cam": "wsss_core.models.sc_cam:ScCamNetwork",
}
"""Networks of classifiers, by the name their checkpoints carry; built as
``Class(backbone, n_classes, **architecture_settings)``."""

FORMS = {
    "index": "grey PNGs whose grey levels are the labels, which any program reads, and classes.txt",
    "overlay": "pictures for people: the masks over their photos",
    "voc": "a folder as PASCAL VOC's, with labelmap.txt: CVAT's segmentation mask 1.1 when zipped",
    "coco": "COCO's JSON: an annotation for each class of an image, its mask as a run-length code",
    "cvat": "CVAT for images 1.1: an XML with a mask for each piece of a class, to be corrected",
    "yolo": "YOLO's segmentation: a text file an image with the outline of each piece of a class, and data.yaml",
    "labelstudio": "tasks of Label Studio with brush masks, to be corrected, and the project's labels.xml",
}
"""Forms of label masks, each a file of `wsss_core.exchange`, and what they are."""

SOFT_FORMS = {
    "npz": "class maps as files of numpy",
    "confidence": "grey PNGs of the strongest class map",
}
"""Forms of class maps, likewise."""

DATASETS = {
    "voc": "wsss_core.data.voc:VocSettings",
    "coco": "wsss_core.data.coco:CocoSettings",
    "table": "wsss_core.data.tags:TableSettings",
    "demo": "wsss_core.data.demo:DemoSettings",
    "parts": "wsss_core.data.parts:PartsSettings",
}
"""Formats of a data set: the settings of their readers."""

RUN_STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step("index", "", "index", product="images.csv"),
        Step(
            "features",
            "wsss_core.evaluate.embedding:FeaturesSettings",
            "features",
            execution=("device",),
            product="analyses/features.svg",
        ),
        Step("results", "", "results", product="results.csv"),
        Step("health", "", "health", product="health.json"),
        Step("figure", "wsss_core.evaluate.figures:FigureSettings", "figure", product="figures/{name}.svg"),
        Step("sheet", "", "sheet", product="sheet"),
        Step("report", "", "report", product="report.html"),
        Step("toy", "wsss_core.toy.experiment:ToySettings", "toy", product="toy/layers.svg"),
    )
}
"""Steps of the run itself, of no stage."""

DISCRIMINATOR = {
    "classifiers": "objective",
    "seeds": "method",
    "refinements": "method",
    "segmentations": "network",
    "detectors": "network",
    "attributions": "method",
    "instances": "method",
    "instance_networks": "network",
    "dataset": "format",
}
"""The key of a stage that says which method it is, per section."""

CHECKS = {
    "figures": "wsss_core.evaluate.figures:figure_mistakes",
    "report": "wsss_core.report.settings:report_mistakes",
}
"""Sections of a configuration that name stages, to what looks for mistakes in these names: a function of the section's
settings, of all stages by name, and of the names of those that are targets; it returns one line a mistake."""


def all_steps() -> Iterator[Step]:
    """Every step of every method, then those of the run; one that several methods have comes several times."""
    for methods in METHODS.values():
        for method in methods.values():
            yield from method.steps.values()
    yield from RUN_STEPS.values()


def find_step(stage: str, method: str, name: str) -> Step:
    """The step of a name, for a stage ("section/name", or what a step of the run is about) of a method.

    Raises
    ------
    KeyError
        If there is no such step.
    """
    if name == "index":
        return replace(RUN_STEPS[name], settings=DATASETS[method])
    return RUN_STEPS[name] if name in RUN_STEPS else METHODS[stage.partition("/")[0]][method].steps[name]


def imported(path: str) -> Any:
    """What a "module:name" of this file names; the module is imported by this call and not before."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


DATA_SETS = {
    "voc12": "PASCAL VOC 2012 with SBD's masks, as VOCdevkit/VOC2012 with train_aug.txt and SegmentationClassAug",
    "coco14": "MS COCO 2014, as coco with the images and instance annotations of train and val",
}
"""Data sets that `wsss prepare` makes ready, each a file of `wsss_core.prepare`, and what they become."""
