"""The work of a release, with machines that fail on purpose: they are a list of answers."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from mlcheck.release import joined
from mlcheck.release.attempt import Attempt
from mlcheck.release.directory import Directory
from mlcheck.release.jobs import Job
from mlcheck.release.work import Entry, Lost, Work
from mlcheck.report.model import Outcome, Report
from selftests import reports


def job(name: str, *, gpu: bool = False) -> Job:
    return Job(f"{name}:v1", name, "v1", f"{name}:v1", "sandbox", gpu, f"{name}-v1-sandbox")


def report(name: str, outcome: Outcome = "passed", code: int = 0) -> Report:
    image = reports.image(f"{name}:v1")
    result = reports.result(image, outcome=outcome)
    counts: dict[Outcome, int] = dict.fromkeys(
        ("passed", "failed", "error", "skipped", "waived"), 0
    )
    return Report(
        mlcheck_version="0",
        machine="n1",
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        exit_code=code,
        images=(image,),
        results=(result,),
        counts={**counts, outcome: 1},
    )


def good(name: str, outcome: Outcome = "passed", code: int = 0) -> Attempt:
    return Attempt(report(name, outcome, code).model_dump_json(), code, "n1", 1.0)


DIED = Lost("the worker w1 died")
HANGS = Attempt(None, -9, "n1", 9.0, ended="not done within its limit of 9 s (--job-limit)")
NO_ENGINE = good("a", "error", 3)


class Answers:
    """A pool that gives the answers that are written down for each image.

    Args:
        slots: how many jobs run at a time, without and with a GPU.
    """

    def __init__(
        self, answers: Mapping[str, Sequence[Attempt | Lost]], slots: tuple[int, int] = (2, 2)
    ) -> None:
        self._answers = {name: iter(ones) for name, ones in answers.items()}
        self._slots = slots
        self.started: list[tuple[str, tuple[str, ...]]] = []
        self.kept: list[int] = []
        self._running: dict[str, Job] = {}
        self._told: Iterator[int] = iter(range(10**6))

    def keep(self, unfinished: Sequence[Job]) -> None:
        self.kept.append(len(unfinished))

    def free(self, gpu: bool) -> int:
        return self._slots[gpu] - sum(one.gpu == gpu for one in self._running.values())

    def start(self, job: Job, tried: Collection[str]) -> str:
        self.started.append((job.name, tuple(tried)))
        id_ = f"{job.slug}-{next(self._told)}"
        self._running[id_] = job
        return id_

    def ended(self, limit_s: float) -> list[tuple[str, Attempt | Lost]]:
        found = [(id_, next(self._answers[one.name])) for id_, one in self._running.items()]
        self._running.clear()
        return found

    def places(self) -> Mapping[str, str]:
        return dict.fromkeys(self._running, "w1")


class Nowhere:
    """A screen that keeps the states of the jobs."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def changed(self, entry: Entry) -> None:
        self.seen.append((entry.job.name, entry.state))

    def tick(self, entries: Sequence[Entry]) -> None:
        pass


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


def work(
    directory: Directory, answers: Answers, *names: str, gpu: bool = False, retries: int = 2
) -> list[Entry]:
    entries = [Entry(job(name, gpu=gpu)) for name in names]
    clock = iter(range(10**6))
    screen = Nowhere()
    Work(
        entries,
        answers,
        directory,
        screen,
        retries=retries,
        wait_limit_s=50,
        clock=lambda: float(next(clock)),
    ).run()
    return entries


def test_each_job_is_judged_once(directory: Directory) -> None:
    pool = Answers({name: [good(name)] for name in "abc"})
    entries = work(directory, pool, "a", "b", "c")
    assert [entry.state for entry in entries] == ["judged"] * 3
    assert [name for name, _ in pool.started] == ["a", "b", "c"]
    assert pool.kept[0] == 3
    found = directory.report(entries[0].job)
    assert found == report("a")


def test_who_dies_is_tried_again(directory: Directory) -> None:
    pool = Answers({"a": [DIED, HANGS, good("a", "failed", 1)], "b": [good("b")]})
    entries = work(directory, pool, "a", "b")
    assert [entry.state for entry in entries] == ["judged"] * 2
    assert entries[0].verdict == "DOES NOT CONFORM"
    assert [name for name, _ in pool.started] == ["a", "b", "a", "a"]
    lines = [json.loads(line) for line in (directory.path / "journal.jsonl").open()]
    assert [line["why"] for line in lines if line["job"] == "a-v1-sandbox"] == [
        "the worker w1 died",
        "not done within its limit of 9 s (--job-limit), on n1",
        "",
    ]


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_at_most_so_often(directory: Directory, retries: int) -> None:
    pool = Answers({"a": [DIED] * 9, "b": [good("b")]})
    first, second = work(directory, pool, "a", "b", retries=retries)
    assert len([name for name, _ in pool.started if name == "a"]) == retries + 1
    assert (first.state, second.state) == ("not judged", "judged")
    assert "the worker w1 died" in first.reason
    whole = joined.join(
        [(one.job, directory.report(one.job), one.reason) for one in (first, second)], "2026"
    )
    assert whole.exit_code == 3
    (error,) = [one for one in whole.results if one.outcome == "error"]
    assert error.image == "a:v1@sandbox"
    assert "the worker w1 died" in (error.message or "")


def test_trouble_of_an_engine_is_tried_elsewhere_and_its_report_kept(directory: Directory) -> None:
    pool = Answers({"a": [NO_ENGINE, DIED, DIED]})
    (entry,) = work(directory, pool, "a")
    assert entry.state == "not judged"
    found = directory.report(entry.job)
    assert found is not None and found.exit_code == 3
    assert joined.join([(entry.job, found, entry.reason)], "2026").exit_code == 3


def test_an_interrupted_run_is_no_answer(directory: Directory) -> None:
    """As when a batch system ends all processes of a job: pytest ends with 2, and some rules have
    passed."""
    partly = good("a", "passed", 2)
    (entry,) = work(directory, Answers({"a": [partly, good("a")]}), "a")
    assert (entry.state, entry.verdict) == ("judged", "CONFORMS")
    (entry,) = work(directory, Answers({"a": [partly] * 3}), "a")
    assert entry.state == "not judged"
    assert "ended with exit code 2 before it was done" in entry.reason
    whole = joined.join([(entry.job, directory.report(entry.job), entry.reason)], "2026")
    assert (whole.exit_code, [one.outcome for one in whole.results]) == (3, ["error"])


def test_a_mistake_is_not_tried_again(directory: Directory) -> None:
    mistake = Attempt(None, 4, "n1", 1.0, tail="ERROR: there is no profile 'a'")
    pool = Answers({"a": [mistake]})
    (entry,) = work(directory, pool, "a")
    assert entry.state == "not judged"
    assert "there is no profile 'a'" in entry.reason


def test_what_is_no_report_is_no_answer(directory: Directory) -> None:
    cut = Attempt(report("a").model_dump_json()[:-20], 0, "n1", 1.0)
    (entry,) = work(directory, Answers({"a": [cut, good("a")]}), "a")
    assert entry.state == "judged"
    assert len(entry.reasons) == 1
    assert not list(directory.path.glob("*.part"))


def test_without_any_worker_it_ends(directory: Directory) -> None:
    pool = Answers({"a": [good("a")]}, slots=(1, 0))
    (entry,) = work(directory, pool, "a", gpu=True)
    assert entry.state == "not judged"
    assert "no worker with a GPU came within 50 s (--wait-limit)" in entry.reason


def test_images_for_gpus_do_not_block_the_others(directory: Directory) -> None:
    pool = Answers({name: [good(name)] for name in "abcd"}, slots=(1, 1))
    entries = [Entry(job(name, gpu=name in "ab")) for name in "abcd"]
    Work(entries, pool, directory, Nowhere(), retries=0, wait_limit_s=50).run()
    assert [name for name, _ in pool.started] == ["a", "c", "b", "d"]
