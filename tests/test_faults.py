"""What a campaign of kills and full disks records."""

from __future__ import annotations

from tests.faults.__main__ import DISK, Record, read_records, table, write_records


def test_what_was_done_is_written_and_counted(tmp_path):
    records = [
        Record(1, "job", "SIGKILL", "classifiers train", "classifiers train"),
        Record(1, "group", "SIGINT", "group", "refinements labels, refinements masks", result="a.png: other bytes"),
        Record(2, DISK, words="40 of 100 kB: stopped, 0 logs with a traceback"),
    ]
    write_records(tmp_path / "a.csv", records)
    assert read_records(tmp_path / "a.csv") == records
    lines = table(records).splitlines()
    assert "| classifiers train | 1 | 1 |" in lines
    assert "| refinements masks | 1 | 0 |" in lines
    assert "| group | SIGINT | 1 | 1 |" in lines
    assert "| 40 of 100 kB: stopped, 0 logs with a traceback | same bytes |" in lines
