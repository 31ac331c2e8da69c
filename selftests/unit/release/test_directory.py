"""The directory of a release: whatever ends it, the next one goes on from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlcheck.model.errors import UsageError
from mlcheck.release.directory import Asked, Directory
from selftests.unit.release.test_work import job, report

ASKED = Asked("2026-01-01T00:00:00+00:00", ("-k=x",), (job("a"), job("b", gpu=True)), {"on": "x"})


def test_what_was_asked_for_is_read_again(tmp_path: Path) -> None:
    with Directory(tmp_path / "new/release").locked():
        Directory(tmp_path / "new/release").begin(ASKED)
    assert Directory(tmp_path / "new/release").asked() == ASKED


def test_two_releases_in_one_directory_are_refused(tmp_path: Path) -> None:
    first, second = Directory(tmp_path), Directory(tmp_path)
    with first.locked():
        with pytest.raises(UsageError, match=r"at work in it \(.*, process \d+\)"), second.locked():
            pass
        first.begin(ASKED)
    with second.locked(), pytest.raises(UsageError, match="a release is in it already"):
        second.begin(ASKED)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"jobs": [{}]}', '{"jobs": 1}', "\x00"])
def test_a_damaged_state_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "release.json").write_text(content)
    with pytest.raises(UsageError, match="not what a release has written"):
        Directory(tmp_path).asked()


def test_nothing_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no release in it to go on with"):
        Directory(tmp_path).asked()


def test_half_a_report_counts_as_none(tmp_path: Path) -> None:
    directory, text = Directory(tmp_path), report("a").model_dump_json()
    assert directory.report(job("a")) is None
    (tmp_path / "a-v1-sandbox.json").write_text(text[:100])
    assert directory.report(job("a")) is None
    assert directory.keep(job("a"), text[:100]) is None
    assert directory.keep(job("a"), text) == report("a") == directory.report(job("a"))
    assert {file.name for file in tmp_path.iterdir()} == {"a-v1-sandbox.json"}


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match="Not a directory"),
        Directory(tmp_path / "file/x").locked(),
    ):
        pass
