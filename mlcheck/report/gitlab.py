"""GitLab's code quality report, which a merge request shows as new and resolved findings.

The format: https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from mlcheck.report import bounds, identity, overview, text
from mlcheck.report.identity import Identified
from mlcheck.report.model import Report, ResultModel
from mlcheck.report.places import place

MOST = 5000
"""Findings in a file."""

_TEXT = 500
"""Characters of one text of an image in a description."""


def document(report: Report) -> str:
    """Return the JSON text: a list of what is not waived, each once for all engines.

    A rule that could not be judged is in it too, as critical: without it, the findings of the last
    run would count as resolved.
    """
    issues: dict[str, dict[str, Any]] = {}
    for result in report.results:
        if result.outcome == "error":
            issue = _not_judged(result)
            issues.setdefault(issue["fingerprint"], issue)
    for one in identity.findings(report):
        if len(issues) >= MOST:
            break
        issues.setdefault(one.fingerprint, _issue(one))
    return json.dumps([*issues.values()][:MOST], indent=1) + "\n"


def _issue(one: Identified) -> dict[str, Any]:
    result, finding = one.result, one.finding
    said, source = overview.headline(result), None
    if finding is not None:
        subject, found, expected = (
            bounds.short(part, _TEXT) for part in (finding.subject, finding.found, finding.expected)
        )
        said, source = f"{subject}: {found} (expected: {expected})", finding.source
    where = place(source)
    page = f" ({result.page})" if result.page else ""
    return {
        "description": _line(f"{said}, in {one.image.reference}{page}"),
        "check_name": _line(identity.rule_of(result)),
        "fingerprint": one.fingerprint,
        "severity": "major" if result.severity == "error" else "minor",
        "location": {
            # GitLab drops what has no file; a path from the root would be one of another machine.
            "path": where.file.lstrip("/") if where else _line(one.image.reference).lstrip("./"),
            "lines": {"begin": where.line if where else 1},
        },
    }


def _not_judged(result: ResultModel) -> dict[str, Any]:
    said = bounds.short(overview.headline(result), _TEXT)
    name = identity.rule_of(result)
    digest = hashlib.sha256(f"not judged\0{result.image}\0{said}".encode("utf-8", "surrogatepass"))
    return {
        "description": _line(f"not judged: {said}, in {result.image}"),
        "check_name": _line(name),
        "fingerprint": digest.hexdigest(),
        "severity": "critical",
        "location": {"path": _line(result.image).lstrip("./"), "lines": {"begin": 1}},
    }


def _line(said: str) -> str:
    return " ".join(text.printable(said).split()) or "-"
