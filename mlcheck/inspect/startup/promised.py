"""Facts about a start that the profile promises: the entrypoint's program, and the banner."""

from __future__ import annotations

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.inspect import answers
from mlcheck.inspect.prefix.facts import PrefixPath
from mlcheck.inspect.registry import fact
from mlcheck.inspect.startup import probe
from mlcheck.inspect.startup.facts import Banner, EntrypointProgram
from mlcheck.inspect.system import probe as system
from mlcheck.model.errors import needed
from mlcheck.profile.catalog import Profile


@fact()
def entrypoint_program(image: OpenImage, ask: Ask, profile: Profile) -> EntrypointProgram:
    """The program that the promised entrypoint starts; one without a slash is found on PATH."""
    expected = needed(profile.expect.entrypoint, "the profile promises no entrypoint")
    path_env = answers.path_of(image.environment.env)
    found = ask(answers.on_path, image.rootfs, expected.argv[0], path_env)
    path = found or expected.argv[0]
    return EntrypointProgram(ask(system.files, image.rootfs, [path]).files[path])


@fact(runs=True)
def banner(image: OpenImage, ask: Ask, profile: Profile, prefix: PrefixPath) -> Banner:
    """Source the banner by itself, and print it in a start."""
    expected = needed(profile.expect.banner, "the profile promises no banner")
    return probe.banner(image, ask, expected.script, expected.silenced_by, prefix)
