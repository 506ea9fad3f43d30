"""`weights: imagenet`: fetched once by torch's own download, from a server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import threading
from pathlib import Path

import pytest
import torch

from tests.scenes import write_step
from wsss_core import cli
from wsss_core.errors import UserError
from wsss_core.models import imagenet
from wsss_core.models.backbones import load_weights


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """torch's cache, in a folder of its own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch/hub/checkpoints"


@pytest.fixture
def server(tmp_path):
    """Address of a weight file whose name ends with its digest, and the paths that were asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    torch.save({"conv1.weight": torch.ones(2, 3)}, folder / "weights")
    digest = hashlib.sha256((folder / "weights").read_bytes()).hexdigest()[:8]
    (folder / "weights").rename(folder / f"tiny-{digest}.pth")
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given):
            super().__init__(*given, directory=str(folder))

        def log_message(self, *given):
            asked.append(self.path)

    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}/tiny-{digest}.pth", asked
    serving.shutdown()
    serving.server_close()
    thread.join()


def test_it_is_fetched_once_and_read_from_the_cache(server, cache):
    url, asked = server
    path = imagenet.fetch("mobilenet_v2", url=url)
    assert path.parent == cache and load_weights(path)["conv1.weight"].shape == (2, 3)
    assert imagenet.fetch("mobilenet_v2", url=url) == path
    assert len([line for line in asked if line.endswith(".pth")]) == 1


def test_a_file_of_another_digest_is_refused_and_not_kept(server, cache):
    url, _ = server
    folder = Path(cache.parents[2] / "served")
    next(folder.iterdir()).rename(folder / "tiny-00000000.pth")
    with pytest.raises(UserError, match=r"cannot be fetched \(invalid hash value.*begins with 00000000"):
        imagenet.fetch("mobilenet_v2", url=url.rpartition("/")[0] + "/tiny-00000000.pth")
    assert not list(cache.glob("*.pth"))


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_one_line_says_file_folder_and_digest(cache, offline):
    with pytest.raises(UserError) as error:
        imagenet.fetch("mobilenet_v2", offline=offline, url="http://127.0.0.1:9/mobilenet_v2-b0353104.pth")
    said = str(error.value)
    assert "\n" not in said and f"put it into {cache};" in said
    assert "mobilenet_v2-b0353104.pth" in said and "SHA-256 begins with b0353104" in said


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "mobilenet_v2", "vgg16"])
def test_torchvision_publishes_weights_of_its_backbones(name, cache):
    assert imagenet.cached(name).parent == cache and imagenet.cached(name).name.startswith(f"{name}-")


@pytest.mark.parametrize("name", ["small", "resnet38d"])
def test_other_backbones_have_none(name):
    with pytest.raises(UserError, match=f"which {name} is not; name a weight file, or set null"):
        imagenet.fetch(name)


def test_the_command_says_where_they_are_and_notes_their_digest(tmp_path, cache, capsys):
    assert cli.main(["fetch", "mobilenet_v2", "--offline"]) == 2
    assert "is not in the cache" in capsys.readouterr().err
    cache.mkdir(parents=True)
    (cache / "mobilenet_v2-b0353104.pth").write_bytes(b"here")
    assert cli.main(["fetch", "mobilenet_v2", "--offline", "--note", str(tmp_path / "note.txt")]) == 0
    assert str(cache) in capsys.readouterr().out
    assert (tmp_path / "note.txt").read_text() == f"mobilenet_v2-b0353104.pth {hashlib.sha256(b'here').hexdigest()}\n"


def test_a_training_says_what_it_misses(tmp_path):
    from tests.test_health import EXECUTION
    from wsss_core.data.table import ImageRecord, ImageTable, write_table
    from wsss_core.steps import train

    records = (ImageRecord("a", "a.png", 40, 40, ("train",), (0,)), ImageRecord("b", "b.png", 40, 40, ("train",), ()))
    write_table(tmp_path / "images.csv", ImageTable(("cow",), records))
    settings = {"backbone": "mobilenet_v2", "weights": "imagenet"}
    config = write_step(tmp_path / "train.json", "classifiers/bce", "bce", "train", settings)
    with pytest.raises(UserError, match=r"mobilenet_v2-b0353104.pth was not fetched"):
        train.run(
            config=config,
            table=tmp_path / "images.csv",
            classifier=None,
            labels=(),
            ood=None,
            model=tmp_path / "model.pt",
            state=tmp_path / "state.pt",
            history=tmp_path / "history.csv",
            execution=EXECUTION,
        )
