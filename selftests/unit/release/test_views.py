"""What people see of a release: the table and the lines, and one report at the end."""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mlcheck.cli import main as cli
from mlcheck.release import joined, times
from mlcheck.release.table import Lines, Table, table
from mlcheck.release.work import Entry
from mlcheck.report import reading
from selftests.unit.release.test_work import job, report


def entries() -> list[Entry]:
    return [
        Entry(job("a"), "judged", "CONFORMS"),
        Entry(job("b"), "runs", place="w1 (n1)", since=10.0),
        Entry(job("c"), "waits", reasons=["x"]),
        Entry(job("d"), "not judged", reasons=["x\nover lines\x1b[31m"] * 2),
    ]


def test_the_table() -> None:
    assert table(entries(), 75.0, 80, 20) == [
        "      sandbox",
        "b:v1  1:05 min on w1 (n1)",
        "d:v1  NOT JUDGED",
        "c:v1  waits, try 2",
        "a:v1  CONFORMS",
        "1 running, 1 not judged, 1 waiting, 1 judged",
    ]


def test_a_small_terminal_shows_what_runs() -> None:
    lines = table(entries(), 75.0, 20, 5)
    assert len(lines) <= 5
    assert all(len(line) < 20 for line in lines)
    assert lines[1].startswith("b:v1")
    assert lines[3] == "and 2 more images"


def test_the_table_is_drawn_over_itself() -> None:
    stream = io.StringIO()
    screen = Table(stream, lambda: os.terminal_size((80, 24)), lambda: 75.0)
    screen.tick(entries())
    screen.tick(entries())
    assert stream.getvalue().count("\x1b[6F\x1b[J") == 1


def test_a_line_for_each_change() -> None:
    stream = io.StringIO()
    screen = Lines(stream, 4)
    for entry in entries():
        screen.changed(entry)
    assert stream.getvalue().splitlines() == [
        "mlcheck: [1/4] a:v1 sandbox: CONFORMS (0 s)",
        "mlcheck: [1/4] b:v1 sandbox: runs",
        "mlcheck: [1/4] c:v1 sandbox: waits for another try: x",
        "mlcheck: [2/4] d:v1 sandbox: NOT JUDGED: tried 2 times; the last time: x over "
        "lines\\x1b[31m",
    ]


def test_runs_that_look_alike_are_joined() -> None:
    """Two runs on one machine may begin in the same second and take as long."""
    whole = joined.join([(job("a"), report("a"), ""), (job("b"), report("b"), "")], "2026")
    assert [image.id for image in whole.images] == ["a:v1@sandbox", "b:v1@sandbox"]
    assert len(whole.runs) == 2
    assert whole.exit_code == 0


@pytest.mark.parametrize(
    ("codes", "code"), [((0, 0), 0), ((0, 1), 1), ((0, 5), 5), ((3, 5), 3), ((3, 1), 1)]
)
def test_one_exit_code(codes: tuple[int, int], code: int) -> None:
    found = [(job(name), report(name, code=one), "") for name, one in zip("ab", codes, strict=True)]
    assert joined.join(found, "2026").exit_code == code


def test_nothing_judged_at_all() -> None:
    other = replace(job("a"), image="/elsewhere/a:v1")
    two = [(job("a"), None, "why"), (other, None, "why")]
    whole = joined.join(two, "2026")
    assert whole.exit_code == 3
    assert len({image.id for image in whole.images}) == 2
    assert set(joined.written(whole)) == set(joined.FILES)


def test_what_a_merged_report_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = [
        job("a"),
        job("b"),
        replace(job("a"), engine="docker"),
        replace(job("a"), engine="auto"),
    ]
    told = {"include": [asdict(one) for one in wanted]}
    (tmp_path / "jobs.json").write_text(json.dumps(told))
    (tmp_path / "a.json").write_text(report("a").model_dump_json())
    merge = ["report", "merge", str(tmp_path / "a.json"), "-o", str(tmp_path / "all.json")]
    assert cli.main(merge) == 0
    assert cli.main([*merge, "--jobs", str(tmp_path / "jobs.json")]) == 3
    whole = reading.read(tmp_path / "all.json")
    assert {image.id: image.verdict for image in whole.images} == {
        "a:v1@sandbox": None,
        "b:v1@sandbox": "NOT JUDGED",
        "a:v1@docker": "NOT JUDGED",
    }
    assert whole.exit_code == 3
    (tmp_path / "jobs.json").write_text(json.dumps({"jobs": [asdict(job("a"))]}))
    assert cli.main([*merge, "--jobs", str(tmp_path / "jobs.json")]) == 0
    assert "no report of b:v1 on sandbox" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"jobs": []}', '{"jobs": [{}]}'])
def test_what_is_no_list_of_jobs(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "jobs.json").write_text(content)
    (tmp_path / "a.json").write_text(report("a").model_dump_json())
    words = ["report", "merge", str(tmp_path / "a.json"), "--jobs", str(tmp_path / "jobs.json")]
    assert cli.main(words) == 4
    assert "jobs.json" in capsys.readouterr().err


def test_times_are_kept_for_the_next_release(tmp_path: Path) -> None:
    assert times.known(tmp_path / "none") == {}
    times.keep({("a", "docker"): 1.5, ("b", "docker"): 2.0}, tmp_path)
    times.keep({("a", "docker"): 3.0}, tmp_path)
    assert times.known(tmp_path) == {("a", "docker"): 3.0, ("b", "docker"): 2.0}
    (tmp_path / "release-times.json").write_text("[[1]]")
    assert times.known(tmp_path) == {}
