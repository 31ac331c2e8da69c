"""`mlcheck check -q`: a line for each image with its verdict, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TextIO

import pytest
from _pytest.config import create_terminal_writer

_NAME = "mlcheck-quiet"


def make_quiet(config: pytest.Config) -> None:
    """Leave out what pytest prints of each test, if the user wants less output.

    What keeps the run from its end is printed all the same.
    """
    option = config.option
    if option.verbose >= 0 or option.collectonly:
        return
    option.tbstyle, option.reportchars, option.disable_warnings = "no", "", True
    option.verbose = -2  # no count of tests
    config.pluginmanager.register(Quiet(), _NAME)


def is_quiet(config: pytest.Config) -> bool:
    """Return whether a run prints nothing but its verdicts."""
    return bool(config.pluginmanager.has_plugin(_NAME))


class Quiet:
    """Keeps pytest from printing until the verdicts are known."""

    def __init__(self) -> None:
        self._nowhere: TextIO | None = None
        self._writer: object = None
        self._config: pytest.Config | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Let pytest print to nowhere; which file it is without this, was determined before."""
        self._config = session.config
        terminal = _terminal(session.config)
        if terminal is not None:
            self._nowhere = open(os.devnull, "w")  # noqa: PTH123, SIM115 - until the end
            # pytest has no public way to say this.
            self._writer = terminal._tw
            terminal._tw = create_terminal_writer(session.config, self._nowhere)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, config: pytest.Config) -> Generator[None]:
        """Print again: the verdicts come next."""
        self._end(config)
        yield

    @pytest.hookimpl(tryfirst=True)
    def pytest_internalerror(self, excrepr: object) -> None:
        """Print an error that nobody foresaw: the run has no summary then.

        pytest prints it by the same hook, after this.
        """
        if self._config is not None:
            self._end(self._config)

    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """Print again, if the run had no summary."""
        self._end(config)

    def _end(self, config: pytest.Config) -> None:
        terminal = _terminal(config)
        if terminal is not None and self._nowhere is not None:
            terminal._tw = self._writer  # type: ignore[assignment]
            self._nowhere.close()
            self._nowhere = None


def _terminal(config: pytest.Config) -> pytest.TerminalReporter | None:
    found = config.pluginmanager.get_plugin("terminalreporter")
    return found if isinstance(found, pytest.TerminalReporter) else None
