"""Operating system, Python, commands and shells."""

from __future__ import annotations

from mlcheck.checks import system
from mlcheck.facts import OsRelease, PythonProbe, Tools
from mlcheck.plugin import Judge
from mlcheck.profile import Profile


def test_os_is_as_promised(os_release: OsRelease, profile: Profile, judge: Judge) -> None:
    judge(system.os_release(os_release, profile))


def test_python_is_as_promised(python: PythonProbe, profile: Profile, judge: Judge) -> None:
    judge(system.python_version(python, profile))


def test_commands_run(tools: Tools, profile: Profile, judge: Judge) -> None:
    judge(system.commands(tools, profile))


def test_shells_run(tools: Tools, profile: Profile, judge: Judge) -> None:
    judge(system.shells(tools, profile))
