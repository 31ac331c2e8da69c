"""The work of a release: each job is tried until it is judged, or has been tried often enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from mlcheck.model.errors import DIFFERENT, MISTAKE, NOTHING_JUDGED
from mlcheck.release.attempt import Attempt
from mlcheck.release.directory import Directory
from mlcheck.release.jobs import Job
from mlcheck.report import overview
from mlcheck.report.model import Report

TICK_S = 1.0
"""Seconds until the pool and the screen are looked after again."""

_REASON = 1000
"""Characters of a reason."""

State = Literal["waits", "runs", "judged", "not judged"]


@dataclass(frozen=True, slots=True)
class Lost:
    """An attempt without an answer.

    Args:
        reason: the cause, in words.
        again: whether another attempt may help.
    """

    reason: str
    again: bool = True


class Pool(Protocol):
    """The machines that judge."""

    def keep(self, unfinished: Sequence[Job]) -> None:
        """Have workers for these jobs: ask for those that are missing, and let idle ones go."""

    def free(self, gpu: bool) -> int:
        """Return how many jobs can be started now."""

    def start(self, job: Job, tried: Collection[str]) -> str:
        """Start a job, if possible not on the workers on which it was tried; return its id."""

    def ended(self, limit_s: float) -> Sequence[tuple[str, Attempt | Lost]]:
        """Wait until jobs end, and return their ids and answers; none after that many seconds."""

    def places(self) -> Mapping[str, str]:
        """Return the worker of each running job, by the id of the job."""


@dataclass(slots=True)
class Entry:
    """The state of one job.

    Args:
        verdict: in words, if it is judged.
        reasons: of each attempt that did not judge it.
        tried: the workers that tried it.
        place: the worker that has it now; "" if it has none yet.
        since: time of the monotonic clock at which the attempt began.
    """

    job: Job
    state: State = "waits"
    verdict: str = ""
    reasons: list[str] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    place: str = ""
    since: float = 0.0
    seconds: float = 0.0

    @property
    def reason(self) -> str:
        """Why it is not judged, in one line."""
        if not self.reasons:
            return ""
        last = self.reasons[-1]
        times = len(self.reasons)
        return last if times == 1 else f"tried {times} times; the last time: {last}"


class Screen(Protocol):
    """A view of the work."""

    def changed(self, entry: Entry) -> None:
        """Show that a job has another state."""

    def tick(self, entries: Sequence[Entry]) -> None:
        """Show where the work stands."""


class Work:
    """The jobs of a release that are not judged yet, and those that are.

    Args:
        entries: in the order in which they are to start.
        retries: further attempts at a job.
        wait_limit_s: seconds without any worker after which the jobs that want one are given up.
        judged: called with each job that is judged, and the seconds that it took.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        pool: Pool,
        directory: Directory,
        screen: Screen,
        *,
        retries: int,
        wait_limit_s: float,
        judged: Callable[[Job, float], None] = lambda job, seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.entries = entries
        self._pool, self._directory, self._screen = pool, directory, screen
        self._retries, self._wait_limit_s = retries, wait_limit_s
        self._judged, self._clock = judged, clock
        self._running: dict[str, Entry] = {}

    def run(self) -> None:
        """Work until every job is judged or given up."""
        since = {False: self._clock(), True: self._clock()}
        while unfinished := [one for one in self.entries if one.state in ("waits", "runs")]:
            self._pool.keep([entry.job for entry in unfinished])
            free = {gpu: self._pool.free(gpu) for gpu in since}
            for gpu, count in free.items():
                if count or any(one.job.gpu == gpu for one in self._running.values()):
                    since[gpu] = self._clock()
            for entry in unfinished:
                if entry.state == "waits" and free[entry.job.gpu]:
                    self._start(entry)
                    free = {gpu: self._pool.free(gpu) for gpu in since}
            for gpu, started in since.items():
                if self._clock() - started > self._wait_limit_s:
                    for entry in unfinished:
                        if entry.state == "waits" and entry.job.gpu == gpu:
                            self._give_up(entry, self._no_worker(gpu))
            for id_, answer in self._pool.ended(TICK_S):
                if (found := self._running.pop(id_, None)) is not None:
                    self._take(found, answer)
            places = self._pool.places()
            for id_, running in self._running.items():
                running.place = places.get(id_, running.place)
            self._screen.tick(self.entries)

    def _no_worker(self, gpu: bool) -> str:
        kind = "worker with a GPU" if gpu else "worker"
        return f"no {kind} came within {self._wait_limit_s:g} s (--wait-limit)"

    def _start(self, entry: Entry) -> None:
        entry.state, entry.place, entry.since = "runs", "", self._clock()
        self._running[self._pool.start(entry.job, entry.tried)] = entry
        self._screen.changed(entry)

    def _take(self, entry: Entry, answer: Attempt | Lost) -> None:
        if isinstance(answer, Attempt):
            entry.place = answer.place or entry.place
        if entry.place:
            entry.tried.append(entry.place)
        entry.seconds = self._clock() - entry.since
        report = None
        if isinstance(answer, Attempt) and answer.report is not None:
            report = self._directory.keep(entry.job, answer.report)
        reason, again = _why_not(answer, report)
        code = report.exit_code if report is not None else None
        where = answer.machine if isinstance(answer, Attempt) else entry.place
        self._directory.note(
            entry.job, machine=where, seconds=round(entry.seconds, 1), exit_code=code, why=reason
        )
        if not reason:
            assert report is not None
            entry.state, entry.verdict = "judged", verdict(report)
            self._judged(entry.job, report.seconds)
            self._screen.changed(entry)
            return
        entry.reasons.append(reason)
        if again and len(entry.reasons) <= self._retries:
            entry.state = "waits"
            self._screen.changed(entry)
        else:
            self._give_up(entry)

    def _give_up(self, entry: Entry, reason: str = "") -> None:
        if reason:
            entry.reasons.append(reason)
        entry.state = "not judged"
        self._screen.changed(entry)


def verdict(report: Report) -> str:
    """Return the verdict on the image of a report of one job."""
    found = overview.images(report)
    return found[0].verdict[0] if found else "NOTHING WAS CHECKED"


def is_judged(report: Report) -> bool:
    """Return whether a report is an answer, and not an engine's or a machine's trouble, nor that
    of a run that was interrupted."""
    whole = report.exit_code in (0, DIFFERENT, NOTHING_JUDGED)
    return whole and not report.counts.get("error")


def _why_not(answer: Attempt | Lost, report: Report | None) -> tuple[str, bool]:
    """Return why an answer judges nothing ("" if it does), and whether another try may help."""
    if isinstance(answer, Lost):
        return _short(answer.reason), answer.again
    on = f"on {answer.machine}"
    if answer.ended:
        return f"{answer.ended}, {on}", True
    if report is not None:
        if is_judged(report):
            return "", False
        errors = [one.message or one.test for one in report.results if one.outcome == "error"]
        unknown = f"the run ended with exit code {report.exit_code} before it was done"
        first = errors[0] if errors else unknown
        return _short(f"{first.splitlines()[0]} ({on})"), True
    said = answer.tail.strip() or "it said nothing"
    if answer.exit_code < 0:
        return _short(f"killed by signal {-answer.exit_code} {on}: {said}"), True
    return _short(f"{said} ({on}, exit code {answer.exit_code})"), answer.exit_code != MISTAKE


def _short(text: str) -> str:
    """Keep the end of a text, where a program says why it ended."""
    text = text.strip()
    return text if len(text) <= _REASON else f"... {text[-_REASON:]}"
