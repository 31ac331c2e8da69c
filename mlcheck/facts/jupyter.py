"""Jupyter in an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlcheck.facts.commands import CommandResult
from mlcheck.facts.files import Problem


@dataclass(frozen=True, slots=True)
class Kernelspec:
    """One kernel.json.

    Args:
        name: name of its directory.
        path: path of kernel.json.
        argv0: what argv[0] resolves to on the image's PATH inside the image; None: nothing.
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
        listed: what `jupyter kernelspec list --json` said, name to directory; None when it
            could not be run (`note` says why).
    """

    specs: tuple[Kernelspec, ...]
    searched: tuple[str, ...]
    listed: Mapping[str, str] | None
    note: str = ""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class KernelRun:
    """A kernel that was started with jupyter_client in some surroundings, and what it answered.

    Args:
        hazards: what was around it: "PATH" (programs of the host first in PATH), "PYTHONHOME",
            "PYTHONPATH" (garbage in these variables), "~/.local" (packages of a user). None: a
            plain container.
        error: why it did not start or compute, in words; None: it did.
        executable, prefix: its interpreter's `sys.executable` and `sys.prefix`.
        sees_usersite, sees_pythonpath: whether it can import what lies in `~/.local`, or in a
            directory of PYTHONPATH.
        seconds: from its start to its end.
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
        trouble: why nothing could be started at all, in words; None: it could.
    """

    runs: tuple[KernelRun, ...]
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class KernelList:
    """A list of kernels, asked for with kernels of a user and of the host present.

    Args:
        how: the variable that leads to the user's ("HOME", "XDG_DATA_HOME", ...).
        foreign: name to where it lies, of those kernels in the list that are not the image's.
        shown: how many there are in the list.
        error: why there is no list, in words; None: there is one.
    """

    how: str
    foreign: Mapping[str, str]
    shown: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class KernelLists:
    """The lists of `jupyter kernelspec list`.

    Args:
        trouble: why none could be asked for, in words; None: they could.
    """

    lists: tuple[KernelList, ...]
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class JupyterServer:
    """JupyterLab, started with a token and a base URL, and what it answered.

    Args:
        argv: how it was started.
        error: why it did not answer, in words; None: it did.
        seconds: until it answered.
        status: question to HTTP status, None for no answer: "lab" (with the token, under the base
            URL), "outside" (`/lab`, with the token), "PATH without a token",
            "PATH with a wrong token".
        base_in_page: whether the page of JupyterLab names the base URL.
        listed: its list of kernels; None: it gave none.
        kernel: the kernel that was asked for; None: none was.
        kernel_error: why that kernel did not start or compute through the API; None: it did.
        terminals: path of a shell to why no terminal with it answered; None: it did.
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


@dataclass(frozen=True, slots=True)
class Speech:
    """What programs said of themselves.

    Args:
        answers: path of a program to its answer to `--version`, or to `--help` where it failed
            at that or said nothing.
    """

    answers: Mapping[str, CommandResult]
