"""`mlcheck check`: judge images with the suite, from anywhere."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlcheck.cli import config
from mlcheck.image import scan
from mlcheck.machine import cache_dir
from mlcheck.pytest_plugin import argv, options

_EXAMPLES = """\
examples:
  mlcheck check ml-pyroot:alma9-python311
  mlcheck check ./ml-pyroot.sif -k rpath
  mlcheck check me/notebook:v1 --profile jupyterlab-cpu --engine docker,podman
  mlcheck check me/image:v1 --profiles profiles
  mlcheck check all -n auto --junitxml junit.xml
  mlcheck check reference:ml-pyroot      a known-good image, built on the spot

All other options of pytest work too (`pytest --help`). pytest's configuration in the working
directory has no effect. A conftest.py takes effect in a directory of --profiles and in the folders
of images there, but not above it. The variable IMAGE_NAME can name images too.

exit code: 0 everything judged holds; 1 an image does not conform; 3 one could not be judged;
4 a wrong option, image or profile; 5 nothing was judged; 130 interrupted.
"""

_JSON = "--json"
"""The option that every command has. pytest's parser does not know it: other plugins may have one
of that name."""

_OF_PYTEST = (
    (["-k"], "WORDS", "only tests with matching names: -k 'rpath or libGL'"),
    (["-m"], "MARKS", "-m 'not slow': without slow tests"),
    (["-n"], "N", "N processes, or auto: images are spread over the cores"),
    (["-x"], None, "stop at the first failure"),
    (["--lf"], None, "only the tests that failed in the last run"),
    (["-q"], None, "the verdict alone, one line for each image"),
    (["-v"], None, "more output"),
    (["--junitxml"], "FILE", "write a report for CI"),
)
"""Names of an option, placeholder for its value, and help."""


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `check`, for help and completion only: pytest parses the arguments."""
    parser = commands.add_parser(
        "check",
        help="judge images: are they what their maintainers promised?",
        description="Judge images with the suite that is installed with mlcheck.",
        usage="mlcheck check IMAGE ... [OPTION ...] [PYTEST OPTION ...]",
        epilog=_EXAMPLES,
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image to judge")
    options.add(parser.add_argument_group(options.TITLE).add_argument)
    parser.add_argument(_JSON, action="store_true", help="same as --output json: on stdout")
    group = parser.add_argument_group("pytest's, often used")
    for names, metavar, told in _OF_PYTEST:
        value: dict[str, Any] = {"metavar": metavar} if metavar else {"action": "store_true"}
        group.add_argument(*names, help=told, **value)


def run(words: Sequence[str]) -> int:
    """Run pytest on the suite, and return its exit code.

    Args:
        words: images, and options of mlcheck and pytest.
    """
    words = ["--output=json" if word == _JSON else word for word in argv.joined(words)]
    _look_ahead(words)
    words = [*config.words(words), *words]
    import pytest

    from mlcheck.profile.catalog import CONFIGURATION, SUITE

    own = ["-c", str(CONFIGURATION), "--confcutdir", str(SUITE)]
    own += ["-p", "mlcheck.pytest_plugin.check_plugin"]
    cache = [] if any("no:cacheprovider" in word for word in words) else _cache()
    return int(pytest.main([*own, *cache, *words]))


_READ_NOTHING_HERE = {"--co", "--collect-only", "-h", "--help", "--version"}


def _look_ahead(words: Sequence[str]) -> None:
    """Start looking at a single image that is a directory, before pytest is imported.

    Only pytest can tell which words are images; looking at any other directory is harmless.
    """
    processes = [word for word in words if word.startswith(("-n", "--numprocesses"))]
    if processes not in ([], ["-n0"]) or not _READ_NOTHING_HERE.isdisjoint(words):
        return
    images = [word.removeprefix("--image=") for word in words]
    there = [word for word in images if not word.startswith("-") and Path(word).is_dir()]
    if len(there) == 1:
        scan.look_ahead(Path(there[0]))


def _cache() -> list[str]:
    """Put pytest's cache, which --lf uses, into mlcheck's cache, not the working directory."""
    directory = cache_dir.cache() / "pytest"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ["-p", "no:cacheprovider"]
    return ["-o", f"cache_dir={directory}"]
