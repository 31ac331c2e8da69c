"""Comparison of two reports: findings that are new, gone, and still there, for a pull request."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from mlcheck.model.errors import DIFFERENT, NOT_JUDGED, NOTHING_JUDGED
from mlcheck.report import bounds, github, identity, overview, text
from mlcheck.report.model import FindingModel, ImageModel, Report

State = Literal["new", "gone", "still there", "waived", "not judged"]

STATES: dict[State, str] = {
    "new": "new",
    "not judged": "not judged any more",
    "still there": "still there",
    "waived": "waived since",
    "gone": "gone",
}
"""Words for each state, what needs attention first."""

_NAMED = 50
"""Findings shown for each state to people; the JSON has all."""

_CELL = 300
"""Characters of one text shown to people."""


@dataclass(frozen=True, slots=True)
class Change:
    """One finding in the old report, the new one, or both.

    Args:
        image: its id in the new report, or in the old one if only that has it.
        found: the latest that is known.
        before: found by the old report, if that differs.
    """

    state: State
    image: str
    rule: str
    subject: str
    found: str
    before: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Two reports, compared.

    Args:
        images: the ids of each image in the old and the new report.
        only_old, only_new: ids of images that only one report has.
        left_out: findings that reports leave out, which nothing was compared with.
    """

    changes: tuple[Change, ...]
    images: tuple[tuple[str, str], ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    left_out: int

    @property
    def exit_code(self) -> int:
        """1 if something is new; 3 if something is not judged any more; 5 if the reports have no
        image in common; otherwise 0."""
        states = {change.state for change in self.changes}
        if "new" in states:
            return DIFFERENT
        if "not judged" in states:
            return NOT_JUDGED
        return 0 if self.images else NOTHING_JUDGED

    def of(self, state: State) -> list[Change]:
        """Return the changes with a state."""
        return [change for change in self.changes if change.state == state]

    def counts(self) -> str:
        """ "2 new, 1 still there, 5 gone" """
        counts = {words: len(self.of(state)) for state, words in STATES.items()}
        always = ("new", "still there", "gone")
        return ", ".join(f"{n} {words}" for words, n in counts.items() if n or words in always)


def compare(old: Report, new: Report) -> Comparison:
    """Compare two reports.

    An image is the same if it has the same id, or else the same profile and engine, or profile, and
    no other image has. A finding is the same if its rule and subject are.
    """
    pairs = _pairs(old.images, new.images)
    before, after = _findings(old), _findings(new)
    judged = {
        (result.image, identity.rule_of(result))
        for result in new.results
        if result.outcome in ("passed", "failed", "waived")
    }
    changes: list[Change] = []
    for image, image_after in pairs.items():
        a, b = before.get(image, {}), after.get(image_after, {})
        for key in dict.fromkeys([*a, *b]):
            changes += _change(image_after, key, a.get(key), b.get(key), judged)
    of_old = tuple(image.id for image in old.images if image.id not in pairs)
    of_new = tuple(image.id for image in new.images if image.id not in pairs.values())
    for image in of_new:
        for key, finding in after.get(image, {}).items():
            changes += _change(image, key, None, finding, judged)
    order = list(STATES)
    changes.sort(key=lambda change: order.index(change.state))
    left_out = sum(result.findings_left_out for part in (old, new) for result in part.results)
    return Comparison(tuple(changes), tuple(pairs.items()), of_old, of_new, left_out)


_Key = tuple[str, str, int]


def _findings(report: Report) -> dict[str, dict[_Key, FindingModel]]:
    """Return the findings of each image by rule, subject, and number among those alike."""
    found: dict[str, dict[_Key, FindingModel]] = {}
    seen: Counter[tuple[str, str, str]] = Counter()
    for one in identity.findings(report, waived=True):
        rule = identity.rule_of(one.result)
        said = one.result.message or one.result.test
        finding = one.finding or FindingModel(subject=rule, found=said, expected="")
        seen[one.image.id, rule, finding.subject] += 1
        key = (rule, finding.subject, seen[one.image.id, rule, finding.subject])
        found.setdefault(one.image.id, {})[key] = finding
    return found


def _change(
    image: str,
    key: _Key,
    before: FindingModel | None,
    after: FindingModel | None,
    judged: set[tuple[str, str]],
) -> Iterator[Change]:
    rule, subject, _ = key
    was, now = before is not None and not before.waived, after is not None and not after.waived
    latest = after or before
    assert latest is not None
    if now:
        state: State = "still there" if was else "new"
        differs = before is not None and before.found != latest.found
        yield Change(
            state, image, rule, subject, latest.found, before.found if differs and before else None
        )
    elif was and after is not None:
        yield Change("waived", image, rule, subject, latest.found)
    elif was:
        gone = (image, rule) in judged
        yield Change("gone" if gone else "not judged", image, rule, subject, latest.found)


def _pairs(old: Sequence[ImageModel], new: Sequence[ImageModel]) -> dict[str, str]:
    """Map the id of each image of the old report to that in the new one."""
    ids = {image.id for image in new}
    pairs = {image.id: image.id for image in old if image.id in ids}
    for names in (("profile", "engine"), ("profile",)):

        def alike(image: ImageModel, names: tuple[str, ...] = names) -> tuple[str, ...]:
            return tuple(getattr(image, name) for name in names)

        left = [image for image in old if image.id not in pairs]
        right = [image for image in new if image.id not in pairs.values()]
        for image in left:
            fitting = [other for other in right if alike(other) == alike(image)]
            if len(fitting) == 1 and [*map(alike, left)].count(alike(image)) == 1:
                pairs[image.id] = fitting[0].id
    return pairs


def as_text(found: Comparison) -> str:
    """Format a comparison for a terminal."""
    lines = []
    for state, words in STATES.items():
        changes = found.of(state)
        if changes:
            lines.append(f"{words}:")
        for change in changes[:_NAMED]:
            lines.append(f"  {change.image}  {change.rule}: {_said(change)}")
        if len(changes) > _NAMED:
            lines.append(f"  ... and {len(changes) - _NAMED} more (--json has all)")
    lines += _remarks(found)
    lines.append(found.counts())
    return "".join(f"{text.printable(line)}\n" for line in lines)


def as_markdown(found: Comparison) -> str:
    """Format a comparison for a comment in GitHub or GitLab."""
    parts = [f"## mlcheck: {found.counts()}\n\n"]
    for state, words in STATES.items():
        changes = found.of(state)
        if not changes:
            continue
        fold = state not in ("new", "not judged")
        title = f"{len(changes)} {words}"
        parts.append(f"<details><summary>{title}</summary>\n\n" if fold else f"**{title}**\n\n")
        parts.append("| image | rule | what | found |\n|---|---|---|---|\n")
        for change in changes[:_NAMED]:
            cells = (change.image, change.rule, change.subject, _found(change))
            shown = (github.code(bounds.short(cell, _CELL)) for cell in cells)
            parts.append("| " + " | ".join(shown) + " |\n")
        if len(changes) > _NAMED:
            parts.append(f"\nand {len(changes) - _NAMED} more\n")
        parts.append("\n</details>\n\n" if fold else "\n")
    parts += [f"{github.plain(line)}\n\n" for line in _remarks(found)]
    return "".join(parts)


def as_json(found: Comparison) -> str:
    """Format a comparison for programs."""
    told = {
        "exit_code": found.exit_code,
        "counts": {state: len(found.of(state)) for state in STATES},
        "images": [{"old": a, "new": b} for a, b in found.images],
        "only_old": found.only_old,
        "only_new": found.only_new,
        "findings_left_out": found.left_out,
        "findings": [
            {
                "state": change.state,
                "image": change.image,
                "rule": change.rule,
                "subject": change.subject,
                "found": change.found,
                "found_before": change.before,
            }
            for change in found.changes
        ],
    }
    return json.dumps(told, indent=1) + "\n"


def _said(change: Change) -> str:
    subject = bounds.short(" ".join(change.subject.split()), _CELL)
    return f"{subject}: {bounds.short(_found(change), _CELL)}"


def _found(change: Change) -> str:
    before = f" (before: {change.before})" if change.before is not None else ""
    return " ".join(f"{change.found}{before}".split())


def _remarks(found: Comparison) -> Iterator[str]:
    if not found.images:
        yield "The reports have no image in common."
    for ids, which in ((found.only_old, "old"), (found.only_new, "new")):
        if ids:
            yield f"Only in the {which} report: {overview.some(ids)}"
    if found.left_out:
        yield f"{found.left_out} findings are not in the reports, and were not compared."
