"""The schema that editors read: it finds mistakes by itself, and none in what is shipped."""

from __future__ import annotations

import copy
import json
import re

import pytest
import yaml
from jsonschema import Draft7Validator, Draft202012Validator

from tests.conftest import REPOSITORY
from wsss_core.config import SCHEMA, load
from wsss_core.errors import UserError

LINKED = REPOSITORY / "schemas" / "config.schema.json"
SHIPPED = [
    REPOSITORY / "config.yaml",
    *sorted((REPOSITORY / "config").rglob("*.yaml")),
    *sorted((REPOSITORY / "tests" / "config").glob("*.yaml")),
]
GOOD = yaml.safe_load("""
dataset: {format: demo}
classifiers:
  bce: {objective: bce}
  wood: {objective: w_ood, init: bce, distance_weight: [0.0, 0.007], selection: {rule: [hard, random]}}
seeds:
  cam: {method: cam, classifier: bce}
  rib: {method: rib, classifier: bce, steps: [5, 10], scales: [[1.0], [1.0, 0.5]], score: [{}, {rule: oracle}]}
refinements:
  crf: {method: crf, seed: rib@steps=5@scales=1.0@score=__, threshold: [0.3, score]}
  irn: {method: irn, seed: rib, walk: {beta: [8, 10]}}
segmentations:
  deeplab: {network: deeplab_v2, masks: irn, predict: {crf: [null, {}], scales: [1.0]}}
execution: {precision: mixed}
report: {gains: [[rib, irn]], sizes: {}}
figures: [{name: one, stages: [cam]}]
toy: {}
""")


@pytest.fixture(scope="module", params=[Draft202012Validator, Draft7Validator], ids=["2020-12", "draft 7"])
def validator(request):
    """By the draft that the file declares, and by the one that most editors follow, whatever it declares."""
    schema = json.loads(LINKED.read_text())
    request.param.check_schema(schema)
    return request.param(schema)


def changed(path: str, value):
    made = copy.deepcopy(GOOD)
    node = made
    *parents, key = path.split("/")
    for parent in parents:
        node = node[int(parent) if isinstance(node, list) else parent]
    node[key] = value
    return made


def test_the_link_leads_to_the_file_in_the_package():
    assert LINKED.resolve() == SCHEMA


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_name_the_schema_and_have_no_errors(path, validator):
    text = path.read_text()
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert (path.parent / named[1]).resolve() == SCHEMA
    assert list(validator.iter_errors(yaml.safe_load(text))) == []


def test_lists_of_values_and_names_of_variants_are_no_errors(validator):
    assert list(validator.iter_errors(GOOD)) == []
    assert "crf@steps=5@scales=1.0@score=__@threshold=score" in load(GOOD).stages


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("sedes", {}),
        ("run", "a/b"),
        ("dataset/trian", 12),
        ("dataset/shard_size", 0),
        ("dataset/shard_size", [16, 32]),
        ("dataset/format", "vok"),
        ("classifiers/bce", 3),
        ("classifiers/bce/nonsense", 1),
        ("classifiers/bce/objective", "bse"),
        ("classifiers/wood", {"objective": "w_ood"}),
        ("classifiers/wood/selection/rule", ["hard", "rnadom"]),
        ("seeds/rib/lerning_rate", "many"),
        ("seeds/rib/steps", -4),
        ("seeds/rib/steps", "many"),
        ("seeds/rib/steps", []),
        ("seeds/rib/steps", [4, "many"]),
        ("seeds/rib/scales", [[1.0], 0.5]),
        ("seeds/rib/classifier", "not a name"),
        ("seeds/rib/score", {"rule": "orakel"}),
        ("refinements/irn/walk/bata", 8),
        ("refinements/crf/threshold", 30),
        ("segmentations/deeplab/predict/crf", {"iterations": "ten"}),
        ("execution/device", "gpu"),
        ("report/sizes", {"limit": 0.1}),
        ("figures/0/y", "iou"),
        ("toy/steps of it", 3),
    ],
)
def test_a_mistake_is_one_error(path, value, validator):
    given = changed(path, value)
    assert len(list(validator.iter_errors(given))) == 1
    with pytest.raises(UserError):
        load(given)


def test_three_mistakes_are_three_errors(validator):
    given = changed("seeds/rib/nonsense", 1)
    given["seeds"]["rib"]["learning_rate"] = "many"
    given["refinements"]["irn"]["walk"]["beta"] = -4
    places = {error.json_path for error in validator.iter_errors(given)}
    assert places == {"$.seeds.rib", "$.seeds.rib.learning_rate", "$.refinements.irn.walk.beta"}
