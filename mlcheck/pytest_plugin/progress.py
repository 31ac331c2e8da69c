"""Display of images being made ready, and the width of the terminal."""

from __future__ import annotations

import shutil
import time

import pytest

from mlcheck.report import text

_NARROWEST = 40


def width_of(terminal: pytest.TerminalReporter) -> int | None:
    """Return the columns of a terminal; None for a file or a pipe, whose lines nobody wraps."""
    if not terminal.isatty:
        return None
    return max(shutil.get_terminal_size().columns, _NARROWEST)


class Progress:
    """Display of images being made ready: a line that changes, or, if lines cannot change, one now
    and then."""

    EVERY_S = 5.0

    def __init__(self, terminal: pytest.TerminalReporter | None) -> None:
        self._terminal = terminal
        self._next = 0.0
        self._step = ""

    def __call__(self, line: str) -> None:
        if self._terminal is None:
            return
        shown = f"mlcheck: {text.printable(line)}"
        # "pulling NAME: 1 of 7 layers" and "pulling NAME: 2 of 7 layers" are one step.
        step = " ".join(line.split()[:3])
        if self._terminal.isatty:
            if self._step not in ("", step):
                self._terminal.write_line("")
            self._terminal.rewrite(shown[: shutil.get_terminal_size().columns - 1], erase=True)
        elif step != self._step or time.monotonic() >= self._next:
            self._terminal.ensure_newline()
            self._terminal.write_line(shown)
            self._next = time.monotonic() + self.EVERY_S
        self._step = step

    def end(self) -> None:
        """Put later output on a line of its own."""
        if self._terminal is not None and self._terminal.isatty and self._step:
            self._terminal.write_line("")
