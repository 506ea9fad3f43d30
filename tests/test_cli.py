"""The command line: how stages are given their files."""

import pytest

from wsss_core import cli
from wsss_core.errors import UserError


def test_a_pattern_names_the_files_of_every_shard_but_not_those_of_another_dealing(tmp_path):
    for name in ("00-of-02.h5", "01-of-02.h5", "0-of-1.h5"):
        (tmp_path / name).touch()
    named = cli.matching([tmp_path / "*-of-02.h5", tmp_path / "0-of-1.h5"])
    assert [path.name for path in named] == ["00-of-02.h5", "01-of-02.h5", "0-of-1.h5"]


def test_a_name_with_the_signs_of_a_pattern_is_itself_if_it_exists(tmp_path):
    (tmp_path / "a[1].h5").touch()
    assert cli.matching([tmp_path / "a[1].h5"]) == [tmp_path / "a[1].h5"]


def test_a_pattern_without_files_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"\*-of-02.h5: there is no such file"):
        cli.matching([tmp_path / "*-of-02.h5"])
