"""`mlcheck report`: make reports of all kinds from the JSON reports of one or several runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlcheck.cli import attest, common
from mlcheck.model.errors import NOT_JUDGED
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
        if name == "merge":
            part.add_argument(
                "--jobs",
                type=Path,
                metavar="JOBS.json",
                help="what `mlcheck matrix --json` printed: a job that no report is of becomes an "
                "ERROR, and the exit code is 3",
            )
        part.set_defaults(run=_run, format=form, jobs=None)
    _add_compare(parts)
    attest.add(parts)


def _add_compare(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    part = parts.add_parser(
        "compare",
        help="findings that are new, gone and still there, for a pull request",
        description="Compare the findings of two reports. A finding is its rule and its subject: "
        "one whose version changed is still there. What the new report could not judge is not "
        "gone.",
        epilog="examples:\n  mlcheck report compare old.json new.json\n"
        "  mlcheck report compare old.json new.json --markdown -o comment.md\n\n"
        "exit code: 0 nothing is new; 1 something is; 3 something is not judged any more; "
        "4 a file is\nno report; 5 the reports have no image in common",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    part.add_argument("old", type=Path, metavar="OLD.json")
    part.add_argument("new", type=Path, metavar="NEW.json")
    how = part.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="as JSON")
    how.add_argument("--markdown", action="store_true", help="for a comment in GitHub or GitLab")
    part.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: standard output (-)"
    )
    part.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from mlcheck.report import compare

    found = compare.compare(reading.read(arguments.old), reading.read(arguments.new))
    how = compare.as_text
    if arguments.json or arguments.markdown:
        how = compare.as_json if arguments.json else compare.as_markdown
    common.write_report(how(found), arguments.output)
    return found.exit_code


def _run(arguments: argparse.Namespace) -> int:
    report, left_out = reading.merge([reading.read(file) for file in arguments.files])
    if left_out:
        common.progress(f"{left_out} of the reports given twice, counted once")
    missing = []
    if arguments.jobs is not None:
        from mlcheck.release import jobs, joined

        missing = joined.without(jobs.read(arguments.jobs), report)
        for job in missing:
            common.progress(f"no report of {job.image} on {job.engine}")
        report = joined.with_missing(missing, report) if missing else report
    name: str = arguments.format
    if name == "github":
        from mlcheck.report import github

        if not github.add_summary(report):
            common.progress("GITHUB_STEP_SUMMARY is not set: annotations only")
    form = formats.FORMATS[name]
    common.write_report(form.make(report), arguments.output, commands=form.commands)
    return NOT_JUDGED if missing else 0


def _kinds() -> dict[str, tuple[str, str]]:
    """Return the format of each kind, and what it is."""
    found = {name: (name, form.about) for name, form in formats.FORMATS.items() if name != "json"}
    github = "annotations for GitHub Actions on standard output, and the summary of the job"
    return {**found, "github": ("github", github), "merge": ("json", "one JSON report of several")}
