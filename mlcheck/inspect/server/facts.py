"""An image that serves: its user, its start, its server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NewType

from mlcheck.model.files import File, Problem

ANY_UID = 54321
"""A number that no account has."""


@dataclass(frozen=True, slots=True)
class Account:
    """A line of /etc/passwd.

    Args:
        gid: the primary group.
        groups: numbers of all groups, also of those in /etc/group.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True, slots=True)
class Accounts:
    """The accounts of an image, by name; of two lines of one name the first counts, as for libc."""

    accounts: Mapping[str, Account]
    problems: tuple[Problem, ...] = ()
    groups: tuple[str, ...] = ()
    """Names of the groups."""


@dataclass(frozen=True, slots=True)
class ClosedDirectory:
    """A directory in which a user cannot write something, itself or files in it.

    Args:
        count: number of such places.
        example: the first; the directory itself, if it is one of them.
        no_setgid: True if the example is a directory that lacks only the set-gid bit.
    """

    path: str
    count: int
    example: File
    no_setgid: bool = False


@dataclass(frozen=True, slots=True)
class Writability:
    """Directories below which a user cannot write everything.

    Args:
        owners: True if the files have the owners that the image gave them: if a directory was
            unpacked by an ordinary user, all are that user's.
        missing: those of the directories that do not exist.
    """

    owners: bool
    looked_at: int
    closed: tuple[ClosedDirectory, ...]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Program:
    """A file that should be executable.

    Args:
        mode: permission bits.
        calls: the missing programs to which a wrapper passes its arguments.
    """

    path: str
    mode: int
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs that a profile names; `problems` has those that could not be read.

    Args:
        no_directories: directories that should contain some, and that do not exist.
    """

    programs: tuple[Program, ...]
    problems: tuple[Problem, ...] = ()
    no_directories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file that a start script reads.

    Args:
        script: the script, followed by the number of the line.
        path: the file.
        there: True if the image has it.
    """

    script: str
    path: str
    there: bool


@dataclass(frozen=True, slots=True)
class ReadFiles:
    """The files that are read by the scripts that start the image."""

    scripts: tuple[str, ...]
    files: tuple[ReadFile, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """The text at one place of a file.

    Args:
        pattern: the path with `*` and the regular expression, as requested.
        path: the file, or "" if none matches.
        text: the text that matches, or None if none does.
    """

    pattern: str
    path: str
    text: str | None


@dataclass(frozen=True, slots=True)
class Agreements:
    """Statements of several files that must agree, by their subject."""

    said: Mapping[str, tuple[Written, ...]]


@dataclass(frozen=True, slots=True)
class Page:
    """An answer over HTTP, at the end of all redirections.

    Args:
        asked: requested path.
        path: path that answered.
        status: None if there was no answer.
        title: title of the HTML page, or "" if there is none.
    """

    asked: str
    path: str
    status: int | None
    title: str


@dataclass(frozen=True, slots=True)
class Started:
    """The image, started anew as its users start it, with its server.

    Args:
        argv: CMD.
        prefix: the URL prefix that the server was given.
        trouble: reason why the image could not be examined from the inside.
        busy: True if another program already listened at the server's port.
        error: reason why the server does not answer, or None if it does.
        seconds: until it answered.
        uid, gid: ids of the user who runs it, or None if they are unknown.
        pages: its answers.
        healthcheck: the last end of the health check, or None once it turned healthy.
        installed: None if a package could be installed in the prefix, otherwise the reason why not.
        read_only: True if nothing at all can be written there, because of the engine.
    """

    argv: tuple[str, ...]
    prefix: str
    trouble: str | None = None
    busy: bool = False
    error: str | None = None
    seconds: float = 0.0
    uid: int | None = None
    gid: int | None = None
    pages: tuple[Page, ...] = ()
    healthcheck: str | None = None
    installed: str | None = None
    read_only: bool = False


StartedAsAnybody = NewType("StartedAsAnybody", Started)
"""The image, started as the user ANY_UID, in the group of its own user."""
