"""An image that serves: its user, its start, its server, and what its notebooks compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlcheck.facts.commands import CommandResult
from mlcheck.facts.files import File, Problem


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


@dataclass(frozen=True, slots=True)
class ClosedDirectory:
    """A directory in which a user cannot write something, itself or files in it.

    Args:
        count: how many of them.
        example: the first; the directory itself, if it is one of them.
        no_setgid: whether the example is a directory that lacks only the set-gid bit.
    """

    path: str
    count: int
    example: File
    no_setgid: bool = False


@dataclass(frozen=True, slots=True)
class Writability:
    """What a user cannot write below some directories.

    Args:
        owners: whether the files have the owners that the image gave them: where a directory was
            unpacked by an ordinary user, all are that user's.
        missing: those of the directories that are not there.
    """

    owners: bool
    looked_at: int
    closed: tuple[ClosedDirectory, ...]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Program:
    """A file that is meant to be run.

    Args:
        mode: permission bits.
        calls: the programs to which a wrapper hands its arguments on, and that are not there.
    """

    path: str
    mode: int
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs that a profile names; `problems` tells of those that could not be read.

    Args:
        no_directories: in which some should be, and that are none.
    """

    programs: tuple[Program, ...]
    problems: tuple[Problem, ...] = ()
    no_directories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file that a start script reads.

    Args:
        script: the script, with the number of the line behind it.
        path: the file.
        there: whether the image has it.
    """

    script: str
    path: str
    there: bool


@dataclass(frozen=True, slots=True)
class ReadFiles:
    """What the scripts read that start the image."""

    scripts: tuple[str, ...]
    files: tuple[ReadFile, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """What a file says at one place.

    Args:
        pattern: the path with `*` and the regular expression, as they were asked for.
        path: the file; "" when none fits.
        text: what stands there; None when nothing does.
    """

    pattern: str
    path: str
    text: str | None


@dataclass(frozen=True, slots=True)
class Agreements:
    """What files say that must say the same, by the name of what they tell."""

    said: Mapping[str, tuple[Written, ...]]


@dataclass(frozen=True, slots=True)
class Page:
    """An answer over HTTP, at the end of all redirections.

    Args:
        asked: path that was asked for.
        path: path that answered.
        status: None when there was no answer.
        title: of the HTML page, "" without one.
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
        trouble: why the image could not be looked into from the inside.
        busy: whether another program listened at the server's port already.
        error: why the server does not answer; None: it does.
        seconds: until it answered.
        uid, gid: of the user who runs it; None when that is not known.
        pages: what it answered.
        healthcheck: how the health check ended the last time; None when it turned healthy.
        installed: None when a package could be installed in the prefix, else why not.
        read_only: whether nothing at all can be written there, by the engine's doing.
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


@dataclass(frozen=True, slots=True)
class Requested:
    """The packages that were asked for by name, as `conda env export --from-history` has them."""

    names: tuple[str, ...]
    source: str
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG file that was drawn.

    Args:
        width, height: pixels.
        size: bytes of the file.
    """

    width: int
    height: int
    size: int


@dataclass(frozen=True, slots=True)
class TaskRun:
    """A small program, run in a directory of its own.

    Args:
        pictures: what it drew, by file name; a text says why it is no picture.
    """

    name: str
    result: CommandResult
    pictures: Mapping[str, Picture | str]


@dataclass(frozen=True, slots=True)
class TaskRuns:
    """All programs that the profile has."""

    runs: tuple[TaskRun, ...]


@dataclass(frozen=True, slots=True)
class NotebookRun:
    """A notebook, executed by nbconvert.

    Args:
        error: what went wrong; None: it ran.
        printed: what its cell printed.
        wanted: what it had to print.
    """

    kernel: str
    error: str | None
    printed: str
    wanted: str
    seconds: float


@dataclass(frozen=True, slots=True)
class NotebookRuns:
    """A notebook for each kernel."""

    runs: tuple[NotebookRun, ...]
