"""SAM and SAM 2 as a refinement and in boxes: prompts by hand, masks as the library's own, on tiny random networks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.scenes import make_masks, write_step
from tests.test_crf_masks import shard as shard  # a fixture
from tests.tiny_sam import write_sam
from wsss_core import cli
from wsss_core.boxes import sam as boxed
from wsss_core.data.boxes import Box
from wsss_core.data.table import read_manifest
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.models.sam import NO_POINT, Prompts, Sam, fitted, kind_of
from wsss_core.refine.sam import SURE, SamSettings, merged, peaks, pieces, prompts_of, rough, sam_mask
from wsss_core.steps import instances as instances_step
from wsss_core.store.cut import read_about
from wsss_core.store.instances import INSTANCES
from wsss_core.store.shards import RecordStore

CPU = torch.device("cpu")
KINDS = ("sam", "sam2")
SIZE = (30, 44)

# --- prompts and merging, which need no network


def hill(size=SIZE, *, at: tuple[int, int], height: float, width: float = 6.0) -> np.ndarray:
    """A hill with its top at (row, column)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return height * np.exp(-((rows - at[0]) ** 2 + (columns - at[1]) ** 2) / (2 * width**2))


def test_pieces_are_connected_and_small_ones_are_left_out_but_for_the_largest_of_a_class():
    maps = np.zeros((3, 20, 20))
    maps[0, 2:8, 2:8] = 0.9
    maps[0, 8, 8] = 0.5  # joined by a corner
    maps[0, 15, 15] = 0.9  # one pixel of 400
    maps[1, 18, 2] = 0.6  # the only one of its class
    maps[2, 2:4, 2:4] = 0.95  # higher than the first class there
    found = pieces(maps, 0.3, 0.01)
    assert [(piece.number, int(piece.inside.sum())) for piece in found] == [(0, 33), (1, 1), (2, 4)]
    assert [(p.number, int(p.inside.sum())) for p in pieces(maps, 0.3, 0)][:2] == [(0, 33), (0, 1)]
    assert pieces(maps, 0.99, 0) == [] == pieces(np.zeros((0, 4, 4)), 0.3, 0)


def test_peaks_are_high_and_apart():
    values = np.maximum(hill(at=(10, 10), height=0.9), hill(at=(20, 35), height=0.7))
    found = peaks(values, np.ones(SIZE, dtype=bool), 2)
    assert found.tolist() == [[10, 10], [35, 20]]  # x, y
    inside = values > 0.3
    inside[10, 10] = False
    assert peaks(values, inside, 1).tolist() == [[10, 9]]  # the first row of four alike
    many = peaks(values, np.ones(SIZE, dtype=bool), 9)
    gaps = [np.hypot(*(a - b)) for i, a in enumerate(many) for b in many[:i]]
    assert len(many) == 9 and min(gaps) > np.sqrt(30 * 44 / 9) / 2
    assert peaks(values, np.zeros(SIZE, dtype=bool), 3).shape == peaks(values, inside, 0).shape == (0, 2)


def test_a_rough_mask_is_nought_at_the_threshold_and_surely_not_elsewhere():
    values = np.array([[0.3, 0.9, 0.9, 1.0, 0.0]])
    found = rough(values, np.array([[True, True, False, True, False]]), 0.3)
    by_hand = np.log(0.9 / 0.1) - np.log(0.3 / 0.7)
    np.testing.assert_allclose(found, [[0, by_hand, -SURE, SURE, -SURE]], atol=1e-6)
    assert np.isfinite(rough(values, values > 0, 0.0)).all() and np.isfinite(rough(values, values > 0, 1.0)).all()


def test_prompts_hold_what_is_asked_for():
    maps = np.stack([hill(at=(10, 10), height=0.9, width=3), hill(at=(20, 30), height=0.8)])
    found = pieces(maps, 0.4, 0)
    made = prompts_of(found, maps, 0.4, SamSettings(weights="", points=2))
    assert len(made) == 2 and made.points[:, 0].tolist() == [[10, 10], [30, 20]]
    rows, columns = np.nonzero(maps[0] > 0.4)
    assert made.boxes[0].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert ((made.masks[1] > 0).numpy() == (maps[1] > 0.4)).all() and made.labels.min() == 1
    only = prompts_of(found, maps, 0.4, SamSettings(weights="", points=0, mask=False))
    assert only.points is only.labels is only.masks is None and len(only) == 2
    maps[0] = 0
    maps[0, 5, 5] = 0.9  # a piece of one pixel has one point, and the place of the other is empty
    made = prompts_of(pieces(maps, 0.4, 0), maps, 0.4, SamSettings(weights="", points=2))
    assert made.labels.tolist() == [[1, NO_POINT], [1, 1]]
    assert len(prompts_of([], maps, 0.4, SamSettings(weights=""))) == 0


def test_where_masks_meet_the_higher_score_wins():
    maps = np.stack([np.full((4, 6), 0.5), np.full((4, 6), 0.8)])
    masks = np.zeros((3, 4, 6), dtype=bool)
    masks[0, :, :4], masks[1, :, 2:] = True, True  # scores 0.9 · 0.5 and 0.5 · 0.8
    found = merged(masks, np.array([0.9, 0.5, 1.0]), [0, 1, 1], maps, [3, 8])
    assert found[0].tolist() == [4, 4, 4, 4, 9, 9]
    found = merged(masks[::-1], np.array([1.0, 0.6, 0.9]), [1, 1, 0], maps, [3, 8])  # now 0.6 · 0.8, in another order
    assert found[0].tolist() == [4, 4, 9, 9, 9, 9]
    assert not merged(masks[:0], np.zeros(0), [], maps, [3, 8]).any()


def test_a_rough_mask_is_brought_to_a_quarter_of_what_the_network_sees():
    masks = torch.full((1, 30, 60), -8.0)
    masks[:, :, 30:] = 8
    found = fitted(masks, (32, 64), 16.0)
    assert found.shape == (1, 16, 16) and (found[0, 8:] == -8).all()
    assert (found[0, :8, 9:] > 7.9).all() and (found[0, :8, :7] < -7.9).all()


# --- networks


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    pytest.importorskip("transformers", reason="pip install 'wsss[foundation]'")
    return {kind: write_sam(tmp_path_factory.mktemp(kind) / f"tiny-{kind}", kind) for kind in KINDS}


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def own(network: Sam, image: np.ndarray, prompts: Prompts, candidates: int) -> tuple[np.ndarray, np.ndarray]:
    """The library's own way: processor, network with pixels, `post_process_masks`, a prompt at a time."""
    import torch.nn.functional as F

    masks, scores = [], []
    for number in range(len(prompts)):
        given = {}
        if prompts.points is not None:
            real = prompts.labels[number] != NO_POINT
            given["input_points"] = [[prompts.points[number][real].tolist()]]
            given["input_labels"] = [[prompts.labels[number][real].tolist()]]
        if prompts.boxes is not None:
            given["input_boxes"] = [[prompts.boxes[number].tolist()]]
        inputs = network.processor(images=Image.fromarray(image), return_tensors="pt", **given)
        sizes = [inputs.pop("original_sizes")]
        if network.kind == "sam":
            sizes.append(inputs.pop("reshaped_input_sizes"))
        inputs = {key: value.float() if value.is_floating_point() else value for key, value in inputs.items()}
        if prompts.masks is not None:
            if network.kind == "sam":  # to 64 x 44 of 64 x 64 pixels, and a quarter of that
                small = F.interpolate(
                    prompts.masks[number][None, None], (11, 16), mode="bilinear", align_corners=False, antialias=True
                )
                inputs["input_masks"] = F.pad(small, (0, 0, 0, 5), value=float(small.min()))
            else:
                inputs["input_masks"] = prompts.masks[number][None, None]
        with torch.no_grad():
            out = network.model(multimask_output=candidates == 3, **inputs)
        best = int(out.iou_scores[0, 0].argmax())
        masks.append(network.processor.post_process_masks(out.pred_masks, *sizes)[0][0, best].numpy())
        scores.append(float(out.iou_scores[0, 0, best].clamp(0, 1)))
    return np.stack(masks), np.array(scores)


POINTS = torch.tensor([[[10.0, 12], [20, 4]], [[40, 25], [0, 0]], [[3, 3], [30, 15]]])
LABELS = torch.tensor([[1, 0], [1, NO_POINT], [1, 1]])
BOXES = torch.tensor([[2.0, 3, 30, 20], [10, 10, 44, 30], [0, 0, 5, 5]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", ["points", "boxes", "masks", "points and boxes", "all"])
@pytest.mark.parametrize("candidates", [1, 3])
def test_masks_are_those_of_the_library(folders, image, kind, given, candidates):
    network = Sam(folders[kind], CPU)
    draw = torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(0)) * 4
    everything = given == "all"
    prompts = Prompts(
        POINTS if "points" in given or everything else None,
        LABELS if "points" in given or everything else None,
        BOXES if "boxes" in given or everything else None,
        draw if "masks" in given or everything else None,
    )
    masks, scores = network.masks(image, prompts, candidates)
    theirs, predicted = own(network, image, prompts, candidates)
    np.testing.assert_allclose(scores, predicted, atol=1e-5)
    assert masks.shape == (3, *SIZE) and (masks == theirs).mean() > 0.999
    again, _ = network.masks(image, prompts, candidates, at_once=2)
    assert (again == masks).mean() > 0.999
    assert len(network.masks(image, Prompts())[0]) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoder_runs_once_an_image(folders, image, kind, monkeypatch):
    network, runs = Sam(folders[kind], CPU), []
    network.model.vision_encoder.register_forward_hook(lambda *_: runs.append(1))
    network.masks(image, Prompts(POINTS, LABELS), at_once=1)
    assert runs == [1]


def test_a_checkpoint_of_videos_is_one_of_sam2(folders, tmp_path):
    import shutil

    folder = shutil.copytree(folders["sam2"], tmp_path / "video")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "sam2_video"}))
    assert kind_of(folder) == Sam(folder, CPU).kind == "sam2"


def test_what_is_no_checkpoint_is_told_in_a_line(folders, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    with pytest.raises(UserError, match="there is no such folder"):
        kind_of(tmp_path / "none")
    with pytest.raises(UserError, match=r"no config\.json in it"):
        kind_of(tmp_path)
    folder = shutil.copytree(folders["sam"], tmp_path / "copy")
    state = load_file(folder / "model.safetensors")
    lost = next(name for name in state if name.startswith("mask_decoder"))
    save_file({name: value for name, value in state.items() if name != lost}, folder / "model.safetensors")
    with pytest.raises(UserError, match=rf"1 parameters are missing or of another shape, such as {lost}"):
        Sam(folder, CPU)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="transformers cannot load it") as told:
        Sam(folder, CPU)
    assert "\n" not in str(told.value)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"none of model\.safetensors, .* is in it"):
        kind_of(folder)
    (folder / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(UserError, match="model_type is 'clip'; allowed: sam, sam2, sam2_video"):
        kind_of(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        kind_of(folder)


def test_a_missing_library_is_told_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "config.json").write_text('{"model_type": "sam"}')
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "processor_config.json").touch()
    with pytest.raises(UserError, match=r"this needs transformers: pip install 'wsss\[foundation\]'"):
        Sam(tmp_path, CPU)


# --- steps


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_is_what_its_parts_make(folders, image, kind):
    network = Sam(folders[kind], CPU)
    maps = np.stack([hill(at=(10, 10), height=1.0), hill(at=(20, 32), height=0.9)]).astype(np.float32)
    settings = SamSettings(weights="")
    found = pieces(maps, 0.3, settings.smallest)
    masks, iou = network.masks(image, prompts_of(found, maps, 0.3, settings))
    expected = merged(masks, iou, [0, 1], maps, (4, 7))
    assert np.array_equal(sam_mask(network, image, maps, (4, 7), 0.3, settings), expected)
    assert not sam_mask(network, image, maps[:0], (), 0.3, settings).any()


def test_the_step_writes_the_same_masks_by_one_process_and_by_two(shard, folders):
    settings = SamSettings(weights=str(folders["sam"]), threshold="otsu", points=2)
    written = [
        make_masks(shard, "sam", settings, name=name, maps=shard / "maps.h5", execution=execution)
        for name, execution in (("alone", Execution("cpu")), ("together", Execution("cpu", threads=2)))
    ]
    names = sorted(path.name for path in written[0].iterdir())
    assert len(names) == 5
    assert all((written[0] / name).read_bytes() == (written[1] / name).read_bytes() for name in names)
    assert read_about(written[0]).notes == ("sam (tiny-sam), prompts: 2 points, box, mask",)


def test_nothing_to_prompt_with_is_refused(shard, folders):
    settings = SamSettings(weights=str(folders["sam"]), points=0, box=False, mask=False)
    with pytest.raises(UserError, match="leave nothing to prompt with"):
        make_masks(shard, "sam", settings, maps=shard / "maps.h5")


@pytest.mark.parametrize("kind", KINDS)
def test_objects_are_cut_to_their_boxes_and_empty_ones_filled(folders, image, kind):
    made = boxed.maker(boxed.SamSettings(weights=str(folders[kind])), CPU)
    boxes = [Box(3, *row) for row in BOXES.tolist()] + [Box(1, 0, 0, 44, 30, crowd=True)]
    found = made(image, boxes, None)
    masks, iou = Sam(folders[kind], CPU).masks(image, Prompts(boxes=BOXES))
    assert found.classes.tolist() == [3, 3, 3]
    filled = 0
    for number, (x0, y0, x1, y1) in enumerate(BOXES.int().tolist()):
        inside = np.zeros(SIZE, dtype=bool)
        inside[y0:y1, x0:x1] = masks[number, y0:y1, x0:x1]
        if not inside.any():
            inside[y0:y1, x0:x1], iou[number] = True, 0
            filled += 1
        np.testing.assert_array_equal(found.masks[number], inside)
    np.testing.assert_allclose(found.scores, iou)
    assert found.statistics == {"filled": filled}
    assert len(made(image, [], None)) == 0


def test_objects_are_made_again_where_the_network_changed(shard, folders, tmp_path):
    import os
    import shutil

    folder = shutil.copytree(folders["sam"], tmp_path / "copy")
    write_step(tmp_path / "s.json", "instances/x", "sam", "instances", boxed.SamSettings(weights=str(folder)))

    def prints() -> dict[str, str]:
        instances_step.run(
            config=tmp_path / "s.json",
            manifest=shard / "shard.json",
            attributions=None,
            instances=tmp_path / "objects.h5",
            cache=tmp_path / "cache.h5",
            execution=Execution("cpu"),
        )
        store = RecordStore(tmp_path / "objects.h5", INSTANCES)
        return {r.id: store.fingerprint(r.id) for r in read_manifest(shard / "shard.json").records}

    before = prints()
    assert prints() == before
    os.utime(folder / "model.safetensors", (1, 1))
    assert all(after != before[name] for name, after in prints().items())


def test_check_looks_at_the_folder(tmp_path, folders, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def check(weights) -> tuple[int, str]:
        configuration = {
            "dataset": {"format": "demo"},
            "classifiers": {"bce": {"objective": "bce", "backbone": "small"}},
            "seeds": {"cam": {"method": "cam", "classifier": "bce"}},
            "refinements": {"sam": {"method": "sam", "seed": "cam", "weights": str(weights)}},
            "instances": {"boxed": {"method": "sam", "weights": str(weights)}},
        }
        Path("mine.yaml").write_text(yaml.safe_dump(configuration))
        status = cli.main(["check", "mine.yaml"])
        said = capsys.readouterr()
        return status, said.out + said.err

    status, said = check(folders["sam2"])
    assert status == 0, said
    for name in ("refinements.sam", "instances.boxed"):
        assert f"{name}: {folders['sam2']} holds a network of the kind sam2, weights in model.safetensors" in said
    status, said = check("elsewhere")
    assert status == 0 and "refinements.sam: there is no folder elsewhere yet" in said
    Path("empty").mkdir()
    status, said = check("empty")
    assert status == 2 and "instances.boxed: empty: no config.json in it" in said
