"""The execution profiles: complete, in step with the rules, and read by Snakemake."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from snakemake.api import SnakemakeApi
from snakemake.io import is_flagged
from snakemake.iocontainers import Wildcards
from snakemake.rules import Rule
from snakemake.settings.types import ConfigSettings, OutputSettings, Quietness, ResourceSettings

from tests.conftest import REPOSITORY
from wsss_core.registry import all_steps

PROFILES = {path.parent.name: yaml.safe_load(path.read_text()) for path in REPOSITORY.glob("profiles/*/config.yaml")}
ON_CLUSTER = ("slurm", "slurm-generic")
WITH_GPU = (*ON_CLUSTER, "gpu-box")

GPU_RULES = {step.rule for step in all_steps() if step.device} - {"selection"}
"""Rules that a GPU is asked for; `selection` may wait for a person, and needs one for erasing alone."""
SHORT_RULES = {step.rule for step in all_steps() if step.each == "shard" and not step.device}
"""CPU steps of a stage's shards."""
LOCAL = {"step_config", "run_config", "imagenet"}
"""Rules that are no step: they write settings files and fetch weights, where Snakemake itself runs."""


@pytest.fixture(scope="module")
def rules(tmp_path_factory) -> dict[str, Rule]:
    """The workflow's rules as Snakemake reads them, for a run of every method.

    Its API has no public way to them; this is the one of its own `list_rules`.
    """
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=[REPOSITORY / "tests/config/methods.yaml"]),
            snakefile=REPOSITORY / "Snakefile",
            workdir=tmp_path_factory.mktemp("parsed"),
        )
        return {rule.name: rule for rule in workflow._workflow.rules}


def of_steps(rules: dict[str, Rule]) -> set[str]:
    """Names of the rules that make something, but for settings files."""
    return {name for name, rule in rules.items() if rule.output} - LOCAL


def test_every_step_has_its_rule(rules):
    assert of_steps(rules) == {step.rule for step in all_steps()}
    assert {name for name, rule in rules.items() if rule.is_checkpoint} == {"index", "selection"}
    for step in all_steps():
        command = rules[step.rule].shellcmd
        assert f"wsss_core.cli {step.name} " in command
        assert not step.execution or "{params.execution}" in command
        assert ("shard" in rules[step.rule].wildcard_names) == (step.each == "shard")


def test_there_is_a_profile_for_every_kind_of_machine():
    assert set(PROFILES) == {"default", *WITH_GPU}
    assert {"maps", "segmentations_train"} < GPU_RULES


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_are_complete(name, rules):
    """Snakemake does not merge profiles, so each repeats the settings of the default one."""
    profile = PROFILES[name]
    assert PROFILES["default"].items() <= profile.items()
    assert profile["rerun-incomplete"] is True
    named = {*profile.get("set-resources", {}), *profile.get("groups", {})}
    assert named <= set(rules), f"there is no rule {sorted(named - set(rules))}"
    assert set(profile.get("group-components", {})) == set(profile.get("groups", {}).values())
    # Both make Snakemake 9.27 take a failed job's output for finished.
    assert "keep-incomplete" not in profile
    assert not any(is_flagged(file, "update") for rule in rules.values() for file in rule.output)


@pytest.mark.parametrize("name", WITH_GPU)
def test_one_gpu_for_each_job_that_can_use_one(name):
    resources = PROFILES[name]["set-resources"]
    assert {rule for rule, asked in resources.items() if "gpu" in asked} == GPU_RULES
    assert all(resources[rule]["gpu"] == 1 for rule in GPU_RULES)
    if name == "slurm":
        assert all(resources[rule]["tasks"] == 1 for rule in GPU_RULES)
        assert len({resources[rule]["slurm_partition"] for rule in GPU_RULES}) == 1


@pytest.mark.parametrize("name", ON_CLUSTER)
def test_groups_are_short_cpu_steps(name):
    profile = PROFILES[name]
    assert set(profile["groups"]) == SHORT_RULES
    for rule, group in profile["groups"].items():
        assert re.search(r"\{(refinement|seed|instances)\}", group), "stages must not wait for each other"
        if name == "slurm":
            assert profile["set-resources"][rule]["in_turn"] == profile["resources"]["in_turn"] == 1
            assert profile["set-resource-scopes"] == {"in_turn": "local"}


@pytest.mark.parametrize("name", ON_CLUSTER)
def test_retries_are_new_submissions(name):
    assert PROFILES[name]["retries"] >= 1


def test_a_retry_asks_for_more(rules):
    """Retries in a rule would repeat inside the old allocation, and multiply."""
    assert all(rule._restart_times is None for rule in rules.values())
    for name in of_steps(rules):
        for resource in ("mem_mb", "runtime"):
            first, second = (
                rules[name].resources[resource].evaluate(Wildcards(fromdict={"classifier": "wood"}), attempt=attempt)
                for attempt in (1, 2)
            )
            assert second.value > first.value, f"{name} would ask for the same {resource} again"


def test_jobs_are_watched_without_accounting():
    assert PROFILES["slurm"]["slurm-status-command"] == "squeue"
    assert "slurm-array-jobs" not in PROFILES["slurm"]


@pytest.mark.workflow
@pytest.mark.parametrize("name", PROFILES)
def test_snakemake_reads_the_profile(name, tmp_path):
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--dry-run",
        "--workflow-profile",
        str(REPOSITORY / "profiles" / name),
    ]
    command += ["--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(tmp_path)]
    command += ["--configfile", str(REPOSITORY / "tests/config/tiny.yaml")]
    command += ["--cores", "2"] if name == "default" else []
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert f"Using workflow specific profile {REPOSITORY / 'profiles' / name}" in output
    assert re.search(r"^report +1$", output, flags=re.MULTILINE)


PURGED = ("slurm_load_jobs error: Invalid job id specified", 1)
OUTAGE = ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", 1)
NO_ACCOUNTING = ("Slurm accounting storage is disabled", 1)
NO_DATABASE = ("sacct: error: slurm_persist_conn_open_without_init: failed to open persistent connection", 1)


@pytest.mark.parametrize(
    ("squeue", "sacct", "expected"),
    [
        (("PENDING", 0), None, "running"),
        (("RUNNING", 0), None, "running"),
        (("COMPLETING", 0), None, "running"),
        (("REQUEUED", 0), None, "running"),
        (("COMPLETED", 0), None, "success"),
        (("FAILED", 0), None, "failed"),
        (("CANCELLED", 0), None, "failed"),
        (("TIMEOUT", 0), None, "failed"),
        (("OUT_OF_MEMORY", 0), None, "failed"),
        (("PREEMPTED", 0), None, "failed"),
        (OUTAGE, None, "running"),
        (OUTAGE, ("COMPLETED", 0), "running"),
        (PURGED, None, "failed"),
        (PURGED, NO_ACCOUNTING, "failed"),
        (PURGED, NO_DATABASE, "running"),
        (PURGED, ("COMPLETED", 0), "success"),
        (PURGED, ("CANCELLED by 0", 0), "failed"),
        (PURGED, ("", 0), "failed"),
        (("", 0), ("COMPLETED", 0), "success"),
    ],
)
def test_status_of_a_job(squeue, sacct, expected, tmp_path):
    for name, answer in (("squeue", squeue), ("sacct", sacct)):
        if answer is not None:
            text, code = answer
            stream = ">&2" if code else ""
            _script(tmp_path / name, f"[ -z '{text}' ] || echo '{text}' {stream}\nexit {code}\n")
    script = REPOSITORY / "profiles/slurm-generic/status.sh"
    assert os.access(script, os.X_OK)
    done = subprocess.run(
        ["/bin/sh", script, "42"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == (f"{expected}\n", "")


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)
