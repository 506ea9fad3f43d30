"""What many images cost before anything is computed of them: reading the data set, planning, and noticing changes.

    python -m benchmarks.scaling FOLDER --images 82783

FOLDER is made, and gets as many tiny pictures, no two alike, with tags at random, and a configuration with a
classifier, a seed and a dense CRF on them. Every command is a process of its own: its time, and the memory of the
largest process. A decoder's time is not in it: real photos take milliseconds each, these microseconds.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from wsss_core import keyed
from wsss_core.status.disk import in_bytes

CLASSES = 80
IN_FOLDER = 10_000
"""Pictures in a folder of their own."""

SIDE = 16


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds, seconds of all its processors, bytes of its largest process, its last words."""

    seconds: float
    busy: float
    memory: int
    words: str


def main() -> int:
    """Run the command line; 1 if a command failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--images", type=int, default=82_783, metavar="N")
    parser.add_argument("--shard-size", type=int, default=256, metavar="N", help="images a shard, roughly")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), metavar="N")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    began = time.monotonic()
    write_pictures(options.folder / "photos", options.images)
    print(f"{options.images} pictures written in {time.monotonic() - began:.0f} s", flush=True)
    write_configuration(options.folder / "many.yaml", options.folder / "photos", options.shard_size)
    print("| command | seconds | CPU-seconds | largest process | shards that changed |\n|---|---|---|---|---|")
    for name, words in measures(options.folder, options.images, options.cores):
        before = shards(options.folder)
        cost = measured(words, options.folder)
        if cost is None:
            return 1
        changed = len(shards(options.folder).items() - before.items())
        row = (name, f"{cost.seconds:.1f}", f"{cost.busy:.1f}", in_bytes(cost.memory), str(changed))
        print(f"| {' | '.join(row)} |", flush=True)
    return 0


def measures(folder: Path, count: int, cores: int) -> Iterator[tuple[str, Sequence[str]]]:
    """Commands one after another, each with what was changed before it."""
    run = ["snakemake", "--snakefile", str(Path(__file__).parents[1] / "Snakefile"), "--configfile", "many.yaml"]
    run += ["--quiet", "all", "--cores", str(cores)]
    yield "index, cold", [*run, "dataset"]
    yield "index again, nothing changed", [*run, "dataset"]
    yield "index forced, all known", [*run, "dataset", "--forcerun", "index"]
    yield "dry run of the whole", [*run, "--dry-run"]
    photos = folder / "photos"
    labels = (photos / "labels.csv").read_text().splitlines()
    (photos / "new.png").write_bytes(picture(count))
    (photos / "labels.csv").write_text("\n".join([*labels, "new.png,c1"]) + "\n")
    yield "one image added", [*run, "dataset"]
    (photos / "new.png").unlink()
    (photos / "labels.csv").write_text("\n".join(labels) + "\n")
    yield "one image removed", [*run, "dataset"]
    labels[1] = labels[1].partition(",")[0] + ",c0 c1 c2 c3"
    (photos / "labels.csv").write_text("\n".join(labels) + "\n")
    yield "one image re-tagged", [*run, "dataset"]


def write_pictures(folder: Path, count: int) -> None:
    """Tiny pictures in sub-folders, and ``labels.csv``."""
    rows = ["image,labels"]
    for number in range(count):
        name = f"{number // IN_FOLDER:03d}/{number:07d}.png"
        if number % IN_FOLDER == 0:
            (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(picture(number))
        first, second = (keyed.integer(0, name, word) % CLASSES for word in ("first", "second"))
        rows.append(f"{name},{' '.join(sorted({f'c{first}', f'c{second}'}))}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def picture(number: int) -> bytes:
    """A PNG of noise that only this number has."""
    noise = hashlib.shake_128(str(number).encode()).digest(3 * SIDE * SIDE)
    rows = b"".join(b"\0" + noise[start : start + 3 * SIDE] for start in range(0, len(noise), 3 * SIDE))
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows, 0)),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def write_configuration(path: Path, photos: Path, shard_size: int) -> None:
    """A run with a classifier, a seed and masks."""
    content = {
        "run": "many",
        "dataset": {
            "format": "table",
            "root": photos.name,
            "labels": f"{photos.name}/labels.csv",
            "shard_size": shard_size,
        },
        "classifiers": {"bce": {"objective": "bce", "backbone": "small"}},
        "seeds": {"cam": {"method": "cam", "classifier": "bce", "score": {"rule": "otsu"}}},
        "refinements": {"crf": {"method": "crf", "seed": "cam", "threshold": "otsu"}},
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def shards(folder: Path) -> dict[Path, bytes]:
    """The manifests that are there, with digests of their content, by which Snakemake compares them."""
    found = folder.glob("results/many/dataset/shards/*/*.json")
    return {path: hashlib.sha256(path.read_bytes()).digest() for path in found}


def measured(words: Sequence[str], folder: Path) -> Cost | None:
    """Run a command; None if it failed, after its words."""
    log = folder / "command.log"
    began = time.monotonic()
    with open(log, "wb") as handle:
        process = subprocess.Popen([sys.executable, "-m", *words], cwd=folder, stdout=handle, stderr=handle)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    text = log.read_text(errors="replace")
    if status:
        print(text[-3000:], file=sys.stderr)
        return None
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, text[-300:])


if __name__ == "__main__":
    sys.exit(main())
