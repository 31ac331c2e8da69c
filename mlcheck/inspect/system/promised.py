"""Facts about the system that the profile promises: its shells, its commands and micromamba."""

from __future__ import annotations

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.image.api import RootFS
from mlcheck.inspect import digests
from mlcheck.inspect.elf import probe as elf
from mlcheck.inspect.registry import fact
from mlcheck.inspect.system import probe
from mlcheck.inspect.system.facts import Commands, Micromamba, OsRelease, Shells
from mlcheck.profile.catalog import Profile


@fact()
def os_release(rootfs: RootFS, ask: Ask) -> OsRelease:
    """Read /etc/os-release."""
    return ask(probe.os_release, rootfs)


@fact(runs=True)
def shells(image: OpenImage, ask: Ask, profile: Profile) -> Shells:
    """Start each of the promised shells once."""
    return probe.shells(image, ask, profile.expect.shells)


@fact(runs=True)
def commands(image: OpenImage, profile: Profile) -> Commands:
    """Run each of the promised commands once."""
    return probe.commands(image, profile.expect.commands)


@fact()
def micromamba(rootfs: RootFS, ask: Ask, profile: Profile) -> Micromamba:
    """Look for micromamba under each of its names."""
    expected = profile.expect.micromamba
    paths = [p for p in (expected.path, expected.link) if p] if expected else []
    there = ask(probe.files, rootfs, paths).files
    places = {(one.final.inode or one.final_path) for one in there.values() if one.final}
    contents = ask(digests.of_files, rootfs, paths) if len(places) > 1 else {}
    return Micromamba(there, ask(elf.probe_files, rootfs, paths), contents)
