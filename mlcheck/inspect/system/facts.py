"""The operating system, the Python, the shells and the commands of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlcheck.inspect.elf.facts import ElfFiles
from mlcheck.model.command import CommandResult
from mlcheck.model.files import Problem, ResolvedFile

SHELL_ANSWER = "mlcheck-42"
"""Text that a shell prints when it has worked out the answer."""


@dataclass(frozen=True, slots=True)
class OsRelease:
    """`/etc/os-release` and the release files of Red Hat's family.

    Args:
        fields: the assignments of os-release(5), unquoted.
        release_file: first line of /etc/redhat-release or /etc/centos-release, or None.
        releases: path of each release file to its first line.
    """

    fields: Mapping[str, str]
    release_file: str | None
    problems: tuple[Problem, ...] = ()
    releases: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PythonInfo:
    """The first Python on the image's PATH.

    Args:
        executable, prefix: `sys.executable` and `sys.prefix`, as it reports them.
        version: "3.11.9".
    """

    executable: str
    prefix: str
    version: str


@dataclass(frozen=True, slots=True)
class NamedPython:
    """A Python under another of its names.

    Args:
        path: where it is on PATH.
        info: its description of itself, or None if it did not answer.
    """

    path: str
    info: PythonInfo | None
    result: CommandResult


@dataclass(frozen=True, slots=True)
class PythonProbe:
    """`python3` run on the image's PATH.

    Args:
        info: its description of itself, or None if it did not answer.
        others: `python` and `python3.X`, those of them that are on PATH.
    """

    info: PythonInfo | None
    result: CommandResult
    others: Mapping[str, NamedPython] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shell:
    """One shell started with `-c`.

    Args:
        path: as the profile names it.
        final_path: its path after all symlinks inside the image, or None if it does not exist.
        result: the answer to `-c "echo mlcheck-$((6*7))"` or the equivalent for this shell.
    """

    path: str
    final_path: str | None
    result: CommandResult | None

    @property
    def answered(self) -> bool:
        """Return whether the shell ran its command."""
        done = self.result
        return done is not None and done.stdout.strip() == SHELL_ANSWER and done.exit_code == 0


@dataclass(frozen=True, slots=True)
class Shells:
    """Some shells, each started once."""

    shells: tuple[Shell, ...]


@dataclass(frozen=True, slots=True)
class Commands:
    """Some commands, each run once: name (as in the profile) to answer."""

    answers: Mapping[str, CommandResult]


@dataclass(frozen=True, slots=True)
class Micromamba:
    """micromamba under each of the names that the profile gives it.

    Args:
        files: the file at each name, if there is one.
        elf: those of them that are ELF files.
        contents: SHA-256 of each; two names of one file need none.
    """

    files: Mapping[str, ResolvedFile]
    elf: ElfFiles
    contents: Mapping[str, str] = field(default_factory=dict)
