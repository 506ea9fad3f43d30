# Functions of the other rule files; no rules here.

import base64
import glob
import re
import shlex
import zlib
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

try:
    import wsss_core
    from wsss_core.config import configured_stages, load, read_file, step_json
    from wsss_core.constants import IMAGENET
    from wsss_core.data.listing import folder_digest, listing_digest
    from wsss_core.errors import UserError
    from wsss_core.evaluate.health import health_lines
    from wsss_core.jobs.made import overtaken_lines
    from wsss_core.jobs.start import write_start
    from wsss_core.registry import all_steps
    from wsss_core.workflow import PACKAGE
except ImportError as error:
    raise WorkflowError(f"{error}. Install this project first: `make env`, or `pip install -e .` beside the Snakefile")

try:
    for path in workflow.configfiles:  # Snakemake has read them, but says nothing of keys that stand twice
        read_file(path)
    CONFIGURATION = load(config)
except UserError as error:
    raise WorkflowError(str(error))

R = f"{CONFIGURATION.results}/{CONFIGURATION.run}"


def one_of(names):
    """Wildcard constraint that matches exactly these stage names."""
    return "|".join(re.escape(name) for name in names) or "(?!)"


def stages_of(rule):
    """Wildcard constraint that matches the stages of which a rule runs a step."""
    return one_of([stage.name for stage in CONFIGURATION.stages.values() for step in stage.steps if step.rule == rule])


wildcard_constraints:
    shard=r"\d+-of-\d+",
    classifier=one_of(CONFIGURATION.section("classifiers")),
    seed=one_of(CONFIGURATION.section("seeds")),
    refinement=one_of(CONFIGURATION.section("refinements")),
    segmentation=one_of(CONFIGURATION.section("segmentations")),
    detector=one_of(CONFIGURATION.section("detectors")),
    attribution=one_of(CONFIGURATION.section("attributions")),
    instances=one_of(CONFIGURATION.section("instances")),
    instance_network=one_of(CONFIGURATION.section("instance_networks")),


def shards(split):
    """Names of a split's shards, known once the data set was read."""
    folder = Path(checkpoints.index.get().output.shards) / split
    return sorted(path.stem for path in folder.glob("*.json"))


def over_shards(split, pattern):
    """Input function: `pattern` for every shard of a split."""
    return lambda wildcards: [pattern.format(shard=shard, **dict(wildcards.items())) for shard in shards(split)]


def one_pattern(name):
    """Params function: one glob for an input's files of all shards, so that the command stays short however many there
    are. Files of an earlier dealing beside them, with another number of shards, do not match."""

    def patterns(wildcards, input):
        given = input[name]
        first = [given] if isinstance(given, str) else given[:1]  # a string only until the shards are known
        return [re.sub(r"\d+-of-(\d+)(?=[^/]*$)", r"*-of-\1", glob.escape(path)) for path in first]

    return patterns


def manifest(split):
    """Input function: the manifest of a job's shard."""
    return lambda wildcards: f"{checkpoints.index.get().output.shards}/{split}/{wildcards.shard}.json"


def manifests(split):
    """Input function: all manifests of a split."""
    return lambda wildcards: expand(
        f"{checkpoints.index.get().output.shards}/{split}/{{shard}}.json", shard=shards(split)
    )


def table(split):
    """Input function: the image table of a split."""
    return lambda wildcards: f"{checkpoints.index.get().output.shards}/{split}.csv"


def settings(name, step):
    """Settings of a stage's step."""
    return CONFIGURATION.stages[name].settings[step]


def weight_files(wildcard):
    """Input function: the weight file that the settings of a stage's training name, or the note that it was fetched."""

    def files(wildcards):
        weights = settings(wildcards[wildcard], "train").get("weights")
        if weights == IMAGENET:
            return [f"{R}/weights/{CONFIGURATION.backbone_of(wildcards[wildcard])}.txt"]
        return [weights] if weights and weights != "classifier" else []

    return files


@cache
def folder_state(folder):
    """Digest of a folder's files, if there is a folder; where it changes, jobs run again."""
    return folder_digest(Path(folder)) if folder else ""


def classifier_of(wildcard):
    """Input function: the checkpoint of the classifier that a refinement or segmentation is built upon, if it is."""

    def files(wildcards):
        classifier = CONFIGURATION.ancestor(wildcards[wildcard], "classifiers")
        return [classifier_path(classifier.name)] if classifier else []

    return files


def initial_classifier(wildcards):
    """The checkpoint that a classifier's training starts from, if its objective has the edge `init`."""
    upstream = CONFIGURATION.stages[wildcards.classifier].upstream
    return [classifier_path(upstream["init"])] if "init" in upstream else []


def classifier_path(name):
    return f"{R}/classifiers/{name}/model.pt"


def health_path(name):
    """What trying a classifier on the tags found. It stops jobs and changes none, so that they take it as ancient."""
    return f"{R}/classifiers/{name}/tag_scores.json"


def predicted_by(wildcard):
    """Input function: what the classifier that a seed is built upon takes each image for, if it is built upon one."""

    def files(wildcards):
        classifier = CONFIGURATION.ancestor(wildcards[wildcard], "classifiers")
        return [f"{R}/classifiers/{classifier.name}/predicted.csv"] if classifier else []

    return files


def history_of(wildcards):
    """The course of a classifier's training, if it is trained here."""
    trained = "train" in CONFIGURATION.stages[wildcards.classifier].settings
    return [f"{R}/classifiers/{wildcards.classifier}/history.csv"] if trained else []


def ood_table(wildcards):
    """The out-of-distribution photos that a classifier's training takes, if its objective chooses any."""
    if "selection" not in CONFIGURATION.stages[wildcards.classifier].settings:
        return []
    return checkpoints.selection.get(classifier=wildcards.classifier).output.selected


def reviewed_file(wildcards):
    """The reviewed list of candidates that a selection asks for, as soon as it exists."""
    selection = settings(wildcards.classifier, "selection")
    path = selection["reviewed"] if selection["rule"] == "reviewed" else None
    return [path] if path and Path(path).exists() else []


def upstream(wildcards, wildcard, edge):
    """Name of the stage that a job's stage names under `edge`."""
    return CONFIGURATION.stages[wildcards[wildcard]].upstream[edge]


def seed_maps_of(wildcards):
    """Seed maps that a refinement starts from, of its shard."""
    return f"{R}/seeds/{upstream(wildcards, 'refinement', 'seed')}/maps/{wildcards.shard}.h5"


def seed_threshold_of(wildcards):
    """Threshold file of the seed that a refinement starts from."""
    return f"{R}/seeds/{upstream(wildcards, 'refinement', 'seed')}/threshold.json"


def masks_under(edge):
    """Input function: masks that a refinement names under an edge, of its shard; none if it has no such edge, as where
    it takes the true masks, which the manifest names."""

    def files(wildcards):
        name = CONFIGURATION.stages[wildcards.refinement].upstream.get(edge)
        return [f"{R}/refinements/{name}/masks/{wildcards.shard}"] if name else []

    return files


def masks_to_train_on(edge):
    """Input function: the masks of all shards that a segmentation names under an edge, if it has the edge."""

    def files(wildcards):
        name = CONFIGURATION.stages[wildcards.segmentation].upstream.get(edge)
        return [f"{R}/refinements/{name}/masks/{shard}" for shard in shards("train")] if name else []

    return files


def walk_of(wildcards):
    """The refinement whose walked scores a stage's masks are cut from: its own, or the one it names."""
    return CONFIGURATION.stages[wildcards.refinement].upstream.get("walk", wildcards.refinement)


def chosen_threshold(path):
    """Input function: the threshold file, for masks whose setting asks for a threshold that scores chose."""

    def files(wildcards):
        given = settings(wildcards.refinement, "masks")
        asks = given.get("threshold") in ("score", "oracle") and given.get("band") is None
        return [path(wildcards)] if asks else []

    return files


def current(section):
    """Names of a section's stages that the targets are built upon, and of the targets themselves."""
    return [name for name in CONFIGURATION.section(section) if name in CONFIGURATION.current]


def all_maps(wildcards):
    """The maps of all seeds that the targets are built upon."""
    return [f"{R}/seeds/{name}/maps/{shard}.h5" for name in current("seeds") for shard in shards("train")]


def all_masks(wildcards):
    """The masks of all refinements that the targets are built upon."""
    return [f"{R}/refinements/{name}/masks/{shard}" for name in current("refinements") for shard in shards("train")]


def products(section):
    """Input function: what the run's targets of a section make."""
    return lambda wildcards: [
        path
        for name in CONFIGURATION.targets
        if CONFIGURATION.stages[name].section == section
        for path in stage_products(name)
    ]


def target_products(wildcards):
    """What the run's targets make, of all sections."""
    return [path for name in CONFIGURATION.targets for path in stage_products(name)]


def digit_files(wildcards):
    """MNIST's files, if the toy experiment takes them."""
    folder = CONFIGURATION.toy["mnist"]
    return sorted(str(path) for path in Path(folder).glob("*-ubyte*")) if folder else []


def stage_products(name):
    """The final files of one stage."""
    stage = CONFIGURATION.stages[name]
    return [f"{R}/{stage.section}/{name}/{file}" for step in stage.steps for file in step.files]


def packed(text):
    """A long text as a short one of letters and digits."""
    return base64.b64encode(zlib.compress(text.encode())).decode()


def execution(rule):
    """Params function: flags of the `execution` section that the step of a rule heeds.

    Depending on threads, it is no reason to run a job again.
    """
    step = next(step for step in all_steps() if step.rule == rule)
    given = {f"--{name.replace('_', '-')}": CONFIGURATION.execution[name] for name in step.execution}
    flags = [(flag,) if value is True else (flag, str(value)) for flag, value in given.items() if value is not False]
    if not step.device and any(other.device for other in all_steps() if other.name == step.name):
        flags.append(("--device", "cpu"))  # the command can use a GPU, in other rules
    return lambda wildcards, threads: shlex.join(
        [word for flag in flags for word in flag] + ["--threads", str(threads)]
    )


TRAIN_THREADS = CONFIGURATION.execution["train_threads"]


def memory(base):
    """Resource function: megabytes, doubled at every retry."""
    return lambda wildcards, attempt: base * 2 ** (attempt - 1)


def runtime(minutes):
    """Resource function: minutes, doubled at every retry."""
    return lambda wildcards, attempt: minutes * 2 ** (attempt - 1)


def selection_execution(wildcards, threads):
    """Flags of the `execution` section where photos are erased; else the CPU, as a review may be waited for."""
    erases = settings(wildcards.classifier, "selection")["rule"] == "erased"
    return execution("selection")(wildcards, threads) if erases else f"--device cpu --threads {threads}"


def selection_runtime(wildcards, attempt):
    """Minutes of the selection, and those that it may wait for a review."""
    waits = settings(wildcards.classifier, "selection")["wait_minutes"]
    return runtime(240)(wildcards, attempt) + round(waits)
