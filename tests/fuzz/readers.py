"""Everything that reads files, with small valid files of each kind.

A `Reader` is one kind of file as the program meets it: `prepare` writes valid files, `read` reads all that they hold
and uses it as far as its content can make the user of it fail.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from wsss_core.boxes.proposals import read_proposals
from wsss_core.classify.out_of_distribution import read_review
from wsss_core.config import configured_stages, read_configuration
from wsss_core.data import coco, tags, voc
from wsss_core.data.arrays import read_arrays
from wsss_core.data.boxes import Box
from wsss_core.data.decode import image_size, read_image
from wsss_core.data.examine import KnownFiles, examine
from wsss_core.data.instances import Outlined, true_instances, write_outlines
from wsss_core.data.reading import Reader as DataReader
from wsss_core.data.table import ImageRecord, ImageTable, read_manifests, read_table, write_manifest, write_table
from wsss_core.errors import UserError
from wsss_core.evaluate.confusion import metrics
from wsss_core.evaluate.header import ScoreHeader
from wsss_core.evaluate.health import read_health, write_health
from wsss_core.evaluate.results import ResultRow, Results, read_results, write_results
from wsss_core.evaluate.tables import read_evaluation, write_evaluation
from wsss_core.execution import Execution
from wsss_core.jobs.inputs import read_threshold
from wsss_core.jobs.start import read_start, write_start
from wsss_core.jobs.step import read_step
from wsss_core.models import cam_network
from wsss_core.models.backbones.weights import load_weights
from wsss_core.models.trained import open_classifier
from wsss_core.seeds import external
from wsss_core.store.attributions import ATTRIBUTIONS, Attributions
from wsss_core.store.checkpoints import save_network
from wsss_core.store.cut import ABOUT, Cut, read_about, write_about
from wsss_core.store.instances import INSTANCES, Instances
from wsss_core.store.labels import LABELS, LabelMap
from wsss_core.store.masks import read_grey, read_mask, write_mask
from wsss_core.store.posteriors import POSTERIORS, Posteriors
from wsss_core.store.scores import SCORES, ScoreMaps
from wsss_core.store.seeds import SEEDS, SeedMaps
from wsss_core.store.shards import RecordKind, RecordStore, build
from wsss_core.training import fit

SIZE = (20, 24)
"""(H, W) of all images."""

NAMES = ("cow", "car")

NOISE = np.random.default_rng(5)


@dataclass(frozen=True)
class Reader:
    """One kind of file.

    Attributes
    ----------
    name
        What is read.
    files
        The files that are damaged, by their path in the folder, to their form: text, json, yaml, xml, png, hdf5, torch
        or bytes, which says what ways of damaging there are.
    prepare
        Writes these and whatever else is needed into a folder.
    read
        Reads all of it; what it returns tells contents apart.
    guarded
        Whether the files carry digests: a damaged one must be refused, or read as what was written.
    """

    name: str
    files: Mapping[str, str]
    prepare: Callable[[Path], None]
    read: Callable[[Path], Any]
    guarded: bool = False


CONFIGURATION = {
    "run": "r",
    "seed": 3,
    "dataset": {"format": "table", "root": ".", "labels": "labels.csv", "separator": ";"},
    "classifiers": {"bce": {"objective": "bce", "epochs": 2, "long_side": [64, 96], "learning_rate": 0.01}},
    "seeds": {
        "cam": {"method": "cam", "classifier": "bce", "scales": [1.0, 0.5]},
        "rib": {"method": "rib", "classifier": "bce", "steps": [2, 4]},
    },
    "refinements": {
        "crf": {"method": "crf", "seed": "rib", "iterations": 3, "threshold": "score"},
        "irn": {"method": "irn", "seed": "cam", "network": {"weights": "classifier", "radius": 5}},
        "confident": {"method": "threshold", "walk": "irn", "band": [0.2, 0.3]},
    },
    "segmentations": {"deeplab": {"network": "deeplab_v2", "masks": "confident", "backbone": "small"}},
    "targets": ["deeplab", "crf"],
    "execution": {"workers": 1},
    "report": {"images": 3},
    "figures": [{"name": "steps", "x": "rib.steps", "y": "miou"}],
}


def _picture(colours: int = 3) -> np.ndarray:
    shape = SIZE if colours == 1 else (*SIZE, colours)
    return np.kron(NOISE.integers(0, 256, (5, 6, *shape[2:])), np.ones((4, 4, *[1] * len(shape[2:])))).astype(np.uint8)


def _mask() -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[3:9, 4:12], mask[10:15, 10:20], mask[0, 0] = 1, 2, 255
    return mask


def _write_configuration(folder: Path) -> None:
    (folder / "run.yaml").write_text(yaml.safe_dump(CONFIGURATION, sort_keys=False))
    (folder / "run.json").write_text(json.dumps(CONFIGURATION))


def _read_configuration(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        configuration = read_configuration(folder / name)
        return configuration, configured_stages(configuration), configuration.current

    return read


def _images(folder: Path, names: str, ending: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(_picture()).save(folder / f"{name}.{ending}")


def _write_tags(folder: Path) -> None:
    _images(folder / "images", "abcd")
    (folder / "masks").mkdir()
    write_mask(folder / "masks/a.png", _mask())
    write_mask(folder / "masks/d.png", _mask())
    (folder / "labels.csv").write_text('image,labels,split\na.png,cow car,train\nb,"car",train\nc,cow,\nd,cow,val\n')
    (folder / "columns.tsv").write_text("filename\tcow\tcar\na.png\t1\t1\nb.png\t0\t1\nd.png\t1\t0\n")
    (folder / "labels.json").write_text(json.dumps({"a": ["cow", "car"], "b": "car", "c": [], "d": ["cow"]}))
    entries = [{"image": name, "labels": ["cow"], "split": "train"} for name in "abd"]
    (folder / "labels.yaml").write_text(yaml.safe_dump(entries))
    (folder / "classes.txt").write_text("cow\ncar\n")
    (folder / "train.txt").write_text("a\nb.png\n/images/c.png /masks/a.png\n")
    held = {name: np.array([1, k % 2], np.float32) for k, name in enumerate("abcd")}
    np.save(folder / "labels.npy", held, allow_pickle=True)  # type: ignore[arg-type]


def _read_data(module: DataReader, settings: Any) -> Callable[[Path], Any]:
    """All that the step `index` reads of a data set."""

    def read(folder: Path) -> Any:
        given = settings(folder)
        module.sources(given)
        names = module.classes(given)
        reading = module.read(given, 0, folder / "drawn")
        known = KnownFiles.read(folder / "known.json")
        return names, reading, examine(reading, known, 1, 1.0)

    return read


def _tags(labels: str, **others: Any) -> Callable[[Path], Any]:
    return _read_data(tags, lambda folder: tags.TableSettings(root=str(folder), labels=labels, **others))


def _write_coco(folder: Path) -> None:
    _images(folder / "photos", "abc")
    height, width = SIZE
    images = [{"id": k, "file_name": f"{name}.png", "height": height, "width": width} for k, name in enumerate("abc")]
    shape = {"iscrowd": 0, "bbox": [3, 3, 9, 8], "area": 72, "segmentation": [[3, 3, 12, 3, 12, 11, 3, 11]]}
    runs = {"size": [height, width], "counts": [40, 30, height * width - 70]}
    text = {"size": [height, width], "counts": "X1n0:00"}
    annotations = [
        {"id": 1, "image_id": 0, "category_id": 3} | shape,
        {"id": 2, "image_id": 1, "category_id": 7} | shape,
        {"id": 3, "image_id": 1, "category_id": 3, "iscrowd": 1, "bbox": [0, 0, 5, 5], "segmentation": runs},
        {"id": 4, "image_id": 2, "category_id": 3, "iscrowd": 0, "bbox": [0, 0, 5, 5], "segmentation": text},
    ]
    categories = [{"id": 3, "name": "cow"}, {"id": 7, "name": "car", "supercategory": "vehicle"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "all.json").write_text(json.dumps(content))
    (folder / "score.txt").write_text("a\nb\n")


def _coco(folder: Path) -> coco.CocoSettings:
    return coco.CocoSettings(
        root=str(folder), train=("all.json",), train_images=("photos",), val=(), score="score.txt", unreadable="skip"
    )


def _write_voc(folder: Path) -> None:
    _images(folder / "JPEGImages", "abc", "jpg")
    for name in ("SegmentationClass", "SegmentationObject", "Annotations", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    write_mask(folder / "SegmentationClass/a.png", _mask())
    write_mask(folder / "SegmentationObject/a.png", _mask())
    item = (
        "<object><name>{}</name><difficult>0</difficult><bndbox><xmin>5</xmin><ymin>4</ymin><xmax>12</xmax>"
        "<ymax>9</ymax></bndbox></object>"
    )
    top = f"<filename>x.jpg</filename><size><width>{SIZE[1]}</width><height>{SIZE[0]}</height><depth>3</depth></size>"
    for name in "abc":
        text = f"<annotation>{top}{item.format('cow')}{item.format('car')}</annotation>"
        (folder / f"Annotations/{name}.xml").write_text(f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n')
    (folder / "classes.txt").write_text("cow\ncar\n")
    (folder / "ImageSets/Segmentation/train.txt").write_text("a\nb\nc\n")


def _voc(folder: Path) -> voc.VocSettings:
    return voc.VocSettings(root=str(folder), train=("train",), val=(), classes="classes.txt")


PICTURES = {
    "grey.png": "png",
    "alpha.png": "png",
    "photo.jpg": "bytes",
    "photo.webp": "bytes",
    "photo.tif": "bytes",
    "photo.gif": "bytes",
    "photo.bmp": "bytes",
    "photo.ppm": "bytes",
}


def _write_pictures(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(_picture(1)).save(folder / "grey.png", exif=exif)
    Image.fromarray(_picture(4)).save(folder / "alpha.png")
    Image.fromarray(_picture()).save(folder / "photo.jpg", exif=exif)
    Image.fromarray(_picture()).save(folder / "photo.tif", compression="tiff_lzw")
    for name in ("photo.webp", "photo.gif", "photo.bmp", "photo.ppm"):
        Image.fromarray(_picture()).save(folder / name)


def _read_picture(path: Path) -> Any:
    """Pixels and size; of the two calls one may be content with less of the file."""
    try:
        size = image_size(path)
    except UserError:
        size = None
    return size, read_image(path)


def _write_masks(folder: Path) -> None:
    write_mask(folder / "mask.png", _mask())
    Image.fromarray(_mask()).save(folder / "grey.png")
    Image.fromarray(_mask().astype(np.uint16)).save(folder / "deep.png")
    for name in ("mask.tif", "mask.bmp", "mask.gif"):
        Image.fromarray(_mask()).save(folder / name)


def _read_grey_and_mask(path: Path) -> Any:
    try:
        grey = read_grey(path)
    except UserError:
        grey = None
    return grey, read_mask(path, SIZE, 256)


RECORD = ImageRecord(
    id="a",
    path="images/a.png",
    height=SIZE[0],
    width=SIZE[1],
    splits=("train", "score"),
    classes=(0, 1),
    mask="masks/a.png",
    boxes=(Box(0, 4, 3, 12, 9), Box(1, 10, 10, 20, 15, difficult=True)),
    digest="0" * 16,
    mask_digest="1" * 16,
)


def _write_objects(folder: Path) -> None:
    (folder / "masks").mkdir()
    write_mask(folder / "masks/a.png", _mask())
    write_mask(folder / "objects.png", _mask())
    outline = [[3, 3, 12, 3, 12, 11, 3, 11]]
    runs = {"size": list(SIZE), "counts": [40, 30, SIZE[0] * SIZE[1] - 70]}
    write_outlines(folder / "objects.json", SIZE, [Outlined(0, outline), Outlined(1, runs, crowd=True)])


def _read_objects(name: str) -> Callable[[Path], Any]:
    return lambda folder: true_instances(
        ImageRecord(**{**RECORD.__dict__, "mask": str(folder / "masks/a.png"), "instances": str(folder / name)})
    )


def _records(kind: RecordKind, make: Callable[[], Any], use: Callable[[Any], Any] = lambda record: None) -> Reader:
    """A reader of HDF5 files of a kind of records."""

    def prepare(folder: Path) -> None:
        attrs = {"method": "m", "settings": {"a": 1}, "class_names": list(NAMES)}
        fingerprints = {"a": "0" * 32, "b/c.d": "1" * 32}
        build(folder / "x.h5", kind, fingerprints, lambda _: make(), attrs, cache=folder / ".state/x.h5")

    def read(folder: Path) -> Any:
        store = RecordStore(folder / "x.h5", kind)
        found = {image: store[image] for image in store}
        for record in found.values():
            use(record)
        return found, store.attrs, {image: store.fingerprint(image) for image in store}

    return Reader(f"{kind.name} records", {"x.h5": "hdf5"}, prepare, read, guarded=True)


def _seed_maps() -> SeedMaps:
    maps = {scale: torch.linspace(0, 1, 2 * h * w).reshape(2, h, w) for scale, h, w in ((1.0, 2, 2), (0.5, 1, 1))}
    return SeedMaps((0, 1), maps, SIZE, {"losses": [0.5, 0.25]})


def _score_maps() -> ScoreMaps:
    return ScoreMaps((0, 1), torch.rand(2, 5, 6), SIZE, background=torch.rand(5, 6))


def _instances() -> Instances:
    masks = np.stack([_mask() == 1, _mask() == 2])
    return Instances.of(SIZE, [0, 1], [[4, 3, 12, 9], [10, 10, 20, 15]], masks, [0.5, 1.0], statistics={"n": 2})


def _attributions() -> Attributions:
    maps = (np.eye(4, dtype=np.float32), np.ones((3, 5), np.float32))
    boxes = np.array([[4, 3, 12, 9], [10, 10, 20, 15]], np.float32)
    return Attributions(SIZE, np.array([0, 1]), boxes, maps, np.array([True, False]), {"n": [1, 2]})


def _in_cache(folder: Path) -> None:
    """A cache of finished records, and of the shard made of it nothing."""
    _build_cached(folder)
    (folder / "x.h5").unlink()


def _build_cached(folder: Path) -> bytes:
    """The bytes of a shard that is made with whatever the cache holds."""
    fingerprints = {"a": "0" * 32, "b/c.d": "1" * 32}
    build(folder / "x.h5", SEEDS, fingerprints, lambda _: _seed_maps(), {"method": "m"}, cache=folder / "state.h5")
    return (folder / "x.h5").read_bytes()


META = {"backbone": "small", "architecture": "cam", "architecture_settings": {}, "class_names": list(NAMES)}


def _write_network(folder: Path) -> None:
    state = {name: torch.zeros_like(value) for name, value in cam_network("small", 2).state_dict().items()}
    save_network(folder / "model.pt", "classifier", state, META)


def _read_network(folder: Path) -> Any:
    network = open_classifier(folder / "model.pt")
    return network.class_names, dict(network.state_dict()), network(torch.zeros(1, 3, 32, 32)).shape


def _read_weights(folder: Path) -> Any:
    network = cam_network("small", 2)
    network.load_backbone(load_weights(folder / "weights.pt"))
    return dict(network.state_dict())


def _write_weights(folder: Path) -> None:
    state = {name: torch.zeros_like(value) for name, value in cam_network("small", 2).backbone.state_dict().items()}
    torch.save(state, folder / "weights.pt")


class _Numbers:
    """The batches of a small training."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, step: int) -> torch.Tensor:
        return torch.linspace(-1, 1, 6).reshape(2, 3) * (step + 1)


def _trained(folder: Path, steps: int = 4) -> Any:
    """What a training makes that goes on with whatever state lies in the folder; at most so many steps are taken."""
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)

    class Stopped(Exception):
        pass

    def loss(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": network(batch).square().mean()}

    def watch(step: int, *_: Any) -> None:
        if step + 1 > steps:
            raise Stopped

    try:
        history = fit(
            network,
            _Numbers(),
            loss,
            optimizer,
            lambda step: 1.0,
            seed=0,
            execution=Execution(device="cpu", workers=0),
            state=folder / "state.pt",
            fingerprint="f",
            save_seconds=-1.0 if steps < 4 else 1e9,
            watch=watch,
        )
    except Stopped:
        return None
    return history, dict(network.state_dict())


def _write_table(folder: Path) -> None:
    records = (RECORD, ImageRecord("b", "images/b,.png", *SIZE, ("val",), (1,), digest="2" * 16))
    write_table(folder / "images.csv", ImageTable(NAMES, records))
    write_manifest(folder / "manifest.json", NAMES, records)


def _write_step(folder: Path) -> None:
    from wsss_core.config import load, step_json

    configuration = load(CONFIGURATION)
    (folder / "maps.json").write_text(step_json(configuration, "seeds/cam", "maps"))
    (folder / "report.json").write_text(step_json(configuration, "run", "report"))


def _read_step(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        step = read_step(folder / name)
        return step.settings, step.seed, step.digest

    return read


def _write_evaluation(folder: Path) -> None:
    header = ScoreHeader(split="score", images=2, cut=Cut("fixed", 0.3))
    write_evaluation(folder / "evaluation.csv", header, ["background", *NAMES], metrics(np.diag([5, 6, 7])))


def _write_results(folder: Path) -> None:
    row = ResultRow("seeds", "rib@steps=2", "rib", "rib", {"rib.steps": 2}, "maps", miou=0.5)
    write_results(folder / "results.csv", Results("r", 0, (row,)))


def _write_arrays(folder: Path) -> None:
    import h5py

    planes = np.linspace(0, 1, 60, dtype=np.float32).reshape(2, 5, 6)
    np.save(folder / "plain.npy", planes)
    np.save(folder / "mapping.npy", {0: planes[0], 1: planes[1]}, allow_pickle=True)  # type: ignore[arg-type]
    np.savez_compressed(folder / "named.npz", cow=planes[0], car=planes[1])
    with h5py.File(folder / "named.h5", "w") as file:
        file["cow"], file["car"] = planes


def _read_arrays(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        record = ImageRecord(Path(name).stem, name, *SIZE, ("train",), (0, 1))
        held = read_arrays(folder / name)
        return str(type(held)), external.maps(external.ExternalSettings(folder=str(folder)), record, NAMES)

    return read


def _write_proposals(folder: Path) -> None:
    write_mask(folder / "a.png", _mask())
    (folder / "a.json").write_text(json.dumps([[0, 1], [2], [255]]))
    runs = {"size": list(SIZE), "counts": [40, 30, SIZE[0] * SIZE[1] - 70]}
    (folder / "b.json").write_text(json.dumps([runs, runs]))


def _several(name: str, files: Mapping[str, str], prepare: Any, read: Callable[[Path], Any]) -> list[Reader]:
    """A reader for each of several files that one function reads."""

    def of(file: str) -> Callable[[Path], Any]:
        return lambda folder: read(folder / file)

    return [Reader(f"{name} {file}", {file: form}, prepare, of(file)) for file, form in files.items()]


def _all() -> list[Reader]:
    rows = [
        Reader("configuration yaml", {"run.yaml": "yaml"}, _write_configuration, _read_configuration("run.yaml")),
        Reader("configuration json", {"run.json": "json"}, _write_configuration, _read_configuration("run.json")),
        Reader("tags csv", {"labels.csv": "text"}, _write_tags, _tags("labels.csv", masks="masks")),
        Reader("tags tsv", {"columns.tsv": "text"}, _write_tags, _tags("columns.tsv")),
        Reader("tags json", {"labels.json": "json"}, _write_tags, _tags("labels.json")),
        Reader("tags yaml", {"labels.yaml": "yaml"}, _write_tags, _tags("labels.yaml")),
        Reader("tags npy", {"labels.npy": "bytes"}, _write_tags, _tags("labels.npy", classes="classes.txt")),
        Reader(
            "lists",
            {"train.txt": "text", "classes.txt": "text"},
            _write_tags,
            _tags("labels.csv", train=("train",), classes="classes.txt", masks="masks"),
        ),
        Reader("coco", {"all.json": "json", "score.txt": "text"}, _write_coco, _read_data(coco, _coco)),
        Reader("voc", {"Annotations/b.xml": "xml"}, _write_voc, _read_data(voc, _voc)),
        *_several("image", PICTURES, _write_pictures, _read_picture),
        *_several(
            "mask",
            {
                "mask.png": "png",
                "grey.png": "png",
                "deep.png": "png",
                "mask.tif": "bytes",
                "mask.bmp": "bytes",
                "mask.gif": "bytes",
            },
            _write_masks,
            _read_grey_and_mask,
        ),
        Reader("objects png", {"objects.png": "png"}, _write_objects, _read_objects("objects.png")),
        Reader("objects json", {"objects.json": "json"}, _write_objects, _read_objects("objects.json")),
        *[
            Reader(f"arrays {name}", {name: "bytes"}, _write_arrays, _read_arrays(name))
            for name in ("plain.npy", "mapping.npy", "named.npz", "named.h5")
        ],
        Reader(
            "proposals",
            {"a.json": "json", "a.png": "png", "b.json": "json"},
            _write_proposals,
            lambda folder: [read_proposals(folder, name, SIZE) for name in "ab"],
        ),
        _records(SEEDS, _seed_maps, lambda maps: (maps.full(), maps.strided())),
        _records(SCORES, _score_maps, lambda maps: maps.full()),
        _records(LABELS, lambda: LabelMap(_mask())),
        _records(POSTERIORS, lambda: Posteriors((0, 1), np.stack([[_mask()] * 3] * 2))),
        _records(INSTANCES, _instances),
        _records(ATTRIBUTIONS, _attributions, lambda found: [found.full(n) for n in range(len(found))]),
        Reader("cache of records", {"state.h5": "hdf5"}, _in_cache, _build_cached, guarded=True),
        Reader("network", {"model.pt": "torch"}, _write_network, _read_network, guarded=True),
        Reader("weights", {"weights.pt": "torch"}, _write_weights, _read_weights),
        Reader(
            "training state", {"state.pt": "torch"}, lambda folder: _trained(folder, 2), lambda folder: _trained(folder)
        ),
        Reader("image table", {"images.csv": "text"}, _write_table, lambda folder: read_table(folder / "images.csv")),
        Reader(
            "manifest",
            {"manifest.json": "json"},
            _write_table,
            lambda folder: read_manifests([folder / "manifest.json"]),
        ),
        Reader(
            "known files",
            {"known.json": "json"},
            _write_known,
            _tags("labels.csv", masks="masks"),
        ),
        Reader("step maps", {"maps.json": "json"}, _write_step, _read_step("maps.json")),
        Reader("step report", {"report.json": "json"}, _write_step, _read_step("report.json")),
        Reader(
            "start",
            {"config/started.json": "json"},
            lambda folder: write_start(folder, CONFIGURATION, ["run.yaml"]),
            lambda folder: (lambda start: (start, start.alive, start.locked))(read_start(folder)),
        ),
        Reader(
            "threshold",
            {"threshold.json": "json"},
            lambda folder: (folder / "threshold.json").write_text('{"rule": "fixed", "value": 0.3, "miou": 0.5}'),
            lambda folder: read_threshold(folder / "threshold.json"),
        ),
        Reader(
            "about masks",
            {ABOUT: "json"},
            lambda folder: write_about(folder, Cut("band", band=(0.2, 0.3), notes=("filled",))),
            read_about,
        ),
        Reader(
            "evaluation",
            {"evaluation.csv": "text"},
            _write_evaluation,
            lambda folder: read_evaluation(folder / "evaluation.csv"),
        ),
        Reader("results", {"results.csv": "text"}, _write_results, lambda folder: read_results(folder / "results.csv")),
        Reader(
            "health",
            {"health.json": "json"},
            lambda folder: write_health(folder / "health.json", {"classes": {"cow": {"images": 3}}}, []),
            lambda folder: read_health(folder / "health.json"),
        ),
        Reader(
            "reviewed",
            {"reviewed.csv": "text"},
            lambda folder: (folder / "reviewed.csv").write_text('id,keep\na,1\n"b",no\nc,yes\n'),
            lambda folder: sorted(read_review(folder / "reviewed.csv", ["a", "b", "c"])),
        ),
    ]
    return rows


def _write_known(folder: Path) -> None:
    _write_tags(folder)
    given = tags.TableSettings(root=str(folder), labels="labels.csv", masks="masks")
    known = KnownFiles.read(folder / "known.json")
    examine(tags.read(given), known, 1, 1.0)
    known.write()


READERS = {reader.name: reader for reader in _all()}
