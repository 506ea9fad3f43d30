"""`wsss`: every stage by hand, and what a user needs beside the workflow.

The rules of the workflow call nothing else, with the same arguments, so any step can be run in a debugger
by copying its command from ``snakemake --printshellcmds``.
"""

from __future__ import annotations

import argparse
import glob
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from wsss_core import __version__
from wsss_core.errors import UserError
from wsss_core.execution import Execution, gpu_lease, keep_freed_memory

ONE, MANY, MAYBE = None, "*", "?"

STAGES: dict[str, tuple[str, dict[str, Any], str]] = {
    "index": (
        "read and check a data set",
        {"config": ONE, "table": ONE, "shards": ONE, "problems": ONE, "cache": ONE},
        "index",
    ),
    "classify": (
        "train a classifier on tags",
        {
            "config": ONE,
            "table": ONE,
            "init": MAYBE,
            "ood": MAYBE,
            "model": ONE,
            "state": ONE,
            "history": ONE,
        },
        "classify",
    ),
    "ood-candidates": (
        "rank out-of-distribution photos",
        {"config": ONE, "table": ONE, "classifier": ONE, "candidates": ONE, "sheet": ONE},
        "ood_candidates",
    ),
    "ood-selection": (
        "choose out-of-distribution photos to train on",
        {"config": ONE, "table": ONE, "candidates": ONE, "classifier": ONE, "selected": ONE, "pictures": ONE},
        "ood_selection",
    ),
    "seed": (
        "class activation maps of one shard",
        {"config": ONE, "classifier": ONE, "manifest": ONE, "table": ONE, "maps": ONE, "cache": ONE},
        "seed",
    ),
    "score-maps": (
        "score maps over all thresholds",
        {"config": ONE, "manifests": MANY, "maps": MANY, "curve": ONE, "evaluation": ONE, "threshold": ONE},
        "score_maps",
    ),
    "score-masks": (
        "score label masks or predictions",
        {"config": ONE, "manifests": MANY, "masks": MANY, "evaluation": ONE},
        "score_masks",
    ),
    "crf-masks": (
        "label masks by dense CRF",
        {"config": ONE, "manifest": ONE, "maps": ONE, "threshold": MAYBE, "masks": ONE},
        "crf_masks",
    ),
    "irn-labels": (
        "confident labels for IRN",
        {"config": ONE, "manifest": ONE, "maps": ONE, "labels": ONE},
        "irn_labels",
    ),
    "irn-train": (
        "train the boundary network",
        {
            "config": ONE,
            "table": ONE,
            "labels": MANY,
            "classifier": MAYBE,
            "model": ONE,
            "state": ONE,
            "history": ONE,
        },
        "irn_train",
    ),
    "irn-walk": (
        "random walk of one shard",
        {"config": ONE, "manifest": ONE, "maps": ONE, "model": ONE, "scores": ONE, "cache": ONE},
        "irn_walk",
    ),
    "psa-labels": (
        "CRF posteriors for AffinityNet's labels",
        {"config": ONE, "manifest": ONE, "maps": ONE, "labels": ONE, "cache": ONE},
        "psa_labels",
    ),
    "psa-train": (
        "train AffinityNet",
        {
            "config": ONE,
            "table": ONE,
            "labels": MANY,
            "classifier": MAYBE,
            "model": ONE,
            "state": ONE,
            "history": ONE,
        },
        "psa_train",
    ),
    "psa-walk": (
        "random walk of one shard on AffinityNet's affinities",
        {"config": ONE, "manifest": ONE, "maps": ONE, "model": ONE, "scores": ONE, "cache": ONE},
        "psa_walk",
    ),
    "walk-masks": (
        "label masks from walked scores",
        {"config": ONE, "manifest": ONE, "scores": ONE, "threshold": MAYBE, "masks": ONE},
        "walk_masks",
    ),
    "seed-threshold-masks": (
        "label masks from seed maps by a threshold",
        {"config": ONE, "manifest": ONE, "maps": ONE, "threshold": MAYBE, "masks": ONE},
        "seed_threshold_masks",
    ),
    "saliency-masks": (
        "ignore pixels that disagree with saliency masks",
        {"config": ONE, "manifest": ONE, "masks": ONE, "agreeing": ONE},
        "saliency_masks",
    ),
    "fill-masks": (
        "fill ignored pixels with predictions",
        {"config": ONE, "manifest": ONE, "masks": ONE, "model": ONE, "filled": ONE},
        "fill_masks",
    ),
    "segment-train": (
        "train a segmentation network",
        {
            "config": ONE,
            "table": ONE,
            "masks": MANY,
            "classifier": MAYBE,
            "model": ONE,
            "state": ONE,
            "history": ONE,
        },
        "segment_train",
    ),
    "segment-predict": (
        "predictions of one shard",
        {"config": ONE, "manifest": ONE, "model": ONE, "predictions": ONE},
        "segment_predict",
    ),
    "toy": (
        "the toy experiment of RIB",
        {"config": ONE, "folder": ONE},
        "toy",
    ),
    "results": (
        "the table of a run's results",
        {"config": ONE, "run": ONE, "table": ONE},
        "results",
    ),
    "figure": (
        "one figure from the table of results",
        {"config": ONE, "results": ONE, "figure": ONE},
        "figures",
    ),
    "features": (
        "classifiers' features in the plane",
        {"config": ONE, "table": ONE, "classifiers": MANY, "features": ONE, "figure": ONE},
        "features",
    ),
    "report": (
        "the HTML page of a run",
        {"config": ONE, "run": ONE, "report": ONE},
        "report",
    ),
}
"""Command to (help, path arguments, module in `wsss_core.stages`)."""

OWN_WORDS = {"run": 2, "demo": 1}
"""Commands whose further words go to Snakemake, and how many words, the command among them, are our own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (2 for a mistake the user can mend)."""
    own, passed_on = split_words(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(own)
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


def split_words(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Our own words, and those that go to Snakemake unread: all after ``run FILE`` and after ``demo``."""
    count = OWN_WORDS.get(words[0], len(words)) if words else 0
    if set(words[1:2]) & {"-h", "--help"}:
        count = len(words)
    return words[:count], words[count:]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wsss", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"wsss {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, (text, paths, module) in STAGES.items():
        command = commands.add_parser(name, help=text, description=text)
        for path, count in paths.items():
            command.add_argument(f"--{path}", type=Path, nargs=count, required=count is ONE, default=_empty(count))
        _add_execution(command)
        command.set_defaults(call=_run_stage, module=module, paths=list(paths))

    run = commands.add_parser(
        "run",
        help="make all that a configuration asks for, by Snakemake",
        usage="wsss run [-h] FILE [option or target of Snakemake ...]",
        description="Make all that a configuration asks for, in the current folder. What follows FILE goes to"
        " Snakemake: --cores 4 for the cores to use, --dry-run to see what would be done (snakemake --help lists all).",
    )
    run.add_argument("configuration", type=Path, metavar="FILE")
    run.set_defaults(call=_run)

    demo = commands.add_parser(
        "demo",
        help="the whole path on drawn pictures",
        usage="wsss demo [-h] [option or target of Snakemake ...]",
        description="Draw pictures with tags and go the whole path with them, to results/demo/report.html.",
    )
    demo.set_defaults(call=_demo)

    copy = commands.add_parser("copy", help="copy a shipped configuration or profile into the current folder, to edit")
    copy.add_argument("names", nargs="*", metavar="NAME", help="such as config/voc12.yaml; without any: list all")
    copy.set_defaults(call=_copy)

    check = commands.add_parser("check", help="validate a configuration file")
    check.add_argument("configuration", type=Path)
    check.set_defaults(call=_check)

    table = commands.add_parser("table", help="results of a run, or of runs with several seeds, as a Markdown table")
    table.add_argument("runs", type=Path, nargs="+", metavar="RUN_FOLDER", help="folder that holds results.csv")
    table.add_argument("--refinements", action="store_true", help="seeds in rows, methods of refinement in columns")
    table.set_defaults(call=_table)

    schema = commands.add_parser("schema", help="write the configuration schema from the settings classes")
    schema.set_defaults(call=_schema)

    predict = commands.add_parser("predict", help="label masks of image files, by a trained network")
    predict.add_argument("--model", type=Path, required=True, help="segmentations/<name>/model.pt of a run")
    predict.add_argument("--out", type=Path, required=True, help="folder for the palette PNGs")
    predict.add_argument("--crf", action="store_true", help="refine with the dense CRF")
    predict.add_argument("images", type=Path, nargs="+")
    _add_execution(predict)
    predict.set_defaults(call=_predict)

    inspect = commands.add_parser("inspect", help="what a seed or score file, checkpoint or image table holds")
    inspect.add_argument("file", type=Path)
    inspect.set_defaults(call=_inspect)

    export = commands.add_parser("export", help="gather a stage's masks of all shards in one flat folder")
    export.add_argument("--masks", type=Path, required=True, help="masks or predictions folder of a stage")
    export.add_argument("--out", type=Path, required=True)
    export.set_defaults(call=_export)
    return parser


def _empty(count: Any) -> Any:
    return [] if count == MANY else None


def _add_execution(command: argparse.ArgumentParser) -> None:
    defaults = Execution()
    command.add_argument("--device", default=defaults.device, help="auto, cpu or cuda")
    command.add_argument("--threads", type=int, default=defaults.threads)
    command.add_argument("--workers", type=int, default=defaults.workers, help="loader processes")
    command.add_argument("--precision", choices=["float32", "mixed"], default=defaults.precision)
    command.add_argument(
        "--images-at-once", type=int, default=defaults.images_at_once, help="of seed methods, on a GPU"
    )


def _execution(options: argparse.Namespace) -> Execution:
    names = [field.name for field in fields(Execution)]
    return Execution(**{name: getattr(options, name) for name in names})


def _run_stage(options: argparse.Namespace) -> None:
    """Run a stage on its paths; thread counts are set before any numerical library is imported."""
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    keep_freed_memory()
    paths = {name: getattr(options, name) for name in options.paths}
    with gpu_lease(options.device):
        stage = importlib.import_module(f"wsss_core.stages.{options.module}")
        stage.run(
            **{name: matching(given) if isinstance(given, list) else given for name, given in paths.items()},
            execution=_execution(options),
        )


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


def _check(options: argparse.Namespace) -> None:
    from wsss_core.config import read_configuration

    configuration = read_configuration(options.configuration)
    print(f"run {configuration.run}: {configuration.dataset['format']} data")
    for stage in configuration.stages.values():
        source = ", ".join(f"{edge} {name}" for edge, name in stage.upstream.items())
        print(f"  {stage.section}/{stage.name}: {stage.method}{f' from {source}' if source else ''}")


def _table(options: argparse.Namespace) -> None:
    from wsss_core.evaluate.results import read_results
    from wsss_core.report.markdown import refinement_table, results_table

    table = refinement_table if options.refinements else results_table
    print(table([read_results(folder / "results.csv") for folder in options.runs]))


def _schema(options: argparse.Namespace) -> None:
    from wsss_core import schema

    schema.write()


def _predict(options: argparse.Namespace) -> None:
    keep_freed_memory()
    with gpu_lease(options.device):
        from wsss_core.data.decode import read_image
        from wsss_core.segment.predict import Predictor
        from wsss_core.store.masks import mask_name, write_mask

        predictor = Predictor(options.model, crf=options.crf, device=_execution(options).torch_device())
        for path in options.images:
            labels, _ = predictor.predict(read_image(path))
            write_mask(options.out / mask_name(path.stem), labels)
            names = [predictor.class_names[c - 1] for c in sorted(set(labels.ravel().tolist()) - {0})]
            print(f"{path}: {', '.join(names) or 'background only'}")


def _inspect(options: argparse.Namespace) -> None:
    from wsss_core.describe import describe

    print(describe(options.file))


def _export(options: argparse.Namespace) -> None:
    import shutil

    from wsss_core.stages.shard_names import shard_names

    run = options.masks.resolve() / "../../.."
    dealt = shard_names(run, "val" if options.masks.name == "predictions" else "train")
    folders = [options.masks / name for name in dealt] or sorted(options.masks.glob("[0-9]*-of-*"))
    masks = [path for folder in folders for path in sorted(folder.glob("*.png"))]
    if not masks:
        raise UserError(f"{options.masks}: holds no shard folders with masks")
    options.out.mkdir(parents=True, exist_ok=True)
    for path in masks:
        shutil.copy2(path, options.out / path.name)
    print(f"{len(masks)} masks in {options.out}")


if __name__ == "__main__":
    sys.exit(main())
