"""Test Anything Protocol, version 13, from a report: a test point for each test on each image.

The format: https://testanything.org/tap-version-13-specification.html. Later versions add nothing
that is needed here, and readers refuse versions that they do not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from mlcheck.report import bounds, identity, overview, text
from mlcheck.report.model import Report, ResultModel

_NAMED = 20
"""Findings shown for a failure."""


def document(report: Report) -> str:
    """Return the text.

    What is waived is TODO, which no reader counts as a failure; what could not be judged is not ok,
    with the severity "error".
    """
    lines = ["TAP version 13", f"1..{len(report.results)}"]
    for number, result in enumerate(report.results, 1):
        lines += _point(number, result)
    return "".join(f"{line}\n" for line in lines)


def _point(number: int, result: ResultModel) -> Iterator[str]:
    ok = "ok" if result.outcome in ("passed", "skipped") else "not ok"
    name = f"{result.image}: {identity.rule_of(result)}"
    directive = ""
    if result.outcome == "skipped":
        directive = f" # SKIP {_plain(result.message or '')}"
    elif result.outcome == "waived":
        why = overview.waived_because(result)
        directive = f" # TODO {_plain(why or result.message or 'expected to fail')}"
    yield f"{ok} {number} - {_plain(name)}{directive}".rstrip()
    if result.outcome in ("failed", "error"):
        yield "  ---"
        for key, value in _details(result):
            # A JSON value on one line is YAML, whatever is in it.
            yield f"  {key}: {json.dumps(value)}"
        yield "  ..."


def _details(result: ResultModel) -> Iterator[tuple[str, object]]:
    yield "message", text.printable(overview.headline(result))
    yield "severity", "fail" if result.outcome == "failed" else "error"
    if result.rule:
        yield "rule", text.printable(result.rule)
    if result.remedy:
        yield "remedy", text.printable(result.remedy)
    if result.page:
        yield "explained_by", text.printable(overview.explained(result))
    shown = overview.open_findings(result)[:_NAMED]
    if shown:
        yield (
            "findings",
            [
                {
                    name: text.printable(bounds.short(value, 1000))
                    for name, value in finding.model_dump(exclude={"waived"}).items()
                    if value is not None
                }
                for finding in shown
            ],
        )
    if (more := overview.open_count(result) - len(shown)) > 0 and shown:
        yield "more", more


def _plain(said: str) -> str:
    """Return one line in which nothing begins a directive: readers differ in whether a backslash
    can take that meaning from a "#"."""
    return " ".join(text.printable(bounds.short(said, 1000)).replace("#", "_").split())
