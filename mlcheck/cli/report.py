"""`mlcheck report`: make reports of all kinds from the JSON reports of one or several runs."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from mlcheck.cli import common
from mlcheck.model.errors import UsageError
from mlcheck.report import reading, text
from mlcheck.report.model import Report


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `report`."""
    parser = commands.add_parser(
        "report",
        help="make reports of all kinds from the JSON report, and merge those of several machines",
        description="Make a report from a file that --mlcheck-json wrote. Several files are merged "
        "first; an image that several machines judged remains as many images.",
        epilog="examples:\n  mlcheck report html report.json -o report.html\n"
        "  mlcheck report merge runner-*.json -o all.json\n"
        "  mlcheck report text all.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = parser.add_subparsers(title="kinds", required=True, metavar="KIND")
    for name, (make, summary) in _KINDS.items():
        part = parts.add_parser(name, help=summary, description=summary[0].upper() + summary[1:])
        part.add_argument("files", nargs="+", type=Path, metavar="REPORT.json")
        if name != "github":
            part.add_argument(
                "-o", "--output", type=Path, metavar="FILE", help="default: standard output"
            )
        part.set_defaults(run=_run, make=make)


def _run(arguments: argparse.Namespace) -> int:
    report, left_out = reading.merge([reading.read(file) for file in arguments.files])
    if left_out:
        common.progress(f"{left_out} of the reports given twice, counted once")
    make: _Make = arguments.make
    output: Path | None = getattr(arguments, "output", None)
    if output is None:
        if make is _github:  # annotations are commands
            make(report, sys.stdout)
        else:
            written = io.StringIO()
            make(report, written)
            sys.stdout.write(text.lines(written.getvalue()))
        return 0
    try:
        with output.open("w", encoding="utf-8") as stream:
            make(report, stream)
    except OSError as error:
        remedy = "Name a file that can be written."
        raise UsageError(f"{output}: {error.strerror}.", remedy) from None
    return 0


def _html(report: Report, stream: TextIO) -> None:
    from mlcheck.report import html

    stream.write(html.page(report))


def _junit(report: Report, stream: TextIO) -> None:
    from mlcheck.report import junit

    stream.write(junit.document(report))


def _github(report: Report, stream: TextIO) -> None:
    from mlcheck.report import github

    if not github.add_summary(report):
        common.progress("GITHUB_STEP_SUMMARY is not set: annotations only")
    stream.writelines(f"{line}\n" for line in github.errors(report))


def _json(report: Report, stream: TextIO) -> None:
    stream.write(report.model_dump_json(indent=1) + "\n")


def _text(report: Report, stream: TextIO) -> None:
    from mlcheck.report import summary

    summary.write(summary.Plain(stream), report)


_Make = Callable[[Report, TextIO], None]

_KINDS: dict[str, tuple[_Make, str]] = {
    "html": (_html, "one page for a browser, which needs nothing else"),
    "junit": (_junit, "JUnit XML, a test suite for each image"),
    "github": (
        _github,
        "annotations for GitHub Actions on standard output, and the summary of the job",
    ),
    "text": (_text, "the summary as on the terminal"),
    "merge": (_json, "one JSON report of several"),
}
