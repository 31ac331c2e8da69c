"""Reports for GitHub Actions: annotations on lines of profiles, and the job's summary.

Workflow commands and their escapes:
https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mlcheck.report import bounds, overview, text
from mlcheck.report.model import FindingModel, Report, ResultModel
from mlcheck.report.overview import ImageOverview
from mlcheck.report.places import place

MOST = 10
"""Annotations of a kind that GitHub shows for each step."""

LARGEST = 1000 * 1000
"""Maximum bytes of a summary; GitHub shows none above 1 MiB for a step."""

_NAMED = 5
"""Findings shown for a failure."""

_CELL = 1000
"""Characters of one text in the summary or an annotation."""

_ROOM = 200
"""Bytes for the line that says that this is not all."""


@dataclass
class _Broken:
    """A rule that failed because of one line of a profile, on one or several images."""

    result: ResultModel
    finding: FindingModel | None
    count: int = 0
    images: list[str] = field(default_factory=list)


def errors(report: Report) -> Iterator[str]:
    """Yield workflow commands, one line each.

    The first line that each failed rule names comes first, then the further lines of each rule,
    then whatever was not judged, and last the number of annotations left out.
    """
    found = sorted(_broken(report), key=lambda one: overview.is_warning(one.result))
    stopped = {
        (result.message or "").splitlines()[0] if result.message else result.test: result
        for result in report.results
        if result.outcome == "error"
    }
    lines = [_error(one) for one in found]
    lines += [
        command(
            "error",
            {"title": "mlcheck: not judged"},
            bounds.message(result.message or result.test, _CELL),
        )
        for result in stopped.values()
    ]
    if len(lines) <= MOST:
        yield from lines
        return
    yield from lines[: MOST - 1]
    left = len(lines) - MOST + 1
    yield command("error", {"title": f"mlcheck: {left} more"}, "The job's summary has all.")


def command(name: str, properties: dict[str, str], message: str) -> str:
    """Format a workflow command whose parts can neither end it nor begin another."""
    said = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{name}{' ' * bool(said)}{said}::{_data(message)}"


def _broken(report: Report) -> Iterator[_Broken]:
    by_check: dict[str, dict[str, _Broken]] = {}
    for result in report.results:
        if result.outcome != "failed" and not overview.is_warning(result):
            continue
        lines = by_check.setdefault(result.check or result.test, {})
        findings: list[FindingModel | None] = [*overview.open_findings(result)]
        for finding in findings or [None]:
            source = (finding.source if finding else None) or ""
            one = lines.setdefault(source, _Broken(result, finding))
            one.count += 1 if finding is not findings[0] else 1 + result.findings_left_out
            if result.image not in one.images:
                one.images.append(result.image)
    # The first line of every rule, then the second line of those that have one, and so on.
    every = [list(lines.values()) for lines in by_check.values()]
    for rank in range(max(map(len, every), default=0)):
        yield from (lines[rank] for lines in every if len(lines) > rank)


def _error(one: _Broken) -> str:
    result, finding = one.result, one.finding
    more = f" (and {len(one.images) - 1} more images)" if len(one.images) > 1 else ""
    title = f"{result.check or 'a test'}: {one.images[0]}{more}"
    if finding is None:
        said = bounds.message(result.message or result.test, _CELL)
        return command(_level(result), {"title": title}, said)
    place = _place(finding.source) if finding.source else {}
    source = f"   ({finding.source})" if finding.source and not place else ""
    lines = [
        f"{_short(finding.subject)}: {_short(finding.found)}"
        + (f" (and {one.count - 1} more)" if one.count > 1 else ""),
        f"expected: {_short(finding.expected)}{source}",
        f"rule: {result.rule}",
        f"fix: {result.remedy}",
    ]
    if finding.by_hand:
        lines.append(f"reproduce: {finding.by_hand}")
    if result.page:
        lines.append(f"more: {overview.explained(result)}")
    return command(_level(result), {**place, "title": title}, "\n".join(lines))


def _level(result: ResultModel) -> str:
    return "warning" if overview.is_warning(result) else "error"


def _place(source: str) -> dict[str, str]:
    """Format FILE:LINE relative to the workspace, as GitHub wants it; {} if it is elsewhere, as in
    an installed package."""
    where = place(source)
    return {"file": where.file, "line": str(where.line)} if where and where.inside else {}


def _data(value: str) -> str:
    """Escape a message the way GitHub's runner decodes it."""
    safe = text.printable(value.replace("\r", ""))
    return safe.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")


def add_summary(report: Report) -> bool:
    """Append the summary to the job's summary; returns False outside GitHub Actions."""
    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if not file:
        return False
    with Path(file).open("a", encoding="utf-8") as summary:
        summary.write(markdown(report))
    return True


def markdown(report: Report) -> str:
    """Format the report in Markdown, no longer than GitHub shows."""
    found = overview.images(report)
    parts = [f"## mlcheck: {overview.closing(found)}\n\n"]
    parts.append("| image | | failed | errors | passed | waived | skipped |\n")
    parts.append("|---|---|---:|---:|---:|---:|---:|\n")
    for one in found:
        counts = one.counts
        numbers = (counts[name] for name in ("failed", "error", "passed", "waived", "skipped"))
        words, colour = one.verdict
        mark = {"red": "❌", "yellow": "⚠️", "green": "✅"}[colour]
        parts.append(f"| {code(one.image.id)} | {mark} {words} | ")
        parts.append(" | ".join(map(str, numbers)) + " |\n")
    size = sum(len(part.encode()) for part in parts)
    left_out = 0
    for one in found:
        for part, shorter in _failures(one):
            # A finding that does not fit must not take away those behind it.
            fitting = next(
                (text for text in (part, shorter) if size + len(text.encode()) <= LARGEST - _ROOM),
                None,
            )
            if fitting is None:
                left_out += 1
                continue
            size += len(fitting.encode())
            parts.append(fitting)
    if left_out:
        parts.append(f"\n\nThis is not all: {left_out} more would be too long for GitHub.\n\n")
    return "".join(parts)


def _failures(one: ImageOverview) -> Iterator[tuple[str, str]]:
    """Yield each part in full, and in short."""
    wrong = [
        result
        for _, result in one.results
        if result.outcome in ("failed", "error") or overview.is_warning(result)
    ]
    unjudged = one.not_judged()
    if wrong or unjudged:
        title = f"\n### {code(one.image.id)}\n\n"
        digest = f"{code(one.image.digest)}\n\n" if one.image.digest else ""
        yield title + digest, title
    for reason, names in unjudged:
        line = f"- **not judged**: {code(_short(reason))}: {code(overview.some(names))}\n\n"
        yield line, line
    told: set[str] = set()
    for result in wrong:
        if result.outcome == "error":
            if (message := result.message or result.test) not in told:
                told.add(message)
                said = bounds.message(message, _CELL)
                yield (
                    f"- **not judged**: {code(said)}\n\n",
                    f"- **not judged**: {code(overview.headline(result))}\n\n",
                )
            continue
        warned = "warning: " if overview.is_warning(result) else ""
        name = f"{warned}{code(result.check or result.test)} {code(overview.headline(result))}"
        lines = [f"<details><summary>{name}</summary>\n\n"]
        if result.rule:
            lines.append(f"{plain(result.rule)}\n\n")
        shown = overview.open_findings(result)
        if shown:
            lines.append("| what | found | expected | by |\n|---|---|---|---|\n")
        for finding in shown[:_NAMED]:
            cells = (finding.subject, finding.found, finding.expected, finding.source or "")
            lines.append("| " + " | ".join(code(_short(cell)) for cell in cells) + " |\n")
        if (count := overview.open_count(result)) > _NAMED:
            lines.append(f"\nand {count - _NAMED} more\n")
        by_hand = next((finding.by_hand for finding in shown if finding.by_hand), None)
        if by_hand:
            lines.append(f"\nreproduce: {code(by_hand)}\n")
        if result.remedy:
            lines.append(f"\n**fix**: {plain(result.remedy)}\n")
        if result.page:
            lines.append(f"\nmore: {code(overview.explained(result))}\n")
        yield "".join([*lines, "\n</details>\n\n"]), f"- {name}\n\n"


def _short(value: str) -> str:
    return bounds.short(value, _CELL)


def plain(value: str) -> str:
    """Escape text for Markdown: every character with a possible meaning becomes an entity."""
    safe = text.printable(value)
    return "".join(
        sign if sign.isalnum() or sign == " " else "<br>" if sign == "\n" else f"&#{ord(sign)};"
        for sign in safe
    )


def code(value: str) -> str:
    """Escape text as code, in which GitHub does not link names and numbers."""
    return f"<code>{plain(value)}</code>" if value else ""
