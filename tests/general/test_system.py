"""Operating system, Python, commands and shells."""

from __future__ import annotations

import pytest

from mlcheck.checks import system
from mlcheck.facts import Commands, OsRelease, PromisedPrefix, PythonProbe, Shells
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_os_is_as_promised(os_release: OsRelease, profile: Profile, judge: Judge) -> None:
    judge(system.os_release(os_release, profile))


def test_python_is_as_promised(
    python: PythonProbe, prefix_found: PromisedPrefix | None, profile: Profile, judge: Judge
) -> None:
    judge(system.python_version(python, prefix_found, profile))


@pytest.mark.slow
def test_commands_run(commands: Commands, profile: Profile, judge: Judge) -> None:
    judge(system.commands(commands, profile))


def test_shells_run(shells: Shells, profile: Profile, judge: Judge) -> None:
    judge(system.shells(shells, profile))
