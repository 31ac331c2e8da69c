"""Remove or weaken expectations that the suite finds not to hold for the image.

An expectation that the image does not meet is left out or weakened, and the file says so. A rule
that needs no expectation cannot be left out. Its findings are waived for some weeks, so that
somebody looks at them.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlcheck.model.errors import EngineError
from mlcheck.model.rule import Rule
from mlcheck.profile.schema.keys import is_required
from mlcheck.profile.toml_lines import line_numbers
from mlcheck.snapshot.document import Document, Entry, KeyPath, Value, Waived, writable

WAIVED_DAYS = 30
ROUNDS = 8
_WAIVED_ONE_BY_ONE = 10
_MANY_FILES = 20
"""Number of files changed by a build from which their directories are listed instead."""
_KEEP = ("prefix", "integrity")
"""Tables on which other rules rest: never left out because a rule fails."""

_SEVERAL = {("shells",), ("jupyterlab", "terminals"), ("libraries", "system"), ("user", "writable")}
"""Lists in which each element is a promise of its own."""

Judged = Mapping[str, Any]
"""A result of the JSON report."""
Judge = Callable[[str, Sequence[str]], Sequence[Judged]]
"""Run tests (all of them if none is given) on a file's text; returns the results of the suite."""


@dataclass
class Settled:
    """The expectations that hold.

    Args:
        checks: ids of the rules that judged the image.
        untried: why no rule could judge a key here.
        broken: what does not hold, in words, by rule.
    """

    document: Document
    checks: frozenset[str] = frozenset()
    untried: dict[str, str] = field(default_factory=dict)
    broken: dict[str, list[str]] = field(default_factory=dict)


def settle(
    document: Document, rules: Mapping[str, Rule], judge: Judge, today: datetime.date
) -> Settled:
    """Judge, revise, and judge again with the tests that failed, until none fails.

    Raises:
        EngineError: the suite still fails when nothing more can be removed.
    """
    settled = Settled(document)
    tests: Sequence[str] = ()
    results: dict[str, Judged] = {}
    for _ in range(ROUNDS):
        text = settled.document.text()
        new = judge(text, tests)
        results |= {str(result["test"]): result for result in new}
        failed = [result for result in new if result["outcome"] in ("failed", "error")]
        if not failed:
            break
        passed = {r["check"] for r in results.values() if r["outcome"] in ("passed", "waived")}
        step = _Step(settled, text, rules, {str(name) for name in passed if name}, today)
        for result in failed:
            step.take_back(result)
        tests = [str(result["test"]) for result in failed]
    else:
        names = ", ".join(sorted({str(r["check"] or r["test"]) for r in failed}))
        raise EngineError(
            f"The checks of {names} fail with each run for another reason.",
            "Run the suite on the image to see why.",
        )
    _leave_out_untried(settled, rules, results.values())
    return settled


class _Step:
    """Revises the document after one run of the suite."""

    def __init__(
        self,
        settled: Settled,
        text: str,
        rules: Mapping[str, Rule],
        passed: set[str],
        today: datetime.date,
    ) -> None:
        self._settled = settled
        self._rules = rules
        self._passed = passed
        self._until = today + datetime.timedelta(days=WAIVED_DAYS)
        self._paths: dict[int, KeyPath] = {}
        for path, line in line_numbers(text).items():
            words = tuple(part for part in path if isinstance(part, str))
            if len(words) == len(path):
                # The longest path on a line is its key, or the table of which it is the header.
                self._paths[line] = max(self._paths.get(line, ()), words, key=len)
        self._weaker: set[KeyPath] = set()

    def take_back(self, result: Judged) -> None:
        """Leave out, weaken or waive what a failed test found."""
        check = result["check"]
        if check not in self._rules or not result["findings"]:
            why = str(result["message"] or "ended without a verdict").splitlines()[0]
            self._note(str(check or result["test"]), f"not judged: {why}")
            rule = self._rules.get(check)
            if rule is not None:
                self._drop(self._of_rule(rule))
            return
        rule = self._rules[check]
        left: list[Judged] = []
        for finding in result["findings"]:
            if finding["waived"]:
                continue
            self._note(
                check, f"{finding['subject']}: {finding['found']} (expected {finding['expected']})"
            )
            if not self._weakened(rule, finding, many=len(result["findings"]) > _MANY_FILES):
                left.append(finding)
        self._waive(check, left)

    def _weakened(self, rule: Rule, finding: Judged, *, many: bool) -> bool:
        """Find the expectation behind a finding and weaken it; return False if there is none."""
        if rule.id == "conda-files-unchanged":
            file = _literal(str(finding["subject"]))
            if many:
                file = f"{file.rpartition('/')[0]}/*"
            return self._add(("integrity", "edited", file), "changed by the build")
        if rule.id == "requested-packages":
            return self._add(("packages", "requested", str(finding["subject"])), False)
        place = str(finding["source"] or "")
        path = self._paths.get(int(place.rpartition(":")[2])) if _is_ours(place) else None
        if path is None or path[0] in _KEEP:
            return False
        entries = self._settled.document.entries
        own = [entry for entry in entries if rule.id in _asked_by(entry.path, self._rules)]
        # The keys of an inline table are on the line of its entry.
        meant = [
            entry
            for entry in entries
            if entry.path == path[: len(entry.path)] or entry.path[: len(path)] == path
        ]
        if not meant:
            return True  # already removed because of another finding
        if not set(_paths(meant)) & set(_paths(own)):
            weakened = [self._weaken(entry) for entry in own]
            return any(weakened)
        if len(meant) == 1 and len(path) >= len(meant[0].path):  # the line itself, not its table
            entry = meant[0]
            if self._weaken(entry):
                return True
            several = entry.value if entry.path in _SEVERAL else ()
            if isinstance(several, list) and finding["subject"] in several:
                less = [item for item in several if item != finding["subject"]]
                self._replace(entry, dataclasses.replace(entry, value=less) if less else None)
                return True
        asked_by = {check for entry in meant for check in _asked_by(entry.path, self._rules)}
        if asked_by & self._passed - {rule.id}:
            return False  # another rule found that it holds: keep it
        self._drop(meant)
        return True

    def _of_rule(self, rule: Rule) -> list[Entry]:
        return [
            entry
            for entry in self._settled.document.entries
            if entry.path[0] not in _KEEP
            and any(_covers(key, entry.path) for key in (*rule.keys, *rule.also))
        ]

    def _waive(self, check: str, findings: Sequence[Judged]) -> None:
        if not findings:
            return
        subjects = list(dict.fromkeys(str(finding["subject"]) for finding in findings))
        if len(subjects) > _WAIVED_ONE_BY_ONE or not writable(subjects):
            subjects = ["*"]
        reason = "found when this file was made, and looked at by nobody yet"
        patterns = subjects if subjects == ["*"] else [_literal(one) for one in subjects]
        more = [Waived(check, pattern, reason, self._until) for pattern in patterns]
        document = self._settled.document
        known = [w for w in document.waivers if w.check != check or subjects != ["*"]]
        if any(one in known for one in more):  # a pattern did not match: waive the whole rule
            more = [Waived(check, "*", reason, self._until)]
            known = [w for w in known if w.check != check]
        self._settled.document = dataclasses.replace(document, waivers=(*known, *more))

    def _note(self, check: str, said: str) -> None:
        notes = self._settled.broken.setdefault(check, [])
        if said not in notes:
            notes.append(said)

    def _add(self, path: KeyPath, value: Value) -> bool:
        """Add an entry that exempts the subject of a finding; False if that was tried before."""
        entries = self._settled.document.entries
        if not writable(path) or (path not in self._weaker and Entry(path, value) in entries):
            return False
        self._weaker.add(path)
        self._set((*(one for one in entries if one.path != path), Entry(path, value)))
        return True

    def _weaken(self, entry: Entry) -> bool:
        """Weaken an entry; return whether it is weaker now, or was weakened in this run already."""
        if entry.otherwise is None:
            return entry.path in self._weaker
        weaker = dataclasses.replace(entry, value=entry.otherwise, otherwise=None, tells=True)
        self._replace(entry, weaker)
        self._weaker.add(entry.path)
        return True

    def _replace(self, entry: Entry, by: Entry | None) -> None:
        found = (by if one is entry else one for one in self._settled.document.entries)
        self._set(tuple(one for one in found if one is not None))

    def _drop(self, entries: Sequence[Entry]) -> None:
        gone = {entry.path for entry in entries}
        # Removing a required key would make its table invalid.
        tables = [path[:-1] for path in gone if len(path) > 1 and is_required(path)]
        self._set(
            tuple(
                e
                for e in self._settled.document.entries
                if e.path not in gone and not any(e.path[: len(t)] == t for t in tables)
            )
        )

    def _set(self, entries: tuple[Entry, ...]) -> None:
        self._settled.document = dataclasses.replace(self._settled.document, entries=entries)


def _leave_out_untried(
    settled: Settled, rules: Mapping[str, Rule], results: Iterable[Judged]
) -> None:
    """Leave out what no rule has judged: it is unknown whether it holds."""
    results = list(results)
    judged = {str(r["check"]) for r in results if r["check"] and r["outcome"] in _JUDGED}
    settled.checks = frozenset(judged)
    why = {str(r["check"]): str(r["message"]) for r in results if r["outcome"] == "skipped"}
    known = {
        entry.path
        for entry in settled.document.entries
        if entry.tells or entry.path[0] in _KEEP or judged & set(_asked_by(entry.path, rules))
    }
    kept = []
    for entry in settled.document.entries:
        beside = any(path[:-1] == entry.path[:-1] for path in known)
        if entry.path in known or (len(entry.path) > 1 and beside and is_required(entry.path)):
            kept.append(entry)
        else:
            reasons = [why[check] for check in _asked_by(entry.path, rules) if check in why]
            settled.untried[".".join(entry.path)] = reasons[0] if reasons else "no test asks it"
    settled.document = dataclasses.replace(settled.document, entries=tuple(kept))


_JUDGED = ("passed", "waived")


def _paths(entries: Iterable[Entry]) -> list[KeyPath]:
    return [entry.path for entry in entries]


def _asked_by(path: KeyPath, rules: Mapping[str, Rule]) -> list[str]:
    """Return the rules that compare with an entry; of several matching keys, the longest counts."""
    fitting = [
        (len(key.split(".")), check)
        for check, rule in rules.items()
        for key in (*rule.keys, *rule.also)
        if _covers(key, path)
    ]
    longest = max((length for length, _ in fitting), default=0)
    return [check for length, check in fitting if length == longest]


def _covers(key: str, path: KeyPath) -> bool:
    """Return whether a rule's key matches an entry, a table around it, or an entry in it."""
    return all(part in ("*", word) for part, word in zip(key.split("."), path, strict=False))


def _is_ours(place: str) -> bool:
    file, _, line = place.rpartition(":")
    return MARK in file and line.isdigit()


MARK = "mlcheck-snapshot-"
"""Part of the path of the file used for judging: a source elsewhere belongs to a parent."""


def _literal(subject: str) -> str:
    """Return a pattern that matches one subject only."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in subject)
