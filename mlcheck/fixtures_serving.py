"""Fixtures of images that serve: the user, the server, and what must work for users."""

from __future__ import annotations

import os
import secrets

import pytest

from mlcheck import facts, kept
from mlcheck.checks.serving import ANY_UID
from mlcheck.checks.work import loads
from mlcheck.engines.base import OpenImage
from mlcheck.errors import UsageError
from mlcheck.probes import agreements, imports, requested, shell_scripts, started, tasks, users
from mlcheck.profile import Profile
from mlcheck.side_by_side import running_fact

PREFIX_VARIABLE = "NB_PREFIX"
"""Variable of this machine by which people choose the URL prefix."""


def url_prefix() -> str:
    """The prefix to serve under: NB_PREFIX of this machine, or one that nobody can know.

    Raises:
        UsageError: NB_PREFIX is none.
    """
    given = os.environ.get(PREFIX_VARIABLE)
    if given is None:
        return f"/notebook/mlcheck/{secrets.token_hex(4)}"
    plain = given.replace("/", "").replace("-", "").replace("_", "").replace(".", "")
    if not given.startswith("/") or not (plain.isascii() and plain.isalnum()):
        raise UsageError(
            f"{PREFIX_VARIABLE}={given} is no path of a URL.",
            f"Set it to something like {PREFIX_VARIABLE}=/notebook/username/notebookname, or unset "
            "it.",
        )
    return given.rstrip("/")


@pytest.fixture(scope="session")
def accounts(image: OpenImage, static: kept.Static) -> facts.Accounts:
    """/etc/passwd and /etc/group."""
    return static(users.accounts, image.rootfs)


@pytest.fixture(scope="session")
def user_writability(
    image: OpenImage, static: kept.Static, profile: Profile, accounts: facts.Accounts
) -> facts.Writability:
    """What the image's user cannot write."""
    expected = profile.expect.user
    if expected is None:
        return facts.Writability(owners=False, looked_at=0, closed=())
    account = accounts.accounts.get(expected.name)
    groups = account.groups if account else (expected.gid,)
    home = account.home if account else "/"
    tops = list(expected.writable)
    # By the promised number: that the account has it is another rule.
    numbers = (expected.uid, list(groups))
    return static(users.writability, image.rootfs, tops, *numbers, home, expected.setgid)


@pytest.fixture(scope="session")
def installed_programs(image: OpenImage, static: kept.Static, profile: Profile) -> facts.Programs:
    """The programs that the profile names by their paths."""
    promised = profile.expect.scripts
    patterns = list(promised.installed) if promised else []
    env = dict(image.environment.env)
    return static(shell_scripts.programs, image.rootfs, patterns, env)


@pytest.fixture(scope="session")
def start_reads(
    image: OpenImage, static: kept.Static, profile: Profile, accounts: facts.Accounts
) -> facts.ReadFiles:
    """What the scripts of ENTRYPOINT and CMD read."""
    config = image.environment
    account = accounts.accounts.get(profile.expect.user.name) if profile.expect.user else None
    home = account.home if account else "/root"
    commands = [*(config.entrypoint or ()), *(config.cmd or ())]
    return static(shell_scripts.read_files, image.rootfs, commands, dict(config.env), home)


@pytest.fixture(scope="session")
def agreed(image: OpenImage, static: kept.Static, profile: Profile) -> facts.Agreements:
    """What files say that must agree."""
    asked = {name: dict(places) for name, places in profile.expect.agreements.items()}
    return static(agreements.probe, image.rootfs, asked)


@pytest.fixture(scope="session")
def requested_packages(
    image: OpenImage, static: kept.Static, profile: Profile, prefix_or_none: str | None
) -> facts.Requested:
    """The packages that were asked for by name."""
    prefix = prefix_or_none
    if prefix is None or profile.expect.packages.requested is None:
        return facts.Requested((), "")
    return static(requested.read, image.rootfs, prefix)


@running_fact()
def requested_imports(
    image: OpenImage, profile: Profile, requested_packages: facts.Requested
) -> facts.Imports:
    """Those of them that are Python's, each imported in a fresh interpreter."""
    return imports.probe(image, list(loads(requested_packages, profile)[0].values()))


@running_fact()
def requested_libraries(
    image: OpenImage, profile: Profile, requested_packages: facts.Requested
) -> facts.Imports:
    """Those of them that are R's, each loaded in a fresh process."""
    return requested.r_libraries(image, list(loads(requested_packages, profile)[1].values()))


@running_fact()
def task_runs(image: OpenImage, profile: Profile) -> facts.TaskRuns:
    """The small programs of the profile."""
    asked = {
        name: (list(task.run), task.program, list(task.draws))
        for name, task in profile.expect.tasks.items()
    }
    return tasks.run(image, asked)


@running_fact()
def notebook_runs(image: OpenImage, profile: Profile) -> facts.NotebookRuns:
    """The notebooks of the profile."""
    codes = {name: notebook.code for name, notebook in profile.expect.notebooks.items()}
    return tasks.notebooks(image, codes)


def _started(image: OpenImage, profile: Profile, user: str | None = None) -> facts.Started:
    server, site = profile.expect.server, profile.expect.prefix
    if server is None or site is None:
        return facts.Started((), "")
    prefix = url_prefix()
    return started.server(
        image,
        f"{site}/bin/python3",
        variable=server.prefix,
        prefix=prefix,
        port=server.port,
        pages=[f"{prefix}/", *server.healthy],
        healthcheck=server.healthcheck,
        site=site,
        user=user,
    )


@running_fact()
def started_server(image: OpenImage, profile: Profile, prefix_or_none: str | None) -> facts.Started:
    """The image, started as its users start it."""
    return _started(image, profile)


@running_fact()
def started_as_anybody(
    image: OpenImage, profile: Profile, prefix_or_none: str | None
) -> facts.Started | None:
    """The same as another user; None where the engine cannot choose one."""
    expected = profile.expect.user
    if image.environment.user is None or expected is None:
        return None
    return _started(image, profile, f"{ANY_UID}:{expected.gid}")
