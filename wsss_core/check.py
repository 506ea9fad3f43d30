"""What a run will meet in its files, looked at before anything runs: nothing is written and no image is opened."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from wsss_core.config import Configuration, Stage
from wsss_core.constants import IMAGENET, TIMM
from wsss_core.data.examine import class_counts, in_every_image
from wsss_core.data.folders import walk
from wsss_core.data.formats import reader
from wsss_core.data.listing import data_sets, dataset_settings, missing_roots
from wsss_core.data.parts import parts_of
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.registry import METHODS, imported
from wsss_core.settings import from_mapping
from wsss_core.store.masks import tried_names

LISTED = 5
"""Problems and notes of the data set that are shown."""

OF_BOXES = {("detectors", "faster_rcnn"), ("instances", "filled"), ("instances", "grabcut"), ("instances", "sam")}
"""Sections and methods of stages that take the boxes of the data set; what is built on these needs no word of its own.
"""


def look_ahead(configuration: Configuration) -> list[str]:
    """What the files that a configuration names hold, a line each.

    Files that are not here are told as such and are no mistake: the run may be meant for another machine.

    Raises
    ------
    UserError
        With a line for everything that the run would refuse.
    """
    looks: list[Callable[[], str]] = [
        partial(_dataset, configuration),
        *_backbones(configuration),
        *_weights(configuration),
        *_classifiers(configuration),
        *_folders(configuration),
    ]
    lines: list[str] = []
    mistakes: list[str] = []
    for look in looks:
        try:
            lines.append(look())
        except UserError as error:
            mistakes.append(str(error))
    if mistakes:
        raise UserError("\n  ".join(["the run would stop:", *mistakes]))
    return lines


def _dataset(configuration: Configuration) -> str:
    """The classes of the data set, and the tags if these can be read."""
    truths = [stage for stage in configuration.stages.values() if stage.is_truth]
    boxed = [stage for stage in configuration.stages.values() if (stage.section, stage.method) in OF_BOXES]
    sets = data_sets(configuration.dataset)
    if boxed and all(dataset["format"] == "table" for dataset in sets.values()):
        raise UserError(f"{_named(boxed[0])}: needs boxes, which data of the format table do not have: use voc or coco")
    lines = [_classes(configuration.dataset), *_annotated(configuration.dataset, bool(boxed))]
    for name, dataset in sets.items():
        told = _tags(dataset, truths, boxed if len(sets) == 1 else [s for s in boxed if dataset["format"] != "table"])
        lines += [f"{name}: {line}" if name else line for line in told.splitlines()]
    return "\n".join(filter(None, lines))


def _annotated(dataset: Mapping[str, Any], boxed: bool) -> list[str]:
    """Of several data sets, the classes that each was annotated for, a line each."""
    if dataset["format"] != "parts" or missing_roots(dataset):
        return []
    names, parts = parts_of(dataset_settings(dataset))
    lines = []
    for part in parts:
        missing = ", ".join(names[c] for c in part.missing)
        of = f"annotated for {len(names) - len(part.missing)} of {len(names)} classes"
        lines.append(f"{part.domain}: {part.format} data, {of}" + (f"; unknown there: {missing}" if missing else ""))
    if boxed and any(part.missing for part in parts):
        lines.append(
            "ATTENTION: a detector takes what has no box for background, also in data sets that were not annotated for "
            "all classes"
        )
    return lines


def _classes(dataset: Mapping[str, Any]) -> str:
    """The classes of the data set."""
    settings = dataset_settings(dataset)
    if missing := missing_roots(dataset):
        return f"dataset.root: there is no folder {missing[0]} yet"
    names = reader(dataset["format"])[0].classes(settings)
    return f"{len(names)} classes: {', '.join(names)}"


def _tags(dataset: Mapping[str, Any], truths: Sequence[Stage], boxed: Sequence[Stage]) -> str:
    """How many images have each class; "" where tags are seen with the images alone. True masks and
    boxes that stages take must be there.
    """
    settings = dataset_settings(dataset)
    if dataset["format"] not in ("table", "voc") or not os.path.isdir(settings.root):
        return ""
    reading = reader(dataset["format"])[0].read(settings)
    wrong = [problem for problem in reading.problems if problem.severity != "note"]
    if wrong and settings.unreadable == "stop":
        count = f"{len(wrong)} problem{'s' * (len(wrong) > 1)} in the data set (unreadable: skip goes on):"
        shown = (f"{problem.path}: {problem.image}: {problem.text}" for problem in wrong[:LISTED])
        raise UserError("\n    ".join([count, *shown]))
    for stage in truths:
        _true_masks(stage, [record for record in reading.records if "train" in record.splits])
    boxes = "" if not boxed or reading.boxes_from_masks else _boxes(boxed[0], reading.records)
    if reading.tags_from_masks:
        return ""
    train = sum("train" in record.splits for record in reading.records)
    by_class = class_counts(reading.class_names, reading.records)
    everywhere = in_every_image(reading.class_names, reading.records)
    notes = [f"note: {problem.text}" for problem in reading.problems if problem.severity == "note"][:LISTED]
    attention = f"ATTENTION: {everywhere}" if everywhere else ""
    return "\n".join(filter(None, [f"{train} images for training: {by_class}", boxes, *notes, attention]))


def _boxes(stage: Stage, records: Sequence[ImageRecord]) -> str:
    """How many images to train on have boxes; UserError if none has."""
    train = [record for record in records if "train" in record.splits]
    having = [record for record in train if record.boxes]
    if not having:
        raise UserError(f"{_named(stage)}: needs boxes, and no image for training has one in its annotation (XML)")
    return f"{sum(len(record.boxes) for record in having)} boxes on {len(having)} of {len(train)} images for training"


def _named(stage: Stage) -> str:
    return f"{stage.section}.{stage.name}"


def _true_masks(stage: Stage, records: Sequence[ImageRecord]) -> None:
    """Raise UserError if images to train on lack a mask that a stage would take."""
    from wsss_core.refine.truth import TruthSettings, require_masks

    try:
        require_masks(records, TruthSettings(**stage.settings["masks"]))
    except UserError as error:
        raise UserError(f"{_named(stage)}: {error}") from error


def _backbones(configuration: Configuration) -> Iterator[Callable[[], str]]:
    """A look at every network of timm that a stage names: whether there is one, and is of use there."""
    for stage in configuration.stages.values():
        for settings in stage.settings.values():
            if str(settings.get("backbone")).startswith(TIMM):
                yield partial(_of_timm, _named(stage), stage.section, stage.method, settings)


def _of_timm(where: str, section: str, method: str, settings: Mapping[str, Any]) -> str:
    """What a stage's network of timm is; it is built without memory for its weights."""
    import torch

    from wsss_core.models.backbones import backbone
    from wsss_core.segment.predict import BUILDERS

    name = settings["backbone"]
    try:
        with torch.device("meta"):
            if section == "segmentations":
                body = BUILDERS.get(method, BUILDERS["deeplab_v2"])(name, 2, settings).backbone
            else:
                body = backbone(name, settings.get("stride"))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    millions = sum(parameter.numel() for parameter in body.parameters()) / 1e6
    return f"{where}: {name}, {millions:.1f} million parameters, output stride {body.strides[-1]}"


def _weights(configuration: Configuration) -> Iterator[Callable[[], str]]:
    """A look at every weight file that a training starts from."""
    for stage in configuration.stages.values():
        train = stage.settings.get("train", {})
        if stage.method == "smp":
            yield partial(_smp, _named(stage), train)
        elif stage.method == "sam":
            yield partial(_sam, _named(stage), Path(next(iter(stage.settings.values()))["weights"]))
        elif train.get("weights") not in (None, "classifier"):
            name = configuration.backbone_of(stage.name)
            yield partial(_fit, f"{stage.section}.{stage.name}", train["weights"], name)


def _smp(where: str, settings: Mapping[str, Any]) -> str:
    """What a network of SMP is, and whether a weight file fits its encoder."""
    import torch

    from wsss_core.models.backbones import load_weights
    from wsss_core.models.smp import SmpNetwork

    path = settings["weights"]
    try:
        with torch.device("cpu" if path and os.path.exists(path) else "meta"):
            network = SmpNetwork(settings["decoder"], settings["encoder"], 2)
        if path and os.path.exists(path):
            network.load_encoder(load_weights(Path(path)))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    missing = f"; there is no weight file {path} yet" if path and not os.path.exists(path) else ""
    return f"{where}: {settings['decoder']} on {settings['encoder']}, {millions:.1f} million parameters{missing}"


def _sam(where: str, folder: Path) -> str:
    """What network a folder holds that is prompted; its weights are not read."""
    from wsss_core.extras import extra
    from wsss_core.models.sam import WEIGHTS, kind_of

    if not folder.exists():
        return f"{where}: there is no folder {folder} yet"
    try:
        extra("transformers", "foundation")
        kind = kind_of(folder)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    file = next(folder / name for name in WEIGHTS if (folder / name).is_file())
    return f"{where}: {folder} holds a network of the kind {kind}, weights in {file.name}"


def _classifiers(configuration: Configuration) -> Iterator[Callable[[], str]]:
    """A look at every network that was trained elsewhere."""
    for stage in configuration.stages.values():
        if "pretrained" in stage.settings:
            module = METHODS[stage.section][stage.method].steps["pretrained"].settings
            yield partial(_adopted, _named(stage), module, stage.settings["pretrained"], configuration.dataset)


def _adopted(where: str, named: str, given: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    """What network a file holds, for the classes of the data set if these are here."""
    if not os.path.exists(given["file"]):
        return f"{where}: there is no file {given['file']} yet"
    settings = dataset_settings(dataset)
    if missing_roots(dataset):
        return f"{where}: {given['file']}"
    adopted = importlib.import_module(named.partition(":")[0]).adopted
    names = reader(dataset["format"])[0].classes(settings)
    try:
        network = adopted(from_mapping(imported(named), given), names)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return f"{where}: {given['file']} holds a network of the kind {network.kind} on {network.backbone.name}"


def _folders(configuration: Configuration) -> Iterator[Callable[[], str]]:
    """A look at every folder of corrected masks, and of maps of other programs."""
    for stage in configuration.stages.values():
        if (stage.section, stage.method) == ("refinements", "corrected"):
            yield partial(_corrected, _named(stage), stage.settings["masks"]["folder"], configuration.dataset)
        elif (stage.section, stage.method) == ("refinements", "marks"):
            yield partial(_marks, _named(stage), Path(stage.settings["masks"]["folder"]), configuration.dataset)
        elif (stage.section, stage.method) == ("seeds", "external"):
            yield partial(_external, _named(stage), stage.settings["maps_from_files"], configuration.dataset)


def _external(where: str, settings: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    """How many images to train on have maps of another program."""
    from wsss_core.seeds import external

    given = external.ExternalSettings(**{**settings, "classes": tuple(settings["classes"])})
    if not os.path.isdir(given.folder):
        raise UserError(f"{where}: there is no folder {given.folder}")
    if any(one["format"] == "demo" for one in data_sets(dataset).values()) or missing_roots(dataset):
        return f"{where}: {len(walk(Path(given.folder)))} files in {given.folder}"
    reading = reader(dataset["format"])[0].read(dataset_settings(dataset))
    train = [record for record in reading.records if "train" in record.splits and record.classes]
    lacking = [record.id for record in train if not external.files(given, record, reading.class_names)]
    if lacking and given.missing == "stop":
        raise UserError(
            f"{where}: {len(lacking)} of {len(train)} images for training have no file in {given.folder}, such as "
            f"{lacking[0]!r} (setting pattern, now {given.pattern}; or missing: empty)"
        )
    return f"{where}: {len(train) - len(lacking)} of {len(train)} images for training have maps"


def _marks(where: str, folder: Path, dataset: Mapping[str, Any]) -> str:
    """How many images have scribbles and points, and which points are of no image."""
    from wsss_core.refine.marks import points_of, read_points, scribbles_of

    if any(one["format"] == "demo" for one in data_sets(dataset).values()) or missing_roots(dataset):
        return f"{where}: marks in {folder}"
    reading = reader(dataset["format"])[0].read(dataset_settings(dataset))
    try:
        points = read_points(folder, reading.class_names)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    drawn = sum(scribbles_of(folder, record) is not None for record in reading.records)
    dotted = sum(bool(points_of(points, record)) for record in reading.records)
    if not drawn and not dotted:
        raise UserError(f"{where}: no file or point in {folder} is of an image of the data set")
    names = {n for r in reading.records for n in (r.id, Path(r.path).name, Path(r.path).stem)}
    stray = sorted(set(points) - names)
    more = f"; {len(stray)} names of points are of no image, such as {stray[0]}" if stray else ""
    return f"{where}: of {len(reading.records)} images {drawn} have scribbles and {dotted} points{more}"


def _corrected(where: str, folder: str, dataset: Mapping[str, Any]) -> str:
    """How many images have a corrected mask, and which masks are of no image."""
    if not os.path.isdir(folder):
        raise UserError(f"{where}: there is no folder {folder}")
    masks = {entry.name for entry in walk(Path(folder)) if entry.name.endswith(".png")}
    if any(one["format"] == "demo" for one in data_sets(dataset).values()) or missing_roots(dataset):
        return f"{where}: {len(masks)} corrected masks in {folder}"
    records = reader(dataset["format"])[0].read(dataset_settings(dataset)).records
    found = {next((name for name in tried_names(r.id, r.path) if name in masks), "") for r in records} - {""}
    if not found:
        there = f"such as {sorted(masks)[0]}" if masks else "as none is a .png"
        wanted = tried_names(records[0].id, records[0].path)[0] if records else "nothing"
        raise UserError(f"{where}: no file in {folder} is called as a mask of an image, such as {wanted}; {there}")
    stray = sorted(masks - found)
    more = f"; {len(stray)} of no image, such as {stray[0]}" if stray else ""
    return f"{where}: {len(found)} of {len(records)} images have a corrected mask{more}"


def _fit(where: str, path: str, name: str) -> str:
    """Whether a weight file fits the backbone that a stage would load it into."""
    if path == IMAGENET:
        from wsss_core.models.imagenet import cached

        try:
            file = cached(name)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        return f"{where}: {file.name} {'is in' if file.exists() else 'will be fetched into'} {file.parent}"
    if not os.path.exists(path):
        return f"{where}: there is no weight file {path} yet"
    from wsss_core.models.backbones import backbone, load_weights

    state = load_weights(Path(path))
    try:
        backbone(name).load(state)
    except UserError as error:
        raise UserError(f"{where}: {path}: {error}") from error
    return f"{where}: {path} fits the backbone {name}"
