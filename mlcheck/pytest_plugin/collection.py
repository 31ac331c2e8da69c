"""Restrict pytest's collection to the suite and the directories of --profiles, without anything
above or beside them.

pytest would walk from the root of the file system down to each directory that is not of the suite.
It would load each conftest.py on the way, and look at every neighbour: a directory that belongs to
somebody else ends the run. In a directory of --profiles it would look into every folder, even if
that is a whole project or a home.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mlcheck.inspect import rules
from mlcheck.profile.catalog import FILE_NAME, SUITE
from mlcheck.pytest_plugin.run import RUN


def conftests(directories: Sequence[str]) -> list[str]:
    """Return the places where pytest looks for a conftest.py before it knows all options.

    Args:
        directories: of --profiles. They are not returned themselves: pytest would look into each
            folder `test*` there, whoever owns it.
    """
    return [str(SUITE), *(str(Path(directory) / "conftest.py") for directory in directories)]


def add_installed(options: argparse.Namespace) -> None:
    """Add the directories of other distributions' rules to those of --profiles."""
    given = [*options.profiles, *map(str, rules.directories())]
    options.profiles = list(dict.fromkeys(given))  # a worker of xdist has them already


def places(config: pytest.Config, directories: Sequence[str]) -> list[str]:
    """Return the places of the tests: the suite and the directories of --profiles, each once."""
    own = _absolute(config, directories)
    once = dict.fromkeys(place for place in own if place.parent not in own)
    return [str(place) for place in (SUITE, *once)]


def stay_inside(config: pytest.Config, directories: Sequence[str]) -> None:
    """Keep pytest from going above the directories of --profiles, as --confcutdir does for one."""
    own = _absolute(config, directories)
    above = {top for place in own for top in place.parents}.difference(own)
    manager = config.pluginmanager
    inside = type(manager)._is_in_confcutdir
    # pytest has no public way to say this of several directories.
    manager._is_in_confcutdir = (  # type: ignore[method-assign]
        lambda path: path not in above and inside(manager, path)
    )


def _absolute(config: pytest.Config, directories: Sequence[str]) -> list[Path]:
    """Return the directories of --profiles, written as pytest does, without the suite's own."""
    base = config.invocation_params.dir
    found = (Path(os.path.abspath(base / directory)) for directory in directories)  # noqa: PTH100
    return [place for place in found if place != SUITE]


_PLACES = pytest.StashKey[list[Path]]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Set up the directories before collection; only `mlcheck check` has done so earlier."""
    add_installed(config.option)
    directories = config.getoption("--profiles")
    config.stash[_PLACES] = _absolute(config, directories)
    stay_inside(config, directories)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out folders of images that no image of this run is or extends, but for rules of the
    suite, which any profile may promise; the comparison of two images if there is none; and
    everything in a directory of --profiles that is no folder of an image."""
    if collection_path == SUITE / "parity" and not config.getoption("--compare"):
        return True
    # Not Path.is_file, which raises if the folder belongs to somebody else.
    if os.path.isfile(collection_path / FILE_NAME):  # noqa: PTH113
        if collection_path.parent == SUITE and any(collection_path.glob("test_*.py")):
            return None
        lineages = [target.profile.lineage for target in config.stash[RUN].targets]
        return None if any(collection_path.name in lineage for lineage in lineages) else True
    own = config.stash[_PLACES]
    foreign = collection_path.parent in own and collection_path not in own
    return True if foreign and os.path.isdir(collection_path) else None  # noqa: PTH112


@pytest.hookimpl(tryfirst=True)
def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect directories of --profiles, and the folders in them, which may hold anything."""
    own = any(path.is_relative_to(place) for place in parent.config.stash[_PLACES])
    if not own or path.is_relative_to(SUITE) or (path / "__init__.py").is_file():
        return None
    folder: Folder = Folder.from_parent(parent, path=path)
    return folder


class Folder(pytest.Directory):
    """A directory whose entries are left out if they belong to somebody else, or lead in a
    circle."""

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        """Collect its tests, and those of the folders in it.

        Raises:
            CollectError: this user may not read a file of tests.
        """
        config, hook = self.config, self.ihook
        for path in sorted(self.path.iterdir()):
            # Not Path's: they raise if a link leads to somebody else's files.
            directory, file = os.path.isdir(path), os.path.isfile(path)  # noqa: PTH112, PTH113
            if not (file or (directory and self._leads_on(path))):
                continue
            if hook.pytest_ignore_collect(collection_path=path, config=config):
                continue
            if directory:
                folder = hook.pytest_collect_directory(path=path, parent=self)
                yield from [] if folder is None else [folder]
            elif found := hook.pytest_collect_file(file_path=path, parent=self):
                if not os.access(path, os.R_OK):
                    raise self.CollectError(f"{path} has tests, and this user may not read it.")
                yield from found

    def _leads_on(self, folder: Path) -> bool:
        real = os.path.realpath(folder)
        circle = Path(os.path.realpath(self.path)).is_relative_to(real)
        return not circle and os.access(folder, os.R_OK | os.X_OK)
