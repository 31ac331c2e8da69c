"""The unpacked image as a virtual environment on the host, which is a sandbox: nothing of the
image runs on the machine itself."""

from __future__ import annotations

import pytest

from mlcheck.checks import on_host
from mlcheck.facts import HostCommands, HostLibraries, HostShell, InsideSetup
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_setup_in_bash(host_bash: HostShell | str, profile: Profile, judge: Judge) -> None:
    judge(on_host.bash(host_bash, profile))


def test_setup_in_zsh(host_zsh: HostShell | str, profile: Profile, judge: Judge) -> None:
    judge(on_host.zsh(host_zsh, profile))


def test_setup_inside_a_container(
    inside_setup: InsideSetup | None, profile: Profile, judge: Judge
) -> None:
    judge(on_host.inside(inside_setup, profile))


@pytest.mark.slow
def test_programs_run(
    host_commands: HostCommands | str,
    host_libraries: HostLibraries | str,
    profile: Profile,
    judge: Judge,
) -> None:
    judge(on_host.programs(host_commands, host_libraries, profile))


@pytest.mark.slow
def test_libraries_are_the_images_own(
    host_libraries: HostLibraries | str, profile: Profile, judge: Judge
) -> None:
    judge(on_host.libraries(host_libraries, profile))
