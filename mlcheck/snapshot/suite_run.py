"""Run the suite on the image with a newly written profile."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from mlcheck.machine import janitor
from mlcheck.model.errors import INTERRUPTED, EngineError
from mlcheck.profile.catalog import CONFIGURATION, FILE_NAME, SUITE
from mlcheck.snapshot.revision import MARK, Judged

_UNDERSTOOD = (0, 1, 3, 5)
"""Exit codes of a run that judged everything it could."""


@dataclass(frozen=True)
class Trial:
    """Judges an image by the text of a profile.

    Args:
        image, engine: values for pytest's options.
        profile: NAME[:TAG].
        profiles: further directories of profiles, for the parent.
        options: further options for pytest.
        progress: receives progress messages.
    """

    image: str
    engine: str
    profile: str
    profiles: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    progress: Callable[[str], None] = lambda _: None

    def __call__(self, text: str, tests: Sequence[str]) -> Sequence[Judged]:
        """Run the suite with a profile of this text, and return its results.

        Args:
            tests: tests to run, named as in results; empty for all.

        Raises:
            EngineError: the suite could not be run.
        """
        with janitor.temporary_directory(MARK) as directory:
            folder = directory / self.profile.partition(":")[0]
            folder.mkdir()
            (folder / FILE_NAME).write_text(text, encoding="utf-8")
            report = directory / "report.json"
            chosen = _Chosen(frozenset(tests), self.progress)
            said = io.StringIO()
            own = [
                *("-c", str(CONFIGURATION), "--rootdir", str(SUITE.parent)),
                *("--confcutdir", str(SUITE), "-p", "mlcheck.pytest_plugin.plugin"),
                *("-p", "no:cacheprovider"),
                # Nothing from the tests is shown, and their output is not read.
                *("-q", "-s", "--image", self.image, "--engine", self.engine),
                *("--profiles", str(directory), "--profile", self.profile),
                f"--mlcheck-json={report}",
                *(word for place in self.profiles for word in ("--profiles", place)),
                *self.options,
            ]
            with contextlib.redirect_stdout(said):
                code = pytest.main([*own, str(SUITE)], plugins=[chosen])
            if code == INTERRUPTED:
                raise KeyboardInterrupt
            if code not in _UNDERSTOOD or not report.is_file():
                last = said.getvalue().strip()[-2000:]
                raise EngineError(f"The suite could not be run on {self.image}:\n{last}")
            found: list[Judged] = json.loads(report.read_text(encoding="utf-8"))["results"]
        return found


class _Chosen:
    """A pytest plugin that deselects all tests but some, and counts those that ran."""

    def __init__(self, tests: frozenset[str], progress: Callable[[str], None]) -> None:
        self._tests = tests
        self._progress = progress
        self._count = 0

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self._tests:
            items[:] = [item for item in items if item.nodeid in self._tests]
        self._count = len(items)

    def pytest_collection_finish(self) -> None:
        again = " again" if self._tests else ""
        self._progress(f"judging the image{again} by what was inferred: {self._count} tests")
