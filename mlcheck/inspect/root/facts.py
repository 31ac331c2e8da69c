"""ROOT in an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlcheck.model.command import CommandResult
from mlcheck.model.files import Problem


@dataclass(frozen=True, slots=True)
class RootConfig:
    """The output of `root-config --libs`, and the script itself.

    Args:
        path: its path, as found on PATH, or None if it is not there.
        run: the answer of `root-config --libs`, or None if there is nothing to start.
        text: the script itself, or None if it is no readable text.
        at_home: the same answer for a user with another home, who has another login.
    """

    path: str | None
    run: CommandResult | None
    text: str | None
    problems: tuple[Problem, ...] = ()
    at_home: CommandResult | None = None


@dataclass(frozen=True, slots=True)
class PyRoot:
    """A histogram, filled and evaluated in PyROOT, and a C++ function that cling compiles.

    Args:
        answers: name to the value that ROOT computed ("mean": 3.0), or None if there is no answer.
        version: version that ROOT reports.
        error: last line of its exception, or how the process ended; None if it answered.
        illegal: True if it ended by SIGILL on a CPU that has all instructions that the image needs.
    """

    run: CommandResult
    answers: Mapping[str, float] | None
    version: str
    error: str | None
    illegal: bool = False


@dataclass(frozen=True, slots=True)
class RootProgram:
    """A small C++ program, compiled and linked with the output of root-config, and run.

    Args:
        compiler: path of the compiler, or None if there is none.
        flags: the answer of `root-config --cflags --libs`, or None if it was not run.
        build, run: answers of compiler and program, or None for a step that was not reached.
        answers: name to the value that the program computed, or None if it did not answer.
        zlib: version of its zlib, as the library reports it.
        libraries: soname to the path that the loader resolves it to, links followed inside the
            image.
        missing: sonames that the loader does not find.
        own: directory of the prefix's libraries, after all links.
        shadowed: True if LD_LIBRARY_PATH, which goes before the program's RUNPATH, names the
            directory in which the loader finds libz, while the flags name that of the prefix.
        illegal: True if one of the two ended by SIGILL on a CPU that has all instructions that the
            image needs.
    """

    compiler: str | None
    flags: CommandResult | None
    build: CommandResult | None
    run: CommandResult | None
    answers: Mapping[str, float] | None
    zlib: str
    libraries: Mapping[str, str]
    missing: tuple[str, ...] = ()
    own: str = "/opt/conda/lib"
    shadowed: bool = False
    illegal: bool = False
