"""What an `image.toml` may say of Jupyter and other servers, and those who work there."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mlcheck.expectations.table import AbsolutePath, Table


class Cell(Table):
    """Code for a kernel."""

    code: str
    prints: str
    """All that it prints, without white space around it."""


class KernelSetup(Table):
    """A shell script of the user's that a kernel sources before it starts, if it is there."""

    file: Annotated[str, Field(pattern=r"^~/")]
    """Where it is, in the user's home."""
    variables: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], str] = {}
    """Shell variable that it can test = the version that stands there ("2.7"), in more or fewer
    parts."""


class Kernelspec(Table):
    """One promised kernel."""

    argv: tuple[str, ...] | None = None
    """Left out: not checked."""
    display_name: str | None = None
    """Left out: not checked."""
    language: str = "python"
    """In Jupyter's words ("python", "R", "C++")."""
    metadata: dict[str, bool | int | str] = {}
    """Entries that its metadata must have."""
    ignores_programs: tuple[str, ...] = ()
    """Programs of a host's that it must not start although they come first in PATH ("python3")."""
    ignores_variables: tuple[Literal["PYTHONHOME", "PYTHONPATH"], ...] = ()
    """Variables of a host's in which anything may stand."""
    usersite: bool | None = None
    """Whether it sees the packages in the user's `~/.local`. Left out: nothing is promised."""
    mounts: tuple[AbsolutePath, ...] = ()
    """Directories from outside without which it need not start; with --bind they are there."""
    setup: KernelSetup | None = None
    cells: dict[str, Cell] = {}
    """By name: code that it must run."""


class Kernelspecs(Table):
    """The Jupyter kernels of the image: exactly these."""

    generation: str
    """Which of the generations this image follows."""
    generations: dict[str, dict[str, Kernelspec]]
    """By generation, by name of the kernel."""
    clean: bool = True
    """Whether the list shows none of a user's and none that a host adds."""


class JupyterLab(Table):
    """JupyterLab, as users start it."""

    command: str = "jupyter-lab"
    """The program, found on the image's PATH."""
    kernel: str
    """The kernel that is started through its API."""
    terminals: tuple[AbsolutePath, ...] = ()
    """Shells with which it opens a terminal."""


class User(Table):
    """The user as whom the image runs, when nobody says otherwise."""

    name: str
    """Its name in /etc/passwd."""
    uid: int
    gid: int
    writable: tuple[AbsolutePath, ...] = ()
    """Directories in which it, and its group, can change everything."""
    setgid: bool = False
    """Whether the directories there are set-gid, so that new files belong to the same group."""


class Server(Table):
    """The server that the image starts by itself."""

    port: int
    """Where it listens in the container."""
    prefix: str = "NB_PREFIX"
    """The variable that names the path before all its URLs."""
    page: AbsolutePath = "/lab"
    """Where one comes who asks for the prefix alone."""
    title: str
    """What the title of that page begins with."""
    healthy: tuple[AbsolutePath, ...] = ()
    """Paths, without the prefix, that answer 200."""
    healthcheck: tuple[str, ...] = ()
    """The command of HEALTHCHECK, which must succeed while the server runs."""


class Task(Table):
    """A small program, run in an empty directory."""

    run: Annotated[tuple[str, ...], Field(min_length=1)]
    """argv."""
    program: str = ""
    """What it gets on its standard input."""
    prints: str = ""
    """Words that it must print."""
    draws: tuple[str, ...] = ()
    """Names of PNG files that it must leave in its directory."""


class Notebook(Table):
    """A notebook of one cell, executed with one of the kernels."""

    code: str
    """The cell, which must print the product of `{a}` and `{b}`; numbers are put in there."""


class RunServer(Table):
    """A server that the image starts when it is run without a command."""

    url: str
    """A regular expression for the address that it prints for the user, with a group `token`."""
