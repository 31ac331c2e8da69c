"""What makes `mlcheck check IMAGE` of pytest: words that are no options are images, and what runs
is the suite, wherever it is installed, and the tests of --profiles.

A plugin, because only pytest's own parser knows which words are values of options, those of other
plugins too. Workers of xdist parse the same words, and load it as well.
"""

from __future__ import annotations

import os

import pytest

from mlcheck.run import IMAGE_VARIABLE

pytest_plugins = ["mlcheck.plugin"]


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before pytest looks for a conftest.py: it must not look in an image, whose code it would
    run."""
    from mlcheck import collecting  # a plugin is imported by pytest first

    found = early_config.known_args_namespace
    found.file_or_dir = collecting.conftests(found.profiles)
    collecting.stay_inside(early_config, found.profiles)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before mlcheck's plugin asks which images there are."""
    option = config.option
    option.image = [*option.file_or_dir, *option.image]
    if not option.image and not os.environ.get(IMAGE_VARIABLE):
        raise pytest.UsageError(
            "mlcheck check: no image was given.\n"
            "Name one: mlcheck check IMAGE. `mlcheck images` lists those that are published; "
            "mlcheck check reference:ml-pyroot builds a known-good one on the spot."
        )
    from mlcheck import collecting

    config.args = collecting.places(config, option.profiles)
    config.args_source = pytest.Config.ArgsSource.ARGS
    option.keepduplicates = True  # else a directory in which the suite is would take its place


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Show tests by where they are in the suite, not by the way there from this directory."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        terminal.startpath = session.config.rootpath
