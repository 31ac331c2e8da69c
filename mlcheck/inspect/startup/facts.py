"""The start of an image: its entrypoint and its banner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NewType

from mlcheck.model.command import CommandResult
from mlcheck.model.files import File, ResolvedFile

LINE = "a line of input"
"""The standard input of such a command."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Words and input that a command behind the entrypoint received.

    Args:
        result: its answer.
        given: the words that it was started with.
        words: the words that it received, or None if it did not tell.
        line: the first line of its standard input; `LINE` was sent.
        more: what was printed after it ended.
    """

    result: CommandResult
    given: tuple[str, ...]
    words: tuple[str, ...] | None
    line: str | None
    more: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """An entrypoint that was sent SIGTERM, as `docker stop` does.

    Args:
        result: the answer of the command behind it, which ends at SIGTERM.
        replaced: True if the command took the entrypoint's place (`exec`), or None if the command
            did not tell.
        ignored: True if the signal is ignored, so that none was sent.
        handled: True if the process has a handler for it. One that waits for signals has none to
            be seen.
        caught: True if the command received it.
    """

    result: CommandResult
    replaced: bool | None
    ignored: bool
    handled: bool
    caught: bool


@dataclass(frozen=True, slots=True)
class EntrypointRuns:
    """The entrypoint started with a command as its arguments, as `docker run IMAGE COMMAND` does.

    Args:
        launcher: whether it is meant to start the command behind it: its name, its text or the
            image's CMD says so.
        heard: a command that tells what it received, and ends with 0.
        codes: the answers of commands that end with these exit codes.
        killed: the answer of a command that kills itself with SIGKILL, and ends with 9 if that has
            no effect (as in the first process of a container).
        stopped: the entrypoint, sent SIGTERM.
        env: the answer to `env`, one word, which even an entrypoint that tears words apart runs.
            This and the three above are None or empty for what is no launcher.
    """

    launcher: bool
    heard: Heard
    codes: Mapping[int, CommandResult]
    killed: CommandResult | None
    stopped: Stopped | None
    env: CommandResult | None


@dataclass(frozen=True, slots=True)
class Banner:
    """The banner's script, and the banner in the output of a start.

    Args:
        path: its path.
        said: its own output, or None if it does not exist.
        silenced: its output when silenced, or None if it does not exist.
        started: the answer of a command with the entrypoint, with all output before it, or None if
            there is no entrypoint.
        quiet: the same in a start that is silenced.
        answer: the last line of both, which the command printed, or "" if it did not answer.
        writable: True if the prefix can be written in an image that was started so, or None if the
            command did not answer.
    """

    path: str
    said: CommandResult | None
    silenced: CommandResult | None
    started: CommandResult | None
    quiet: CommandResult | None
    answer: str
    writable: bool | None


@dataclass(frozen=True, slots=True)
class StartProgram:
    """The program that an image's configuration starts.

    Args:
        instruction: "ENTRYPOINT" or "CMD".
        word: the program as it is written there.
        file: the file that it means; None if it is on no directory of PATH.
        path_env: these directories.
        kind: by its first bytes; None if they cannot be read. The kernel starts no "other".
        interpreter: of a script, the program that its first line names.
        interpreter_there: whether that is in the image.
        way: the directories that lead to the file, but for "/", which may be that of whoever
            unpacked the image.
        owners_known: whether the owners are those of the image, and not of whoever unpacked it.
    """

    instruction: str
    word: str
    file: ResolvedFile | None
    path_env: str
    kind: Literal["script", "elf", "other"] | None = None
    interpreter: str = ""
    interpreter_there: bool = True
    way: tuple[File, ...] = ()
    owners_known: bool = False


EntrypointProgram = NewType("EntrypointProgram", ResolvedFile)
"""The program that the promised entrypoint starts; one without a slash is found on PATH."""
