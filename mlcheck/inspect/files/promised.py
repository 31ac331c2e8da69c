"""The files that a profile promises, and the scripts of its prefix."""

from __future__ import annotations

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.image.api import RootFS
from mlcheck.inspect.answers import path_of
from mlcheck.inspect.files.facts import PromisedFiles, Scripts
from mlcheck.inspect.prefix.facts import PrefixPath
from mlcheck.inspect.registry import fact
from mlcheck.inspect.system import probe
from mlcheck.profile.catalog import Profile


@fact()
def promised_files(rootfs: RootFS, ask: Ask, profile: Profile) -> PromisedFiles:
    """The paths that the profile names."""
    return PromisedFiles(ask(probe.files, rootfs, list(profile.expect.files)))


@fact()
def scripts(image: OpenImage, ask: Ask, prefix: PrefixPath) -> Scripts:
    """The scripts in the prefix's bin/."""
    return ask(probe.scripts, image.rootfs, prefix, path_of(image.environment.env))
