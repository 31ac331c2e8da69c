"""A baseline: what --write-waivers writes, takes out and says."""

from __future__ import annotations

import datetime
from pathlib import Path

from mlcheck.profile.waivers import WaiversFile
from mlcheck.pytest_plugin.baseline import Baseline
from mlcheck.report.model import WaiverModel
from selftests import reports

DAY = datetime.date(2999, 12, 31)
A = reports.image("a:1")
FILES = reports.result(A, "files", "failed")


def written(file: Path, *results: object, read: bool = True) -> str:
    """What is said about a report of these results."""
    files = (WaiversFile.read(file),) if read and file.exists() else ()
    baseline = Baseline(files, file, DAY, "soon")
    report = reports.report(*results, images=(A,))  # type: ignore[arg-type]
    return "\n".join(baseline.write(report))


def test_what_fails_is_waived_once(tmp_path: Path) -> None:
    file = tmp_path / "waivers.toml"
    several = reports.result(
        A, "os", "failed", findings=(reports.finding("x[1]"), reports.finding("x[1]"))
    )
    said = written(file, FILES, several, reports.result(A, "fine"))
    assert f"2 findings are waived in {file} until 2999-12-31" in said
    found = [(one.profile, one.check, one.match) for one, _ in WaiversFile.read(file).waivers]
    assert found == [("mini", "files", "/opt/x"), ("mini", "os", "x[[]1]")]


def test_nothing_is_written_where_nothing_fails(tmp_path: Path) -> None:
    file = tmp_path / "waivers.toml"
    assert written(file, reports.result(A, "fine")) == f"{file}: nothing to waive"
    assert not file.exists()


def test_what_is_no_longer_found_is_taken_out(tmp_path: Path) -> None:
    file = tmp_path / "waivers.toml"
    written(file, FILES)
    place = f"{file}:4"
    unjudged = reports.result(A, "files", "error")
    assert "nothing to take out" in written(file, unjudged)
    said = written(file, reports.result(A, "files"))
    assert f"taken out: files /opt/x, which is no longer found ({place})" in said
    assert WaiversFile.read(file).waivers == ()


def test_a_waiver_that_is_used_stays_and_one_that_ended_is_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "waivers.toml"
    written(file, FILES)
    used = WaiverModel(source=f"{file}:4", reason="soon", until="2999-12-31", expired=False)
    waived = reports.result(
        A, "files", "waived", findings=(reports.finding(waived=True),), waivers=(used,)
    )
    assert "nothing to take out" in written(file, waived)
    ended = used.model_copy(update={"expired": True})
    failed = reports.result(A, "files", "failed", waivers=(ended,))
    assert "taken out: files /opt/x, which ended on 2999-12-31" in written(file, failed)
    assert len(WaiversFile.read(file).waivers) == 1


def test_what_cannot_be_waived_is_said(tmp_path: Path) -> None:
    file = tmp_path / "waivers.toml"
    own = reports.result(A, "own", "failed").model_copy(update={"check": None, "findings": ()})
    many = reports.result(A, "files", "failed", findings_left_out=7)
    said = written(file, own, many)
    assert "test_own[a:1@sandbox] is no rule with findings" in said
    assert "not waived: 7 more findings of files" in said
    assert "1 finding is waived" in said


def test_a_run_without_it_writes_nothing() -> None:
    nothing = Baseline((), None, DAY, "")
    assert list(nothing.write(reports.report(FILES, images=(A,)))) == []
