"""The last thing in the terminal: for each image, whether it conforms, and if not, why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from mlcheck.report.model import ImageModel, Outcome, Report, ResultModel
from mlcheck.verdict import SILENCE


def write(terminal: pytest.TerminalReporter, report: Report) -> None:
    """Write the summary of all images of a run."""
    terminal.section("mlcheck")
    for image in report.images:
        results = [result for result in report.results if result.image == image.id]
        if results:
            _write_image(terminal, image, results)


def _write_image(
    terminal: pytest.TerminalReporter, image: ImageModel, results: list[ResultModel]
) -> None:
    counts = Counter(result.outcome for result in results)
    if counts["error"]:
        verdict, colour = "NOT JUDGED", "red"
    elif counts["failed"]:
        verdict, colour = "DOES NOT CONFORM", "red"
    elif counts["passed"] + counts["waived"] == 0:
        verdict, colour = "NOTHING WAS CHECKED", "yellow"
    else:
        verdict, colour = "CONFORMS", "green"
    if counts["error"] and counts["failed"]:
        verdict = "DOES NOT CONFORM, and not all of it could be judged"
    parts = [f"{counts[name]} {name}" for name in _ORDER if counts[name]]
    terminal.write(f"{image.id}  ")
    terminal.write(verdict, **{colour: True, "bold": True})
    terminal.write(f"  ({', '.join(parts)})\n")
    if image.digest:
        terminal.write(f"  {image.digest}\n")
    for result in results:
        if result.outcome == "failed":
            _write_failure(terminal, result)
    for message, tests in _grouped(results, "error"):
        first, *rest = message.splitlines() or [""]
        terminal.write("  ERROR   ", red=True)
        terminal.write(f"{first}   [{tests}]\n")
        for line in rest:
            terminal.write(f"          {line}\n")
    for result in results:
        if result.outcome == "waived":
            waiver = result.waivers[0]
            terminal.write("  waived  ", yellow=True)
            terminal.write(f"{result.check}: {waiver.reason} (until {waiver.until})\n")
    for note in image.notes:
        terminal.write("  note    ", yellow=True)
        terminal.write(f"{note}\n")
    for waiver_line in image.unused_waivers:
        terminal.write("  note    ", yellow=True)
        terminal.write(f"{waiver_line}: this waiver fits no finding any more, take it out\n")
    silent = 0
    for message, tests in _grouped(results, "skipped"):
        if message.startswith(SILENCE):
            silent += sum(result.message == message for result in results)
        else:
            terminal.write(f"  skipped {message}   [{tests}]\n")
    if silent:
        checks = "one check" if silent == 1 else f"{silent} checks"
        terminal.write(f"  skipped {checks} of what the profile does not promise   [-rs: why]\n")


_ORDER: tuple[Outcome, ...] = ("failed", "error", "passed", "waived", "skipped")


def _write_failure(terminal: pytest.TerminalReporter, result: ResultModel) -> None:
    open_findings = [finding for finding in result.findings if not finding.waived]
    if not open_findings:
        terminal.write("  FAILED  ", red=True)
        terminal.write(f"{result.test}\n")
        return
    first = open_findings[0]
    more = f"   (and {len(open_findings) - 1} more)" if len(open_findings) > 1 else ""
    terminal.write("  FAILED  ", red=True)
    terminal.write(f"{result.check}: {first.subject}: {first.found}{more}\n")
    terminal.write(f"          mend: {result.remedy}\n")


def _grouped(results: Iterable[ResultModel], outcome: str) -> list[tuple[str, str]]:
    """Messages of one outcome, each once, with the tests that it stopped."""
    tests: dict[str, list[str]] = {}
    for result in results:
        if result.outcome == outcome:
            name = result.test.partition("[")[0].rpartition("::")[2]
            tests.setdefault(result.message or "", []).append(name)
    return [
        (message, ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else ""))
        for message, names in tests.items()
    ]
