"""Facts about an image that serves, as its profile promises them: user, server, programs."""

from __future__ import annotations

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.image.api import RootFS
from mlcheck.inspect.prefix.facts import PromisedPrefix
from mlcheck.inspect.prefix.promised import filled
from mlcheck.inspect.registry import fact
from mlcheck.inspect.server import agreements, probe, shell_scripts, users
from mlcheck.inspect.server.facts import (
    ANY_UID,
    Accounts,
    Agreements,
    Programs,
    ReadFiles,
    Started,
    StartedAsAnybody,
    Writability,
)
from mlcheck.inspect.server.url_prefix import url_prefix
from mlcheck.model.environment import Environment, health_argv
from mlcheck.model.errors import Untried, needed
from mlcheck.profile.catalog import Profile

_NO_USER = "the profile promises no user"


@fact()
def accounts(rootfs: RootFS, ask: Ask) -> Accounts:
    """Read /etc/passwd and /etc/group."""
    return ask(users.accounts, rootfs)


@fact()
def user_writability(rootfs: RootFS, ask: Ask, profile: Profile, accounts: Accounts) -> Writability:
    """Find the directories that the image's user cannot write."""
    expected = needed(profile.expect.user, _NO_USER)
    account = accounts.accounts.get(expected.name)
    groups = account.groups if account else (expected.gid,)
    home = account.home if account else "/"
    tops = list(expected.writable)
    # By the promised number: that the account has it is another rule.
    numbers = (expected.uid, expected.gid, list(groups))
    return ask(users.writability, rootfs, tops, *numbers, home, expected.setgid)


@fact()
def installed_programs(rootfs: RootFS, config: Environment, ask: Ask, profile: Profile) -> Programs:
    """Find the programs that the profile names by their paths."""
    promised = profile.expect.scripts
    patterns = list(promised.installed) if promised else []
    return ask(shell_scripts.programs, rootfs, patterns, dict(config.env))


@fact()
def start_reads(
    rootfs: RootFS, config: Environment, ask: Ask, profile: Profile, accounts: Accounts
) -> ReadFiles:
    """Find the files that the scripts of ENTRYPOINT and CMD read."""
    account = accounts.accounts.get(profile.expect.user.name) if profile.expect.user else None
    home = account.home if account else "/root"
    commands = [*(config.entrypoint or ()), *(config.cmd or ())]
    return ask(shell_scripts.read_files, rootfs, commands, dict(config.env), home)


@fact()
def agreed(rootfs: RootFS, ask: Ask, profile: Profile) -> Agreements:
    """Read the statements of files that must agree."""
    asked = {name: dict(places) for name, places in profile.expect.agreements.items()}
    return ask(agreements.probe, rootfs, asked)


@fact(runs=True)
def started(image: OpenImage, profile: Profile, prefix: PromisedPrefix | None) -> Started:
    """Start the image as its users do."""
    return _started(image, profile, prefix, None)


@fact(runs=True)
def started_as_anybody(
    image: OpenImage, profile: Profile, prefix: PromisedPrefix | None
) -> StartedAsAnybody:
    """The image, started as a user without an account, in the group of its own user."""
    gid = needed(profile.expect.user, _NO_USER).gid
    return StartedAsAnybody(_started(image, profile, prefix, f"{ANY_UID}:{gid}"))


def _started(
    image: OpenImage, profile: Profile, prefix: PromisedPrefix | None, user: str | None
) -> Started:
    server = needed(profile.expect.server, "the profile promises no server")
    if user is not None and image.environment.user is None:
        raise Untried(
            "this engine starts every image as the user who runs it: docker and podman choose one"
        )
    site = filled(prefix)
    if site is None:
        raise Untried("the profile names no prefix, whose Python would ask the server")
    under = url_prefix()
    return probe.server(
        image,
        f"{site}/bin/python3",
        variable=server.prefix,
        prefix=under,
        port=server.port,
        pages=[f"{under}/", *server.healthy],
        healthcheck=health_argv(server.healthcheck) if server.healthcheck else (),
        site=site,
        user=user,
    )
