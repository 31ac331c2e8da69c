"""A pytest plugin that begins with what takes longest of an image in a directory, one look at each
of its files, while pytest loads the rest of mlcheck: another process does it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from mlcheck import argv, listing
from mlcheck.errors import UsageError
from mlcheck.image import ImageRef


@pytest.hookimpl(tryfirst=True)
def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """What the options of this run are was parsed as far as pytest itself knows them."""
    config = pluginmanager.get_plugin("pytestconfig")
    if config is not None and not _reads_nothing_here(config.known_args_namespace):
        look(config.invocation_params.args, config.invocation_params.dir)


def _reads_nothing_here(options: argparse.Namespace) -> bool:
    """Whether the images of a run are not read by this process: those of pytest-xdist read them,
    each its own."""
    only_told = options.collectonly or options.help or options.version
    return bool(only_told or getattr(options, "tx", None) or getattr(options, "numprocesses", None))


def look(arguments: Sequence[str], base: Path) -> None:
    """Begin with the image of --image, if there is one, and it is a directory.

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
        listing.look_ahead(base / Path(ref.location).expanduser())
