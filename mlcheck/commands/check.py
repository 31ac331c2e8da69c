"""`mlcheck check`: judge images with the suite, from anywhere."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlcheck import argv, listing, places

_EXAMPLES = """\
examples:
  mlcheck check ml-pyroot:alma9-python311
  mlcheck check ./ml-pyroot.sif -k rpath
  mlcheck check me/notebook:v1 --profile jupyterlab-cpu --engine docker,podman
  mlcheck check me/image:v1 --profiles profiles
  mlcheck check all -n auto --junitxml junit.xml
  mlcheck check reference:ml-pyroot      a known-good image, built on the spot

All other options of pytest work too (`pytest --help`). Its configuration in the directory where you
are has no effect; a conftest.py has one in a directory of --profiles and in the folders of images
there, not above it. An image may also come from the variable IMAGE_NAME.

exit code: 0 what was checked holds; 1 an image does not conform; 3 one could not be judged;
4 a wrong option, image or profile; 5 nothing was checked; 130 interrupted.
"""

_OF_PYTEST = (
    (["-k"], "WORDS", "only tests whose names match: -k 'rpath or libGL'"),
    (["-m"], "MARKS", "-m 'not slow': without the tests that take long"),
    (["-n"], "N", "N processes, or auto: images are spread over the cores"),
    (["-x"], None, "end with the first failure"),
    (["--lf"], None, "only what failed in the last run"),
    (["-q"], None, "less to read"),
    (["-v"], None, "more to read"),
    (["--junitxml"], "FILE", "write a report for CI"),
)
"""Names, what stands for the value, and the help."""


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `check`, for its help and for completion: pytest parses what is given."""
    import pytest

    from mlcheck import plugin

    parser = commands.add_parser(
        "check",
        help="judge images: are they what their maintainers promised?",
        description="Judge images with the suite that is installed with mlcheck.",
        usage="mlcheck check IMAGE ... [OPTION ...] [PYTEST OPTION ...]",
        epilog=_EXAMPLES,
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="what to judge")
    wanted = _Parser(parser)
    plugin.pytest_addoption(wanted, pytest.PytestPluginManager())  # type: ignore[arg-type]
    group = parser.add_argument_group("pytest's, often used")
    for names, metavar, told in _OF_PYTEST:
        value: dict[str, Any] = {"metavar": metavar} if metavar else {"action": "store_true"}
        group.add_argument(*names, help=told, **value)


class _Parser:
    """What pytest_addoption wants, over argparse."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser

    def getgroup(self, _name: str, description: str) -> _Group:
        """A group of options."""
        return _Group(self._parser.add_argument_group(description))


class _Group:
    def __init__(self, group: argparse._ArgumentGroup) -> None:
        self._group = group

    def addoption(self, *names: str, **how: Any) -> None:
        self._group.add_argument(*names, **how)


def run(words: Sequence[str]) -> int:
    """Run pytest on the suite; returns its exit code.

    Args:
        words: images and options, of mlcheck and of pytest.
    """
    words = list(argv.joined(words))
    _look_ahead(words)
    import pytest

    from mlcheck.profile import CONFIGURATION, SUITE

    own = ["-c", str(CONFIGURATION), "--confcutdir", str(SUITE), "-p", "mlcheck.checking"]
    return int(pytest.main([*own, *_cache(), *words]))


_READ_NOTHING_HERE = {"--co", "--collect-only", "-h", "--help", "--version"}


def _look_ahead(words: Sequence[str]) -> None:
    """Begin with the one image that is a directory, before pytest is imported. Which words are
    images is pytest's to say; one that is looked at for nothing does no harm."""
    processes = [word for word in words if word.startswith(("-n", "--numprocesses"))]
    if processes not in ([], ["-n0"]) or not _READ_NOTHING_HERE.isdisjoint(words):
        return
    images = [word.removeprefix("--image=") for word in words]
    there = [word for word in images if not word.startswith("-") and Path(word).is_dir()]
    if len(there) == 1:
        listing.look_ahead(Path(there[0]))


def _cache() -> list[str]:
    """pytest's cache, which --lf uses, is with mlcheck's own: not where the user is."""
    directory = places.cache() / "pytest"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ["-p", "no:cacheprovider"]
    return ["-o", f"cache_dir={directory}"]
