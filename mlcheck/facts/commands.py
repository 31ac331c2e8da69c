"""Answers of commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command answered.

    Args:
        exit_code: 128+n for signal n as a shell says it; None when a limit ended it.
        stdout, stderr: decoded as UTF-8 with replacement characters.
        ended: "exited", or which limit ended it.
        seconds: wall time.
    """

    argv: tuple[str, ...]
    exit_code: int | None
    stdout: str
    stderr: str
    ended: Literal["exited", "timeout", "output-limit"]
    seconds: float


@dataclass(frozen=True, slots=True)
class Shell:
    """One shell started with `-c`.

    Args:
        path: as the profile names it.
        final_path: after all symlinks inside the image; None when there is nothing.
        result: the answer to `-c "echo mlcheck-$((6*7))"` or what fits the shell.
    """

    path: str
    final_path: str | None
    result: CommandResult | None


@dataclass(frozen=True, slots=True)
class Shells:
    """Some shells, each started once."""

    shells: tuple[Shell, ...]


@dataclass(frozen=True, slots=True)
class Commands:
    """Some commands, each run once: name (as in the profile) to answer."""

    answers: Mapping[str, CommandResult]


@dataclass(frozen=True, slots=True)
class EntrypointRuns:
    """The entrypoint started with a command behind it, as `docker run IMAGE COMMAND` does.

    Args:
        exit_code: the answer to `bash -c "exit 7"`.
        words: the answer to `bash -c "echo two words"`.
        env: the answer to `env`, one word, which even an entrypoint that tears words apart runs.
    """

    exit_code: CommandResult
    words: CommandResult
    env: CommandResult


@dataclass(frozen=True, slots=True)
class Banner:
    """The script that greets, sourced alone.

    Args:
        path: where it is.
        said: what it prints by itself; None when it is not there.
        silenced: what it prints when it is asked to be silent; None when it is not there.
        writable: whether the prefix can be written there.
    """

    path: str
    said: CommandResult | None
    silenced: CommandResult | None
    writable: bool
