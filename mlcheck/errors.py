"""The errors that mlcheck shows to people: one small tree, never a traceback.

The kind decides the outcome: a `UsageError` ends the run before anything is checked, an
`EngineError` or a `ProbeError` makes the checks that needed the answer end as ERROR (the image
is not judged). That an image is not what it should be is no error: it is a finding of a check.
"""

from __future__ import annotations

DIFFERENT = 1
"""Exit code: an image does not conform, or differs from the one that it is compared with."""
NOT_JUDGED = 3
"""Exit code: an engine, the machine or a registry could not do its part. Another try may help."""
MISTAKE = 4
"""Exit code: the user asked for what cannot be, or a test of the user's own cannot be read."""
NOTHING_JUDGED = 5
"""Exit code: there was nothing to judge."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as of every program that a shell starts (128 + SIGINT)."""
READER_GONE = 141
"""Exit code when nobody reads the output any more, as of `cat` (128 + SIGPIPE)."""


class MlcheckError(Exception):
    """Something that a person has to know.

    Args:
        what: what happened, where, and what was expected instead.
        remedy: what to do about it, one sentence; empty when there is nothing to do.
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


class UsageError(MlcheckError):
    """The user asked for something that cannot be: a wrong option, image name or profile."""


class EngineError(MlcheckError):
    """The engine or this machine could not do its work."""


class Untried(MlcheckError):  # noqa: N818 - what is so, not what went wrong
    """What a check needs is not here (a process, a shell of the host, the base image): it is
    skipped, and an image that promises what it is about is not said to conform."""


class NothingRuns(EngineError, Untried):  # noqa: N818
    """The engine only reads: what needs a process is not judged."""


class ProbeError(MlcheckError):
    """A probe could not read what it needs on this machine (no permission, no shell, ...)."""
