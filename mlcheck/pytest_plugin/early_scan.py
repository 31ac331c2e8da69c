"""A pytest plugin that begins with the longest work on an image in a directory, one look at each of
its files, while pytest loads the rest of mlcheck: another process does it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from mlcheck.image import scan
from mlcheck.model.errors import UsageError
from mlcheck.model.image_ref import ImageRef
from mlcheck.pytest_plugin import argv


@pytest.hookimpl(tryfirst=True)
def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Begin once pytest has parsed the options of this run, as far as it knows them itself."""
    config = pluginmanager.get_plugin("pytestconfig")
    if config is not None and not _reads_nothing_here(config.known_args_namespace):
        look(config.invocation_params.args, config.invocation_params.dir)


def _reads_nothing_here(options: argparse.Namespace) -> bool:
    """Return whether this process reads no image of the run: none is read, or the processes of
    pytest-xdist read them, each its own."""
    only_told = options.collectonly or options.help or options.version
    return bool(only_told or getattr(options, "tx", None) or getattr(options, "numprocesses", None))


def look(arguments: Sequence[str], base: Path) -> None:
    """Begin with the image of --image, if there is one and it is a directory.

    Args:
        arguments: of pytest.
        base: the directory to which relative paths belong.
    """
    images = [
        word.removeprefix("--image=")
        for word in argv.joined(arguments)
        if word.startswith("--image=")
    ]
    if len(images) != 1 or "PYTEST_XDIST_WORKER" in os.environ:
        return
    try:
        ref = ImageRef.parse(images[0])
    except UsageError:
        return  # which is said when the images are chosen
    if ref.kind == "directory":
        scan.look_ahead(base / Path(ref.location).expanduser())
