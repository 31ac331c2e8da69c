"""Bounds of reports: an image can make findings without an end, and texts of any length.

Counts stay true: a result says how many of its findings are not in the report.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # pydantic, which is slow to import, is not needed for texts
    from mlcheck.report.model import FindingModel, ResultModel

LENGTH = 4000
"""Characters kept of one text of a finding, and of a message at each of its ends."""

FINDINGS = 1000
"""Findings kept of one result, those that are waived and others each."""

NOTES = 20
"""Notes kept of one result."""

LARGEST = 8 * 1000 * 1000
"""Bytes of all findings and messages of a report, so that it has less than 20 MB in each form."""

_LEAST = 60
"""Characters kept of a text in a report of thousands of results that are all too large."""


def short(said: str, most: int = LENGTH) -> str:
    """Cut a text that is longer than `most` characters, and say how much longer it is."""
    return said if len(said) <= most else f"{said[:most]}... ({len(said) - most} more characters)"


def message(said: str, most: int = LENGTH) -> str:
    """Cut out the middle of a text that is longer than twice `most` characters: a traceback tells
    the most at its end."""
    left = len(said) - 2 * most
    return said if left <= 0 else f"{said[:most]}\n... ({left} more characters)\n{said[-most:]}"


def notes(said: Sequence[str]) -> list[str]:
    """Cut notes that are too long, and leave out those that are too many."""
    more = [f"and {len(said) - NOTES} more notes"] if len(said) > NOTES else []
    return [*(short(note) for note in said[:NOTES]), *more]


def bounded(results: Sequence[ResultModel]) -> tuple[ResultModel, ...]:
    """Leave out findings of the largest results, so that all of them fit in a report."""
    sizes = [_size(result) for result in results]
    if sum(sizes) <= LARGEST:
        return tuple(results)
    found = list(results)
    left = LARGEST
    by_size = sorted(range(len(found)), key=sizes.__getitem__)
    for rank, index in enumerate(by_size):
        share = left // (len(by_size) - rank)
        if sizes[index] > share:
            found[index] = _cut(found[index], share)
        left = max(left - min(sizes[index], share), 0)
    return tuple(found)


def _cut(result: ResultModel, share: int) -> ResultModel:
    kept: list[FindingModel] = []
    said = result.message
    if said is not None and _written(said) > share:
        said = message(said, max(share // 24, _LEAST))
    share -= _written(said or "")
    # What is not waived comes first: without it, a failure would have no reason.
    for finding in sorted(result.findings, key=lambda one: one.waived):
        size = _size_of(finding)
        if size > share and not kept:
            finding = _shortest(finding)
        elif size > share:
            break
        share -= size
        kept.append(finding)
    there = sum(not one.waived for one in result.findings)
    left_out = result.findings_left_out + there - sum(not one.waived for one in kept)
    update = {"findings": tuple(kept), "findings_left_out": left_out, "message": said}
    return result.model_copy(update=update)


def _shortest(finding: FindingModel) -> FindingModel:
    texts = {name: short(getattr(finding, name), _LEAST) for name in ("subject", "found")}
    return finding.model_copy(
        update={**texts, "expected": short(finding.expected, _LEAST), "by_hand": None}
    )


def _size(result: ResultModel) -> int:
    return _written(result.message or "") + sum(map(_size_of, result.findings))


def _size_of(finding: FindingModel) -> int:
    texts = (finding.subject, finding.found, finding.expected, finding.source, finding.by_hand)
    return sum(_written(said) for said in texts if said)


def _written(said: str) -> int:
    """Return the bytes of a text in the form in which it takes the most: escaped in a page."""
    return len(json.dumps(said)) + 5 * sum(map(said.count, "<>&"))
