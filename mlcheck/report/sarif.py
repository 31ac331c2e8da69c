"""SARIF 2.1.0 from a report, as code scanning reads it.

The standard: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html; the part of it that
GitHub reads: https://docs.github.com/en/code-security/reference/code-scanning/sarif-files/sarif-support
"""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from mlcheck.report import bounds, identity, overview, text
from mlcheck.report.identity import Identified
from mlcheck.report.model import Report, ResultModel
from mlcheck.report.places import place

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)

MOST = 5000
"""Results in a file; GitHub shows as many of a run and refuses five times as many."""

_TEXT = 1000
"""Characters of one text of an image in a message."""

_NOTIFICATIONS = 100


def document(report: Report) -> str:
    """Return the JSON text, with one run.

    A finding that is waived is a suppressed result; a rule that could not be judged is a
    notification, and then the invocation was not successful.
    """
    found = list(identity.findings(report, waived=True))
    # What fails is worth more than what is waived, if not all fits.
    found.sort(key=lambda one: one.finding is not None and one.finding.waived)
    shown = found[:MOST]
    rules: dict[str, dict[str, Any]] = {}
    for one in shown:
        rules.setdefault(identity.rule_of(one.result), _rule(one.result))
    numbers = {name: number for number, name in enumerate(rules)}
    errors = list(
        dict.fromkeys(
            f"{result.image}: {bounds.message(result.message or result.test, _TEXT)}"
            for result in report.results
            if result.outcome == "error"
        )
    )
    left_out = len(found) - len(shown) + sum(one.findings_left_out for one in report.results)
    more = [left_out] if left_out else []
    invocation: dict[str, Any] = {
        "executionSuccessful": not errors,
        "exitCode": report.exit_code,
        "startTimeUtc": report.started.replace("+00:00", "Z"),
        "toolExecutionNotifications": [
            *(_notification("error", said) for said in errors[:_NOTIFICATIONS]),
            *(_notification("warning", f"{count} more findings are left out.") for count in more),
        ],
    }
    if not re.fullmatch(r"[\d-]+T[\d:.]+Z", invocation["startTimeUtc"]):
        del invocation["startTimeUtc"]
    run = {
        "tool": {
            "driver": {
                "name": "mlcheck",
                "version": _clean(report.mlcheck_version),
                "rules": [*rules.values()],
            }
        },
        "columnKind": "unicodeCodePoints",
        "invocations": [invocation],
        "results": [_result(one, numbers) for one in shown],
    }
    document = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=1) + "\n"


def _rule(result: ResultModel) -> dict[str, Any]:
    name = identity.rule_of(result)
    said = result.rule or f"The test {name} passes."
    first = said.partition(". ")[0]
    rule: dict[str, Any] = {
        "id": _clean(name),
        "shortDescription": {"text": _message(first)},
        "fullDescription": {"text": _message(said)},
        "defaultConfiguration": {"level": result.severity},
    }
    if result.remedy:
        more = f"\nMore about it: {said}" if (said := overview.explained(result)) else ""
        rule["help"] = {"text": _message(f"{result.remedy}{more}")}
    if result.page and re.match("https?://", result.page):  # an absolute URI, says 3.49.12
        rule["helpUri"] = quote(_clean(result.page), safe="/:?=&%#")
    return rule


def _result(one: Identified, numbers: dict[str, int]) -> dict[str, Any]:
    result, finding = one.result, one.finding
    name = identity.rule_of(result)
    if finding is None:
        said, subject, source = bounds.message(result.message or result.test, _TEXT), name, None
    else:
        subject, source = bounds.short(finding.subject, _TEXT), finding.source
        found, expected = (bounds.short(part, _TEXT) for part in (finding.found, finding.expected))
        said = f"{subject}: {found} (expected: {expected}), in {one.image.reference}"
    properties = {"image": one.image.reference, "engine": one.image.engine}
    if one.image.digest:
        properties["digest"] = one.image.digest
    if finding is not None and finding.by_hand:
        properties["command"] = bounds.short(finding.by_hand)
    told: dict[str, Any] = {
        "ruleId": _clean(name),
        "ruleIndex": numbers[name],
        "level": result.severity,
        "message": {"text": _message(said)},
        "locations": [
            {
                "physicalLocation": _physical(source, one.image.reference),
                "logicalLocations": [
                    {
                        "name": _clean(subject),
                        "fullyQualifiedName": _clean(f"{one.image.id}: {subject}"),
                        "kind": "resource",
                    }
                ],
            }
        ],
        "partialFingerprints": {"mlcheckFinding/v1": one.fingerprint},
        "properties": {key: _clean(value) for key, value in properties.items()},
    }
    if finding is not None and finding.waived:
        why = _clean(overview.waived_because(result))
        told["suppressions"] = [{"kind": "external", "status": "accepted", "justification": why}]
    return told


def _physical(source: str | None, reference: str) -> dict[str, Any]:
    """Return the line that states the expectation. Code scanning refuses a result without a file:
    the image takes its place where no line is known."""
    where = place(source)
    if where is None:
        return {"artifactLocation": {"uri": quote(_clean(reference).lstrip("/"), safe="/")}}
    location = (
        {"uri": quote(where.file, safe="/"), "uriBaseId": "%SRCROOT%"}
        if where.inside
        else {"uri": PurePosixPath(where.file).as_uri()}
    )
    return {"artifactLocation": location, "region": {"startLine": where.line}}


def _notification(level: str, said: str) -> dict[str, Any]:
    return {"level": level, "message": {"text": _message(said)}}


def _message(said: str) -> str:
    """Escape a text of a message: a brace would begin a placeholder, `[text](address)` is a link
    (3.11.5 and 3.11.6 of the standard)."""
    clean = text.printable(said).replace("](", "] (")
    return clean.replace("{", "{{").replace("}", "}}") or "-"


def _clean(said: str) -> str:
    return text.printable(said) or "-"
