"""`mlcheck report`: make reports of all kinds from the JSON reports of one or several runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlcheck.cli import common
from mlcheck.model.errors import UsageError
from mlcheck.report import formats, reading


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
    for name, (form, summary) in _kinds().items():
        part = parts.add_parser(name, help=summary, description=summary[0].upper() + summary[1:])
        part.add_argument("files", nargs="+", type=Path, metavar="REPORT.json")
        part.add_argument(
            "-o", "--output", type=Path, metavar="FILE", help="default: standard output (-)"
        )
        part.set_defaults(run=_run, format=form)


def _run(arguments: argparse.Namespace) -> int:
    report, left_out = reading.merge([reading.read(file) for file in arguments.files])
    if left_out:
        common.progress(f"{left_out} of the reports given twice, counted once")
    name: str = arguments.format
    if name == "github":
        from mlcheck.report import github

        if not github.add_summary(report):
            common.progress("GITHUB_STEP_SUMMARY is not set: annotations only")
    output: Path | None = arguments.output
    if output is None or str(output) == formats.STDOUT:
        formats.printed(name, report)
        return 0
    content = formats.FORMATS[name].make(report)
    try:
        output.write_text(content, encoding="utf-8")
    except OSError as error:
        remedy = "Name a file that can be written."
        raise UsageError(f"{output}: {error.strerror}.", remedy) from None
    return 0


def _kinds() -> dict[str, tuple[str, str]]:
    """Return the format of each kind, and what it is."""
    found = {name: (name, form.about) for name, form in formats.FORMATS.items() if name != "json"}
    github = "annotations for GitHub Actions on standard output, and the summary of the job"
    return {**found, "github": ("github", github), "merge": ("json", "one JSON report of several")}
