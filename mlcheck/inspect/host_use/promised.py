"""Facts about the unpacked image on a host, as the profile promises them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from mlcheck.engines.base import HostView, OpenImage
from mlcheck.engines.sandbox import host as sandbox_host
from mlcheck.image.api import RootFS
from mlcheck.inspect.facts import Session
from mlcheck.inspect.host_use import probe
from mlcheck.inspect.host_use.facts import (
    BashOnHost,
    HostCommands,
    HostLibraries,
    HostShell,
    InsideSetup,
    ZshOnHost,
)
from mlcheck.inspect.prefix.facts import PromisedPrefix
from mlcheck.inspect.prefix.promised import filled
from mlcheck.inspect.registry import fact
from mlcheck.model.errors import NotApplicable, Untried, needed
from mlcheck.profile.catalog import Profile
from mlcheck.profile.schema.starting import OnHost

_NOT_PROMISED = "the profile promises no use on the host"


@dataclass(frozen=True, slots=True)
class Host:
    """A host that has the unpacked image, and the profile's expectations for its use there.

    Args:
        prefix: root of the image's environment.
        real: the same after all links in the image.
        outside: False if they lead there on a host too. An absolute link in an unpacked image leads
            into the host's own files.
    """

    view: HostView
    expected: OnHost
    prefix: str
    real: str
    outside: bool

    def need(self) -> None:
        """Raise Untried if the prefix is not the image's on a host."""
        if self.outside:
            raise Untried(f"on a host {self.prefix} is not the image's (see on-host-bash)")


@fact()
def host(
    session: Session,
    rootfs: RootFS,
    profile: Profile,
    prefix: PromisedPrefix | None,
    cleanup: contextlib.ExitStack,
) -> Host:
    """Set up a host that has the unpacked image."""
    path = needed(filled(prefix), _NOT_PROMISED)
    expected = needed(profile.expect.on_host, _NOT_PROMISED)
    place = Path(session.prepared.location)
    if not (place.is_absolute() and place.is_dir()):
        raise NotApplicable("only an unpacked image can be used on the host, without a container")
    why = sandbox_host.unusable()
    if why is not None:
        raise Untried(why.what, why.remedy)
    real = rootfs.resolve(path).final_path
    # The host that is set up here has none of this machine's files but its system.
    outside = os.path.realpath(f"{place}{path}") != os.path.realpath(place) + real
    view = cleanup.enter_context(sandbox_host.opened(place, path))
    return Host(view, expected, path, real, outside)


@fact()
def bash(host: Host) -> BashOnHost:
    """The setup script, sourced on the host in bash."""
    return BashOnHost(_shell(host, "bash"))


@fact()
def zsh(host: Host) -> ZshOnHost:
    """The setup script, sourced on the host in zsh."""
    return ZshOnHost(_shell(host, "zsh"))


def _shell(host: Host, name: str) -> HostShell:
    if not probe.has_shell(host.view, name):
        raise Untried(f"this machine has no {name}")
    found = probe.shell(host.view, name, host.expected.script)
    return dataclasses.replace(found, outside=host.real if host.outside else "")


@fact(runs=True)
def inside_setup(image: OpenImage, profile: Profile) -> InsideSetup:
    """Source the setup script in the image itself."""
    return probe.inside(image, needed(profile.expect.on_host, _NOT_PROMISED).script)


@fact()
def commands(host: Host) -> HostCommands:
    """Run the promised commands on the host."""
    host.need()
    return probe.commands(host.view, host.expected.script, host.expected.commands)


@fact()
def libraries(host: Host) -> HostLibraries:
    """Find the libraries that python3 and the promised programs load on the host."""
    host.need()
    expected = host.expected
    return probe.libraries(
        *(host.view, expected.script, host.prefix, host.real),
        *(expected.modules, expected.programs),
    )
