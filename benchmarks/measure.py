"""Timing of commands, ratios and tables, for all benchmarks."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Setting:
    """The input of every benchmark.

    Args:
        image: root of an image with the real prefix (with `quick`, a small one) in /opt/conda.
        work: directory for a benchmark's files, removed afterwards.
        rounds: number of runs of which the median is taken.
        quick: use small sizes, which show that a benchmark works and nothing else.
    """

    image: Path
    work: Path
    rounds: int
    quick: bool


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of commands.

    Args:
        seconds: wall time.
        peak_mib: peak memory of the largest process.
        written_mib: data written to disk, sooner or later.
    """

    seconds: float
    peak_mib: float = 0.0
    written_mib: float = 0.0


@dataclass(frozen=True, slots=True)
class Table:
    """Results as they appear in docs/performance.md."""

    title: str
    about: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self, name: str) -> str:
        """Return the section with its table, headed by `python -m benchmarks NAME`."""
        about = textwrap.fill(self.about, 100, break_long_words=False, break_on_hyphens=False)
        lines = [f"## {self.title} (`python -m benchmarks {name}`)", "", about, ""]
        lines += [_line(self.columns), "|" + "---|" * len(self.columns)]
        lines += [_line(row) for row in self.rows]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines) + "\n"

    def text(self) -> str:
        """Return the table for a terminal, in columns."""
        rows = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [self.title]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  " + "  ".join(cells).rstrip())
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    output: Path | None = None,
    fine: Sequence[int] = (0,),
) -> Cost:
    """Run one command to its end and measure it.

    Args:
        env: variables to add to those of this process.
        output: file for its standard output; None discards it.
        fine: exit codes that are not failures.

    Raises:
        SystemExit: it ended with another exit code; the message has its last words.
    """
    with (
        tempfile.TemporaryFile() as errors,
        tempfile.TemporaryFile() as answer,
        (output or Path(os.devnull)).open("wb") as out,
    ):
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", _RUNNER, str(answer.fileno()), *argv],
            cwd=ROOT,
            env={**_USUAL, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            pass_fds=[answer.fileno()],
            check=True,
        )
        answer.seek(0)
        code, seconds, kibibytes, blocks = json.load(answer)
        if code not in fine:
            errors.seek(0)
            words = errors.read().decode(errors="replace")[-2000:]
            sys.exit(f"{' '.join(argv)} ended with {code}:\n{words}")
    # getrusage(2): kibibytes, and blocks of 512 bytes.
    return Cost(seconds, kibibytes / 1024, blocks * 512 / MEBIBYTE)


# If Python may not write byte code, all of mlcheck is compiled at each start.
_USUAL = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

# A process starts with the peak memory of the one it was forked from, so keep that one small.
_RUNNER = """\
import json, os, sys, time
answer = int(sys.argv[1])
os.set_inheritable(answer, False)
began = time.perf_counter()
_, status, usage = os.wait4(os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ), 0)
seconds = time.perf_counter() - began
found = [os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss, usage.ru_oublock]
os.write(answer, json.dumps(found).encode())
"""


def in_turns(rounds: int, *actions: Callable[[], Cost]) -> list[Cost]:
    """Return the median costs of each action.

    If there are several rounds, the first warms the file cache and does not count. The actions take
    turns, so that a change in the machine's load affects all of them.
    """
    if rounds > 1:
        for action in actions:
            action()
    costs = [[action() for action in actions] for _ in range(rounds)]
    return [
        Cost(
            statistics.median(cost.seconds for cost in column),
            max(cost.peak_mib for cost in column),
            statistics.median(cost.written_mib for cost in column),
        )
        for column in zip(*costs, strict=True)
    ]


def mlcheck(*arguments: str) -> list[str]:
    """Return the command `mlcheck` of this Python's environment."""
    return [str(Path(sys.executable).with_name("mlcheck")), *arguments]


def suite(*arguments: str) -> list[str]:
    """Return a command that runs the suite as a user does.

    It disables hypothesis, which only self-tests need: pytest imports it at the end of each run if
    it is installed.
    """
    off = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    return [sys.executable, "-m", "pytest", "-q", *off, *arguments]


def missing(program: str) -> bool:
    """Return whether a peer is not installed here."""
    return shutil.which(program) is None


def seconds(cost: Cost | float) -> str:
    """Format a time for people."""
    value = cost if isinstance(cost, float) else cost.seconds
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def ratio(cost: Cost, peer: Cost) -> str:
    """Say how many times as long as the peer it takes."""
    times = cost.seconds / peer.seconds
    return f"{times:.2f}" if times < 10 else f"{times:.0f}"


def amount(mib: float) -> str:
    """Format a size for people."""
    return f"{mib:.0f} MiB" if mib >= 1 else f"{mib * 1024:.0f} KiB"
