"""Verdicts as text for a terminal."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Sequence

from mlcheck.verdict import Finding, Show, Verdict

MANY = 6
"""From so many findings on, they are shown as one table."""
MOST = 60
"""So many findings are shown in a terminal; the JSON report has all."""


def printable(text: str) -> str:
    """Text from an image without anything that could steer a terminal."""
    if text.isprintable():  # nearly all of it
        return text
    return "".join(
        char
        if char in "\n\t" or not unicodedata.category(char).startswith("C")
        else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )


def no_command(line: str) -> str:
    """A line that GitHub's runner does not take for a command: it would one that begins with two
    colons behind any spaces, and an older form anywhere in a line."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return line
    rest = line.lstrip()
    if rest.startswith("::"):
        line = f"{line[: len(line) - len(rest)]}: {rest[1:]}"
    return line.replace("##[", "## [")


def headline(verdict: Verdict, findings: Sequence[Finding]) -> str:
    """One line: the check, its first finding, and how many more there are."""
    first = findings[0]
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    subject, found = " ".join(first.subject.split()), " ".join(first.found.split())
    shortened = found if len(found) <= 120 else found[:117] + "..."
    return printable(f"{verdict.check}: {subject}: {shortened}{more}")


def failure(
    verdict: Verdict,
    findings: Sequence[Finding],
    image: str,
    show: Callable[[Show], str],
    remarks: Sequence[str] = (),
) -> str:
    """The whole message of a failed check.

    Args:
        findings: those of the verdict that are not waived.
        image: which image, on which engine.
        show: turns what a finding shows into a shell command for the engine in use.
        remarks: lines about waivers.
    """
    lines = [headline(verdict, findings), ""]
    lines.append(f"rule      {verdict.rule}")
    lines.append(f"image     {image}")
    if len(findings) < MANY:
        for finding in findings:
            lines += _block(finding, show)
    else:
        lines.append(f"found     {len(findings)} findings, {verdict.checked} things checked")
        lines += ["", *_table(findings[:MOST])]
        if len(findings) > MOST:
            lines.append(f"  ... and {len(findings) - MOST} more (--mlcheck-json FILE has all)")
        lines.append("")
        by_hand = next((finding.show for finding in findings if finding.show), None)
        if by_hand:
            lines.append(f"by hand   {show(by_hand)}")
    lines.append(f"mend      {verdict.remedy}")
    lines += [f"note      {note}" for note in (*remarks, *verdict.notes)]
    return printable("\n".join(lines))


def _block(finding: Finding, show: Callable[[Show], str]) -> list[str]:
    where = f"   ({finding.source})" if finding.source else ""
    lines = [
        "",
        f"  {finding.subject}",
        f"    found     {finding.found}",
        f"    expected  {finding.expected}{where}",
    ]
    if finding.show:
        lines.append(f"    by hand   {show(finding.show)}")
    return [*lines, ""]


def _table(findings: Sequence[Finding]) -> list[str]:
    rows = [("", "found", "expected", "by")]
    rows += [(f.subject, f.found, f.expected, str(f.source or "")) for f in findings]
    widths = [min(60, max(len(row[column]) for row in rows)) for column in range(4)]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
