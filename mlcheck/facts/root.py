"""ROOT in an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlcheck.facts.commands import CommandResult
from mlcheck.facts.files import Problem


@dataclass(frozen=True, slots=True)
class RootConfig:
    """`root-config --libs`: run, and read.

    Args:
        path: where root-config was found on PATH; None when it was not.
        run: the answer of `root-config --libs`; None when nothing can be started.
        text: the script itself; None when it is no readable text.
    """

    path: str | None
    run: CommandResult | None
    text: str | None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class PyRoot:
    """A histogram, filled and asked in PyROOT.

    Args:
        answers: name to what ROOT computed ("mean": 3.0); None when there is no answer.
        version: of ROOT, as it says itself.
        error: last line of what it raised, or how the process ended; None when it answered.
        illegal: whether it ended by SIGILL on a CPU that has all that the image asks for.
    """

    run: CommandResult
    answers: Mapping[str, float] | None
    version: str
    error: str | None
    illegal: bool = False


@dataclass(frozen=True, slots=True)
class RootProgram:
    """A small C++ program, compiled and linked by what root-config says, and run.

    Args:
        compiler: path of the one that was used; None when there is none.
        flags: the answer of `root-config --cflags --libs`; None when it was not asked.
        build, run: of compiler and program; None when it did not come so far.
        answers: name to what the program computed; None when it did not answer.
        zlib: version of the zlib that it got, as that says itself.
        libraries: soname to the path that the loader resolves it to, links followed inside the
            image.
        missing: sonames that the loader does not find.
        illegal: whether one of the two ended by SIGILL on a CPU that has all that the image asks.
    """

    compiler: str | None
    flags: CommandResult | None
    build: CommandResult | None
    run: CommandResult | None
    answers: Mapping[str, float] | None
    zlib: str
    libraries: Mapping[str, str]
    missing: tuple[str, ...] = ()
    illegal: bool = False
