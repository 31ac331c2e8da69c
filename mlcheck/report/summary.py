"""The summary at the end of a run: whether each image conforms, and if not, why."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Protocol, TextIO

from mlcheck.report import bounds, overview, text
from mlcheck.report.model import Report, ResultModel
from mlcheck.report.overview import ImageOverview, Row

_MOST_COLUMNS = 30
"""Maximum images in the matrix on a terminal; the HTML page shows more."""

_MARKS = {"failed": "F", "error": "E", "waived": "w", "passed": ".", "skipped": "-"}
_CODES = {"bold": 1, "red": 31, "green": 32, "yellow": 33}
_INDENT = 10
"""Columns before what is said of an image."""

_COLOURS = {"failed": "red", "error": "red", "waived": "yellow"}


class Screen(Protocol):
    """A terminal, such as pytest's reporter."""

    def write(self, content: str, **markup: bool) -> None: ...

    def section(self, title: str) -> None: ...


class Plain:
    """A stream used as a screen, with colours if it is a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._colours = stream.isatty() and not os.environ.get("NO_COLOR")
        self._line = ""

    def write(self, content: str, **markup: bool) -> None:
        codes = [str(_CODES[name]) for name, on in markup.items() if on]
        if codes and self._colours:
            content = f"\x1b[{';'.join(codes)}m{content}\x1b[0m"
        *lines, self._line = (self._line + content).split("\n")
        self._stream.writelines(f"{text.no_command(line)}\n" for line in lines)

    def section(self, title: str) -> None:
        self.write(f"{f' {title} ':=^80}\n")


class Wrapped:
    """A screen with lines that are broken between words at its width."""

    def __init__(self, screen: Screen, width: int) -> None:
        self._screen = screen
        self._width = width
        self._column = 0
        self._indent = 0

    def section(self, title: str) -> None:
        self._screen.section(title)

    def write(self, content: str, **markup: bool) -> None:
        for number, line in enumerate(content.split("\n")):
            if number:
                self._screen.write("\n")
                self._column = 0
            if line and not self._column:
                self._indent = _INDENT if line.startswith("  ") else 2
            self._write_line(line, markup)

    def _write_line(self, line: str, markup: Mapping[str, bool]) -> None:
        for word in re.findall(r" *[^ ]+| +$", line):
            if self._column > self._indent and self._column + len(word) > self._width:
                self._screen.write(f"\n{' ' * self._indent}")
                self._column = self._indent
                word = word.lstrip(" ")
            if word:
                self._screen.write(word, **markup)
                self._column += len(word)


def write_verdicts(screen: Screen, report: Report) -> None:
    """Write a line for each image, with its verdict."""
    for one in overview.images(report):
        _write_verdict(screen, one)


def write(
    screen: Screen, report: Report, *, every_rule: bool = False, width: int | None = None
) -> None:
    """Write the summary of all images of a run.

    Args:
        every_rule: whether the rules that were not judged are named, and not only counted.
        width: columns of the screen; None for one without an end.
    """
    if width is not None:
        screen = Wrapped(screen, width)
    screen.section("mlcheck")
    found = overview.images(report)
    for one in found:
        _write_image(screen, one, every_rule=every_rule)
    wrong = {one.check: one for one in report.results if one.check and _is_shown_failed(one)}
    for failed in [*wrong.values()][:1]:
        others = ", and the same for the others" if len(wrong) > 1 else ""
        said = f"Why, and how to waive it: {overview.explained(failed)}{others}"
        screen.write(text.printable(f"\n{said}\n"))
    if len(found) > 1:
        _write_matrix(screen, report, found)
    if advice := list(dict.fromkeys(one.advice() for one in found if one.image.without_profile)):
        screen.write(
            "\nTo say what is expected, write a profile, and judge with --profiles profiles:\n"
        )
        for command in advice[:_MOST_COLUMNS]:
            screen.write(text.printable(f"  {command}\n"))


def _is_shown_failed(result: ResultModel) -> bool:
    return result.outcome == "failed" or overview.is_warning(result)


def _write_verdict(screen: Screen, one: ImageOverview) -> None:
    verdict, colour = one.verdict
    screen.write(text.printable(f"{one.image.id}  "))
    screen.write(verdict, **{colour: True, "bold": True})
    screen.write(f"  ({one.tally()})\n")


def _write_image(screen: Screen, one: ImageOverview, *, every_rule: bool) -> None:
    image, results = one.image, [result for _, result in one.results]
    _write_verdict(screen, one)
    if image.digest:
        screen.write(text.printable(f"  {image.digest}\n"))
    for result in results:
        if result.outcome == "failed":
            _write_failure(screen, result)
    for message, tests in _grouped(results, "error"):
        first, *rest = bounds.message(message).splitlines() or [""]
        screen.write("  ERROR   ", red=True)
        screen.write(text.printable(f"{first}   [{tests}]\n"))
        for line in rest:
            screen.write(text.printable(f"          {line}\n"))
    for result in results:
        if overview.is_warning(result):
            _write_failure(screen, result)
        elif result.outcome == "waived":
            said = [f"{waiver.reason} (until {waiver.until})" for waiver in result.waivers[:1]]
            # A test without a waiver has pytest's own mark xfail.
            said = said or [result.message or "expected to fail (xfail)"]
            name = result.check or overview.test_name(result)
            screen.write("  waived  ", yellow=True)
            screen.write(text.printable(f"{name}: {said[0]}\n"))
    for note in image.notes:
        screen.write("  note    ", yellow=True)
        screen.write(text.printable(f"{note}\n"))
    for waiver_line in image.unused_waivers:
        screen.write("  note    ", yellow=True)
        screen.write(
            text.printable(f"{waiver_line}: this waiver matches no finding any more: remove it\n")
        )
    for reason, names in one.not_judged():
        if reason == overview.NO_PROFILE:
            continue  # the end of the summary has it
        screen.write("  not judged  ", yellow=True)
        screen.write(text.printable(f"{reason}   [{overview.some(names)}]\n"))
    for message, tests in _grouped(results, "skipped"):
        screen.write(text.printable(f"  skipped {bounds.message(message)}   [{tests}]\n"))
    if image.not_promised:
        count = len(image.not_promised)
        rules = "one rule" if count == 1 else f"{count} rules"
        named = ", ".join(image.not_promised) if every_rule else "-rs: which"
        screen.write(f"  not run {rules} for which the profile has no expectations   [{named}]\n")


def _write_failure(screen: Screen, result: ResultModel) -> None:
    if overview.is_warning(result):
        screen.write("  warning ", yellow=True)
    else:
        screen.write("  FAILED  ", red=True)
    if not overview.open_findings(result):
        screen.write(text.printable(f"{result.test}\n"))
        return
    screen.write(text.printable(f"{result.check}: {overview.headline(result, '   ')}\n"))
    screen.write(text.printable(f"          fix: {result.remedy}\n"))


def _write_matrix(screen: Screen, report: Report, found: list[ImageOverview]) -> None:
    """Write a matrix of the rules that failed somewhere, if there are several images."""
    wrong = [row for row in overview.rows(report) if row.worst in ("failed", "error")]
    shown = found[:_MOST_COLUMNS]
    if wrong:
        width = max(len(row.label) for row in wrong)
        numbers = "".join(f"{number:>3}" for number in range(1, len(shown) + 1))
        screen.write(f"\n{'':{width}}  {numbers}\n")
        for row in wrong:
            screen.write(text.printable(f"{row.label:{width}}  "))
            for one in shown:
                mark, colour = _mark(report, row, one)
                screen.write(f"{mark:>3}", **({colour: True} if colour else {}))
            screen.write("\n")
        for number, one in enumerate(shown, 1):
            screen.write(text.printable(f"{number:>3}  {one.image.id}\n"))
        if len(found) > len(shown):
            screen.write(f"     and {len(found) - len(shown)} more images (--html FILE has all)\n")
    screen.write(f"\n{overview.closing(found)}\n", bold=True)


def _mark(report: Report, row: Row, one: ImageOverview) -> tuple[str, str]:
    indices = row.cells.get(one.image.id, ())
    if not indices:
        return "", ""
    outcome = overview.worst(report.results[index] for index in indices)
    return _MARKS[outcome], _COLOURS.get(outcome, "")


def _grouped(results: Iterable[ResultModel], outcome: str) -> list[tuple[str, str]]:
    """Group the messages of one outcome, each once, with the tests that it stopped."""
    tests: dict[str, list[str]] = {}
    for result in results:
        if result.outcome == outcome and result.untried is None:
            name = result.check or overview.test_name(result)
            tests.setdefault(result.message or "", []).append(name)
    return [(message, overview.some(names)) for message, names in tests.items()]
