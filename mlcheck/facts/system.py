"""The operating system, the configuration and the Python of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlcheck.facts.commands import CommandResult
from mlcheck.facts.files import Problem


@dataclass(frozen=True, slots=True)
class OsRelease:
    """`/etc/os-release` and, on CentOS 7, `/etc/centos-release`.

    Args:
        fields: the assignments of os-release(5), unquoted.
        release_file: first line of /etc/redhat-release or /etc/centos-release, or None.
    """

    fields: Mapping[str, str]
    release_file: str | None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Environment:
    """What the image's configuration says about how it is started.

    Args:
        env: variables of the configuration (not of a shell).
        entrypoint, cmd: argv lists; None when the image does not tell.
        user, workdir: "" when not set; None when the image does not tell.
        exposed: ports ("8888/tcp"); None when the image does not tell.
        labels: None when the image does not tell.
        healthcheck: as HEALTHCHECK has it (("CMD", ...)), () when not set; None when the image does
            not tell.
        source: where this was read, for people ("/.singularity.d/env/10-docker2singularity.sh").
    """

    env: Mapping[str, str]
    entrypoint: tuple[str, ...] | None
    cmd: tuple[str, ...] | None
    user: str | None
    workdir: str | None
    exposed: tuple[str, ...] | None
    labels: Mapping[str, str] | None
    source: str
    problems: tuple[Problem, ...] = ()
    healthcheck: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class PythonInfo:
    """The Python that the image's PATH starts.

    Args:
        executable, prefix: `sys.executable` and `sys.prefix` as it says itself.
        version: "3.11.9".
    """

    executable: str
    prefix: str
    version: str


@dataclass(frozen=True, slots=True)
class PythonProbe:
    """`python3` run on the image's PATH; `info` is None when it did not answer."""

    info: PythonInfo | None
    result: CommandResult
