"""Verdicts of rules. Rules are pure functions: facts and profile in, a verdict out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Source:
    """The place where an expectation is stated: a file and a line number from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class ShowRun:
    """A way to see the fact by hand: run `argv` in the image."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShowFile:
    """A way to see the fact by hand: look at the image's file `path` with `tool`.

    Args:
        tool: a program that reads files, with its options, as shell text. Words that come from the
            image are quoted (`shlex.quote`).
        others: more files.
    """

    tool: str
    path: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ShowOnHost:
    """A way to see the fact by hand: run `argv` on a host that has the unpacked image at /image,
    and a directory `prefix` of its own. The host is a sandbox, since nothing of an image runs on
    the machine."""

    prefix: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShowMlcheck:
    """A way to see the fact by hand: run `mlcheck COMMAND IMAGE REST`, where no other command shows
    the fact for every kind of image."""

    command: str
    rest: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ShowHere:
    """A way to see a fact of this machine by hand: run `argv` on it."""

    argv: tuple[str, ...]


Show = ShowRun | ShowFile | ShowOnHost | ShowMlcheck | ShowHere


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which an image breaks a rule.

    Args:
        subject: what it is about, and what a waiver matches: a path, package, kernel, variable.
        found: what is there.
        expected: what should be there.
        source: the line of a profile or list that states the expectation, if there is one.
        show: how to see it by hand.
    """

    subject: str
    found: str
    expected: str
    source: Source | None = None
    show: Show | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one rule for one image. Make one with `judged` or a similar function.

    Args:
        findings: every breach; without any, the image conforms.
        notes: information for readers about things that break no rule.
        checked: the number of things that were compared. Zero without a finding proves nothing and
            never passes.
        not_applicable: the reason why the rule does not apply to this image.
        untried: the reason why the rule, or a part of it, cannot be judged here: something that it
            needs is missing.
        trouble: what this machine or the engine could not do, so that the image is not judged.
        remedy: what to do about it, if the rule's own `Fix` does not help.
    """

    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    checked: int = 0
    not_applicable: str | None = None
    untried: str | None = None
    trouble: str | None = None
    remedy: str = ""

    @property
    def outcome(self) -> Literal["passed", "failed", "skipped", "error"]:
        """Return the outcome for pytest, before waivers are considered."""
        if self.trouble is not None:
            return "error"
        if self.findings:
            return "failed"
        if self.not_applicable or (self.untried and not self.checked):
            return "skipped"
        return "passed" if self.checked else "failed"


def judged(
    checked: int,
    findings: Iterable[Finding] = (),
    notes: Iterable[str] = (),
    untried: Iterable[str] = (),
    *,
    nothing: str | None = None,
) -> Verdict:
    """Return a verdict on `checked` things. Nothing compared and nothing found is a failure.

    Args:
        untried: for each part of the promise that could not be compared here, the reason.
        nothing: the reason why a good image may have nothing of the kind: the rule is then skipped.
            Only for things that were looked for and are absent, never for things that could not be
            looked at.
    """
    found, missing = tuple(findings), "; ".join(untried) or None
    if not checked and not found:
        if nothing is not None:
            return skipped(nothing)
        if missing is not None:
            return not_tried(missing)
    return Verdict(findings=found, notes=tuple(notes), checked=checked, untried=missing)


def skipped(reason: str) -> Verdict:
    """Return a verdict for an image to which the rule does not apply, although its profile
    promises it.

    Args:
        reason: the property of the image that makes the rule inapplicable.
    """
    return Verdict(not_applicable=reason)


def not_tried(reason: str) -> Verdict:
    """Return a verdict for an image to which the rule applies, but which cannot be judged here: the
    test is skipped, and the image is not said to conform.

    Args:
        reason: what is missing (a GPU, a shell of the host, an engine that writes), or which other
            rule's breach left nothing to look at.
    """
    return Verdict(untried=reason)


def not_judged(trouble: str, remedy: str = "") -> Verdict:
    """Return a verdict for an image that cannot be judged because of this machine or the engine.

    Args:
        remedy: what to do about it; "" for the remedy of the rule.
    """
    return Verdict(remedy=remedy, trouble=trouble)
