"""Public data sets from archives: made, counted, gone on with, and never at the cost of somebody's files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from wsss_core import cli
from wsss_core.config.reading import read_file
from wsss_core.data import coco as coco_reader
from wsss_core.data import voc as voc_reader
from wsss_core.errors import UserError
from wsss_core.prepare import archives as fetching
from wsss_core.prepare import coco14, voc12
from wsss_core.prepare.archives import Archive, Archives
from wsss_core.prepare.unpacking import members, put

VOC = "VOCdevkit/VOC2012"
TRAIN, VAL, SBD_TRAIN = ["2007_000001", "2007_000002"], ["2007_000003"], ["2008_000004", "2008_000005"]
TESTED = "2008_000009"
SIZE = (6, 8)


def image_bytes(form: str, mode: str = "RGB", value: int = 0) -> bytes:
    handle = io.BytesIO()
    image = Image.new(mode, SIZE[::-1], value)
    if mode == "P":
        image.putpalette([level for level in range(256) for _ in range(3)])
    image.save(handle, form)
    return handle.getvalue()


def tarred(files: dict[str, bytes], compressed: bool = False, more: list[tarfile.TarInfo] | None = None) -> bytes:
    handle = io.BytesIO()
    with tarfile.open(fileobj=handle, mode="w:gz" if compressed else "w") as opened:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            opened.addfile(entry, io.BytesIO(content))
        for entry in more or []:
            opened.addfile(entry)
    return handle.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    handle = io.BytesIO()
    with zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return handle.getvalue()


def archive(name: str, content: bytes, url: str = "") -> Archive:
    return Archive(name, url, len(content), f"sha256:{hashlib.sha256(content).hexdigest()}", 1_000_000)


def voc_files() -> dict[str, bytes]:
    lists = f"{VOC}/ImageSets/Segmentation"
    files = {f"{lists}/train.txt": "\n".join(TRAIN), f"{lists}/val.txt": "\n".join(VAL), f"{VOC}/notes.txt": "no"}
    content = {name: text.encode() for name, text in files.items()}
    for name in TRAIN + VAL + SBD_TRAIN:
        content[f"{VOC}/JPEGImages/{name}.jpg"] = image_bytes("JPEG")
        content[f"{VOC}/Annotations/{name}.xml"] = (
            b"<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax>"
            b"</bndbox></object></annotation>"
        )
    for name in TRAIN + VAL:
        content[f"{VOC}/SegmentationClass/{name}.png"] = image_bytes("PNG", "P", 8)
        content[f"{VOC}/SegmentationObject/{name}.png"] = image_bytes("PNG", "P", 1)
    return content


def mat(labels: np.ndarray, **options: bool) -> bytes:
    """An annotation as SBD's: a structure GTcls with boundaries, labels and the classes that are present."""
    handle = io.BytesIO()
    fields = {
        "Boundaries": np.zeros((20, 1)),
        "Segmentation": labels,
        "CategoriesPresent": np.unique(labels[labels > 0]),
    }
    savemat(handle, {"GTcls": fields}, **options)
    return handle.getvalue()


def sbd_labels(name: str) -> np.ndarray:
    labels = np.zeros(SIZE, np.uint8)
    labels[1:3, 2:5] = int(name[-1])
    return labels


def sbd_files() -> dict[str, bytes]:
    names = [TRAIN[0], *VAL, *SBD_TRAIN]  # SBD has masks of some images of VOC's own lists too
    files = {
        f"benchmark_RELEASE/dataset/cls/{name}.mat": mat(sbd_labels(name), do_compression=name.endswith("5"))
        for name in names
    }
    return files | {"benchmark_RELEASE/dataset/img/x.jpg": b"", "benchmark_RELEASE/dataset/inst/x.mat": b""}


def test_files() -> dict[str, bytes]:
    return {
        f"{VOC}/ImageSets/Segmentation/test.txt": f"{TESTED}\n".encode(),
        f"{VOC}/JPEGImages/{TESTED}.jpg": image_bytes("JPEG"),
    }


test_files.__test__ = False  # type: ignore[attr-defined]


@pytest.fixture
def voc(tmp_path) -> voc12.Published:
    """Tiny archives in a folder, and what is published of them."""
    contents = {
        "trainval.tar": tarred(voc_files()),
        "sbd.tgz": tarred(sbd_files(), compressed=True),
        "test.tar": tarred(test_files()),
    }
    folder = tmp_path / "archives"
    folder.mkdir()
    for name, content in contents.items():
        if name != "test.tar":
            (folder / name).write_bytes(content)
    made = {name: archive(name, content) for name, content in contents.items()}
    (tmp_path / "test.tar").write_bytes(contents["test.tar"])
    return voc12.Published(made["trainval.tar"], made["sbd.tgz"], made["test.tar"], 5, 2, 1, 4, 1)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_voc_becomes_the_folder_that_its_run_file_reads(voc, tmp_path):
    told: list[str] = []
    voc12.prepare(tmp_path / "data", Archives(tmp_path / "archives", True), told.append, voc)
    root = tmp_path / "data" / VOC
    lists = root / "ImageSets/Segmentation"
    assert (lists / "train_aug.txt").read_text().split() == sorted(TRAIN + SBD_TRAIN)
    assert not (root / "notes.txt").exists()
    masks = {path.stem: np.asarray(Image.open(path)) for path in (root / "SegmentationClassAug").iterdir()}
    assert sorted(masks) == sorted(TRAIN + VAL + SBD_TRAIN)
    assert all((masks[name] == 8).all() for name in TRAIN + VAL), "VOC's own masks where there are some"
    assert all((masks[name] == sbd_labels(name)).all() for name in SBD_TRAIN)
    assert "train 2, val 1" in told[0] and "4 images" in told[1] and "no test images" in told[2]
    settings = read_file(Path("config/voc12.yaml"))["dataset"]
    assert (tmp_path / settings["root"]) == root
    read = voc_reader.read(voc_reader.VocSettings(root=str(root), score="train"))
    assert sum("train" in record.splits for record in read.records) == 4
    assert sum("val" in record.splits for record in read.records) == 1
    assert [problem.severity for problem in read.problems if problem.severity == "error"] == []


def test_a_complete_data_set_needs_no_archive_and_is_left_as_it_is(voc, tmp_path):
    voc12.prepare(tmp_path / "data", Archives(tmp_path / "archives", True), print, voc)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    voc12.prepare(tmp_path / "data", Archives(tmp_path / "none", True), print, voc)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == before


@pytest.mark.parametrize("lost", [f"{VOC}/JPEGImages/2008_000004.jpg", f"{VOC}/SegmentationClassAug/2008_000005.png"])
def test_what_is_lost_is_made_again(voc, tmp_path, lost):
    data = tmp_path / "data"
    voc12.prepare(data, Archives(tmp_path / "archives", True), print, voc)
    whole = tree(data)
    (data / lost).unlink()
    voc12.prepare(data, Archives(tmp_path / "archives", True), print, voc)
    assert tree(data) == whole


def test_the_images_of_the_test_list_are_taken_where_their_archive_is(voc, tmp_path):
    (tmp_path / "test.tar").rename(tmp_path / "archives/test.tar")
    told: list[str] = []
    voc12.prepare(tmp_path / "data", Archives(tmp_path / "archives", True), told.append, voc)
    assert (tmp_path / "data" / VOC / "JPEGImages" / f"{TESTED}.jpg").is_file()
    assert "1 images without masks" in told[-1]


@pytest.mark.parametrize("place", ["JPEGImages/2008_000004.jpg", "SegmentationClassAug/2008_000004.png"])
def test_files_of_somebody_else_are_left_as_they_are(voc, tmp_path, place):
    foreign = tmp_path / "data" / VOC / place
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"mine")
    with pytest.raises(UserError, match="is left as it is"):
        voc12.prepare(tmp_path / "data", Archives(tmp_path / "archives", True), print, voc)
    assert foreign.read_bytes() == b"mine"


def test_a_list_of_somebody_else_is_left_as_it_is(voc, tmp_path):
    foreign = tmp_path / "data" / VOC / "ImageSets/Segmentation/train_aug.txt"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("2007_000001\n")
    with pytest.raises(UserError, match="train_aug.txt: is left as it is"):
        voc12.prepare(tmp_path / "data", Archives(tmp_path / "archives", True), print, voc)
    assert foreign.read_text() == "2007_000001\n"


def test_nothing_is_written_through_a_link(voc, tmp_path):
    target = tmp_path / "elsewhere.jpg"
    link = tmp_path / "data" / VOC / "JPEGImages" / "2008_000004.jpg"
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    with pytest.raises(UserError, match="is left as it is"):
        voc12.prepare(tmp_path / "data", Archives(tmp_path / "archives", True), print, voc)
    assert not target.exists()


def test_another_archive_than_the_published_one_is_not_opened(voc, tmp_path):
    path = tmp_path / "archives/trainval.tar"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="trainval.tar: is not the published trainval.tar: its sha256 is"):
        voc12.prepare(tmp_path / "data", Archives(tmp_path / "archives", True), print, voc)
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match="bytes instead of"):
        voc12.prepare(tmp_path / "data", Archives(tmp_path / "archives", True), print, voc)
    assert not (tmp_path / "data").exists()


def test_numbers_other_than_the_published_ones_are_told(voc, tmp_path):
    fewer = voc12.Published(voc.trainval, voc.sbd, voc.test, 5, 3, 1, 4, 1)
    with pytest.raises(UserError, match="train.txt: 2 images instead of the published 3"):
        voc12.prepare(tmp_path / "data", Archives(tmp_path / "archives", True), print, fewer)
    more = voc12.Published(voc.trainval, voc.sbd, voc.test, 5, 2, 1, 9, 1)
    with pytest.raises(UserError, match="images to train on: 4 instead of the published 9"):
        voc12.prepare(tmp_path / "data", Archives(tmp_path / "archives", True), print, more)


@pytest.mark.parametrize(
    "content, told",
    [
        (b"MATLAB 5.0 MAT-file" + bytes(200), "is no annotation of SBD"),
        (b"", "is no annotation of SBD"),
        (mat(np.full(SIZE, 21, np.uint8)), "its labels are no classes of VOC"),
        (mat(np.full(SIZE, -1, np.int16)), "its labels are no classes of VOC"),
        (mat(np.zeros((2, 3, 4))), "its labels are no classes of VOC"),
        (mat(np.zeros((5, 5), np.uint8)), "8x6 pixels, its mask of SBD 5x5"),
    ],
)
def test_a_broken_annotation_of_sbd_is_told(voc, tmp_path, content, told):
    files = sbd_files() | {f"benchmark_RELEASE/dataset/cls/{SBD_TRAIN[0]}.mat": content}
    packed = tarred(files, compressed=True)
    (tmp_path / "archives/sbd.tgz").write_bytes(packed)
    published = voc12.Published(voc.trainval, archive("sbd.tgz", packed), voc.test, 5, 2, 1, 4, 1)
    with pytest.raises(UserError, match=told):
        voc12.prepare(tmp_path / "data", Archives(tmp_path / "archives", True), print, published)


def links() -> list[tarfile.TarInfo]:
    made = []
    for kind, target in (
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "b.jpg"),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "b.jpg"),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CHRTYPE, ""),
    ):
        entry = tarfile.TarInfo("a.jpg")
        entry.type, entry.linkname = kind, target
        made.append(entry)
    return made


@pytest.mark.parametrize("entry", links(), ids=lambda entry: f"{entry.type}{entry.linkname}")
def test_links_and_devices_in_an_archive_end_the_unpacking(tmp_path, entry):
    path = tmp_path / "hostile.tar"
    path.write_bytes(tarred({"b.jpg": b"b"}, more=[entry]))
    with pytest.raises(UserError, match="hostile.tar: .*nothing more is unpacked"):
        [put(tmp_path / "out" / m.name, m) for m in members(path, archive("", b""), lambda name: True)]
    assert set(tree(tmp_path)) <= {"hostile.tar", "out/b.jpg"}


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "x/../../a.jpg", "..\\a.jpg", "C:a.jpg"])
@pytest.mark.parametrize("pack", [tarred, zipped])
def test_names_that_lead_out_end_the_unpacking(tmp_path, pack, name):
    path = tmp_path / "hostile"
    path.write_bytes(pack({name: b"a"}))
    with pytest.raises(UserError, match="leads out of the folder"):
        list(members(path, archive("", b""), lambda name: True))


def test_a_link_in_a_zip_ends_the_unpacking(tmp_path):
    entry = zipfile.ZipInfo("a.jpg")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(entry, "/etc/passwd")
    with pytest.raises(UserError, match="is no plain file"):
        list(members(tmp_path / "a.zip", archive("", b""), lambda name: True))


@pytest.mark.parametrize("pack", [tarred, zipped])
def test_more_content_than_the_archive_is_known_to_have_ends_the_unpacking(tmp_path, pack):
    path = tmp_path / "bomb"
    path.write_bytes(pack({f"{i}.jpg": bytes(300_000) for i in range(5)}))
    with pytest.raises(UserError, match="is larger than anything"):
        list(members(path, archive("", b""), lambda name: True))


def damaged_in_the_middle(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes(500) + content[len(content) // 2 + 500 :]


@pytest.mark.parametrize(
    "content",
    [
        tarred({f"{i}.jpg": os.urandom(2000) for i in range(20)}, compressed=True)[:-3000],
        tarred({f"{i}.jpg": os.urandom(2000) for i in range(20)})[:30_000],
        damaged_in_the_middle(zipped({f"{i}.jpg": os.urandom(2000) for i in range(20)})),
        b"",
        os.urandom(3000),
    ],
    ids=["shorter tgz", "shorter tar", "zip", "empty", "noise"],
)
def test_a_damaged_archive_is_told_in_a_line(tmp_path, content):
    (tmp_path / "damaged").write_bytes(content)
    with pytest.raises(UserError, match="damaged: .*is damaged"):
        for member in members(tmp_path / "damaged", archive("", b""), lambda name: True):
            put(tmp_path / "out" / member.name, member)
    assert all(len(content) == 2000 for name, content in tree(tmp_path).items() if name.startswith("out"))


def coco_files(train: int = 3, val: int = 2) -> tuple[dict[str, bytes], dict[str, bytes], dict[str, bytes]]:
    annotations = {"annotations/captions_train2014.json": b"{}"}
    images = []
    for part, count in (("train2014", train), ("val2014", val)):
        listed = [
            {"id": i, "file_name": f"COCO_{part}_{i:012d}.jpg", "height": SIZE[0], "width": SIZE[1]}
            for i in range(count)
        ]
        boxed = [
            {"id": i, "image_id": i // 2, "category_id": 7, "bbox": [0, 0, 2, 2], "iscrowd": 0,
             "segmentation": [[0, 0, 4, 0, 4, 4]]}
            for i in range(2 * (count - 1))
        ]  # fmt: skip
        content = {"images": listed, "annotations": boxed, "categories": [{"id": 7, "name": "train"}]}
        annotations[f"annotations/instances_{part}.json"] = json.dumps(content).encode()
        images.append({f"{part}/{image['file_name']}": image_bytes("JPEG") for image in listed})
    return annotations, images[0], images[1]


def coco_archives(url: str = "") -> tuple[coco14.Published, dict[str, bytes]]:
    contents = dict(zip(("annotations.zip", "train.zip", "val.zip"), map(zipped, coco_files()), strict=True))
    made = {name: archive(name, content, f"{url}/{name}" if url else "") for name, content in contents.items()}
    parts = {"train2014": coco14.Part(made["train.zip"], 3, 2), "val2014": coco14.Part(made["val.zip"], 2, 1)}
    return coco14.Published(made["annotations.zip"], parts), contents


class Server(ThreadingHTTPServer):
    """Sends files; breaks off after `at_most` bytes an answer, and heeds ranges or not."""

    at_most = 1 << 60
    ranges = True
    asked: list[tuple[str, str | None]]

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked = files, []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append((self.path, asked))
        content = self.server.files.get(urlsplit(self.path).path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : start + self.server.at_most])

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetching, "WAIT", 0.0)
    opened = Server({})
    thread = threading.Thread(target=opened.serve_forever, args=(0.01,))
    thread.start()
    yield opened
    opened.shutdown()
    thread.join()
    opened.server_close()


def test_coco_is_fetched_counted_and_read(server, tmp_path):
    published, server.files = coco_archives(server.url)
    told: list[str] = []
    coco14.prepare(tmp_path / "data", Archives(tmp_path / "data/archives"), told.append, published)
    assert [line.partition(": ")[2] for line in told] == [
        "3 images, 2 of them with an object",
        "2 images, 1 of them with an object",
    ]
    root = tmp_path / "data/coco"
    assert sorted(path.name for path in (root / "annotations").iterdir()) == [
        "instances_train2014.json",
        "instances_val2014.json",
    ]
    assert tmp_path / read_file(Path("config/coco14.yaml"))["dataset"]["root"] == root
    read = coco_reader.read(coco_reader.CocoSettings(root=str(root)))
    assert len(read.records) == 5
    count = len(server.asked)
    coco14.prepare(tmp_path / "data", Archives(tmp_path / "data/archives"), told.append, published)
    assert len(server.asked) == count == 3


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_breaks_off_goes_on(server, tmp_path, ranges):
    content = os.urandom(5000)
    server.files, server.at_most, server.ranges = {"a.bin": content}, 2000 if ranges else 1 << 60, ranges
    wanted = archive("a.bin", content, f"{server.url}/a.bin")
    if not ranges:  # what a command that was killed has left
        (tmp_path / "a.bin.part").write_bytes(content[:1234])
    assert Archives(tmp_path).get(wanted).read_bytes() == content
    starts = [asked for _, asked in server.asked]
    assert starts == ([None, "bytes=2000-", "bytes=4000-"] if ranges else ["bytes=1234-"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_download_that_stays_broken_is_kept_and_told(server, tmp_path):
    content = os.urandom(5000)
    server.files, server.at_most = {"a.bin": content}, 2000
    wanted = archive("a.bin", content, f"{server.url}/a.bin")
    (tmp_path / "a.bin.part").write_bytes(content[:10])
    server.at_most = 0
    with pytest.raises(UserError, match="goes on from there"):
        Archives(tmp_path).get(wanted)
    assert len(server.asked) == fetching.ATTEMPTS
    assert (tmp_path / "a.bin.part").read_bytes() == content[:10]


@pytest.mark.parametrize("sent", [b"x" * 5000, b"x" * 9000])
def test_another_file_than_the_published_one_is_not_kept(server, tmp_path, sent):
    server.files = {"a.bin": sent}
    wanted = archive("a.bin", os.urandom(5000), f"{server.url}/a.bin")
    with pytest.raises(UserError, match="sent something else"):
        Archives(tmp_path).get(wanted)
    assert not list(tmp_path.iterdir())


def test_what_is_not_there_is_told_at_once(server, tmp_path):
    wanted = archive("a.bin", b"a", f"{server.url}/a.bin")
    with pytest.raises(UserError, match="404"):
        Archives(tmp_path).get(wanted)
    assert len(server.asked) == 1
    with pytest.raises(UserError, match="is missing; fetch http"):
        Archives(tmp_path, offline=True).get(wanted)


def test_the_command_names_the_archive_that_is_missing(tmp_path, capsys):
    assert cli.main(["prepare", "voc12", str(tmp_path / "data"), "--offline"]) == 2
    assert "archives/VOCtrainval_11-May-2012.tar: is missing; fetch http" in capsys.readouterr().err
    assert cli.main(["prepare", "coco14", str(tmp_path / "data"), "--offline"]) == 2
    assert "archives/annotations_trainval2014.zip: is missing" in capsys.readouterr().err
