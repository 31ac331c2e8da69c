"""Errors that mlcheck shows to people as messages, never as tracebacks.

The class decides the outcome. A `UsageError` ends the run before anything is judged. An
`EngineError` or a `ProbeError` turns every rule that needs the answer into an ERROR: the image
is not judged. An image that breaks a rule is not an error but a finding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

DIFFERENT = 1
"""Exit code: an image does not conform, or differs from the image it is compared with."""
NOT_JUDGED = 3
"""Exit code: an engine, the machine or a registry failed. Another try may help."""
MISTAKE = 4
"""Exit code: the user asked for something impossible, or a test of theirs cannot be loaded."""
NOTHING_JUDGED = 5
"""Exit code: there was nothing to judge."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as a shell reports it (128 + SIGINT)."""
READER_GONE = 141
"""Exit code when the reader of the output has gone, as `cat` has it (128 + SIGPIPE)."""


class MlcheckError(Exception):
    """An error with a message for people.

    Args:
        what: what happened, where, and what was expected instead.
        remedy: what to do about it, in one sentence; empty if there is nothing to do.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}\n{self.remedy}" if self.remedy else self.what

    def __reduce__(self) -> tuple[type[MlcheckError], tuple[str, str]]:
        # pytest-xdist sends exceptions between processes.
        return type(self), (self.what, self.remedy)


@dataclass(frozen=True, slots=True)
class Trouble:
    """The reason why something does not work on this machine, and a remedy ("" if there
    is none)."""

    what: str
    remedy: str = ""

    @classmethod
    def of(cls, error: MlcheckError) -> Trouble:
        """Convert an error to its reason and remedy."""
        return cls(error.what, error.remedy)

    def __str__(self) -> str:
        return str(self.error())

    def error(self) -> EngineError:
        """Return an error for callers that cannot do without the thing."""
        return EngineError(self.what, self.remedy)


class UsageError(MlcheckError):
    """The user asked for something impossible: a wrong option, image name or profile."""


class EngineError(MlcheckError):
    """The engine or this machine could not do its work."""


class Untried(MlcheckError):  # noqa: N818 - a state, not a failure
    """A rule cannot be tried here: a process, a shell of the host or the base image is missing.

    The rule is skipped, and an image that promises what it covers is not said to conform.
    """


class NotApplicable(MlcheckError):  # noqa: N818
    """The image lacks the thing that a rule is about, and may lack it: the rule is skipped."""


def needed(value: T | None, why: str) -> T:
    """Return a value without which a rule does not apply.

    Raises:
        NotApplicable: the value is None; `why` names what the image or its profile lacks.
    """
    if value is None:
        raise NotApplicable(why)
    return value


class NothingRuns(EngineError, Untried):  # noqa: N818
    """The engine only reads files, so rules that need a process are skipped."""


class ProbeError(MlcheckError):
    """A probe could not read what it needs on this machine (no permission, no shell, ...)."""


REPORT_IT = "--full-trace shows where. If that is in mlcheck, please report it."
"""Remedy for an error that nobody foresaw."""


@contextmanager
def raising_only(kind: type[MlcheckError], doing: str) -> Iterator[None]:
    """Turn any exception that is none of `MlcheckError` into one of a kind, which belongs to one
    image; the exception remains as its cause.

    What an image holds may bring any library to its limits, and no list of their exceptions is
    ever complete.

    Args:
        doing: what was done, for the message.
    """
    try:
        yield
    except MlcheckError:
        raise
    except Exception as error:
        raise kind(f"{doing} failed: {unforeseen(error)}", REPORT_IT) from error


def unforeseen(error: BaseException) -> str:
    """Describe an exception that is none of ours."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")[:1000]
