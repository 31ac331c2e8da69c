"""One attempt at a job, on the machine that judges: `mlcheck check` in a process of its own.

The report is the answer, so that the machines need no file system in common. Whatever happens to
this process, the other one ends, and so does all that it started.
"""

from __future__ import annotations

import contextlib
import os
import platform
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlcheck
from mlcheck.machine import environ, janitor
from mlcheck.model.errors import MISTAKE
from mlcheck.profile import settings

_TICK_MS = 500
"""Milliseconds between two looks at the clock."""

_GRACE_S = 20.0
"""Seconds in which an interrupted run may clean up and write its report."""

_TAIL = 4000
"""Characters of the output's end that are kept."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The answer of one attempt.

    Args:
        report: the JSON report; None if there is none.
        exit_code: of `mlcheck check`; negative: the signal that killed it.
        machine: name of the machine that judged.
        seconds: duration.
        ended: why it was ended before, in words; "" if it was not.
        tail: the last lines of its output.
        place: the worker, and its machine as the scheduler calls it; "" if it did not say.
    """

    report: str | None
    exit_code: int
    machine: str
    seconds: float
    ended: str = ""
    tail: str = ""
    place: str = ""


def judge(
    words: Sequence[str],
    limit_s: float,
    stopped: Callable[[], bool] = lambda: False,
    version: str = mlcheck.__version__,
) -> Attempt:
    """Run `mlcheck check` with these words, and return its report.

    Args:
        words: images and options, with absolute paths.
        limit_s: seconds after which the run is ended.
        stopped: asked twice a second: whether nobody wants the answer any more.
        version: mlcheck's version where the release was started.
    """
    machine = platform.node()
    if version != mlcheck.__version__:
        other = f"{machine} has mlcheck {mlcheck.__version__}, and the release is of {version}"
        return Attempt(None, MISTAKE, machine, 0.0, tail=other)
    start = time.monotonic()
    with janitor.temporary_directory("mlcheck-release-") as directory:
        # The nearest settings count: none of this machine's.
        (directory / settings.FILE_NAME).touch()
        report, output = directory / "report.json", directory / "output"
        command = [sys.executable, "-m", "mlcheck.cli", "check", *words, "-q"]
        with output.open("wb") as log:
            process = subprocess.Popen(
                [*command, f"--mlcheck-json={report}"],
                cwd=directory,
                env=environ.own(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        with janitor.promised(janitor.kill(process.pid, group=True)):
            try:
                ended = _wait(process, start + limit_s, limit_s, stopped)
            finally:
                _end(process)
        told = _text(report) if not ended else None
        seconds = round(time.monotonic() - start, 3)
        tail = (_text(output) or "")[-_TAIL:]
        return Attempt(told, process.returncode, machine, seconds, ended, tail)


def _wait(
    process: subprocess.Popen[bytes],
    deadline: float,
    limit_s: float,
    stopped: Callable[[], bool],
) -> str:
    """Wait for the end; return why the process has to be ended before, or ""."""
    poll = select.poll()
    with _pidfd(process.pid) as number:
        poll.register(number, select.POLLIN)
        while not poll.poll(_TICK_MS):
            if time.monotonic() > deadline:
                return f"not done within its limit of {limit_s:g} s (--job-limit)"
            if stopped():
                return "nobody waits for it any more"
    return ""


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    number = os.pidfd_open(pid)
    try:
        yield number
    finally:
        os.close(number)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a run, if it has not ended: as by Ctrl-C, and after a while by force."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
