"""An unpacked image used as a virtual environment on the host, without a container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlcheck.facts.commands import CommandResult


@dataclass(frozen=True, slots=True)
class HostShell:
    """`setupMe-on-host.sh`, sourced in a shell of the host.

    Args:
        shell: its name ("zsh").
        image: where the image lies there.
        script: the script as it was sourced.
        code: what it returned; None when it did not come back.
        variables: those that are set afterwards.
        usable: names of variables whose value is a file that can be read, or a program.
    """

    shell: str
    image: str
    script: str
    result: CommandResult
    code: int | None
    variables: Mapping[str, str]
    usable: frozenset[str]


@dataclass(frozen=True, slots=True)
class InsideSetup:
    """The same script, sourced inside a container.

    Args:
        code: what it returned; None when it did not come back.
        output: what it printed, on both streams.
        changed: variables that it set to another value.
    """

    script: str
    result: CommandResult
    code: int | None
    output: str
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadedFiles:
    """What one program loaded.

    Args:
        subject: the program.
        paths: files, links in their names resolved away where the kernel told them.
        missing: sonames that the loader did not find.
        failed: module to error, of those that it was to import.
        error: why nothing is known; None when something is.
    """

    subject: str
    paths: tuple[str, ...]
    missing: tuple[str, ...] = ()
    failed: Mapping[str, str] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class HostCommands:
    """Commands run on the host after the script was sourced: name to answer."""

    answers: Mapping[str, CommandResult]


@dataclass(frozen=True, slots=True)
class HostLibraries:
    """What programs of the image load on a host that has a directory of the prefix's name.

    Args:
        image: where the image lies there.
        other: the directory of the host's that must not be touched ("/opt/conda").
    """

    image: str
    other: str
    python: LoadedFiles
    programs: tuple[LoadedFiles, ...]
