"""The execution profiles: complete, in step with the rules, and read by Snakemake."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY

PROFILES = {path.parent.name: yaml.safe_load(path.read_text()) for path in REPOSITORY.glob("profiles/*/config.yaml")}
ON_CLUSTER = ("slurm", "slurm-generic")
WITH_GPU = (*ON_CLUSTER, "gpu-box")


def rules() -> dict[str, str]:
    """Name and text of every rule."""
    text = "\n\n".join(path.read_text() for path in sorted(REPOSITORY.glob("rules/*.smk")))
    parts = re.split(r"^(?:rule|checkpoint) (\w+):$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


RULES = rules()
GPU_RULES = {name for name, text in RULES.items() if "{params.execution}" in text} - {"ood_selection"}
"""Rules whose command takes a device; `ood_selection` may wait for a person, and needs one for erasing alone."""
SHORT_RULES = {
    name for name, text in RULES.items() if "{{refinement}}/" in text and ".{{shard}}.log" in text
} - GPU_RULES
"""CPU steps of a refinement's shards."""


def test_there_is_a_profile_for_every_kind_of_machine():
    assert set(PROFILES) == {"default", *WITH_GPU}
    assert {"seed_maps", "train_segmentation"} < GPU_RULES


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_are_complete(name):
    """Snakemake does not merge profiles, so each repeats the settings of the default one."""
    profile = PROFILES[name]
    assert PROFILES["default"].items() <= profile.items()
    assert profile["rerun-incomplete"] is True
    named = {*profile.get("set-resources", {}), *profile.get("groups", {})}
    assert named <= set(RULES), f"there is no rule {sorted(named - set(RULES))}"
    assert set(profile.get("group-components", {})) == set(profile.get("groups", {}).values())
    # Both make Snakemake 9.27 take a failed job's output for finished.
    assert "keep-incomplete" not in profile and not any("update(" in text for text in RULES.values())


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
        assert "{refinement}" in group, "stages must not wait for each other"
        if name == "slurm":
            assert profile["set-resources"][rule]["in_turn"] == profile["resources"]["in_turn"] == 1
            assert profile["set-resource-scopes"] == {"in_turn": "local"}


@pytest.mark.parametrize("name", ON_CLUSTER)
def test_retries_are_new_submissions(name):
    """Retries in a rule would repeat inside the old allocation, and multiply."""
    assert PROFILES[name]["retries"] >= 1
    assert not any(re.search(r"^\s+retries:", text, flags=re.MULTILINE) for text in RULES.values())
    for rule, text in RULES.items():
        if "localrule:" not in text and not rule.endswith("_config"):
            assert "memory(" in text and re.search(r"runtime=(runtime\(|selection_runtime)", text), (
                f"{rule} would ask for the same again"
            )


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
    assert re.search(r"^report_page +1$", output, flags=re.MULTILINE)


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
