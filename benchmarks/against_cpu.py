"""Every path that a GPU computes, against the same on the CPU, with its time on the GPU.

python -m benchmarks.against_cpu [SECTION ...] [--quick] [--device cuda|cpu]

Prints a line for every check: its state, how far the answers are apart (the largest difference over the largest value
of the CPU's answer) and how far they may be, milliseconds for one piece of the work (an image, a step), and how a run
went: the share of its time in which the GPU computed, kernels launched, points at which the CPU waited for the GPU, and
peak memory. `--device cpu` tries the command itself, with small sizes.

Answers are compared with TF32 off; times are taken with it as torch has it by default: on in convolutions, so in a
float32 run of the workflow too. The exit status is 1 if a check failed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import cores, rib, training
from benchmarks.inputs import calm, classifier, photo, photo_files
from wsss_core.classify.batches import training_crop
from wsss_core.data.augment import scaled_pair
from wsss_core.data.decode import read_image
from wsss_core.data.resampling import pairs, sent
from wsss_core.data.table import ImageRecord
from wsss_core.execution import Execution, in_precision
from wsss_core.jobs.together import MOST_PIXELS, view_pixels
from wsss_core.kernels import random_walk
from wsss_core.kernels.dense_crf import dense_crf, dense_crf_batch, unary_from_labels, unary_from_probabilities
from wsss_core.kernels.paths import directions
from wsss_core.models.backbones import backbone
from wsss_core.models.deeplab import deeplab_v2
from wsss_core.models.irn import IrnNetwork
from wsss_core.refine.irn import walk as irn_walk
from wsss_core.refine.irn.network import relation_loss
from wsss_core.seeds.advcam import AdvCamSettings, advcam_seed
from wsss_core.seeds.cam import CamSettings, cam_seed, cam_seeds
from wsss_core.seeds.grad_cam import GradCamSettings, grad_cam_seed
from wsss_core.seeds.pool import AuxiliaryPool, device_crop
from wsss_core.segment import dsrg
from wsss_core.segment.predict import CrfSettings, PredictSettings, predict_probabilities
from wsss_core.store.seeds import SeedMaps

N_CLASSES = 20
PRESENT = ((3, 14), (0,), (5, 6, 19))
"""Classes of the images, in turn."""

CPU = torch.device("cpu")


def difference(answer: Any, other: Any) -> float:
    """Largest difference of two answers over the largest value of the second, of the worst pair of their tensors."""
    pairs = list(zip(_tensors(answer), _tensors(other), strict=True))
    worst = 0.0
    for one, two in pairs:
        if one.shape != two.shape:
            raise ValueError(f"answers of shapes {tuple(one.shape)} and {tuple(two.shape)}")
        if one.numel():
            worst = max(worst, float((one - two).abs().nan_to_num(torch.inf).max() / two.abs().max().clamp_min(1e-12)))
    return worst


def _tensors(answer: Any) -> list[Tensor]:
    if isinstance(answer, Sequence):
        return [tensor for part in answer for tensor in _tensors(part)]
    return [torch.as_tensor(answer).detach().cpu().double()]


def other_labels(answer: Tensor, other: Tensor) -> float:
    """Share of the pixels whose most probable label differs, of posteriors [..., L, H, W]."""
    return float((answer.cpu().argmax(-3) != other.cpu().argmax(-3)).double().mean())


@dataclass(frozen=True)
class Check:
    """Work on the device, and what it is compared with.

    Attributes
    ----------
    reference
        The answer, or a function that computes it; None: the work is only timed.
    limit
        How far the answers may be apart.
    pieces
        Images or steps of one run; times are per piece.
    apart
        How far the answer is from the reference.
    """

    name: str
    run: Callable[[], Any]
    reference: Any = None
    limit: float = 0.0
    pieces: int = 1
    runs: int = 5
    apart: Callable[[Any, Any], float] = difference


@dataclass(frozen=True)
class Place:
    """Where the checks run, and how large they are."""

    device: torch.device
    quick: bool

    @property
    def gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return (94, 125) if self.quick else (375, 500)

    @property
    def backbone(self) -> str:
        """Network of the checks."""
        return "resnet50" if self.gpu else "small"

    def photos(self, count: int) -> list[np.ndarray]:
        """Drawn pictures."""
        return [photo(*self.size, seed) for seed in range(count)]

    def classifier(self, device: torch.device) -> Any:
        """A classifier of fixed weights, the same on every device."""
        return classifier(self.backbone, N_CLASSES, device).requires_grad_(False)


def walk(place: Place) -> Iterator[Check]:
    """The random walk of scores, in float32 and float64, in Triton and in torch."""
    draw = torch.Generator().manual_seed(0)
    sizes = [(1, 3, 94, 125, 5), (2, 1, 1, 7, 5), (3, 2, 3, 4, 2), (2, 4, 63, 48, 10), (1, 17, 33, 65, 5)]
    if not place.quick:
        sizes += [(16, 3, 94, 125, 5), (64, 3, 94, 125, 5), (89, 6, 94, 125, 5)]
    for count, channels, height, width, radius in sizes:
        scores = torch.rand(count, channels, height, width, generator=draw)
        boundary = torch.rand(count, height, width, generator=draw) ** 2
        exact = _walked(scores.double(), boundary.double(), radius) if count < 64 else None
        shape = f"{count}×{channels}×{height}×{width}, radius {radius}"
        given = scores.to(place.device), boundary.to(place.device), radius
        yield Check(f"walk {shape}, float32", lambda g=given: _walked(*g), exact, 1e-4, count)
        if count < 16:
            double = given[0].double(), given[1].double(), radius
            yield Check(f"walk {shape}, float64", lambda g=double: _walked(*g), exact, 1e-11, count, runs=1)
    scores, boundary = torch.rand(2, 3, 40, 50, generator=draw), torch.rand(2, 40, 50, generator=draw)
    there = scores.to(place.device), boundary.to(place.device)
    for steps in (0, 1, 4, 10):
        exact = random_walk.propagate(scores.double(), boundary.double(), log2_steps=steps)
        walked = lambda steps=steps: random_walk.propagate(*there, log2_steps=steps)  # noqa: E731
        yield Check(f"walk of 2**{steps} steps", walked, exact, 1e-4, 2, runs=1)
    yield Check("the same walk twice, bit for bit", lambda: _walked(*there), _walked(*there), 0.0, 2, runs=1)
    pairs = torch.rand(2, len(directions(5)), 40, 50, generator=draw)
    for number, (dy, dx) in enumerate(directions(5)):
        pairs[:, number, 40 - dy :] = 0
        pairs[:, number, :, slice(50 - dx, 50) if dx > 0 else slice(0, -dx)] = 0
    exact = random_walk.walk(scores.double(), pairs)
    on_pairs = pairs.to(place.device)
    yield Check("walk on given affinities", lambda: random_walk.walk(there[0], on_pairs), exact, 1e-4, 2, runs=1)
    if place.gpu:
        yield from _walks_without_triton(place, draw)


def _walks_without_triton(place: Place, draw: torch.Generator) -> Iterator[Check]:
    scores = torch.rand(16, 3, 94, 125, generator=draw).to(place.device)
    boundary = torch.rand(16, 94, 125, generator=draw).to(place.device)
    chosen = random_walk.polynomial_on("cuda")
    yield Check("the GPU's walk is Triton's", lambda: "triton" in chosen.__module__, True, runs=1)
    in_triton = _walked(scores, boundary)

    def in_torch() -> Tensor:
        keep, random_walk.polynomial_on = random_walk.polynomial_on, lambda device: random_walk._polynomial
        try:
            return _walked(scores, boundary)
        finally:
            random_walk.polynomial_on = keep

    yield Check("walk of 16 images by torch, against Triton", in_torch, in_triton, 1e-4, 16)


def _walked(scores: Tensor, boundary: Tensor, radius: float = 5) -> Tensor:
    return random_walk.propagate(scores, boundary, radius=radius)


def crf(place: Place) -> Iterator[Check]:
    """The dense CRF in torch, one image and many in one lattice."""
    settings: dict[str, Any] = {"gaussian": (3.0, 3.0), "bilateral": (50.0, 5.0, 10.0), "backend": "torch"}
    count = 3 if place.quick else 44
    height, width = place.size
    images = [photo(height - seed % 3, width - 2 * (seed % 2), seed) for seed in range(count)]
    images[1] = np.full_like(images[1], 127)  # one colour: few corners of the lattice, with thousands of pixels each
    draw = torch.Generator().manual_seed(0)
    unary = [unary_from_labels(torch.randint(0, 3, im.shape[:2], generator=draw), 3, 0.7) for im in images]
    two = [torch.stack([one, one.roll(1, 0)]) for one in unary]
    there = [one.to(place.device) for one in two]
    for number, what in enumerate(("a photo", "one colour")):
        alone = lambda n=number: dense_crf(images[n], there[n], **settings)  # noqa: E731
        exact = lambda n=number: dense_crf(images[n], two[n], **settings)  # noqa: E731
        yield Check(f"dense CRF, {what}: labels", alone, exact, 1e-3, runs=3, apart=other_labels)
    single = [dense_crf(image, one, **settings) for image, one in zip(images[:3], there[:3], strict=True)]
    together = lambda: dense_crf_batch(images, there, **settings)[:3]  # noqa: E731
    yield Check(f"dense CRF of {count} images together", together, single, 2e-3, count, runs=3)
    few = lambda: dense_crf_batch(images[:3], there[:3], **settings)  # noqa: E731
    yield Check("dense CRF twice, bit for bit", few, few(), 0.0, 3, runs=1)
    likely = torch.rand(21, *images[0].shape[:2], generator=draw).softmax(0)
    on_likely = likely.to(place.device)
    yield Check(
        "dense CRF with 21 labels",
        lambda: dense_crf(images[0], unary_from_probabilities(on_likely), **settings),
        lambda: dense_crf(images[0], unary_from_probabilities(likely), **settings),
        2e-3,
        runs=3,
    )


def cam(place: Place) -> Iterator[Check]:
    """Class activation maps, one by one and together."""
    here, there = place.classifier(CPU), place.classifier(place.device)
    settings, count = CamSettings(), 2 if place.quick else 64
    images = place.photos(count)
    present = [PRESENT[number % 3] for number in range(count)]
    for scale in settings.scales:
        expected = torch.from_numpy(np.concatenate([scaled_pair(image, scale) for image in images]))
        made = lambda s=scale: pairs(sent(images, place.device), s)  # noqa: E731
        yield Check(f"views at {scale} made on the device, bit for bit", made, expected, 0.0, count)
    exact = [cam_seed(here, images[number], present[number], settings).full() for number in range(2)]

    def alone() -> list[Tensor]:
        return [cam_seed(there, images[number], present[number], settings).full() for number in range(2)]

    def together() -> list[Tensor]:
        return [maps.full() for maps in cam_seeds(there, images, present, settings, MOST_PIXELS)[:2]]

    yield Check("CAM one by one", alone, exact, 2e-3, 2)
    yield Check(f"CAM of {count} images together", together, exact, 2e-3, count, runs=3)
    yield Check(f"CAM of {count} images together, mixed", _mixed(place, there, together), exact, 0.1, count, runs=3)
    if place.gpu and not place.quick:
        yield Check("CAM's memory keeps the rule of view_pixels", lambda: _within_memory(place), True, runs=1)


def _within_memory(place: Place) -> bool:
    """Whether large images take less than half of the GPU's free memory, which `view_pixels` promises."""
    images, pixels = [photo(750, 1000, seed) for seed in range(12)], view_pixels(place.device)
    free, _ = torch.cuda.mem_get_info()
    torch.cuda.reset_peak_memory_stats()
    cam_seeds(place.classifier(place.device), images, [(1,)] * 12, CamSettings(), pixels)
    return torch.cuda.max_memory_allocated() < free / 2


def pool(place: Place) -> Iterator[Check]:
    """Auxiliary crops made on the device, against Pillow's."""
    height, width = place.size
    paths = photo_files(40, place.size)
    records = [
        ImageRecord(path.stem, str(path), height, width, ("train",), (number % N_CLASSES,))
        for number, path in enumerate(paths)
    ]
    long_side = width * 2 // 3, width * 4 // 3
    images = [read_image(path) for path in paths[:6]]

    def on_device() -> list[Tensor]:
        there = [torch.from_numpy(image).to(place.device).permute(2, 0, 1).contiguous() for image in images]
        return [device_crop(im, long_side, 128, np.random.default_rng(seed)) for seed, im in enumerate(there)]

    here = [
        torch.from_numpy(training_crop(im, long_side, 128, np.random.default_rng(s))) for s, im in enumerate(images)
    ]
    yield Check("crops made on the device are Pillow's, bit for bit", on_device, here, 0.0, len(images))

    def crops(device: torch.device | None) -> Callable[[], Tensor]:
        made = AuxiliaryPool(
            records,
            N_CLASSES,
            eligible="disjoint",
            batch_size=20,
            long_side=(320, 640),
            crop=512,
            seed=0,
            stage="check",
            device=device,
            threads=8,
        ).batches("0", (0,))
        made(0)
        return lambda: made(1)[0]

    yield Check("20 crops of 512 on the device", crops(place.device), pieces=20)
    yield Check("20 crops of 512 by Pillow", crops(None), pieces=20, runs=2)


def seeds(place: Place) -> Iterator[Check]:
    """RIB, AdvCAM and Grad-CAM."""
    small = replace(rib.CASES["tiny", "cpu"], backbone=place.backbone)
    there, here = rib._inputs(small, place.device), rib._inputs(small, CPU)
    for variant in ("official", "paper"):
        for loss in ("rib", "bce"):
            settings = replace(there.settings, variant=variant, loss=loss, margin=600.0)
            yield Check(
                f"RIB {variant}, {loss}",
                lambda s=settings: rib._engine(replace(there, settings=s)),
                lambda s=settings: rib._engine(replace(here, settings=s)),
                5e-3,
                runs=1,
            )
    before = [parameter.clone() for parameter in there.network.parameters()]
    after = lambda: (rib._engine(there), list(there.network.parameters()))[1]  # noqa: E731
    yield Check("RIB leaves the network as it was", after, before, 0.0, runs=1)
    case = small if place.quick else rib.CASES["full", "cuda"]
    whole = rib._inputs(case, place.device)
    name = f"RIB, {case.backbone}, {case.image[0]}×{case.image[1]}, K {case.steps}, {case.batch} of {case.crop}"
    yield Check(name, lambda: rib._engine(whole), runs=3)
    yield Check("the same, mixed", lambda: rib._engine_mixed(whole), lambda: rib._engine(whole), 0.2, runs=3)

    exact, there_ = place.classifier(CPU), place.classifier(place.device)
    image = photo(94, 125)
    for variant in ("official", "paper"):
        few = AdvCamSettings(variant=variant, iterations=3, scales=(1.0, 0.5))
        yield Check(
            f"AdvCAM {variant}, 3 steps",
            lambda s=few: advcam_seed(there_, image, (3, 14), s).full(),
            lambda s=few: advcam_seed(exact, image, (3, 14), s).full(),
            5e-2,
            runs=1,
        )
    climb = AdvCamSettings(iterations=4 if place.quick else 27)
    large = photo(*place.size)
    climbed = lambda: advcam_seed(there_, large, (3, 14), climb).full()  # noqa: E731
    yield Check(f"AdvCAM, {large.shape[0]}×{large.shape[1]}, 2 classes, T {climb.iterations}", climbed, runs=2)
    yield Check("the same, mixed", _mixed(place, there_, climbed), runs=2)
    settings = GradCamSettings(stage=4)
    yield Check(
        "Grad-CAM of stage 4",
        lambda: grad_cam_seed(there_, image, (3, 14), settings).full(),
        lambda: grad_cam_seed(exact, image, (3, 14), settings).full(),
        5e-3,
        runs=1,
    )


def irn(place: Place) -> Iterator[Check]:
    """IRN's losses, and its walk of seed maps with the network."""
    draw = torch.Generator().manual_seed(0)
    count, side = (2, 48) if place.quick else (32, 128)
    labels = _patches(count, side, 6, draw)
    boundary = torch.randn(count, 1, side, side, generator=draw)
    displacement = torch.randn(count, 2, side, side, generator=draw)

    def gradients(device: torch.device) -> tuple[Tensor, ...]:
        b, d = boundary.to(device).requires_grad_(), displacement.to(device).requires_grad_()
        loss = relation_loss(b, d, labels.to(device), 10)["loss"]
        loss.backward()
        return loss, b.grad, d.grad

    name = f"IRN losses and gradients, {count}×{side}×{side}"
    yield Check(name, lambda: gradients(place.device), lambda: gradients(CPU), 1e-3, runs=3)

    torch.manual_seed(0)
    here = IrnNetwork(backbone(place.backbone)).eval()
    calm(here)
    there = IrnNetwork(backbone(place.backbone)).eval()
    there.load_state_dict(here.state_dict())
    there.to(place.device)
    height, width = place.size
    images = place.photos(2 if place.quick else 64)
    grid = -(-height // 16), -(-width // 16)
    maps = [
        SeedMaps((3, 14)[: 1 + number % 2], {1.0: torch.rand(1 + number % 2, *grid, generator=draw)}, place.size)
        for number in range(len(images))
    ]

    def walked(network: IrnNetwork, count: int) -> list[Tensor]:
        return [one.scores for one in irn_walk.walk(network, images[:count], maps[:count], irn_walk.WalkSettings())]

    yield Check("IRN walk of 2 images, with its network", lambda: walked(there, 2), lambda: walked(here, 2), 5e-3, 2)
    many = len(images)
    yield Check(f"IRN walk of {many} images together", lambda: walked(there, many), pieces=many, runs=3)
    mixed = _mixed(place, there, lambda: walked(there, many))
    yield Check(f"IRN walk of {many} images together, mixed", mixed, pieces=many, runs=3)


def predict(place: Place) -> Iterator[Check]:
    """Prediction with DeepLab-v2."""
    torch.manual_seed(0)
    here = deeplab_v2(place.backbone, 21).eval()
    calm(here)
    there = deeplab_v2(place.backbone, 21).eval()
    there.load_state_dict(here.state_dict())
    there.to(place.device)
    image = photo(*place.size)
    for name, settings in (
        ("one view", PredictSettings()),
        ("two scales with mirror images", PredictSettings(flip=True, scales=(1.0, 0.5))),
        ("with the CRF", PredictSettings(crf=CrfSettings())),
    ):
        exact = (lambda s=settings: predict_probabilities(here, image, s)) if settings.crf is None else None
        predicted = lambda s=settings: predict_probabilities(there, image, s)  # noqa: E731
        yield Check(f"prediction, {name}", predicted, exact, 5e-3, runs=3)


def dsrg_loss(place: Place) -> Iterator[Check]:
    """DSRG's loss of one grid, whose CRF is torch's on either device."""
    draw = torch.Generator().manual_seed(0)
    count, side = (2, 65) if place.quick else (20, 321)
    batch = {
        "images": torch.from_numpy(np.stack([photo(side, side, seed) for seed in range(count)])),
        "labels": _patches(count, side, 5, draw),
        "present": torch.arange(21).expand(count, 21) < 4,
        "inside": torch.tensor([[0, side, 0, side]] * count),
    }
    logits = torch.randn(count, 21, -(-side // 8), -(-side // 8), generator=draw)

    def gradients(device: torch.device) -> tuple[Tensor, Tensor]:
        grid = logits.to(device, copy=True).requires_grad_()
        loss = dsrg.loss_terms([grid], {k: v.to(device) for k, v in batch.items()}, dsrg.DsrgSettings())["loss"]
        loss.backward()
        return loss, grid.grad

    name = f"DSRG loss, {count} crops of {side}"
    yield Check(name, lambda: gradients(place.device), lambda: gradients(CPU), 5e-3, runs=2)


def trainings(place: Place) -> Iterator[Check]:
    """Training of a classifier and of DeepLab-v2."""
    which = (("quick" if place.quick else "full"), "cuda") if place.gpu else ("tiny", "cpu")
    for name, prepare, cases in (
        ("classifier", training._classifier, training.CLASSIFIER),
        ("DeepLab-v2", training._deeplab, training.DEEPLAB),
    ):
        tiny = replace(cases["tiny", "cpu"], steps=3)
        there, here = prepare(tiny, place.device), prepare(tiny, CPU)
        pipeline = lambda run=there: training._pipeline(run)  # noqa: E731
        yield Check(
            f"training of the {name}, 3 steps", pipeline, lambda run=here: training._pipeline(run), 1e-2, 3, runs=1
        )
        case = cases[which]
        run = prepare(case, place.device)
        what = f"{name}, {case.backbone}, {case.batch} of {case.crop}"
        for precision in ("float32", "mixed"):
            execution = replace(run.execution, precision=precision)
            yield Check(
                f"{what}, {precision}, a step",
                lambda run=run, execution=execution: training._pipeline(replace(run, execution=execution)),
                pieces=case.steps,
                runs=2,
            )
        yield Check(
            f"{what}, batches ready on the device", lambda run=run: training._bare(run), pieces=case.steps, runs=2
        )


def _patches(count: int, side: int, patches: int, draw: torch.Generator) -> Tensor:
    """Label maps uint8 [count, side, side] of soft patches of labels 0 to 2 and, where it would be 3, 255."""
    drawn = torch.randint(0, 4, (count, 1, patches, patches), generator=draw).float()
    labels = F.interpolate(drawn, (side, side))[:, 0].byte()
    labels[labels == 3] = 255
    return labels


def _mixed(place: Place, network: Any, run: Callable[[], Any]) -> Callable[[], Any]:
    return in_precision(Execution(place.device.type, precision="mixed"), network, run)


SECTIONS = (walk, crf, cam, pool, seeds, irn, predict, dsrg_loss, trainings)


def main() -> int:
    """Run the command line; 1 if a check failed."""
    names = [section.__name__ for section in SECTIONS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against_cpu", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(names)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small sizes, one timed run, no account of how it went")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    options = parser.parse_args()
    unknown = sorted(set(options.sections) - set(names))
    if unknown:
        parser.error(f"there is no section {', '.join(unknown)}; there are {', '.join(names)}")
    device = torch.device(options.device)
    place = Place(device, options.quick or device == CPU)
    torch.set_num_threads(cores())
    print(f"{torch.cuda.get_device_name() if place.gpu else 'CPU'}, torch {torch.__version__}", flush=True)
    failed = []
    for section in SECTIONS:
        if not options.sections or section.__name__ in options.sections:
            failed += list(_failures(section, place))
    print(f"{len(failed)} failed: {'; '.join(failed)}" if failed else "all ok")
    return int(bool(failed))


def _failures(section: Callable[[Place], Iterator[Check]], place: Place) -> Iterator[str]:
    """Names of the checks of a section that fail; a section that cannot go on is one."""
    try:
        for check in section(place):
            ok, text = judged(check, place)
            print(f"{'ok' if ok else 'BAD':4s}{check.name:66s} {text}", flush=True)
            if not ok:
                yield check.name
    except Exception:
        print(f"BAD {section.__name__}: {traceback.format_exc(limit=-4)}", flush=True)
        yield section.__name__


def judged(check: Check, place: Place) -> tuple[bool, str]:
    """Whether a check holds, and what is said of it."""
    if place.gpu:
        torch.cuda.reset_peak_memory_stats()
    ok, said = True, []
    if check.reference is not None:
        with_tf32(False)
        answer = check.run()
        apart = check.apart(answer, check.reference() if callable(check.reference) else check.reference)
        ok = apart <= check.limit
        said.append(f"apart {apart:.1e} of {check.limit:.0e}")
    with_tf32(True)
    check.run()
    seconds = statistics.median(_seconds(check.run, place) for _ in range(1 if place.quick else check.runs))
    said.append(f"{1e3 * seconds / check.pieces:9.3f} ms")
    if place.gpu:
        said += [] if place.quick else [how_it_went(check.run)]
        said.append(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GB")
    return ok, "  ".join(said)


def with_tf32(on: bool) -> None:
    """Let convolutions round their factors to TF32, as torch does by default; products of matrices never do."""
    torch.backends.cudnn.allow_tf32 = on
    torch.backends.cuda.matmul.allow_tf32 = False


def _seconds(run: Callable[[], Any], place: Place) -> float:
    if place.gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if place.gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def how_it_went(run: Callable[[], Any]) -> str:
    """Share of the time in which the GPU computed, kernels launched, and waits of the CPU for the GPU, of one run."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    kinds = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        run()
        torch.cuda.synchronize()
    kernels = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(event.time_range.elapsed_us() for event in kernels) / 1e6
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        run()
        torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchroniz" in str(warning.message) for warning in caught)
    return f"busy {100 * busy / seconds:3.0f} %  kernels {len(kernels)}  waits {waits}"


if __name__ == "__main__":
    sys.exit(main())
