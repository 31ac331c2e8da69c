"""Jupyter in an image: kernelspecs, kernels, cells, servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NewType

from mlcheck.model.command import CommandResult
from mlcheck.model.files import Problem


@dataclass(frozen=True, slots=True)
class Kernelspec:
    """One kernel.json.

    Args:
        name: name of its directory, in lower case as in Jupyter's list.
        path: path of kernel.json.
        argv0: file that argv[0] resolves to on the image's PATH inside the image, or None.
        env: variables that it sets.
    """

    name: str
    path: str
    argv: tuple[str, ...]
    display_name: str
    language: str
    metadata: Mapping[str, object]
    env: Mapping[str, str]
    argv0: str | None


@dataclass(frozen=True, slots=True)
class Kernelspecs:
    """All kernelspecs in the directories that Jupyter searches in the image.

    Args:
        searched: the directories, in Jupyter's order.
        shadowed: paths of the kernel.json that Jupyter never reads, because a directory before has
            a kernel of the same name, to the paths of those.
        listed: output of `jupyter kernelspec list --json`, name to directory, or None if it could
            not be run (`note` says why).
    """

    specs: tuple[Kernelspec, ...]
    searched: tuple[str, ...]
    listed: Mapping[str, str] | None
    note: str = ""
    problems: tuple[Problem, ...] = ()
    shadowed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KernelRun:
    """A kernel that was started with jupyter_client in some surroundings, and its answer.

    Args:
        hazards: its surroundings: "PATH" (programs of the host first in PATH), "PYTHONHOME",
            "PYTHONPATH" (garbage in these variables), "~/.local" (packages of a user). Empty for a
            plain container.
        error: reason why it did not start or compute, in words, or None if it did.
        executable, prefix: its interpreter's `sys.executable` and `sys.prefix`.
        sees_usersite, sees_pythonpath: True if it can import a module in `~/.local`, or in a
            directory of PYTHONPATH.
        seconds: duration from its start to its end.
    """

    kernel: str
    hazards: tuple[str, ...]
    error: str | None
    seconds: float
    executable: str = ""
    prefix: str = ""
    sees_usersite: bool = False
    sees_pythonpath: bool = False


@dataclass(frozen=True, slots=True)
class KernelRuns:
    """Kernels that were started.

    Args:
        trouble: reason why nothing could be started at all, in words, or None.
    """

    runs: tuple[KernelRun, ...]
    trouble: str | None = None

    @property
    def starting(self) -> frozenset[str]:
        """The names of the kernels that start in a plain container."""
        return frozenset(r.kernel for r in self.runs if not r.hazards and r.error is None)


@dataclass(frozen=True, slots=True)
class KernelList:
    """A list of kernels, made with kernels of a user and of the host present.

    Args:
        how: the variable that leads to the user's ("HOME", "XDG_DATA_HOME", ...).
        foreign: name to directory of the kernels in the list that are not the image's.
        shown: number of kernels in the list.
        error: reason why there is no list, in words, or None if there is one.
    """

    how: str
    foreign: Mapping[str, str]
    shown: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class KernelLists:
    """The lists of `jupyter kernelspec list`.

    Args:
        trouble: reason why no list could be made, in words, or None.
    """

    lists: tuple[KernelList, ...]
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class JupyterServer:
    """JupyterLab, started with a token and a base URL, and its answers.

    Args:
        argv: command that started it.
        error: reason why it did not answer, in words, or None if it did.
        seconds: time until it answered.
        status: request to HTTP status, or None for no answer: "lab" (with the token, under the base
            URL), "outside" (`/lab`, with the token), "PATH without a token", "PATH with a wrong
            token".
        base_in_page: True if the page of JupyterLab names the base URL.
        listed: its list of kernels, or None if it returned none.
        kernel: the kernel to start, or None for none.
        kernel_error: reason why that kernel did not start or compute through the API, or None if it
            did.
        terminals: path of a shell to the reason why no terminal with it answered, or None if it
            did.
        token: where its token comes from, as in `UsersServer`, or "" for a token given here.
    """

    argv: tuple[str, ...]
    error: str | None
    seconds: float = 0.0
    status: Mapping[str, int | None] = field(default_factory=dict)
    base_in_page: bool = False
    listed: KernelList | None = None
    kernel: str | None = None
    kernel_error: str | None = None
    terminals: Mapping[str, str | None] = field(default_factory=dict)
    token: str = ""

    @property
    def doors(self) -> Iterator[tuple[str, str | None, str]]:
        """Yield every request without the right token: the answer in place of a refusal, or None if
        it was refused, and what a refusal is."""
        return _doors(self.status)


@dataclass(frozen=True, slots=True)
class UsersServer:
    """JupyterLab, started as the image's user starts it: with that user's home and the image's
    variables, and without a token from outside.

    Args:
        error: reason why it did not answer, in words, or None if it did.
        token: where its token comes from: "made" (by Jupyter, for this start), "JUPYTER_TOKEN" or
            "JUPYTER_TOKEN_FILE" (a variable of the image), "a configuration", "password" (there is
            none, but a password), or "nowhere".
        status: as in `JupyterServer`.
        untried: reason why it could not be started so here, or "".
    """

    error: str | None
    token: str = ""
    status: Mapping[str, int | None] = field(default_factory=dict)
    untried: str = ""

    @property
    def doors(self) -> Iterator[tuple[str, str | None, str]]:
        """Yield every request without a token, as in `JupyterServer`."""
        return _doors(self.status)


def _doors(answers: Mapping[str, int | None]) -> Iterator[tuple[str, str | None, str]]:
    for question, status in answers.items():
        path, _, who = question.partition(" ")
        # What is switched off, such as terminals, is not there for anybody.
        if not who or (status == 404 and answers.get(path) == 404):
            continue
        # A page redirects a person to its login.
        refusals = (401, 403) if path.startswith("api/") else (302, 401, 403)
        found = None if status in refusals else in_words(status)
        yield question, found, f"HTTP {' or '.join(map(str, refusals))}"


def in_words(status: int | None) -> str:
    """Describe an HTTP status."""
    return "no answer" if status is None else f"HTTP {status}"


OF_THE_IMAGE = ("JUPYTER_TOKEN", "JUPYTER_TOKEN_FILE", "a configuration")
"""Where a token comes from that everybody has who has the image."""

RunServer = NewType("RunServer", JupyterServer)
"""The server that the image starts by itself."""


@dataclass(frozen=True, slots=True)
class Speech:
    """Programs that print their version or help.

    Args:
        answers: path of a program to its answer to `--version`, or to `--help` if it failed at that
            or printed nothing.
    """

    answers: Mapping[str, CommandResult]


@dataclass(frozen=True, slots=True)
class CellRun:
    """One cell.

    Args:
        printed: its standard output.
        error: reason why it did not run to its end, in words, or None if it did.
        aside: its standard error, and that of the kernel meanwhile.
    """

    printed: str
    error: str | None
    aside: str = ""


@dataclass(frozen=True, slots=True)
class KernelSession:
    """A kernel that was started with its setup file in the home, and its cells.

    Args:
        error: reason why it did not start, in words, or None if it did.
        setup: the variables that the setup file saw, if it was sourced into the kernel's process,
            or None if it was not.
        cells: by name.
    """

    kernel: str
    error: str | None
    setup: Mapping[str, str] | None = None
    cells: Mapping[str, CellRun] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KernelSessions:
    """Kernels that were started with their setup files."""

    sessions: tuple[KernelSession, ...]


KernelsPrefix = NewType("KernelsPrefix", str)
"""Root of the profile's environment, which should have the kernels, or None if it names none."""
