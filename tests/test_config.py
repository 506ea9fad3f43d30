"""Configuration: readable mistakes, defaults, sweeps, and a schema that is in step with the code."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import yaml

from tests.conftest import REPOSITORY
from wsss_core.config import SCHEMA, Configuration, configured_stages, load, read_configuration, read_run, step_json
from wsss_core.config.reading import read_file
from wsss_core.config.steps import run_mapping
from wsss_core.errors import UserError
from wsss_core.jobs.configuration import read_run_configuration
from wsss_core.jobs.step import read_step
from wsss_core.registry import DATASETS, METHODS, all_steps

RAW = {
    "run": "r",
    "dataset": {"format": "demo"},
    "classifiers": {"bce": {"objective": "bce"}},
    "seeds": {"cam": {"method": "cam", "classifier": "bce"}, "rib": {"method": "rib", "classifier": "bce"}},
    "refinements": {
        "crf": {"method": "crf", "seed": "rib"},
        "irn": {"method": "irn", "seed": "rib"},
        "confident": {"method": "threshold", "walk": "irn"},
        "filled": {"method": "fill", "masks": "confident", "segmentation": "deeplab"},
    },
    "segmentations": {"deeplab": {"network": "deeplab_v2", "masks": "confident"}},
}


def raw(**changes):
    """`RAW` with dotted keys (dots written as __) changed; None removes the key."""
    made = copy.deepcopy(RAW)
    for path, value in changes.items():
        *parents, key = path.split("__")
        node = made
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is None:
            del node[key]
        else:
            node[key] = value
    return made


def mistakes(given) -> str:
    with pytest.raises(UserError) as caught:
        load(given)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds__rib__lerning_rate": 1.0}, "seeds.rib.lerning_rate: unknown key (did you mean 'learning_rate'?)"),
        ({"sedes": {}}, "sedes: unknown key (did you mean 'seeds'?)"),
        ({"seeds__rib__steps": 0}, "seeds.rib.steps: 0 is not allowed; allowed: integer ≥ 1"),
        ({"seeds__rib__steps": "many"}, 'seeds.rib.steps: "many" is not allowed; allowed: integer'),
        ({"seeds__rib__learning_rate": "1e-3"}, "YAML reads 1e-3 as text: write 1.0e-3"),
        ({"seeds__rib__steps": "3"}, "--config makes text of numbers, --configfile does not"),
        ({"seeds__rib__classifier": "bcee"}, "there is no stage 'bcee' (did you mean 'bce'?)"),
        ({"seeds__rib__classifier": None}, "seeds.rib.classifier: is missing"),
        ({"refinements__crf": {"method": "crf", "seed": None}}, "refinements.crf.seed: is missing"),
        ({"seeds__rib__method": "ribb"}, 'seeds.rib.method: "ribb" is not allowed; allowed: cam, rib'),
        ({"seeds__rib__method": None, "seeds__rib__methode": "rib"}, "seeds.rib.method: is missing (is it 'methode'?)"),
        ({"seeds__rib": 3}, "seeds.rib: must be a mapping"),
        ({"refinements__cam": {"method": "crf", "seed": "cam"}}, "the name is taken by seeds.cam"),
        ({"refinements__confident__walk": "crf"}, "refinements.confident.walk: there is no stage 'crf'"),
        ({"segmentations__deeplab__masks": "filled"}, "depends on itself"),
        ({"targets": ["ribs"]}, "targets: there is no stage 'ribs' (did you mean 'rib'?)"),
        ({"dataset__format": "vok"}, 'dataset.format: "vok" is not allowed; allowed: voc, coco, table, demo'),
        ({"dataset": None}, "dataset: is missing"),
        ({"run": "a/b"}, 'run: "a/b" is not allowed'),
        ({"execution": {"device": "gpu"}}, 'execution.device: "gpu" is not allowed; allowed: auto, cpu, cuda'),
        (
            {"refinements__confident__band": [0.4, 0.2]},
            "refinements.confident.band: [0.4, 0.2] is not allowed; the first number must not exceed the second",
        ),
        ({"refinements__confident__band": [20, 30]}, "refinements.confident.band: [20.0, 30.0] is not allowed"),
        (
            {"refinements__crf__threshold": 30},
            "refinements.crf.threshold: 30.0 is not allowed; allowed: number ≥ 0 and ≤ 1 or score, oracle",
        ),
        ({"seeds__rib__steps": [2, 4, 2]}, "seeds.rib: two variants would have the name rib@steps=2"),
        (
            {"seeds__rib__steps": [2, 4], "refinements__crf__seed": "rib@steps=3"},
            "refinements.crf.seed: there is no stage 'rib@steps=3'; variants of rib: rib@steps=2, rib@steps=4",
        ),
        (
            {
                "seeds__rib__steps": [2, 4],
                "refinements__filled__masks": "confident@steps=2",
                "refinements__filled__segmentation": "deeplab@steps=4",
            },
            "refinements.filled: confident@steps=2 and deeplab@steps=4 have no variants with the same swept values",
        ),
    ],
)
def test_mistakes_name_key_value_and_what_is_allowed(changes, message):
    assert message in mistakes(raw(**changes))


LONG = "x" * 300


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": LONG}, "is not allowed; allowed: letters, digits, '.', '_' and '-', at most 200, first a letter"),
        ({"run": "a b"}, "allowed: letters, digits"),
        ({"results": f"out/{LONG}/runs"}, "results: a folder's name has 300 bytes, file systems take 255"),
        ({"results": ""}, 'results: "" is not allowed'),
        ({f"seeds__{LONG}": {"method": "cam", "classifier": "bce"}}, "a stage's name is letters, digits"),
        ({"figures": [{"name": LONG}]}, "allowed: letters, digits"),
        (
            {"seeds__rib__scales": [[1.0, *(0.1 + k / 1000 for k in range(60))], [1.0]]},
            "seeds.rib: the variant rib@scales=1.0-0.1-0.101",
        ),
        (
            {
                "seeds__rib__steps": [5, 10],
                "seeds__" + 195 * "y": {"method": "cam", "classifier": "bce", "scales": [[1.0]]},
            },
            "would have a name of 206 letters, with all swept values in it; allowed: 200",
        ),
        ({"seeds__RIB": {"method": "cam", "classifier": "bce"}}, "seeds.RIB: the name differs from seeds.rib in upper"),
        ({"refinements__Cam": {"method": "crf", "seed": "rib"}}, "refinements.Cam: the name differs from seeds.cam in"),
        (
            {"classifiers__bce__weights": ["a/Net.pth", "A/net.pth"]},
            "bce@weights=a_Net.pth and bce@weights=A_net.pth differ in upper and lower case alone; file systems",
        ),
        ({"figures": [{"name": "one"}, {"name": "One"}]}, "figures[1].name: 'One' is taken by another figure"),
        (
            {
                "seeds__rib__score": {"threshold": [0.2, 0.3]},
                "seeds__rib.score": {"method": "rib", "classifier": "bce", "threshold": [0.2, 0.3]},
            },
            "seeds.rib.score: rib.score.threshold is swept in two stages, rib and rib.score; rename one of them",
        ),
    ],
)
def test_names_that_file_systems_do_not_take_or_tell_apart(changes, message):
    assert message in mistakes(raw(**changes))


def test_a_name_may_be_as_long_as_is_said():
    assert load(raw(run="r" * 200, results="out/" + "r" * 255)).run == "r" * 200


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("seeds__rib__scales", "a list of numbers > 0"),
        ("seeds__cam__scales", "a list of numbers > 0"),
        ("segmentations__deeplab__predict__scales", "a list of numbers > 0"),
        ("classifiers__bce__long_side", "a list of 2 integers ≥ 1"),
        ("seeds__rib__explosion", "a list of 2 numbers ≥ 0 and ≤ 1 or null"),
        ("report__sizes__limits", "a list of 2 numbers ≥ 0 and ≤ 1"),
    ],
)
def test_lists_say_what_their_numbers_may_be(key, allowed):
    length = 2 if " 2 " in allowed else 1
    assert f"is not allowed; allowed: {allowed}" in mistakes(raw(**{key: [-1, *[0.5] * (length - 1)]}))


@pytest.mark.parametrize("scales", [[0], [1.0, 0.0], [1.0, -0.5], [[1.0], [1.0, 0]]])
def test_a_scale_of_nothing_is_refused_in_sweeps_too(scales):
    assert ".scales: " in mistakes(raw(seeds__cam__scales=scales))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("refinements__crf__gaussian", [0, 3]),
        ("refinements__crf__bilateral", [50, 0, 10]),
        ("refinements__irn__labels", {"bilateral": [0, 5, 10]}),
        ("segmentations__deeplab__predict", {"crf": {"gaussian": [0.0, 3]}}),
    ],
)
def test_a_kernel_without_width_is_refused_one_without_weight_is_not(key, value):
    assert "every number but the last must exceed 0" in mistakes(raw(**{key: value}))
    assert load(raw(refinements__crf__gaussian=[3, 0], refinements__crf__bilateral=[50, 5, 0]))


@pytest.mark.parametrize("text", [".nan", ".inf", "-.inf", "1.0e+999"])
@pytest.mark.parametrize(
    "key",
    ["seeds__rib__learning_rate", "seeds__rib__margin", "seeds__rib__scales", "dataset__usual_place", "toy__rate"],
)
def test_numbers_that_are_none_are_refused_wherever_numbers_are_taken(text, key):
    value = yaml.safe_load(text)
    given = [1.0, value] if key.endswith("scales") else value
    assert f"{key.replace('__', '.')}: " in mistakes(raw(**{key: given}))
    if key.startswith("seeds"):
        swept = [[[1.0], [value]]] if key.endswith("scales") else [5.0, value]
        assert ": " in mistakes(raw(**{key: swept}))


@pytest.mark.parametrize("key", ["seed", "seeds__rib__steps", "execution__workers"])
def test_whole_numbers_are_finite_too(key):
    assert "integer" in mistakes(raw(**{key: float("inf")})) and "integer" in mistakes(raw(**{key: float("nan")}))


def test_a_stage_with_a_mistake_is_not_said_to_be_missing():
    assert "the configuration has a mistake" in mistakes(raw(seeds__rib__method="ribb"))


def test_all_mistakes_at_once():
    text = mistakes(raw(seeds__rib__steps=0, refinements__crf__seed="x", run="?"))
    assert "3 mistakes" in text
    assert all(key in text for key in ("seeds.rib.steps", "refinements.crf.seed", "run"))


def test_defaults_are_the_papers():
    settings = load(RAW).stages["rib"].settings["maps"]
    assert (settings["steps"], settings["learning_rate"], settings["batch_size"]) == (10, 8e-6, 20)
    assert (settings["margin"], settings["threshold"]) == (600, 0.4)


def test_step_json_is_canonical():
    one = step_json(load(raw(seeds__rib__steps=10.0)), "seeds/rib", "maps")
    reordered = dict(reversed(RAW.items()))
    assert one == step_json(load(reordered), "seeds/rib", "maps")
    assert json.loads(one)["stage"] == "seeds/rib"


def whole() -> Configuration:
    """A configuration with every step there is, and a sweep whose keys are not in the order of the alphabet."""
    wood = {"objective": "w_ood", "init": "bce"}
    shown = {"report": {"features": {"classifiers": ["bce"]}}, "figures": [{"name": "seeds", "stages": ["cam"]}]}
    seeds = {"seeds__rib__steps": [5, 10], "seeds__rib__margin": [None, 600]}
    seeds["seeds__regions"] = {"method": "regions", "seed": "cam"}
    seeds["classifiers__released"] = {"objective": "pretrained", "file": "res50_cam.pth"}
    seeds["refinements__released-irn"] = {"method": "irn_pretrained", "seed": "cam", "network": {"file": "irn.pth"}}
    seeds["seeds__theirs"] = {"method": "external", "folder": "theirs"}
    boxes = {
        "detectors__detector": {"network": "faster_rcnn"},
        "attributions__bbam": {"method": "bbam", "detector": "detector"},
        "instances__attributed": {"method": "attributed", "attribution": "bbam"},
        "instances__walked": {"method": "irn", "walk": "irn"},
        "instances__true": {"method": "truth"},
        "instances__fitted": {"method": "proposals", "instances": "attributed", "folder": "proposals"},
        "instance_networks__mask-rcnn": {"network": "mask_rcnn", "instances": "attributed"},
    }
    return load(raw(classifiers__wood=wood, **seeds, **shown, **boxes))


def settings_files(configuration: Configuration) -> list[tuple[str, str]]:
    """Stage and step of every settings file of a run."""
    of_the_run = {"dataset": "index", "features": "features", "figures/seeds": "figure", "toy": "toy"}
    stages = [(f"{s.section}/{s.name}", step) for s in configuration.stages.values() for step in s.settings]
    return [*stages, *of_the_run.items(), ("run", "results"), ("run", "health"), ("run", "sheet"), ("run", "report")]


def test_every_settings_file_has_the_same_keys_and_is_read_as_that_of_its_step(tmp_path):
    configuration = whole()
    files = settings_files(configuration)
    assert {stage for stage, _ in files} == {*configured_stages(configuration), "run"}
    assert {step for _, step in files} == {step.name for step in all_steps()}
    for stage, step in files:
        text = step_json(configuration, stage, step)
        scored = {"held_out"} if step == "evaluation" else set()
        scored |= {"labelled"} if stage.startswith("refinements/") and step == "evaluation" else set()
        keys = {"stage", "key", "step", "method", "seed", "settings", "code"}
        assert json.loads(text).keys() == keys | scored, (stage, step)
        (tmp_path / "step.json").write_text(text)
        read = read_step(tmp_path / "step.json")
        assert (read.stage, read.step.name) == (stage, step)


def test_a_settings_file_of_the_whole_run_gives_the_configuration_back(tmp_path):
    given = whole()
    filled = given.stages["filled@steps=5@margin=None"]
    turned = replace(filled, upstream=dict(reversed(filled.upstream.items())))
    given = replace(given, stages=given.stages | {turned.name: turned})
    (tmp_path / "report.json").write_text(step_json(given, "run", "report"))
    for found in (read_run(run_mapping(given)), read_run_configuration(tmp_path / "report.json")):
        assert found == replace(given, execution={})
        assert list(found.stages) == list(given.stages)
        for name, stage in given.stages.items():
            assert list(found.stages[name].upstream) == list(stage.upstream)
            assert list(found.stages[name].swept) == list(stage.swept)
    assert list(turned.upstream) == ["segmentation", "masks"] and list(turned.swept) == ["rib.steps", "rib.margin"]


def test_results_do_not_depend_on_what_no_target_needs_nor_on_what_is_shown():
    plain = raw(targets=["cam"])
    shown = raw(targets=["cam"], report={"images": 3}, toy={"steps": 2}, seeds__rib__steps=5)
    results, report = ([step_json(load(given), "run", s) for given in (plain, shown)] for s in ("results", "report"))
    assert results[0] == results[1] and report[0] != report[1]
    assert results[0] != step_json(load(plain | {"seed": 1}), "run", "results")


def test_variants_of_a_sweep_draw_alike():
    configuration = load(raw(seeds__rib__steps=[5, 10]))
    keys = {}
    for stage in configuration.stages.values():
        for step in stage.settings:
            content = json.loads(step_json(configuration, f"{stage.section}/{stage.name}", step))
            keys.setdefault(content["key"], set()).add(content["stage"])
    assert keys["seeds/rib"] == {"seeds/rib@steps=5", "seeds/rib@steps=10"}
    assert keys["refinements/irn"] == {"refinements/irn@steps=5", "refinements/irn@steps=10"}
    assert keys["seeds/cam"] == {"seeds/cam"}


def test_scoring_is_not_part_of_the_maps():
    plain, scored = load(RAW), load(raw(seeds__rib__score={"threshold": 0.4}))
    assert step_json(plain, "seeds/rib", "maps") == step_json(scored, "seeds/rib", "maps")
    assert step_json(plain, "seeds/rib", "scores") != step_json(scored, "seeds/rib", "scores")


def test_sweeps_expand_with_all_that_is_built_on_them():
    configuration = load(raw(seeds__rib__steps=[5, 10], refinements__irn__walk={"beta": [8, 10]}))
    names = configuration.section("refinements")
    assert {"crf@steps=5", "crf@steps=10"} < set(names)
    assert sum(name.startswith("irn@") for name in names) == 4
    fill = configuration.stages["filled@steps=5@walk.beta=8"]
    assert fill.upstream == {"masks": "confident@steps=5@walk.beta=8", "segmentation": "deeplab@steps=5@walk.beta=8"}
    assert configuration.stages["rib@steps=5"].settings["maps"]["steps"] == 5


def test_masks_cut_at_an_oracle_threshold_are_known_downstream():
    def oracles(**changes):
        configuration = load(raw(**changes))
        return {name: found for name in configuration.stages if (found := configuration.oracle_of(name))}

    assert oracles() == {} == oracles(seeds__rib__score={"rule": "oracle"})
    assert oracles(refinements__crf__threshold="otsu") == {}
    assert oracles(refinements__crf__threshold="oracle") == {"crf": "crf"}
    after = dict.fromkeys(("confident", "deeplab", "filled"), "confident")
    assert oracles(refinements__confident__threshold="oracle") == after
    assert oracles(refinements__confident__threshold="oracle", refinements__confident__band=[0.2, 0.3]) == {}
    score = {"refinements__crf__threshold": "score", "refinements__confident__threshold": "score"}
    assert oracles(seeds__rib__score={"rule": "oracle"}, **score) == {"crf": "crf"}
    assert oracles(refinements__irn__score={"rule": "oracle"}, **score) == after


def test_masks_of_true_objects_are_true_masks():
    true = {"instances__objects": {"method": "truth"}, "refinements__merged": {"method": "instances"}}
    true["refinements__merged"]["instances"] = "objects"
    true["segmentations__learned"] = {"network": "deeplab_v2", "masks": "merged"}
    configuration = load(raw(**true))
    assert json.loads(step_json(configuration, "refinements/merged", "evaluation"))["labelled"] == [[1.0, 0]]
    assert configuration.learned_truths("learned") == ["built on objects: true masks of 100 % of the images"]
    assert configuration.truths_of("learned") == {"objects": (1.0, 0)} and configuration.truths_of("crf") == {}


def test_images_that_chose_a_threshold_are_known_to_what_is_scored_after_it():
    def held_out(**changes):
        configuration = load(raw(**changes))
        return {name: found for name in configuration.stages if (found := configuration.held_out_of(name))}

    rule = {"seeds__rib__score": {"rule": "heldout", "heldout_fraction": 0.3}}
    assert held_out() == {} == held_out(**rule)
    assert held_out(refinements__crf__threshold="score", **rule) == {"crf": 0.3}
    walked = {"refinements__irn__score": {"rule": "heldout"}, "refinements__confident__threshold": "score"}
    assert held_out(**walked) == dict.fromkeys(("confident", "deeplab", "filled"), 0.2)
    configuration = load(raw(**walked))
    for stage in ("refinements/filled", "segmentations/deeplab"):
        assert json.loads(step_json(configuration, stage, "evaluation"))["held_out"] == 0.2


def test_repetitions_of_a_stage_differ_in_its_random_draws_alone():
    once, configuration = load(raw()), load(raw(seeds__rib__repeat=[0, 1]))

    def step(configuration, stage, name):
        return json.loads(step_json(configuration, stage, name))

    first, second = (step(configuration, f"seeds/rib@repeat={k}", "maps") for k in (0, 1))
    plain = step(once, "seeds/rib", "maps")
    assert first | {"stage": ""} == plain | {"stage": ""}, "the first repetition is what the stage is without any"
    assert second["key"] == "seeds/rib@repeat=1"
    assert second | {"stage": "", "key": ""} == plain | {"stage": "", "key": ""}, "no setting of the method"
    above, below = (
        {load(raw(seeds__rib__repeat=k)).lineage("rib") for k in (0, 1)},
        step(configuration, "classifiers/bce", "train"),
    )
    assert len(above) == 1, "as with the run's seed, results of both belong together"
    assert below == step(once, "classifiers/bce", "train"), "what the stage is built on is not repeated"
    assert step(configuration, "refinements/crf@repeat=1", "masks")["key"] == "refinements/crf"
    with pytest.raises(UserError, match=r"seeds.rib.*repeat: -1"):
        load(raw(seeds__rib__repeat=-1))


def test_sweep_of_a_list_setting_takes_lists_of_lists():
    configuration = load(raw(seeds__cam__scales=[[1.0], [1.0, 0.5]]))
    assert configuration.section("seeds") == ["cam@scales=1.0", "cam@scales=1.0-0.5", "rib"]


def test_targets_name_a_stage_or_one_variant():
    swept = raw(seeds__rib__steps=[5, 10])
    assert load(swept | {"targets": ["rib"]}).targets == ("rib@steps=5", "rib@steps=10")
    assert load(swept | {"targets": ["rib@steps=5", "cam"]}).targets == ("rib@steps=5", "cam")


def test_an_edge_may_take_one_of_several_methods():
    psa = {"refinements__psa": {"method": "psa", "seed": "rib"}}
    assert load(raw(refinements__confident__walk="psa", **psa)).stages["confident"].upstream == {"walk": "psa"}
    text = mistakes(raw(refinements__confident__walk="crf", **psa))
    assert "refinements.confident.walk: there is no stage 'crf'; allowed: irn, psa" in text


def test_ancestor_is_found_through_every_kind_of_stage():
    assert load(RAW).ancestor("filled", "classifiers").name == "bce"
    assert load(RAW).ancestor("deeplab", "seeds").name == "rib"


def test_unreadable_files(tmp_path):
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    for name in ("list.yaml", "broken.yaml", "absent.yaml"):
        with pytest.raises(UserError, match=name):
            read_configuration(tmp_path / name)
    (tmp_path / "step.json").write_text("{}")
    with pytest.raises(UserError, match=r"step\.json"):
        read_step(tmp_path / "step.json")
    (tmp_path / "toy.json").write_text(step_json(load(RAW), "toy", "toy"))
    with pytest.raises(UserError, match=r"toy\.json: is not the settings file of a step of the whole run"):
        read_run_configuration(tmp_path / "toy.json")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seeds: {}\nrun: a\nseeds: {}\n", ["seeds, in lines 1 and 3"]),
        ("seeds:\n  rib: {steps: 1}\n  cam: {}\n  rib: {}\n", ["seeds.rib, in lines 2 and 4"]),
        ("seeds: {rib: {steps: 1, 'steps': 2}}\n", ["seeds.rib.steps, in lines 1 and 1"]),
        ("figures:\n- name: a\n- {name: b, x: c, x: d}\n", ["figures[1].x, in lines 3 and 3"]),
        ("run: a\nrun: a\nrun: b\nseed: 1\nseed: 1\n", ["run, in lines 1 and 2", "run, in lines 1 and 3", "seed, in"]),
        ('{"run": "a",\n\t"seeds": {"rib": {}, "rib": {}}}', ["\n  rib"]),
    ],
)
def test_a_key_that_stands_twice_is_told_with_its_lines(text, told, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=r"mine\.yaml: a key that stands twice counts once") as caught:
        read_configuration(tmp_path / "mine.yaml")
    assert all(words in str(caught.value) for words in told)


def test_what_is_merged_from_an_anchor_may_be_given_again(tmp_path):
    text = """
    dataset: {format: demo}
    classifiers:
      one: &one {objective: bce, epochs: 2, crop: 64}
      two: &two {<<: *one, epochs: 3}
      three: {<<: *two, epochs: 4}
    """
    (tmp_path / "mine.yaml").write_text(text)
    stages = read_configuration(tmp_path / "mine.yaml").stages
    assert [stages[name].settings["train"]["epochs"] for name in ("one", "two", "three")] == [2, 3, 4]


def test_schema_and_pages_are_in_step_with_the_code():
    from wsss_core.schema import ARCHITECTURE_PAGE, SETTINGS_PAGE, architecture_page, build_schema, settings_page

    schema = build_schema()
    assert json.loads(SCHEMA.read_text()) == schema, "run `wsss schema`"
    assert SETTINGS_PAGE.read_text() == settings_page(schema), "run `wsss schema`"
    page = ARCHITECTURE_PAGE.read_text()
    assert page.count("written by `wsss schema` -->") == 2 and page == architecture_page(page), "run `wsss schema`"


def test_every_setting_is_described():
    schema = json.loads(SCHEMA.read_text())

    def undescribed(node, where):
        for key, known in node.get("properties", {}).items():
            if "properties" in known:
                yield from undescribed(known, f"{where}.{key}")
            elif not known.get("description"):
                yield f"{where}.{key}"

    assert [name for d, node in schema["$defs"].items() for name in undescribed(node, d)] == []


def test_registry_is_complete():
    names = {f"{s}.{m}" for s, methods in METHODS.items() for m in methods} | {f"dataset.{d}" for d in DATASETS}
    assert set(json.loads(SCHEMA.read_text())["$defs"]) == names


@pytest.mark.parametrize("path", ["config.yaml", *sorted(p.name for p in (REPOSITORY / "config").glob("*.yaml"))])
def test_shipped_configurations_are_valid(path):
    folder = REPOSITORY if path == "config.yaml" else REPOSITORY / "config"
    assert load(yaml.safe_load((folder / path).read_text())).stages


@pytest.mark.parametrize("wrong", [["cam"], {"a": 1}, 3, True])
def test_a_method_is_one_word(wrong):
    for changes in ({"seeds__cam__method": wrong}, {"classifiers__bce__objective": wrong}):
        with pytest.raises(UserError, match=r"(method|objective): .* is not allowed; allowed: "):
            load(raw(**changes))
    with pytest.raises(UserError, match=r"dataset\.format: .* is not allowed"):
        load(raw(dataset={"format": wrong}))


def test_a_sweep_of_thousands_is_refused_before_it_is_made():
    hundred = [k / 1000 for k in range(1, 101)]
    swept = {"seeds__rib__learning_rate": hundred, "seeds__rib__steps": [*range(1, 102)]}
    with pytest.raises(
        UserError, match=r"seeds\.rib: its swept values make 10100 combinations, and 10000 are the most"
    ):
        load(raw(**swept))


def test_a_file_that_is_nested_too_deeply_is_told_in_a_line(tmp_path):
    for text in ("[" * 5000 + "]" * 5000, '{"a": ' * 5000 + "1" + "}" * 5000):
        (tmp_path / "deep.yaml").write_text(text)
        with pytest.raises(UserError, match=r"deep\.yaml: configuration cannot be read \(it is nested too deeply\)"):
            read_file(tmp_path / "deep.yaml")
