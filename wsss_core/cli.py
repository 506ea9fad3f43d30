"""`wsss`: from cheap labels to pixel masks. The workflow, what a user needs beside it, and every step of it by hand.

The rules of the workflow call nothing but the steps, with the same arguments, so any of them can be run in a debugger
by copying its command from ``snakemake --printshellcmds``.
"""

from __future__ import annotations

import argparse
import glob
import importlib
import logging
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsss_core import __version__
from wsss_core.errors import UserError
from wsss_core.execution import Execution, gpu_lease, keep_freed_memory, let_threads_sleep
from wsss_core.registry import DATA_SETS, FORMS, SOFT_FORMS, all_steps
from wsss_core.signature import Signature, read_signature
from wsss_core.store.atomic import Stands, only_while

STEPS = {
    name: frozenset(option for step in all_steps() if step.name == name for option in step.execution)
    for name in sorted({step.name for step in all_steps()})
}
"""Command of every step to the options of `Execution` that it heeds."""

OWN_WORDS = {"run": 2, "demo": 1}
"""Commands whose further words go to Snakemake, and how many words, the command among them, are our own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (2 for a mistake the user can mend)."""
    own, passed_on = split_words(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(own or ["--help"])
    options.passed_on = passed_on
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        return options.call(options) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # a reader such as `head` has seen enough; Python would complain again on leaving
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # no permission, or a folder where a file should be
        if error.filename is None:
            raise
        print(f"error: {error.filename2 or error.filename}: {error.strerror}", file=sys.stderr)
        return 2


def split_words(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Our own words, and those that go to Snakemake unread: all after ``run FILE`` and after ``demo``."""
    count = OWN_WORDS.get(words[0], len(words)) if words else 0
    if set(words[1:2]) & {"-h", "--help"}:
        count = len(words)
    return words[:count], words[count:]


def _parser() -> argparse.ArgumentParser:
    usage = "wsss [-h] [--version] command ..."
    parser = argparse.ArgumentParser("wsss", usage, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"wsss {__version__}")
    commands = parser.add_subparsers(prog="wsss", required=True, metavar="command", help=argparse.SUPPRESS)
    listed: list[tuple[str, str]] = []

    def command(name: str, text: str, description: str = "", usage: str | None = None) -> argparse.ArgumentParser:
        listed.append((name, text))
        return commands.add_parser(name, usage=usage, description=description or f"{text[0].upper()}{text[1:]}.")

    run = command(
        "run",
        "make all that a configuration asks for, by Snakemake",
        "Make all that a configuration asks for, in the current folder. What follows FILE goes to Snakemake: --cores 4"
        " for the cores to use, --dry-run to see what would be done (snakemake --help lists all).",
        "wsss run [-h] FILE [option or target of Snakemake ...]",
    )
    run.add_argument("configuration", type=Path, metavar="FILE", help="the configuration, YAML")
    run.set_defaults(call=_run)

    demo = command(
        "demo",
        "go the whole path on drawn pictures",
        "Draw pictures with tags and go the whole path with them, to results/demo/report.html.",
        "wsss demo [-h] [option or target of Snakemake ...]",
    )
    demo.set_defaults(call=_demo)

    copy = command("copy", "copy a shipped configuration or profile into the current folder, to edit")
    copy.add_argument("names", nargs="*", metavar="NAME", help="such as config/voc12.yaml; without any: list all")
    copy.set_defaults(call=_copy)

    init = command(
        "init",
        "write a first configuration for a folder of photos",
        "Look at a folder of photos: find their tags and, if there are any, true masks; show the classes; and write a"
        " short configuration that suits them, with its reasons. Nothing is written into the folder.",
    )
    init.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of photos, with their tags")
    init.add_argument("--labels", type=Path, metavar="FILE", help="file of tags, if it is not in the folder")
    weights = (
        "ImageNet weights of a backbone, as torchvision has them; none: random ones (default: fetched by torchvision)"
    )
    init.add_argument("--weights", metavar="FILE", help=weights)
    init.add_argument(
        "--out", type=Path, metavar="FILE", default=Path("mine.yaml"), help="what to write (default: %(default)s)"
    )
    init.set_defaults(call=_init)

    fetch = command(
        "fetch",
        "fetch ImageNet weights of a backbone into torch's cache",
        "Fetch the ImageNet weights that torchvision publishes for a backbone into torch's cache, once; a run with"
        " `weights: imagenet` does so when it starts.",
    )
    fetch.add_argument("backbone", metavar="BACKBONE", help="resnet50, resnet101, mobilenet_v2 or vgg16")
    fetch.add_argument("--offline", action="store_true", help="only look whether they are there")
    fetch.add_argument("--note", type=Path, metavar="FILE", help="file in which the name and digest are noted")
    fetch.set_defaults(call=_fetch)

    prepare = command(
        "prepare",
        "make PASCAL VOC 2012 or MS COCO 2014 ready, from the official archives",
        "Make a public data set ready, from the official archives. "
        + ". ".join(f"{name}: {words}" for name, words in DATA_SETS.items())
        + ". What is there already stays; an interrupted preparation goes on.",
    )
    prepare.add_argument("data", choices=list(DATA_SETS), metavar="DATA", help=" or ".join(DATA_SETS))
    prepare.add_argument(
        "folder", type=Path, metavar="DEST", help="folder to make it in; `data` for the shipped run files"
    )
    archives = "folder of the archives, in which those that are missing are fetched (default: DEST/archives)"
    prepare.add_argument("--archives", type=Path, metavar="FOLDER", help=archives)
    prepare.add_argument("--offline", action="store_true", help="fetch nothing")
    prepare.set_defaults(call=_prepare)

    check = command("check", "validate a configuration file, and look at the files that it names")
    check.add_argument(
        "configurations", type=Path, metavar="FILE", nargs="+", help="the configuration, YAML; a later file adds to it"
    )
    check.set_defaults(call=_check)

    status = command(
        "status",
        "say how far a run is, how fast, and what failed",
        "Say which steps of a run are done, running, failed or stale, at what pace and with which time left, and what"
        " it takes on the disk. Stale is what was made with other settings or code; what is built upon it would run"
        " again too, which --why tells.",
    )
    status.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or a configuration")
    status.add_argument("--why", action="store_true", help="say why steps would run again; asks Snakemake, for seconds")
    status.set_defaults(call=_status)

    objects = command(
        "objects",
        "objects with their masks as COCO's JSON: found in photos by an instance network, or made by a stage of a run",
    )
    objects.add_argument("images", nargs="*", type=Path, metavar="PHOTO", help="photos, folders of photos or patterns")
    objects.add_argument(
        "--model", type=Path, metavar="FILE", help="model.pt of a stage of the section instance_networks"
    )
    objects.add_argument(
        "--run", type=Path, metavar="RUN", help="instead of photos: folder of a run, or its configuration"
    )
    objects.add_argument("--stage", metavar="STAGE", help="of the run: one of the instances or instance_networks")
    objects.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file to write")
    objects.add_argument("--overlays", type=Path, metavar="FOLDER", help="pictures of what was found in photos")
    _add_execution(objects, frozenset({"device"}))
    objects.set_defaults(call=_objects)
    labels = command(
        "plan-labels",
        "scores of finished runs against what their labels cost, and what the next hour of labelling is worth",
        "Scores of the networks of finished runs against the hours of labelling that they took, and what the next hour "
        "of tags, of boxes and of true masks would be worth.",
    )
    labels.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, or its configuration")
    labels.add_argument(
        "--seconds",
        nargs="+",
        default=[],
        metavar="KIND=N",
        help="seconds to label an image with tags, boxes or masks; 20, 38.1 and 239.7 by default, as for PASCAL VOC",
    )
    labels.add_argument("--csv", type=Path, metavar="FILE", help="write the table")
    labels.add_argument("--figure", type=Path, metavar="FILE", help="write the scores over the hours as an SVG")
    labels.set_defaults(call=_plan_labels)
    tune = command(
        "tune",
        "show and score thresholds of a seed or a dense CRF on some photos",
        "Try thresholds on some photos of a run and show their masks beside each other, on a page of its own. With"
        " masks of some photos, ten drawn by hand are a good number, every threshold is scored and the best one named,"
        " with what to expect of it on other photos.",
    )
    tune.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or its configuration")
    tune.add_argument("stage", nargs="?", metavar="STAGE", help="a seed or a dense CRF; default: the last target")
    tune.add_argument("--masks", type=Path, metavar="FOLDER", help="masks of some photos: PNGs, named as the photos")
    tune.add_argument("--photos", type=int, default=12, metavar="N", help="photos shown; %(default)s by default")
    tune.add_argument("--out", type=Path, metavar="FILE", help="page to write; RUN/tune/STAGE.html by default")
    tune.set_defaults(call=_tune)

    clean = command(
        "clean",
        "drop what a finished run does not need",
        "Drop what a finished run keeps to go on after a kill, and to reuse what did not change (.state in its folder)."
        " The run stays finished.",
    )
    clean.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or its configuration")
    clean.add_argument("--maps", action="store_true", help="also class maps, walked scores and labels for networks")
    clean.add_argument("--dry-run", action="store_true", help="only say what would be dropped")
    clean.set_defaults(call=_clean)

    predict = command(
        "predict",
        "make label masks of photos by a trained network",
        "Make the label mask of every photo given, by a trained network. Masks lie in sub-folders as their photos do. A"
        " photo that cannot be read is told, the others go on, and the command ends with status 1. No photo, and no"
        " file that was not made here, is ever replaced.",
    )
    predict.add_argument("--model", type=Path, required=True, help="segmentations/<name>/model.pt of a run")
    predict.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder for the palette PNGs")
    predict.add_argument(
        "--list", type=Path, metavar="FILE", help="text file of further photos and folders, one a line"
    )
    predict.add_argument("--overlays", type=Path, metavar="FOLDER", help="also pictures of the masks over their photos")
    soft = "also probabilities: .npz with uint8 [L, H, W], in units of 1/255"
    predict.add_argument("--probabilities", type=Path, metavar="FOLDER", help=soft)
    predict.add_argument("--csv", type=Path, metavar="FILE", help="also a table of the labels found, with their areas")
    predict.add_argument("--crf", action="store_true", help="refine with the dense CRF, on photos of one tile")
    predict.add_argument("--flip", action="store_true", help="average with the mirrored photo")
    scales = "scales of the photo to average over (default: 1)"
    predict.add_argument("--scales", type=_positive, nargs="+", metavar="S", default=[1.0], help=scales)
    tile = "side of the tiles that larger photos pass in, in pixels; 0: every photo at once (default: %(default)s)"
    predict.add_argument("--tile", type=_count, metavar="N", default=1024, help=tile)
    overlap = "what a tile sees beyond its sides, in pixels (default: %(default)s)"
    predict.add_argument("--overlap", type=_count, metavar="N", default=256, help=overlap)
    images = "image files, folders of them with all sub-folders, and patterns such as 'photos/*.jpg'"
    predict.add_argument("images", type=Path, nargs="*", metavar="IMAGE", help=images)
    _add_execution(predict, frozenset({"device"}))
    predict.set_defaults(call=_predict)

    forms = {"png": "the masks as they are, in one flat folder, and classes.txt", **FORMS, **SOFT_FORMS}
    export = command(
        "export",
        "write a stage's masks, predictions or maps for other programs, such as annotation tools",
        "Write what a stage has made of every photo in the form of another program. "
        + "; ".join(f"{name}: {words}" for name, words in forms.items())
        + ". No file that somebody else has made, or changed, is replaced.",
    )
    export.add_argument(
        "--masks", type=Path, required=True, help="masks, predictions, maps or scores folder of a stage"
    )
    export.add_argument("--out", type=Path, required=True, help="folder to write into")
    export.add_argument("--format", choices=list(forms), default="png", help="form to write (default: %(default)s)")
    export.set_defaults(call=_export)

    take = command(
        "import",
        "take in tags, boxes and masks from an annotation tool's export",
        "Read annotations of another program by Datumaro, and write them as files that a run reads: labels.csv, masks "
        "as PNGs, boxes.json, classes.txt. With --classes masks are numbered as in a run, for its corrections.",
    )
    take.add_argument("annotations", type=Path, metavar="PATH", help="file or folder that the other program exported")
    take.add_argument(
        "--format", required=True, metavar="FORM", help="Datumaro's name: cvat, coco, voc, yolo, label_me …"
    )
    take.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write into")
    names = "classes.txt of `wsss export`, or a list of names a line; without it the other program's own classes"
    take.add_argument("--classes", type=Path, metavar="FILE", help=names)
    take.set_defaults(call=_import)

    leave = command(
        "export-model",
        "write a trained network as ONNX or safetensors, with a model card",
        "Write a trained classifier or segmentation network for other programs, with a model card. ONNX takes photos of"
        " any size, gives a classifier's maps too, and is compared with torch before it is kept.",
    )
    leave.add_argument("model", type=Path, metavar="MODEL", help="model.pt of a classifier or segmentation network")
    leave.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write into")
    networks = ("onnx", "safetensors")
    leave.add_argument("--format", nargs="+", choices=networks, default=list(networks), help="default: both")
    compare = "photos, folders and patterns on which ONNX is compared with torch; drawn ones by default"
    leave.add_argument("--photos", type=Path, nargs="+", metavar="IMAGE", default=[], help=compare)
    leave.add_argument("--licence", default="", help="what the model card says of the licence, such as mit")
    leave.set_defaults(call=_export_model)

    inspect = command("inspect", "say what a seed or score file, checkpoint or image table holds")
    inspect.add_argument("file", type=Path, metavar="FILE", help="an .h5, .pt or image table .csv of a run")
    inspect.set_defaults(call=_inspect)

    table = command("table", "print results of a run, or of runs with several seeds, as a Markdown table")
    table.add_argument("runs", type=Path, nargs="+", metavar="RUN_FOLDER", help="folder that holds results.csv")
    table.add_argument("--refinements", action="store_true", help="seeds in rows, methods of refinement in columns")
    table.set_defaults(call=_table)

    schema = command("schema", "write the configuration schema from the settings classes, for developers")
    schema.set_defaults(call=_schema)

    users = len(listed)
    for name, options in STEPS.items():
        signature = read_signature(name)
        step = command(name, signature.summary)
        for path in signature.paths:
            step.add_argument(
                f"--{path.name}",
                type=Path,
                nargs=path.count,
                required=path.count is None,
                default=[] if path.count == "*" else None,
                help=path.text,
            )
        _add_execution(step, options)
        step.set_defaults(call=_run_step, step=name, signature=signature)
    width = max(len(name) for name, _ in listed)
    lines = [f"  {name:<{width}}  {text}" for name, text in listed]
    parser.description = "\n".join(
        [(__doc__ or "").partition("\n")[0], "", "commands:", *lines[:users]]
        + ["", "steps, as the workflow's rules call them:", *lines[users:]]
    )
    return parser


def _add_execution(command: argparse.ArgumentParser, options: frozenset[str]) -> None:
    defaults = Execution()
    command.add_argument("--threads", type=int, default=defaults.threads, help="CPU threads (default: %(default)s)")
    if "device" in options:
        devices = "auto takes a GPU where there is one (default: %(default)s)"
        command.add_argument("--device", choices=["auto", "cpu", "cuda"], default=defaults.device, help=devices)
    if "precision" in options:
        choices = "mixed computes in bfloat16, with float32 weights and losses (default: %(default)s)"
        command.add_argument("--precision", choices=["float32", "mixed"], default=defaults.precision, help=choices)
    if "workers" in options:
        loaders = "processes that load data; 0 loads in the main process (default: %(default)s)"
        command.add_argument("--workers", type=int, default=defaults.workers, help=loaders)
    if "tensorboard" in options:
        events = "write event files for TensorBoard into the folder events beside the history"
        command.add_argument("--tensorboard", action="store_true", help=events)
    if "images_at_once" in options:
        together = "images in work at a time on a GPU, for methods that take one by one (default: %(default)s)"
        command.add_argument("--images-at-once", type=int, default=defaults.images_at_once, help=together)


def _execution(options: argparse.Namespace) -> Execution:
    """The options given; what a command does not offer stays as it is, and without ``--device`` it runs on the CPU."""
    given = {"device": "cpu"} | {k: v for k, v in vars(options).items() if k in Execution.__dataclass_fields__}
    return Execution(**given)


def _run_step(options: argparse.Namespace) -> None:
    """Run a step on its paths; thread counts are set before any numerical library is imported."""
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    let_threads_sleep()
    keep_freed_memory()
    from wsss_core.jobs.made import recorded

    signature: Signature = options.signature
    paths = {path.name: getattr(options, path.name) for path in signature.paths}
    execution = _execution(options)
    with gpu_lease(execution.device):
        execution.require_device()
        _require_settings_of(options.step, options.config)
        step = importlib.import_module(f"wsss_core.steps.{options.step}")
        if "torch" in sys.modules:  # other steps do without its second and a half
            execution.set_threads()
        found = {name: matching(given) if isinstance(given, list) else given for name, given in paths.items()}
        flat = _flat(found.values(), options.config)
        with recorded(options.config, flat), only_while(Stands([options.config], flat)):
            step.run(**found, execution=execution)


def _flat(paths: Iterable[Any], config: Path) -> list[Path]:
    """All paths that a step is made from or writes, but for its settings file."""
    flat = [path for given in paths for path in (given if isinstance(given, list) else [given]) if path is not None]
    return [path for path in flat if path != config]


def _require_settings_of(step: str, path: Path) -> None:
    from wsss_core.jobs.step import read_step

    held = read_step(path).step.name
    if held != step:
        raise UserError(f"{path}: holds the settings of the step {held}, not of {step}")


def matching(patterns: Sequence[Path]) -> list[Path]:
    """The files and folders that each path names: itself if it exists, else all that match it as a glob, sorted."""
    found = []
    for pattern in patterns:
        matches = [pattern] if pattern.exists() else [Path(path) for path in sorted(glob.glob(str(pattern)))]
        if not matches:
            raise UserError(f"{pattern}: there is no such file, nor one that matches it")
        found += matches
    return found


def _run(options: argparse.Namespace) -> None:
    from wsss_core import workflow

    workflow.run(options.configuration, options.passed_on)


def _demo(options: argparse.Namespace) -> None:
    from wsss_core import workflow

    workflow.demo(options.passed_on)


def _copy(options: argparse.Namespace) -> None:
    from wsss_core import workflow

    for name in options.names:
        print(workflow.copy_shipped(name))
    if not options.names:
        print(*workflow.shipped(), sep="\n")


def _init(options: argparse.Namespace) -> None:
    from wsss_core import init
    from wsss_core.constants import NAME, NAME_WORDS

    if not re.fullmatch(NAME, options.out.stem):
        raise UserError(f"{options.out}: the run takes the name of the file, which may hold {NAME_WORDS}")
    if options.out.exists():
        raise UserError(f"{options.out}: is there already; remove it, or give another name with --out")
    boxed = None if options.labels else init.look_for_boxes(options.photos)
    found = None if boxed else init.look(options.photos, options.labels)
    machine = init.this_machine()
    weights = init.find_weights(options.weights, machine)
    if boxed:
        text = init.configuration_of_boxes(boxed, weights, machine, options.out.stem)
        words = init.told_of_boxes(boxed, weights)
        _write_beside(options.out, boxed.files())
    elif found:
        choice = init.choose(found, weights, machine)
        text = init.configuration(found, weights, choice, machine, options.out.stem)
        words = init.told(found, weights)
    options.out.write_text(text, encoding="utf-8")
    print(*words, sep="\n")
    print(f"{options.out} is written. Next: wsss check {options.out}, then wsss run {options.out} --cores all")


def _write_beside(out: Path, files: Mapping[str, str]) -> None:
    """Write files beside a configuration, named after it; UserError if one is there already."""
    paths = {out.with_name(f"{out.stem}-{end}"): text for end, text in files.items()}
    there = next((path for path in paths if path.exists()), None)
    if there is not None:
        raise UserError(f"{there}: is there already; remove it, or give another name with --out")
    for path, text in paths.items():
        path.write_text(text, encoding="utf-8")


def _fetch(options: argparse.Namespace) -> None:
    from wsss_core.jobs.inputs import file_digest
    from wsss_core.models.imagenet import fetch
    from wsss_core.store.atomic import write_text

    path = fetch(options.backbone, offline=options.offline)
    print(f"{path} holds the ImageNet weights of {options.backbone}")
    if options.note:
        write_text(options.note, f"{path.name} {file_digest(path)}\n")


def _prepare(options: argparse.Namespace) -> None:
    from wsss_core.prepare import prepare

    prepare(options.data, options.folder, options.archives, options.offline, print)


def _check(options: argparse.Namespace) -> None:
    from wsss_core.check import look_ahead
    from wsss_core.config import read_configuration
    from wsss_core.status.earlier import foretold

    configuration = read_configuration(*options.configurations)
    print(f"run {configuration.run}: {configuration.dataset['format']} data")
    for stage in configuration.stages.values():
        source = ", ".join(f"{edge} {name}" for edge, name in stage.upstream.items())
        aside = "" if stage.name in configuration.current else " (no target is built upon it, so it is not made)"
        print(f"  {stage.section}/{stage.name}: {stage.method}{f' from {source}' if source else ''}{aside}")
    print(*look_ahead(configuration), *foretold(configuration), sep="\n")


def _status(options: argparse.Namespace) -> None:
    from wsss_core import workflow
    from wsss_core.config import read_file
    from wsss_core.status import text
    from wsss_core.status.state import find_run, read_states

    run = find_run(options.run)
    states = read_states(run)
    print(text.status(run, states))
    if options.why:
        print(f"\n{text.why(run, states)}\n", flush=True)
        config = run.start.config if options.run.is_dir() and run.start else read_file(options.run)
        print(text.announced(workflow.announced(config, run.working)))
    elif any(state.count("stale") for state in states):
        print(f"What is stale would be made again, and what is built upon it: wsss status {options.run} --why")


def _objects(options: argparse.Namespace) -> int:
    from wsss_core.objects import require_free_json, write_objects

    require_free_json(options.out)
    if options.run or options.stage:
        return _objects_of_stage(options)
    if not options.images or not options.model:
        raise UserError("objects: name photos and --model, or --run and --stage")
    execution = _execution(options)
    with gpu_lease(execution.device):
        from wsss_core.instances.mask_rcnn import InstancePredictSettings
        from wsss_core.models.mask_rcnn import open_instance_network
        from wsss_core.objects import objects_in_photos
        from wsss_core.predict import find_photos

        execution.set_threads()
        execution.require_device()
        network = open_instance_network(options.model, execution.torch_device())
        named = find_photos(matching(options.images))
        photos = {f"{photo.name.removesuffix(photo.path.suffix)}{photo.path.suffix}": photo.path for photo in named}
        found, failed = [], 0
        for name, one in objects_in_photos(network, photos, options.overlays, InstancePredictSettings()):
            if isinstance(one, UserError):
                failed += 1
                print(f"failed: {one}", file=sys.stderr)
            else:
                found.append((name, one))
    count = write_objects(options.out, found, network.class_names)
    print(f"{options.out}: {count} objects in {len(found)} photos")
    if failed:
        print(f"error: {failed} of {len(photos)} photos could not be looked at, see above", file=sys.stderr)
    return 1 if failed else 0


def _objects_of_stage(options: argparse.Namespace) -> int:
    from wsss_core.jobs.run_files import RunFiles
    from wsss_core.objects import objects_of_stage, write_objects
    from wsss_core.status.state import find_run

    if options.images or options.model or not (options.run and options.stage):
        raise UserError("objects: --run and --stage go together, without photos and without --model")
    run = find_run(options.run)
    files = RunFiles(run.folder, run.configuration)
    found = list(objects_of_stage(files, options.stage))
    count = write_objects(options.out, found, files.table.class_names)
    print(f"{options.out}: {count} objects in {len(found)} images")
    return 0


def _plan_labels(options: argparse.Namespace) -> None:
    from wsss_core.jobs.run_files import RunFiles
    from wsss_core.plan_labels import TITLE, csv_text, figure, learned_of, plan, seconds_of, table, text
    from wsss_core.status.state import find_run
    from wsss_core.store.atomic import write_text
    from wsss_core.store.own import require_own, says

    seconds = seconds_of(options.seconds)
    runs = [find_run(path) for path in options.runs]
    networks = [network for run in runs for network in learned_of(RunFiles(run.folder, run.configuration))]
    rows = table(networks, seconds)
    if not rows:
        raise UserError("no run has a segmentation network that is scored on images that no training sees (role val)")
    if options.csv:
        require_own(options.csv, says(",".join(rows[0])))
    if options.figure:
        require_own(options.figure, says(f"<title>{TITLE}"))
        write_text(options.figure, figure(networks, seconds))
    if options.csv:
        write_text(options.csv, csv_text(rows))
    print(text(rows))
    print(plan(networks, seconds).sentences)


def _tune(options: argparse.Namespace) -> None:
    from wsss_core.jobs.run_files import RunFiles
    from wsss_core.report.tuning import render_tuning
    from wsss_core.status.state import find_run
    from wsss_core.store.atomic import write_text
    from wsss_core.store.own import require_own, says
    from wsss_core.tune import tune

    run = find_run(options.run)
    page = tune(RunFiles(run.folder, run.configuration), options.stage, options.masks, options.photos)
    out = options.out or run.folder / "tune" / f"{page.stage}.html"
    require_own(out, says(" · thresholds of "))
    write_text(out, render_tuning(page))
    print("\n".join([*page.words, f"To use it, write into the configuration:  {page.setting}", f"The page: {out}"]))


def _clean(options: argparse.Namespace) -> None:
    from wsss_core.status.cleaning import drop, droppable, require_finished
    from wsss_core.status.disk import freed, in_bytes
    from wsss_core.status.state import find_run, read_states

    run = find_run(options.run)
    require_finished(run, read_states(run))
    files = droppable(run, maps=options.maps)
    size = in_bytes(freed(files))
    if not options.dry_run:
        drop(run, files)
    print(f"{run.folder}: {len(files)} files {'would be ' if options.dry_run else ''}dropped, {size} freed")


def _table(options: argparse.Namespace) -> None:
    from wsss_core.evaluate.results import read_results
    from wsss_core.report.markdown import refinement_table, results_table

    table = refinement_table if options.refinements else results_table
    print(table([read_results(folder / "results.csv") for folder in options.runs]))


def _schema(options: argparse.Namespace) -> None:
    from wsss_core import schema

    schema.write()


def _count(text: str) -> int:
    """A whole number, at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _positive(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _predict(options: argparse.Namespace) -> int:
    if not options.images and not options.list:
        raise UserError("predict: name photos or folders of photos, or a file with --list that does")
    let_threads_sleep()
    keep_freed_memory()
    execution = _execution(options)
    with gpu_lease(execution.device):
        from wsss_core.predict import Outputs, find_photos, predict_photos, require_free, write_found
        from wsss_core.segment.predict import Predictor, PredictSettings
        from wsss_core.segment.tiles import Tiling

        execution.set_threads()
        execution.require_device()
        settings = PredictSettings(flip=options.flip, scales=tuple(options.scales))
        predictor = Predictor(options.model, crf=options.crf, device=execution.torch_device(), settings=settings)
        photos = find_photos(matching(options.images), options.list)
        outputs = Outputs(options.out, options.overlays, options.probabilities, options.csv)
        require_free(photos, outputs)
        tiling = Tiling(options.tile, options.overlap) if options.tile else None
        found = []
        for one in predict_photos(predictor, photos, outputs, tiling, execution.threads):
            found.append(one)
            names = [name for name, pixels in zip(predictor.class_names, one.pixels[1:], strict=False) if pixels]
            if one.problem:
                print(f"failed: {one.problem}", file=sys.stderr)
            else:
                print(f"{one.photo.path}: {', '.join(names) or 'background only'}")
        if options.csv:
            write_found(options.csv, found, outputs, predictor.class_names)
    failed = sum(bool(one.problem) for one in found)
    if failed:
        print(f"error: {failed} of {len(found)} photos could not be predicted, see above", file=sys.stderr)
    return 1 if failed else 0


def _export_model(options: argparse.Namespace) -> None:
    from wsss_core.data.decode import read_image
    from wsss_core.export_model import export_model
    from wsss_core.predict import find_photos

    photos = find_photos(matching(options.photos)) if options.photos else []
    images = [read_image(photo.path) for photo in photos]
    print(*export_model(options.model, options.out, options.format, images, options.licence), sep="\n")


def _inspect(options: argparse.Namespace) -> None:
    from wsss_core.describe import describe

    print(describe(options.file))


def _import(options: argparse.Namespace) -> None:
    from wsss_core.data.reading import read_class_names
    from wsss_core.import_annotations import import_annotations

    names = read_class_names(options.classes) if options.classes else None
    print(*import_annotations(options.annotations, options.format, options.out, names), sep="\n")


def _export(options: argparse.Namespace) -> None:
    from wsss_core.export import export

    print(export(options.masks, options.out, options.format))


if __name__ == "__main__":
    sys.exit(main())
