"""The keys of an `image.toml` about Jupyter and other servers, and about their users."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mlcheck.profile.schema.table import AbsolutePath, Table


class Cell(Table):
    """Code for a kernel."""

    code: str
    prints: str
    """Its whole output, without surrounding white space."""


class KernelSetup(Table):
    """A shell script in the user's home that a kernel sources, if it exists, before it starts."""

    file: Annotated[str, Field(pattern=r"^~/")]
    """Its path in the user's home."""
    variables: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], str] = {}
    """Shell variable that the script can test = the version in it ("2.7"), of which more or fewer
    parts may be given."""


class Kernelspec(Table):
    """One promised kernel."""

    argv: tuple[str, ...] | None = None
    """If omitted: not checked."""
    display_name: str | None = None
    """If omitted: not checked."""
    language: str = "python"
    """In Jupyter's words ("python", "R", "C++")."""
    metadata: dict[str, bool | int | str] = {}
    """Entries that its metadata must have."""
    ignores_programs: tuple[str, ...] = ()
    """Programs of the host that it must not start even if they come first in PATH ("python3")."""
    ignores_variables: tuple[Literal["PYTHONHOME", "PYTHONPATH"], ...] = ()
    """Variables of the host that must not affect it, whatever their value."""
    usersite: bool | None = None
    """Whether it sees the packages in the user's `~/.local`. If omitted: not checked."""
    mounts: tuple[AbsolutePath, ...] = ()
    """Directories of the host without which it need not start; --bind provides them."""
    setup: KernelSetup | None = None
    cells: dict[str, Cell] = {}
    """Name = code that it must run."""


class Kernelspecs(Table):
    """The Jupyter kernels of the image: these and no others."""

    generation: str
    """The generation that this image has."""
    generations: dict[str, dict[str, Kernelspec]]
    """Generation = its kernels, by name."""
    clean: bool = True
    """Whether the list must hide kernels of the user and those that a host adds."""


class JupyterLab(Table):
    """JupyterLab, as users start it."""

    command: str = "jupyter-lab"
    """The program, found on the image's PATH."""
    kernel: str
    """The kernel to start through its API."""
    terminals: tuple[AbsolutePath, ...] = ()
    """Shells with which it must open a terminal."""


class User(Table):
    """The user that the image runs as by default."""

    name: str
    """The name in /etc/passwd."""
    uid: int
    gid: int
    writable: tuple[AbsolutePath, ...] = ()
    """Directories in which the user and its group can change everything."""
    setgid: bool = False
    """Whether these directories are set-gid, so that new files belong to the same group."""


class Server(Table):
    """The server that the image starts by default."""

    port: int
    """The port on which it listens in the container."""
    prefix: str = "NB_PREFIX"
    """The variable that holds the path before all its URLs."""
    page: AbsolutePath = "/lab"
    """The page to which a request for the prefix alone leads."""
    title: str
    """The beginning of that page's title."""
    healthy: tuple[AbsolutePath, ...] = ()
    """Paths, without the prefix, that must answer 200."""
    healthcheck: tuple[str, ...] = ()
    """The command of HEALTHCHECK, which must succeed while the server runs: its words, or one text
    as after CMD in a Dockerfile (`check.py || exit 1`)."""


class Task(Table):
    """A small program, run in an empty directory."""

    run: Annotated[tuple[str, ...], Field(min_length=1)]
    """argv."""
    program: str = ""
    """Its standard input."""
    prints: str = ""
    """Words that it must print."""
    draws: tuple[str, ...] = ()
    """Names of PNG files that it must write into its directory."""


class Notebook(Table):
    """A notebook with one cell, executed with one of the kernels."""

    code: str
    """The cell. `{a}` and `{b}` are replaced by numbers, and it must print their product."""


class RunServer(Table):
    """A server that the image starts when it is run without a command."""

    url: str
    """A regular expression for the address that it prints for the user, with a group `token`."""
