"""The state of a release while it runs: a table on a terminal, and a line for each change
elsewhere."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TextIO

from mlcheck.release.work import Entry, State
from mlcheck.report import text

_CELL = 40
_REASON = 300


class Lines:
    """A line for each job that starts, is judged, or has to be tried again."""

    def __init__(self, stream: TextIO, total: int, done: int = 0) -> None:
        self._stream, self._total, self._done = stream, total, done

    def changed(self, entry: Entry) -> None:
        """Write a line."""
        job = entry.job
        if entry.state in ("judged", "not judged"):
            self._done += 1
        told = {
            "waits": f"waits for another try: {_first(entry)}",
            "runs": "runs",
            "judged": f"{entry.verdict} ({_span(entry.seconds)}{_on(entry)})",
            "not judged": f"NOT JUDGED: {_first(entry)}",
        }[entry.state]
        line = f"mlcheck: [{self._done}/{self._total}] {job.image} {job.engine}: {told}"
        print(text.line(line), file=self._stream, flush=True)

    def tick(self, entries: Sequence[Entry]) -> None:
        """Write nothing: nothing has changed."""


class Table:
    """A table of images and engines that is drawn over itself.

    Args:
        size: returns the columns and lines of the terminal.
    """

    def __init__(
        self,
        stream: TextIO,
        size: Callable[[], os.terminal_size],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._size, self._clock = stream, size, clock
        self._drawn = 0

    def changed(self, entry: Entry) -> None:
        """Draw nothing yet: the next tick does."""

    def tick(self, entries: Sequence[Entry]) -> None:
        """Draw the table anew."""
        size = self._size()
        lines = table(entries, self._clock(), size.columns, max(4, size.lines - 1))
        up = f"\x1b[{self._drawn}F\x1b[J" if self._drawn else ""
        self._stream.write(up + "".join(f"{line}\n" for line in lines))
        self._stream.flush()
        self._drawn = len(lines)


def table(entries: Sequence[Entry], now: float, columns: int, most: int) -> list[str]:
    """Return the lines of a table of images and engines, and below it the counts.

    Args:
        now: time of the monotonic clock.
        columns: of the terminal; longer lines are cut.
        most: lines; what runs is shown first, and what was judged last.
    """
    engines = list(dict.fromkeys(entry.job.engine for entry in entries))
    by_image: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        by_image.setdefault(entry.job.image, {})[entry.job.engine] = entry
    order: tuple[State, ...] = ("runs", "not judged", "waits", "judged")
    images = sorted(
        by_image, key=lambda name: min(order.index(one.state) for one in by_image[name].values())
    )
    shown = images if len(images) + 2 <= most else images[: most - 3]
    rows = [["", *engines]]
    for image in shown:
        found = by_image[image]
        cells = [_cell(found[name], now) if name in found else "" for name in engines]
        rows.append([_cut(image.rpartition("/")[2], _CELL), *cells])
    widths = [max(len(row[number]) for row in rows) for number in range(len(engines) + 1)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    if len(shown) < len(images):
        lines.append(f"and {len(images) - len(shown)} more images")
    counts = Counter(entry.state for entry in entries)
    lines.append(
        ", ".join(f"{counts[state]} {_COUNTED[state]}" for state in order if counts[state])
    )
    return [_cut(text.line(line), columns - 1) for line in lines]


_COUNTED = {"runs": "running", "not judged": "not judged", "waits": "waiting", "judged": "judged"}


def _cell(entry: Entry, now: float) -> str:
    if entry.state == "judged":
        return _cut(entry.verdict, _CELL)
    if entry.state == "not judged":
        return "NOT JUDGED"
    if entry.state == "waits":
        return f"waits, try {len(entry.reasons) + 1}" if entry.reasons else "waits"
    return _cut(f"{_span(now - entry.since)}{_on(entry)}", _CELL)


def _on(entry: Entry) -> str:
    return f" on {entry.place}" if entry.place else ""


def _first(entry: Entry) -> str:
    return _cut(" ".join(entry.reason.split()), _REASON)


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02} min" if minutes else f"{rest} s"


def _cut(said: str, most: int) -> str:
    return said if len(said) <= most else f"{said[: max(0, most - 3)]}..."
