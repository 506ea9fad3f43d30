"""The collection of out-of-distribution photos: ranking, contact sheet, selection by rule and by a person."""

import csv
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.scenes import write_classifier, write_step
from wsss_core.classify.contact_sheet import Shown, contact_sheet, thumbnail
from wsss_core.classify.out_of_distribution import (
    Candidate,
    SelectionSettings,
    choose,
    confused,
    erased,
    probabilities,
    ranked,
    read_candidates,
    read_review,
    write_candidates,
)
from wsss_core.data.augment import normalise, resize
from wsss_core.data.table import ImageRecord, ImageTable, read_table, write_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.models import cam_network
from wsss_core.seeds.cam import cam_seed
from wsss_core.steps import candidates as candidates_step
from wsss_core.steps import selection as selection_step

NAMES = ("cat", "dog, small")
FOUND = ranked([Candidate(f"p{n}", f"photos/p{n}.jpg", (n / 10, 0.3)) for n in range(10)])


def test_the_surest_come_first():
    assert [c.id for c in FOUND[:3]] == ["p9", "p8", "p7"]
    assert [c.id for c in FOUND[-4:]] == ["p0", "p1", "p2", "p3"], "0.3 four times, by id"
    assert FOUND[0].best == 0 and FOUND[-4].best == 1 and FOUND[-4].probability == 0.3
    assert confused(FOUND[0], 0.5) == [0] and confused(FOUND[0], 0.3) == [0, 1]


def test_candidates_survive_their_file(tmp_path):
    write_candidates(tmp_path / "c.csv", FOUND, NAMES)
    assert read_candidates(tmp_path / "c.csv", NAMES) == FOUND
    rows = list(csv.DictReader((tmp_path / "c.csv").read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == ["keep", "rank", "id", "path", "class", "probability", "p(cat)", "p(dog, small)"]
    assert rows[0]["rank"] == "1" and rows[0]["class"] == "cat" and rows[0]["probability"] == "0.900000"
    with pytest.raises(UserError, match="not a list of candidates"):
        read_candidates(tmp_path / "c.csv", ("cat", "cow"))


def test_probabilities_are_sigmoids_of_the_resized_photo():
    torch.manual_seed(0)
    network = cam_network("small", 2).eval()
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    with torch.no_grad():
        for long_side, size in ((None, (40, 60)), (90, (60, 90))):
            expected = network(torch.from_numpy(normalise(resize(image, size)))[None])[0].sigmoid().tolist()
            assert probabilities(network, image, long_side) == pytest.approx(expected)


def chosen(rule: str, seed: int = 0, kept=(), **changes) -> list[str]:
    return choose(FOUND, SelectionSettings(rule=rule, **changes), seed, kept)


def test_rules():
    hard = {"p5", "p6", "p7", "p8", "p9"}
    assert chosen("hard") == sorted(hard, reverse=True)
    assert chosen("hard", limit=2) == ["p9", "p8"]
    assert set(chosen("hard", threshold=0.3)) == {f"p{n}" for n in range(10)}
    assert set(chosen("random")) == {c.id for c in FOUND}
    assert set(chosen("random_hard")) == set(chosen("erased")) == hard
    assert set(chosen("reviewed", kept={"p1", "p9"})) == {"p1", "p9"}
    with pytest.raises(UserError, match=r"no photo of 10 has p\(c\) >= 0.95 for a class, the highest is 0.900"):
        chosen("hard", threshold=0.95)


@pytest.mark.parametrize("rule", ["hard", "random", "random_hard", "erased", "reviewed"])
def test_no_class_has_more_photos_than_its_limit(rule):
    both = ranked([*FOUND, *(Candidate(f"q{n}", f"q{n}.jpg", (0.1, n / 10)) for n in range(5, 10))])
    settings = SelectionSettings(rule=rule, limit_per_class=2)
    names = choose(both, settings, 0, {c.id for c in both})
    best = {c.id: c.best for c in both}
    assert sorted(best[name] for name in names) == [0, 0, 1, 1]
    if rule == "hard":
        assert names == ["p9", "q9", "p8", "q8"]
    without = choose(both, SelectionSettings(rule=rule), 0, {c.id for c in both})
    assert names == [n for n in without if n in names], "in the order that the rule has without the limit"
    assert len(choose(both, SelectionSettings(rule=rule, limit_per_class=2, limit=3), 0, {c.id for c in both})) == 3


def test_random_subsets_are_keyed_and_nested():
    some = chosen("random", limit=4)
    assert len(some) == 4 and some == chosen("random", limit=4)
    assert some == chosen("random", limit=7)[:4]
    assert some != chosen("random", limit=4, draw=1) and some != chosen("random", limit=4, seed=1)
    fewer = choose(FOUND[1:], SelectionSettings(rule="random"), 0)
    assert fewer == [name for name in chosen("random") if name != "p9"], "another photo moves no other"


@pytest.mark.parametrize(
    "text",
    [
        "id,keep\np1,1\np2,0\np3,\n",
        "\ufeffkeep;rank;id\r\nYes;1;p1\r\nno;2;p2\r\n",
        "id\tkeep\np1\tTRUE\np2\tfalse\n",
        'keep,id,class\n1.0,"p1","dog, small"\n',
        "id,keep,class\np1,1,cat\n,,\n , ,\n",
    ],
)
def test_reviews_come_from_any_spreadsheet(tmp_path, text):
    (tmp_path / "r.csv").write_text(text, encoding="utf-8")
    assert read_review(tmp_path / "r.csv", {"p1", "p2", "p3"}) == {"p1"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must name the columns id and keep, found nothing"),
        ("id,rank\np1,1\n", "must name the columns id and keep, found id, rank"),
        ("id,keep\np1,1\nq,1\n", "row 3: 'q' is not the id of a candidate"),
        ("id,keep\np1,maybe\n", "row 2: keep is 'maybe'; allowed"),
        ("id,keep\np1,\n", "says yes to no photo"),
    ],
)
def test_a_wrong_review_is_explained(tmp_path, text, message):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_review(tmp_path / "r.csv", {"p1"})


def test_erased_regions_look_like_nothing():
    image = np.full((4, 6, 3), 200, np.uint8)
    maps = np.zeros((2, 4, 6))
    maps[0, :2, :3], maps[1, 3, 5], maps[1, 0, 5] = 0.6, 0.3, 0.2
    found = erased(image, maps, 0.2)
    gone = (found != 200).any(2)
    assert gone.sum() == 7 and gone[:2, :3].all() and gone[3, 5] and not gone[0, 5]
    assert np.abs(normalise(found)[:, gone]).max() < 0.01, "the mean colour"
    assert (image == 200).all()


def test_contact_sheet_is_one_file_and_escapes_names():
    picture = thumbnail(np.zeros((40, 80, 3), np.uint8), 20)
    shown = [Shown('a"<b>', "cat", 0.7, picture), Shown("c", "dog", 0.2, picture)]
    page = contact_sheet("Title & more", shown, 5, ["cat", "dog"])
    assert page.count("data:image/webp;base64,") == 2 and "http" not in page
    assert 'data-id="a&#34;&lt;b&gt;"' in page and "Title &amp; more" in page and "<b>" not in page
    assert re.findall(r'data-p="([\d.]+)"( checked)?', page) == [("0.700000", " checked"), ("0.200000", "")]
    assert "first 2 of 5 candidates" in page
    assert "candidates; the others" not in contact_sheet("Title", shown, 2, ["cat", "dog"])


class Run:
    """The two steps in a folder with six photos and an untrained classifier."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng, records = np.random.default_rng(0), []
        for number in range(6):
            path = folder / f"{number}.png"
            Image.fromarray(rng.integers(0, 60 + 35 * number, (33, 40, 3), dtype=np.uint8)).save(path)
            records.append(ImageRecord(f"a/{number}", str(path), 33, 40, ("ood",), (), digest=str(number)))
        write_table(folder / "photos.csv", ImageTable(NAMES, tuple(records)))
        torch.manual_seed(0)
        self.network = cam_network("small", 2).eval()
        write_classifier(folder / "init.pt", self.network, NAMES)

    def step(self, step: str, settings: dict) -> Path:
        return write_step(self.folder / f"{step}.json", "classifiers/wood", "w_ood", step, settings)

    def rank(self, **settings) -> list[Candidate]:
        candidates_step.run(
            config=self.step("candidates", {"long_side": None, "thumbnail": 20} | settings),
            table=self.folder / "photos.csv",
            classifier=self.folder / "init.pt",
            candidates=self.folder / "candidates.csv",
            sheet=self.folder / "candidates.html",
            execution=Execution("cpu"),
        )
        return read_candidates(self.folder / "candidates.csv", NAMES)

    def select(self, **settings) -> ImageTable:
        selection_step.run(
            config=self.step("selection", settings),
            table=self.folder / "photos.csv",
            candidates=self.folder / "candidates.csv",
            classifier=self.folder / "init.pt",
            selected=self.folder / "ood.csv",
            pictures=self.folder / "erased",
            execution=Execution("cpu"),
        )
        return read_table(self.folder / "ood.csv")


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path)


def test_ranking_writes_list_and_sheet(run):
    found = run.rank(shown=4)
    assert [c.probability for c in found] == sorted((c.probability for c in found), reverse=True)
    image = np.asarray(Image.open(run.folder / "3.png"))
    third = next(c for c in found if c.id == "a/3")
    assert third.probabilities == pytest.approx(probabilities(run.network, image, None), abs=1e-6)
    page = (run.folder / "candidates.html").read_text()
    assert re.findall('data-id="([^"]*)"', page) == [c.id for c in found[:4]]


def test_selected_photos_are_a_table_in_order_of_id(run):
    found = run.rank()
    table = run.select(rule="hard", threshold=found[2].probability)
    assert [r.id for r in table.records] == sorted(c.id for c in found[:3])
    assert table.class_names == NAMES and list((run.folder / "erased").iterdir()) == []
    assert len(run.select(rule="random", limit=2).records) == 2


def test_erased_photos_are_files_of_the_table(run):
    found = run.rank()
    run.select(rule="erased", threshold=found[1].probability)
    before = {r.id: r for r in read_table(run.folder / "photos.csv").records}
    records = read_table(run.folder / "ood.csv").records
    assert len(records) == 2
    for record in records:
        image, original = np.asarray(Image.open(record.path)), np.asarray(Image.open(before[record.id].path))
        gone = (image != original).any(2)
        assert gone.any() and (image[gone] == [124, 116, 104]).all()
        assert record.digest != before[record.id].digest and Path(record.path).parent == run.folder / "erased"
    digests = [r.digest for r in records]
    assert [r.digest for r in run.select(rule="erased", threshold=found[1].probability).records] == digests
    run.select(rule="random")
    assert list((run.folder / "erased").iterdir()) == []


def test_large_photos_are_erased_as_the_classifier_ranked_them(run, monkeypatch):
    """Maps are made at `erase_long`, four scales of it; the photo keeps its size."""
    found, sizes = run.rank(long_side=32), []

    def watched(network, image, classes, settings):
        sizes.append(image.shape)
        return cam_seed(network, image, classes, settings)

    monkeypatch.setattr(selection_step, "cam_seed", watched)
    (record,) = run.select(rule="erased", threshold=found[0].probability, erase_long=32).records
    assert sizes == [(26, 32, 3)]
    assert np.asarray(Image.open(record.path)).shape == (33, 40, 3) and record.size == (33, 40)
    run.select(rule="erased", threshold=found[0].probability, erase_long=None)
    assert sizes[1:] == [(33, 40, 3)]


def test_a_review_is_asked_for_and_used(run):
    run.rank()
    review = run.folder / "reviewed.csv"
    with pytest.raises(UserError, match=r"classifiers\.wood\.selection\.reviewed: is missing"):
        run.select(rule="reviewed")
    with pytest.raises(UserError) as stopped:
        run.select(rule="reviewed", reviewed=str(review))
    for words in ("candidates.html", "candidates.csv", f"move the saved file to {review}", "run snakemake again"):
        assert words in str(stopped.value)
    assert not (run.folder / "ood.csv").exists()
    review.write_text("id,keep\na/4,1\na/1,1\na/2,0\n")
    assert [r.id for r in run.select(rule="reviewed", reviewed=str(review)).records] == ["a/1", "a/4"]


def test_a_review_can_be_waited_for(run, monkeypatch):
    run.rank()
    review = run.folder / "reviewed.csv"
    monkeypatch.setattr(selection_step, "POLL_SECONDS", 0.02)
    with pytest.raises(UserError, match="waits for a person"):
        run.select(rule="reviewed", reviewed=str(review), wait_minutes=0.001)
    timer = threading.Timer(0.2, review.write_text, ["id,keep\na/4,1\n"])
    timer.start()
    assert [r.id for r in run.select(rule="reviewed", reviewed=str(review), wait_minutes=1.0).records] == ["a/4"]
    timer.join()


def test_nothing_to_rank(run):
    write_table(run.folder / "photos.csv", ImageTable(NAMES, ()))
    with pytest.raises(UserError, match=r"dataset\.ood: there are no photos of the role 'ood'"):
        run.rank()
