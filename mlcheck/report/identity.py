"""Identity of a finding over time: the same one in the reports of yesterday and today.

A finding is its rule and its subject, on an image. What was found may change, as a version does,
and so may the tag of the image, the engine, and the line of the profile.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from mlcheck.report import overview
from mlcheck.report.model import FindingModel, ImageModel, Report, ResultModel


@dataclass(frozen=True, slots=True)
class Identified:
    """A finding of a report.

    Args:
        finding: None for a failed test without findings.
        fingerprint: 64 hex digits, unique among the findings of one image on one engine.
    """

    image: ImageModel
    result: ResultModel
    finding: FindingModel | None
    fingerprint: str


def findings(report: Report, *, waived: bool = False) -> Iterator[Identified]:
    """Yield the findings of all failed results, with a fingerprint that stays the same from run to
    run.

    Args:
        waived: whether those that are waived are yielded too.
    """
    images = {image.id: image for image in report.images}
    names = image_names(report)
    seen: Counter[tuple[str, str, str]] = Counter()
    for result in report.results:
        if result.outcome not in ("failed", "waived"):
            continue
        nothing = result.outcome == "failed" and not result.findings
        for finding in (None,) if nothing else result.findings:
            rule, subject = rule_of(result), finding.subject if finding else ""
            seen[result.image, rule, subject] += 1
            if finding is not None and finding.waived and not waived:
                continue
            number = seen[result.image, rule, subject]
            parts = (names[result.image], rule, subject, str(number))
            digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass"))
            yield Identified(images[result.image], result, finding, digest.hexdigest())


def image_names(report: Report) -> dict[str, str]:
    """Return a name for each image that outlives its tag: that of its profile; with the reference
    if the report has several images with that profile."""
    references: dict[str, set[str]] = {}
    for image in report.images:
        references.setdefault(image.profile, set()).add(image.reference)
    return {
        image.id: image.profile
        if len(references[image.profile]) == 1
        else f"{image.profile} {image.reference}"
        for image in report.images
    }


def rule_of(result: ResultModel) -> str:
    """Return the id of a result's rule, or the name of a test that is no rule."""
    return result.check or overview.test_name(result)
