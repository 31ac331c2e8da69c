"""Fixtures of what an image does at work: environments on top of it, its use on the host, ROOT."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcheck import facts, kept
from mlcheck.checks.root_runs import needed_level
from mlcheck.engines import sandbox_host
from mlcheck.engines.base import HostView, OpenImage
from mlcheck.errors import Untried
from mlcheck.probes import env_archive, newenv, on_host, root_runs
from mlcheck.profile import Profile
from mlcheck.run import RUN, Target
from mlcheck.side_by_side import running_fact


@running_fact()
def pyroot_run(image: OpenImage, profile: Profile) -> facts.PyRoot:
    """A histogram in PyROOT."""
    return root_runs.pyroot(image, needed_level(profile))


@running_fact()
def root_program(image: OpenImage, static: kept.Static, profile: Profile) -> facts.RootProgram:
    """A C++ program, compiled by what root-config says."""
    return root_runs.program(image, static, needed_level(profile))


@running_fact(apart=True)
def new_environment(image: OpenImage, profile: Profile, prefix: str) -> facts.NewEnv | None:
    """An environment made on top of the image's."""
    expected = profile.expect.new_env
    if expected is None:
        return None
    return newenv.probe(image, expected.script, expected.reuse, prefix)


@pytest.fixture(scope="session")
def environment_archive(
    image: OpenImage, static: kept.Static, profile: Profile, prefix: str
) -> facts.EnvArchive | None:
    """The archive of links from which environments are made."""
    expected = profile.expect.new_env
    if expected is None or expected.archive is None:
        return None
    return static(env_archive.probe, image.rootfs, expected.archive, prefix)


@pytest.fixture(scope="session")
def host_view(
    mlcheck_target: Target,
    request: pytest.FixtureRequest,
    profile: Profile,
    prefix_or_none: str | None,
) -> Iterator[HostView | str]:
    """A host that has the unpacked image; a text says why there is none."""
    prepared = request.config.stash[RUN].prepared(mlcheck_target)
    place = Path(prepared.location)
    why = sandbox_host.unusable()
    if profile.expect.on_host is None or prefix_or_none is None:
        yield "the profile promises no use on the host"
    elif not (place.is_absolute() and place.is_dir()):
        yield "only an unpacked image can be used on the host, without a container"
    elif why is not None:
        raise Untried(why)
    else:
        with sandbox_host.opened(place, prefix_or_none) as host:
            yield host


def _host_shell(host: HostView | str, name: str, profile: Profile) -> facts.HostShell | str:
    if isinstance(host, str) or profile.expect.on_host is None:
        return str(host)
    if not on_host.has_shell(host, name):
        raise Untried(f"this machine has no {name}")
    return on_host.shell(host, name, profile.expect.on_host.script)


@pytest.fixture(scope="session")
def host_bash(host_view: HostView | str, profile: Profile) -> facts.HostShell | str:
    """The setup script, sourced on the host in bash."""
    return _host_shell(host_view, "bash", profile)


@pytest.fixture(scope="session")
def host_zsh(host_view: HostView | str, profile: Profile) -> facts.HostShell | str:
    """The setup script, sourced on the host in zsh."""
    return _host_shell(host_view, "zsh", profile)


@running_fact()
def inside_setup(image: OpenImage, profile: Profile) -> facts.InsideSetup | None:
    """The same script, sourced in the image itself."""
    expected = profile.expect.on_host
    return on_host.inside(image, expected.script) if expected else None


@pytest.fixture(scope="session")
def host_commands(host_view: HostView | str, profile: Profile) -> facts.HostCommands | str:
    """The promised commands, run on the host."""
    expected = profile.expect.on_host
    if isinstance(host_view, str) or expected is None:
        return str(host_view)
    return on_host.commands(host_view, expected.script, expected.commands)


@pytest.fixture(scope="session")
def host_libraries(
    host_view: HostView | str, profile: Profile, prefix: str
) -> facts.HostLibraries | str:
    """What python3 and the promised programs load on the host."""
    expected = profile.expect.on_host
    if isinstance(host_view, str) or expected is None:
        return str(host_view)
    return on_host.libraries(
        host_view, expected.script, prefix, expected.modules, expected.programs
    )
