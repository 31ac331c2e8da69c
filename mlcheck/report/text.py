"""Verdicts as text for a terminal."""

from __future__ import annotations

import os
import re
import textwrap
import unicodedata
from collections.abc import Callable, Sequence

from mlcheck.model.rule import Rule
from mlcheck.model.verdict import Finding, Show, Verdict
from mlcheck.report import bounds

MANY = 6
"""The number of findings from which they are shown as a table."""
MOST = 60
"""Maximum findings shown in a terminal; the JSON report has more."""

_CELL = 300
"""Characters of a cell of a table of findings."""


def printable(text: str) -> str:
    """Escape everything in a text from an image that could steer a terminal."""
    if text.isprintable():  # true of nearly all text
        return text
    return "".join(
        char
        if char in "\n\t" or not unicodedata.category(char).startswith("C")
        else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )


def line(said: str) -> str:
    """Make a text one line that steers neither a terminal nor a CI that reads it."""
    return no_command(printable(said).replace("\n", "\\n"))


def lines(said: str) -> str:
    """Do the same for each line of a text of several lines."""
    return "\n".join(map(no_command, printable(said).split("\n")))


def no_command(line: str) -> str:
    """Change a line that GitHub's runner would take for a command: one that begins with two colons
    after any spaces, or contains the older form anywhere."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return line
    rest = line.lstrip()
    if rest.startswith("::"):
        line = f"{line[: len(line) - len(rest)]}: {rest[1:]}"
    return line.replace("##[", "## [")


def headline(rule: Rule, findings: Sequence[Finding]) -> str:
    """Say in one line the rule, its first finding, and how many more there are."""
    first = findings[0]
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    subject, found = " ".join(first.subject.split()), " ".join(first.found.split())
    return printable(f"{rule.id}: {_cut(subject, 120)}: {_cut(found, 120)}{more}")


def _cut(said: str, most: int) -> str:
    return said if len(said) <= most else said[: most - 3] + "..."


def failure(
    rule: Rule,
    verdict: Verdict,
    findings: Sequence[Finding],
    image: str,
    show: Callable[[Show], str],
    remarks: Sequence[str] = (),
) -> str:
    """Format the whole message of a failed rule.

    Args:
        findings: the findings of the verdict that are not waived.
        image: the image and its engine.
        show: turns a finding's `show` into a shell command for the engine in use.
        remarks: lines about waivers.
    """
    lines = [headline(rule, findings), ""]
    lines.append(f"rule      {rule.text}")
    lines.append(f"image     {image}")
    if len(findings) < MANY:
        for finding in findings:
            lines += _block(finding, show)
    else:
        lines.append(f"found     {len(findings)} findings, {verdict.checked} things checked")
        lines += ["", *_table(findings[:MOST])]
        if len(findings) > MOST:
            more = len(findings) - MOST
            lines.append(f"  ... and {more} more (--mlcheck-json FILE has up to {bounds.FINDINGS})")
        lines.append("")
        by_hand = next((finding.show for finding in findings if finding.show), None)
        if by_hand and len(command := show(by_hand)) <= bounds.LENGTH:
            lines.append(f"reproduce {command}")
    lines.append(f"fix       {verdict.remedy or rule.fix}")
    lines += [f"note      {note}" for note in (*remarks, *bounds.notes(verdict.notes))]
    return printable("\n".join(lines))


def wrapped(message: str, width: int) -> str:
    """Wrap the sentences of a failure's message at the width of a terminal.

    Commands and tables stay as they are: one is to be copied, the other to be read by columns.
    """
    lines: list[str] = []
    for number, line in enumerate(message.split("\n")):
        label = _SENTENCE.match(line)
        if len(line) <= width or (number and label is None):
            lines.append(line)
            continue
        indent = " " * (len(label[0]) if label else 2)
        lines += textwrap.wrap(
            line,
            width,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


_SENTENCE = re.compile(r" *(?:rule|image|found|expected|fix|note) {2,}")


def _block(finding: Finding, show: Callable[[Show], str]) -> list[str]:
    where = f"   ({finding.source})" if finding.source else ""
    lines = [
        "",
        f"  {bounds.short(finding.subject)}",
        f"    found     {bounds.short(finding.found)}",
        f"    expected  {bounds.short(finding.expected)}{where}",
    ]
    if finding.show and len(command := show(finding.show)) <= bounds.LENGTH:
        lines.append(f"    reproduce {command}")
    return [*lines, ""]


def _table(findings: Sequence[Finding]) -> list[str]:
    rows = [("", "found", "expected", "by")]
    rows += [
        (_cut(f.subject, _CELL), _cut(f.found, _CELL), _cut(f.expected, _CELL), str(f.source or ""))
        for f in findings
    ]
    widths = [min(60, max(len(row[column]) for row in rows)) for column in range(4)]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
