"""Every benchmark runs, on tiny sizes, and its two sides agree; nothing here looks at times."""

import importlib
import subprocess
import sys
from subprocess import CalledProcessError

import pytest
import torch

import benchmarks.__main__ as command
from benchmarks import DEVICES, NAMES, SIZES, against_cpu, table, waiting
from benchmarks.measure import first_run
from benchmarks.table import BEGIN, END, Row, Side, line, put_into
from benchmarks.turns import measured, take_turns

TINY = [(name, device) for name in NAMES for device in DEVICES]


def works(name, size, device):
    return importlib.import_module(f"benchmarks.{name}").works(size, device)


@pytest.mark.parametrize(("name", "device"), TINY)
def test_both_sides_agree(name, device):
    """What a GPU would run is run here on the CPU."""
    for work in works(name, "tiny", device):
        inputs = work.prepare(torch.device("cpu"))
        baseline, ours = work.baseline(inputs), work.ours(inputs)
        assert work.difference(baseline, ours) <= work.limit, work.name
        again = work.ours(inputs)
        assert work.difference(ours, again) == 0, f"{work.name}: a second run differs"
        if work.truth:
            assert work.difference(ours, work.truth(inputs)) <= work.limit


@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_a_floor_before_anything_is_made(size):
    for name, device in TINY:
        for work in works(name, size, device):
            assert work.floor is None or max(work.floor()) > 0


def test_differences_are_noticed():
    for name in NAMES:
        for work in works(name, "tiny", "cpu"):
            answer = work.baseline(work.prepare(torch.device("cpu")))
            parts = answer if isinstance(answer, tuple) else (answer,)
            changed = tuple(1.5 * part + 1 for part in map(torch.as_tensor, parts))
            other = changed if isinstance(answer, tuple) else changed[0]
            assert work.difference(answer, other) > work.limit, work.name


def test_command_measures_prints_and_writes(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    monkeypatch.setattr(
        sys, "argv", ["benchmarks", "random_walk", "--size", "tiny", "--threads", "1", "--write", str(page)]
    )
    monkeypatch.setattr(command, "machine", lambda device: (1e11, 1e10))
    assert command.main() == 0
    printed, written = capsys.readouterr().out, page.read_text()
    assert printed.strip() in written and "old" not in written
    assert written.startswith("before\n") and written.endswith("after\n")
    assert "random walk, 12×15 cells" in printed and "from the exact answer" in printed
    if not torch.cuda.is_available():
        assert "not measured" in printed


def test_command_names_what_there_is(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "walk"])
    with pytest.raises(SystemExit):
        command.main()
    assert "there is no benchmark walk; there are random_walk" in capsys.readouterr().err


def test_memory_is_what_the_run_adds():
    held = torch.ones(2**23)
    seconds, memory, answer = first_run(lambda: (held + 1).sum(), torch.device("cpu"))
    assert 0.9 * 2**25 < memory < 1.5 * 2**25
    assert answer == 2**24 and seconds > 0


def test_sides_take_turns_and_a_long_one_runs_once():
    order = []

    def again(side, seconds):
        return lambda: order.append(side) or seconds

    assert take_turns([1.0, 1.0], [again("a", 0.7), again("b", 0.5)]) == [[0.7] * 5, [0.5] * 6]
    assert order == list("ababababab" + "b")
    assert take_turns([31.0, 0.1], [again("a", 30.0), again("b", 0.01)]) == [[31.0], [0.01] * 30]


def test_a_side_that_fails_is_an_error():
    (work,) = works("sweep", "tiny", "cpu")
    with pytest.raises(CalledProcessError):
        measured("sweep", "tiny", "cpu", 99, work, 1, 5)


def test_row_of_answers_that_differ_and_row_without_a_machine():
    sides = Side((4.0,), 2 * 10**9), Side((0.002,) * 3, 100)
    row = line(Row("w", sides, 0.5, agrees=False, floor=(1e9, 1e9)), (1e12, 1e11))
    assert row == "| w | 4 s | 2 ms | 2,000× | 2 GB | < 1 MB | **5.0e-01: the answers differ** | 1 GB, 10 ms |"
    assert line(Row("w"), None).count("not measured") == 2
    assert table.seconds(3.1e-5) == "31 µs" and table.ratio(0.613) == "0.61" and table.ratio(31.7) == "32"


def test_a_page_of_its_own(tmp_path):
    put_into(tmp_path / "new.md", "text")
    put_into(tmp_path / "new.md", "other")
    assert (tmp_path / "new.md").read_text() == f"{BEGIN}\n\nother\n{END}\n"


def test_every_path_of_a_gpu_is_checked_and_agrees_where_the_device_is_the_cpu(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["against_cpu", "--device", "cpu", "walk", "crf", "pool", "irn"])
    assert against_cpu.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "all ok" and sum(line.startswith("ok") for line in lines) > 20


def test_a_check_that_differs_is_named_and_fails(capsys):
    place = against_cpu.Place(torch.device("cpu"), quick=True)

    def section(place):
        yield against_cpu.Check("one and two", lambda: torch.ones(3), torch.full((3,), 2.0), 0.4)
        raise ValueError("cannot go on")

    assert list(against_cpu._failures(section, place)) == ["one and two", "section"]
    said = capsys.readouterr().out
    assert "BAD one and two" in said and "apart 5.0e-01 of 4e-01" in said and "cannot go on" in said


def test_an_answer_that_is_no_number_is_far_from_every_other():
    assert against_cpu.difference(torch.tensor([torch.nan]), torch.ones(1)) == torch.inf
    with pytest.raises(ValueError, match="shapes"):
        against_cpu.difference(torch.ones(2), torch.ones(3))


def test_every_way_of_waiting_is_timed_idle_and_busy():
    found = waiting.times("sweep", 0, "tiny", threads=1, busy=1, runs=2)
    assert list(found) == ["idle", "busy"]
    for runs in found.values():
        assert [len(taken) for taken in runs] == [2] * len(waiting.SETTINGS)
        assert all(second > 0 for taken in runs for second in taken)


def test_rows_of_a_gpu_need_no_pydensecrf():
    code = "import sys; sys.modules['pydensecrf'] = None; from benchmarks import jobs; jobs.works('tiny', 'cuda')"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
