"""The errors that mlcheck shows to people: one small tree, never a traceback.

The kind decides the outcome: a `UsageError` ends the run before anything is checked, an
`EngineError` or a `ProbeError` makes the checks that needed the answer end as ERROR (the image
is not judged). That an image is not what it should be is no error: it is a finding of a check.
"""

from __future__ import annotations


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


class NothingRuns(EngineError):  # noqa: N818 - what is so, not what went wrong
    """The engine only reads: what needs a process is not judged, and its checks are skipped."""


class ProbeError(MlcheckError):
    """A probe could not read what it needs on this machine (no permission, no shell, ...)."""
