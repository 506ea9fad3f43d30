"""Faster R-CNN on the project's backbones: its geometry, what it says of regions, batches, training, checkpoints."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign, box_iou

from wsss_core import training
from wsss_core.boxes import training as boxes_training
from wsss_core.boxes.detector import DetectorSettings, plan
from wsss_core.boxes.training import Example, resized
from wsss_core.data.augment import MEAN, STD, normalise
from wsss_core.data.boxes import Box
from wsss_core.data.table import ImageRecord, ImageTable
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.models.backbones import FixedBatchNorm, backbone
from wsss_core.models.detector import STRIDES, Detector, around, open_detector, region_pool
from wsss_core.store.checkpoints import save_network

TINY = DetectorSettings(backbone="small", channels=16, short_sides=(64,), regions=32, iterations=6, batch_size=2)


def detector(**changes):
    torch.manual_seed(0)
    return Detector(
        backbone("small", 32), 3, **{"channels": 16, "anchors": (8, 16, 32, 64, 128), "short_side": 64} | changes
    )


def picture(rng, size=(64, 80), label=0):
    """A bright ellipse, red or green, on a dark noisy ground, with its box."""
    image = rng.integers(0, 60, (*size, 3)).astype(np.uint8)
    height, width = rng.integers(20, 40, 2)
    y0, x0 = rng.integers(0, size[0] - height), rng.integers(0, size[1] - width)
    rows, columns = ((2 * np.arange(side) + 1) / side - 1 for side in (height, width))
    image[y0 : y0 + height, x0 : x0 + width, label][rows[:, None] ** 2 + columns**2 <= 1] = 250
    return image, Box(label, int(x0), int(y0), int(x0 + width), int(y0 + height))


def scene(folder, count=8, **changes):
    """Records of pictures, of class 0 and 1 in turn."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(count):
        image, box = picture(rng, label=number % 2)
        Image.fromarray(image).save(folder / f"{number}.png")
        records.append(
            ImageRecord(
                **{
                    "id": f"{number}",
                    "path": str(folder / f"{number}.png"),
                    "height": 64,
                    "width": 80,
                    "splits": ("train",),
                    "classes": (number % 2,),
                    "boxes": (box,),
                }
                | changes
            )
        )
    return records


def inputs_of(records, seed=0):
    return training.Inputs(ImageTable(("red", "green"), tuple(records)), None, seed, "detectors/x")


def begun(settings, inputs):
    torch.manual_seed(0)
    made = plan(settings, inputs)
    made.network.train()
    return made


def trained(made, state=None):
    return training.fit(
        made.network,
        made.batches,
        made.loss,
        made.optimizer,
        made.rate,
        seed=0,
        execution=Execution("cpu"),
        state=state,
        save_seconds=0,
    )


# --- geometry ---


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "small"])
def test_backbones_have_a_stride_of_32_without_dilation(name):
    network = backbone(name, 32).eval()
    with torch.no_grad():
        taps = network(torch.zeros(1, 3, 97, 64))
    assert [tap.shape[2] for tap in taps] == [-(-97 // stride) for stride in network.strides]
    assert network.strides == (4, 4, 8, 16, 32)
    assert all(m.dilation == (1, 1) for m in network.modules() if isinstance(m, torch.nn.Conv2d))


@pytest.mark.parametrize("name", ["vgg16", "resnet38d"])
def test_other_backbones_say_that_they_have_no_stride_of_32(name):
    with pytest.raises(UserError, match=f"{name} is not made for it"):
        backbone(name, 32)


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (90, 71)])
def test_anchors_stand_at_multiples_of_the_strides(size):
    network = detector().eval()
    with torch.no_grad():
        levels = list(network.pyramid(torch.zeros(1, 3, *size)).values())
    assert [level.shape[2:] for level in levels] == [torch.Size([-(-s // stride) for s in size]) for stride in STRIDES]
    images = type("Images", (), {"image_sizes": [size], "tensors": torch.zeros(1, 3, *size)})
    anchors = network.rpn.anchor_generator(images, levels)[0]
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    expected = [
        (x * stride, y * stride)
        for level, stride in zip(levels, STRIDES, strict=True)
        for y in range(level.shape[2])
        for x in range(level.shape[3])
        for _ in range(3)
    ]
    assert torch.equal(centres, torch.tensor(expected, dtype=torch.float32))


def test_regions_are_pooled_where_they_lie_whatever_the_size_of_the_image():
    boxes = torch.tensor([[8.0, 16.0, 40.0, 32.0], [10.0, 5.0, 30.0, 55.0]])
    for height, width in [(65, 97), (64, 96), (70, 65)]:
        features = {}
        for level, stride in enumerate(STRIDES[:4]):
            rows, columns = (torch.arange(-(-side // stride)) * float(stride) for side in (height, width))
            features[str(level)] = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]
        middle = region_pool(7)(features, [boxes], [])[:, :, 3, 3]
        assert torch.allclose(middle, (boxes[:, :2] + boxes[:, 2:]).flip(1) / 2, atol=1e-4)


# --- what it says of regions ---


class AsTorchvision(torch.nn.Module):
    """The pyramid, as torchvision calls a backbone."""

    def __init__(self, network):
        super().__init__()
        self.pyramid = network.pyramid

    def forward(self, images):
        return self.pyramid(images)


def torchvision_of(network):
    """torchvision's own Faster R-CNN with the parameters of a detector, but for its own anchors and pooling."""
    old, heads = network.rpn, network.heads
    rpn = RegionProposalNetwork(
        AnchorGenerator([(side,) for side in network.anchors], [(0.5, 1.0, 2.0)] * 5),
        *(old.head, 0.7, 0.3, 256, 0.5, old._pre_nms_top_n, old._post_nms_top_n, 0.7),
    )
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    own = RoIHeads(pool, heads.box_head, heads.box_predictor, 0.5, 0.5, network.regions, 0.25, None, 0.05, 0.5, 100)
    transform = GeneralizedRCNNTransform(network.short_side, network.long_side, MEAN, STD)
    return GeneralizedRCNN(AsTorchvision(network), rpn, own, transform)


def test_detections_are_those_of_torchvision():
    network = detector().eval()
    with torch.no_grad():  # so that scores differ
        network.heads.box_predictor.cls_score.weight.normal_(std=0.5)
        network.heads.box_predictor.bbox_pred.weight.normal_(std=0.05)
    image, _ = picture(np.random.default_rng(1), (64, 128))
    with torch.no_grad():
        theirs = torchvision_of(network).eval()([torch.from_numpy(image).permute(2, 0, 1) / 255])[0]
    ours = network.detect(image)
    assert len(ours.scores) > 5
    assert torch.equal(ours.classes, theirs["labels"] - 1)
    torch.testing.assert_close(ours.scores, theirs["scores"])
    torch.testing.assert_close(ours.boxes, theirs["boxes"], atol=1e-3, rtol=1e-4)


def test_losses_are_those_of_torchvision():
    network = detector().train()
    image, box = picture(np.random.default_rng(1), (64, 128))
    target = {"boxes": torch.tensor([box.corners], dtype=torch.float32), "labels": torch.tensor([box.label + 1])}
    torch.manual_seed(3)
    torch.empty(1).uniform_()  # torchvision draws the size of the input
    ours = network.losses(torch.from_numpy(normalise(image))[None], [(64, 128)], [dict(target)])
    torch.manual_seed(3)
    theirs = torchvision_of(network).train()([torch.from_numpy(image).permute(2, 0, 1) / 255], [dict(target)])
    names = {"objectness": "loss_objectness", "proposals": "loss_rpn_box_reg"}
    names |= {"classes": "loss_classifier", "boxes": "loss_box_reg"}
    for name, their_name in names.items():
        torch.testing.assert_close(ours[name], theirs[their_name])
    torch.testing.assert_close(ours["loss"], sum(theirs.values()))


def test_regions_are_judged_in_order_and_images_get_gradients():
    network = detector().eval().requires_grad_(False)
    with torch.no_grad():
        network.heads.box_predictor.cls_score.weight.normal_(std=0.5)
    images = torch.rand(3, 3, 65, 90, requires_grad=True)
    regions = [torch.tensor([[5.0, 6.0, 40.0, 50.0], [0.0, 0.0, 20.0, 20.0]]), torch.zeros(0, 4)]
    regions.append(torch.tensor([[30.0, 10.0, 80.0, 60.0]]))
    probabilities, offsets = network(images, regions)
    assert probabilities.shape == (3, 4) and offsets.shape == (3, 4, 4)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))
    alone = network(images[2:], regions[2:])
    torch.testing.assert_close(probabilities[2:], alone[0])
    torch.testing.assert_close(offsets[2:], alone[1])
    probabilities[2, 1].backward()
    assert images.grad[2].abs().sum() > 0 and images.grad[:2].abs().sum() == 0


def test_decoding_is_the_inverse_of_encoding():
    network = detector()
    regions = torch.tensor([[10.0, 10.0, 30.0, 50.0]])
    # By hand: the centre moves by 1/10 of the width and 2/10 of the height, the width doubles, the height stays.
    offsets = torch.tensor([1.0, 2.0, 5 * np.log(2), 0.0]).repeat(1, 4, 1).float()
    expected = torch.tensor([2.0, 18.0, 42.0, 58.0]).repeat(1, 4, 1)
    torch.testing.assert_close(network.decode(offsets, regions), expected)
    wanted = network.heads.box_coder.encode_single(expected[:, 0], regions)
    torch.testing.assert_close(wanted, offsets[:, 0])


def test_boxes_come_back_in_pixels_of_the_image(monkeypatch):
    network = detector(short_side=64, long_side=96).eval()
    assert network.input_size((128, 160)) == (64, 80)
    assert network.input_size((100, 400)) == (24, 96)
    small = np.random.default_rng(0).integers(0, 256, (64, 80, 3)).astype(np.uint8)
    seen = network.input_of(small)
    monkeypatch.setattr(network, "input_of", lambda image: seen)
    with torch.no_grad():
        network.heads.box_predictor.cls_score.weight.normal_(std=0.5)
    one, twice = network.detect(small), network.detect(np.zeros((128, 160, 3), np.uint8))
    assert len(one.boxes)
    torch.testing.assert_close(2 * one.boxes, twice.boxes)


def test_regions_are_drawn_around_boxes():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 100.0], [50.0, 50.0, 90.0, 60.0]])
    torch.manual_seed(0)
    found = around(boxes, 500).view(500, 2, 4)
    moves = (found - boxes) / torch.tensor([[10.0, 100.0] * 2, [40.0, 10.0] * 2])
    assert 0.29 < moves.max() <= 0.3 and -0.3 <= moves.min() < -0.29
    assert moves.mean().abs() < 0.02


def test_heads_learn_from_drawn_regions():
    image, box = picture(np.random.default_rng(1))
    target = {"boxes": torch.tensor([box.corners], dtype=torch.float32), "labels": torch.tensor([1])}
    met = []
    for drawn in (0, 40):
        network = detector(drawn=drawn, regions=64).train()
        seen = network.input_of(image)
        _, _, _, labels = network._losses(network.pyramid(seen), seen, [(64, 80)], [dict(target)])
        met.append(int((labels[0] > 0).sum()))
    assert met[1] == 16 > met[0]


# --- batches ---


@pytest.mark.parametrize("mirrored", [False, True])
def test_boxes_and_masks_go_with_the_image(mirrored):
    image, box = picture(np.random.default_rng(2), (60, 90))
    plane = (image[..., 0] == 250).astype(np.uint8)
    example = Example(image, np.array([box.corners], np.float32), np.array([1]), plane[None])
    seen, target = resized(example, (120, 180), mirrored)
    assert seen.shape == (3, 120, 180)
    ys, xs = np.nonzero(target["masks"][0].numpy())
    x0, y0, x1, y1 = target["boxes"][0].tolist()
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (x0, y0, x1, y1)
    bright = seen[0].numpy() > (0.6 - MEAN[0]) / STD[0]
    assert (bright & (target["masks"][0].numpy() == 1)).sum() / (bright | (target["masks"][0].numpy() == 1)).sum() > 0.9


def test_a_batch_depends_on_its_number_alone_and_is_padded_to_its_largest_image(tmp_path):
    records = scene(tmp_path)
    settings = DetectorSettings(backbone="small", channels=8, short_sides=(48, 64), iterations=20, batch_size=3)
    one, other = (plan(settings, inputs_of(records)).batches for _ in range(2))
    other[5]
    first, again = one[7], other[7]
    assert torch.equal(first["images"], again["images"]) and first["sizes"] == again["sizes"]
    for mine, theirs in zip(first["targets"], again["targets"], strict=True):
        assert torch.equal(mine["boxes"], theirs["boxes"]) and torch.equal(mine["labels"], theirs["labels"])
    sizes = np.array(first["sizes"])
    assert first["images"].shape == (3, 3, *sizes.max(0))
    for image, (height, width) in zip(first["images"], first["sizes"], strict=True):
        assert not image[:, height:].any() and not image[:, :, width:].any()
    assert {tuple(size) for k in range(20) for size in one[k]["sizes"]} == {(48, 60), (64, 80)}
    epoch = sorted(name for step in range(8) for name in one.batch_names(step))
    assert epoch == sorted(3 * [record.id for record in records])


def test_crowds_and_images_without_boxes_are_not_learned_from(tmp_path, caplog):
    records = scene(tmp_path, 4)
    crowd = Box(0, 0, 0, 40, 40, crowd=True)
    records[0] = ImageRecord(**vars(records[0]) | {"boxes": (crowd, *records[0].boxes)})
    records[1] = ImageRecord(**vars(records[1]) | {"boxes": (crowd,)})
    records[2] = ImageRecord(**vars(records[2]) | {"boxes": ()})
    with caplog.at_level(logging.WARNING):
        batches = plan(TINY, inputs_of(records)).batches
    assert "2 of 4 images have no boxes" in caplog.text
    assert batches.names == ["0", "3"]
    assert all(len(target["boxes"]) == 1 for target in batches[0]["targets"])
    with pytest.raises(UserError, match="no image of the role 'train' has a box"):
        plan(TINY, inputs_of(records[1:3]))


def test_a_batch_is_never_larger_than_the_data(tmp_path):
    batches = plan(TINY, inputs_of(scene(tmp_path, 1))).batches
    assert len(batches[0]["sizes"]) == 1


def test_other_boxes_are_another_training(tmp_path):
    inputs = inputs_of(scene(tmp_path, 2))
    moved = [replace(r, boxes=tuple(replace(box, x0=box.x0 + 1) for box in r.boxes)) for r in inputs.records]
    other = replace(inputs, table=replace(inputs.table, records=tuple(moved)))
    assert plan(TINY, inputs).labels_digest != plan(TINY, other).labels_digest


# --- training ---


def test_with_few_images_the_backbone_keeps_its_weights(tmp_path):
    settings = DetectorSettings(backbone="mobilenet_v2", channels=8, short_sides=(64,), regions=8, iterations=1)
    inputs = inputs_of(scene(tmp_path, 2))
    weights = backbone("mobilenet_v2").state_dict()
    network = plan(settings, training.Inputs(inputs.table, weights, 0, "detectors/x")).network
    assert not any(p.requires_grad for p in network.backbone.parameters())
    assert all(p.requires_grad for p in network.fpn.parameters())


def test_batch_normalisation_and_the_first_stages_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(boxes_training, "FEW", 2)
    settings = DetectorSettings(backbone="mobilenet_v2", channels=8, short_sides=(64,), regions=8, iterations=1)
    inputs = inputs_of(scene(tmp_path, 2))
    weights = backbone("mobilenet_v2").state_dict()
    made = plan(settings, training.Inputs(inputs.table, weights, 0, "detectors/x"))
    network = made.network.backbone
    norms = [p for m in network.modules() if isinstance(m, FixedBatchNorm) for p in m.parameters()]
    assert norms and not any(p.requires_grad for p in norms)
    assert not any(p.requires_grad for p in network.stages[:2].parameters())
    assert any(p.requires_grad for p in network.stages[2].parameters())
    learned = {id(p) for group in made.optimizer.param_groups for p in group["params"]}
    assert learned == {id(p) for p in made.network.parameters() if p.requires_grad}
    weight, bias = made.optimizer.param_groups
    assert bias["lr"] == 2 * weight["lr"] and bias["weight_decay"] == 0


def test_resumed_equals_uninterrupted(tmp_path):
    records = scene(tmp_path, 4)
    whole = begun(TINY, inputs_of(records))
    history = trained(whole)
    killed = begun(TINY, inputs_of(records))
    loss, calls = killed.loss, []

    def failing(batch):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(batch)

    with pytest.raises(KeyboardInterrupt):
        trained(training.Plan(**vars(killed) | {"loss": failing}), tmp_path / "state.pt")
    resumed = begun(TINY, inputs_of(records))
    again = trained(resumed, tmp_path / "state.pt")
    assert history == again
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_a_detector_learns_to_find_bright_ellipses(tmp_path):
    settings = DetectorSettings(
        backbone="small",
        channels=16,
        short_sides=(64,),
        regions=32,
        iterations=240,
        batch_size=4,
        learning_rate=0.02,
        decay_at=(0.9,),
    )
    made = begun(settings, inputs_of(scene(tmp_path, 24)))
    trained(made)
    meta = made.network.about | {"class_names": ["red", "green"]}
    save_network(tmp_path / "model.pt", made.network.kind, made.network.state_dict(), meta)
    network = open_detector(tmp_path / "model.pt")
    assert network.class_names == ("red", "green") and not any(p.requires_grad for p in network.parameters())
    rng = np.random.default_rng(99)
    ious = []
    for number in range(10):
        image, box = picture(rng, label=number % 2)
        found = network.detect(image).boxes[:1]
        ious.append(float(box_iou(found, torch.tensor([box.corners]))) if len(found) else 0.0)
    assert np.median(ious) > 0.5
