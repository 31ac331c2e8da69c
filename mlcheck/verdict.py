"""What a check answers. Checks are pure: facts and profile in, a verdict out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Source:
    """Where an expectation is written down: a file and its line from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class ShowRun:
    """A person sees the fact by running `argv` in the image."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShowFile:
    """A person sees the fact by looking at the image's file `path` with `tool`.

    Args:
        tool: a program that reads files, with its options, as a shell has them. What comes from the
            image stands in it quoted (`shlex.quote`).
        others: more files.
    """

    tool: str
    path: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ShowOnHost:
    """A person sees the fact by running `argv` on a host that has the unpacked image at /image, and
    a directory `prefix` of its own: a sandbox, since nothing of an image runs on the machine."""

    prefix: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShowMlcheck:
    """A person sees the fact by a command of mlcheck's own: `mlcheck COMMAND IMAGE REST`, for what
    no other command shows of every image."""

    command: str
    rest: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ShowHere:
    """A person sees the fact, which is one of this machine, by running `argv` on it."""

    argv: tuple[str, ...]


Show = ShowRun | ShowFile | ShowOnHost | ShowMlcheck | ShowHere


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which the image is not what was promised.

    Args:
        subject: what it is about, by which a waiver names it: a path, package, kernel, variable.
        found: what is there.
        expected: what should be there.
        source: the line that says so, when a profile or list does.
        show: how a person sees it.
    """

    subject: str
    found: str
    expected: str
    source: Source | None = None
    show: Show | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of one check.

    Args:
        check: its name, by which waivers and reports know it ("rpath-hard-coded").
        rule: what must hold, one sentence.
        remedy: how to mend the image when it does not hold.
        findings: every breach; none: the image conforms.
        notes: what a reader may want to know although it breaks no rule.
        checked: how many things were compared. Zero without a finding proves nothing and never
            passes.
        not_applicable: the reason why the rule says nothing about this image.
        untried: the reason why nobody knows here whether the rule, or a part of it, holds: what is
            needed to find out is missing.
        trouble: what this machine or the engine could not do, so that the image is not judged.
    """

    check: str
    rule: str
    remedy: str
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    checked: int = 0
    not_applicable: str | None = None
    untried: str | None = None
    trouble: str | None = None

    @property
    def outcome(self) -> Literal["passed", "failed", "skipped", "error"]:
        """What pytest makes of it, before waivers are looked at."""
        if self.trouble is not None:
            return "error"
        if self.findings:
            return "failed"
        skipped = self.not_applicable or (self.untried and not self.checked)
        return "skipped" if skipped else "passed"


SILENCE = "the profile "
"""How the reason for a skip begins that is nothing to wonder about: the image promises no such
thing. Others are shown one by one at the end of a run."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A check's name, rule and remedy, written once, from which its verdicts are made.

    Args:
        check: its name.
        rule: what must hold, one sentence.
        remedy: how to mend the image when it does not hold.
        why: the reason for the rule, and where it is written (a document, an issue).
        keys: of a profile, what the image is compared with, such as "packages.required"; `*`
            stands for any name. None of them in a profile: the rule says nothing about the image.
            Empty: no profile switches it on or off.
    """

    check: str
    rule: str
    remedy: str
    why: str
    keys: tuple[str, ...] = ()

    def judged(
        self,
        checked: int,
        findings: Iterable[Finding] = (),
        notes: Iterable[str] = (),
        untried: Iterable[str] = (),
        *,
        nothing: str | None = None,
    ) -> Verdict:
        """A verdict over `checked` things. Nothing compared and nothing found is a finding.

        Args:
            untried: for each part of the promise that could not be compared here, the reason.
            nothing: why a good image may have nothing of the kind: the rule is then skipped. Only
                for what was looked for and is not there, never for what could not be looked at.
        """
        found, missing = tuple(findings), "; ".join(untried) or None
        if not checked and not found:
            if nothing is not None:
                return self.skipped(nothing)
            if missing is not None:
                return self.not_tried(missing)
            found = (Finding(self.check, "nothing to compare", "at least one thing to judge"),)
        return Verdict(
            self.check, self.rule, self.remedy, found, tuple(notes), checked, untried=missing
        )

    def skipped(self, reason: str) -> Verdict:
        """A verdict for an image to which the rule does not apply.

        Args:
            reason: begins with SILENCE if the profile has no such expectation.
        """
        return Verdict(self.check, self.rule, self.remedy, not_applicable=reason)

    def not_tried(self, reason: str) -> Verdict:
        """A verdict for an image to which the rule applies, where what it needs is missing: the
        test is skipped, and the image is not said to conform.

        Args:
            reason: what is missing (a GPU, a shell of the host, an engine that writes), or which
                other rule's breach left nothing to look at.
        """
        return Verdict(self.check, self.rule, self.remedy, untried=reason)

    def not_judged(self, trouble: str, remedy: str) -> Verdict:
        """A verdict for an image that this machine or the engine kept from being judged."""
        return Verdict(self.check, self.rule, remedy, trouble=trouble)
