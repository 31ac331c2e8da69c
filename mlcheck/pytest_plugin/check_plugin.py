"""Plugin that makes `mlcheck check IMAGE` of pytest: words that are no options are images, and the
suite runs, wherever it is installed, and the tests of --profiles.

It is a plugin, because only pytest's own parser knows which words are values of options, also of
other plugins. Workers of xdist parse the same words, and load it as well.
"""

from __future__ import annotations

import os

import pytest

from mlcheck.pytest_plugin.run import IMAGE_VARIABLE

pytest_plugins = ["mlcheck.pytest_plugin.plugin"]


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Act before pytest looks for a conftest.py: it must not search an image, whose code it would
    run."""
    from mlcheck.pytest_plugin import collection  # a plugin is imported by pytest first

    found = early_config.known_args_namespace
    collection.add_installed(found)
    found.file_or_dir = collection.conftests(found.profiles)
    collection.stay_inside(early_config, found.profiles)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Act before mlcheck's plugin determines the images."""
    from mlcheck.pytest_plugin import collection
    from mlcheck.pytest_plugin.quiet import make_quiet

    make_quiet(config)
    option = config.option
    collection.add_installed(option)
    option.image = [*option.file_or_dir, *option.image]
    if not option.image and not os.environ.get(IMAGE_VARIABLE):
        raise pytest.UsageError(
            "mlcheck check: no image was given.\n"
            "Name one: mlcheck check IMAGE. `mlcheck images` lists those that are published; "
            "mlcheck check reference:ml-pyroot builds a known-good one on the spot."
        )
    config.args = collection.places(config, option.profiles)
    config.args_source = pytest.Config.ArgsSource.ARGS
    option.keepduplicates = True  # otherwise a directory with the suite would take its place


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Show tests by their places in the suite, not by the way there from this directory."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        terminal.startpath = session.config.rootpath
