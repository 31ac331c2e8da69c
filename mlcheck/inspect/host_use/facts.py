"""An unpacked image used as a virtual environment on the host, without a container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NewType

from mlcheck.model.command import CommandResult


@dataclass(frozen=True, slots=True)
class HostShell:
    """`setupMe-on-host.sh`, sourced in a shell of the host.

    Args:
        shell: its name ("zsh").
        image: path of the image on the host.
        script: the script as it was sourced.
        code: its exit status, or None if it did not return.
        variables: the variables that are set afterwards.
        usable: names of variables whose value is a file that can be read, or, for MAMBA_EXE, a
            program that tells its version.
        again_code, again: the exit status and the variables where it is sourced twice, by a
            relative path, on a host that has set LD_LIBRARY_PATH and PYTHONPATH itself.
        outside: where an absolute link makes the prefix lead out of the image, or "".
    """

    shell: str
    image: str
    script: str
    result: CommandResult
    code: int | None
    variables: Mapping[str, str]
    usable: frozenset[str]
    again_code: int | None
    again: Mapping[str, str]
    outside: str = ""


BashOnHost = NewType("BashOnHost", HostShell)
"""The setup script, sourced on the host in bash."""

ZshOnHost = NewType("ZshOnHost", HostShell)
"""The setup script, sourced on the host in zsh."""


@dataclass(frozen=True, slots=True)
class InsideSetup:
    """`setupMe-on-host.sh`, sourced inside a container.

    Args:
        code: its exit status, or None if it did not return.
        output: its output, on both streams.
        changed: variables that it set to another value.
    """

    script: str
    result: CommandResult
    code: int | None
    output: str
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadedFiles:
    """The files that one program loaded.

    Args:
        subject: the program.
        paths: files, with symlinks in their names resolved if the kernel reported them.
        missing: sonames that the loader did not find.
        failed: module to error, for those that could not be imported.
        error: reason why nothing is known, or None if something is.
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
    """The libraries that the image's programs load on a host with a directory of the prefix's name.

    Args:
        image: path of the image on the host.
        other: the host's directory that must not be touched ("/opt/conda").
        own: the image's prefix on the host, after all links: where its own libraries are.
    """

    image: str
    other: str
    python: LoadedFiles
    programs: tuple[LoadedFiles, ...]
    own: str
