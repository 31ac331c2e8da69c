"""Every form of a report, by name: what a run writes and `mlcheck report` makes."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlcheck.report import text
from mlcheck.report.model import Report

STDOUT = "-"
"""Name of standard output in place of a file's."""


@dataclass(frozen=True, slots=True)
class Format:
    """One form of a report.

    Args:
        about: the form, in one phrase.
        make: returns its text.
        commands: whether a CI's runner shall obey what is in it.
    """

    about: str
    make: Callable[[Report], str]
    commands: bool = False


def _of(module: str, function: str) -> Callable[[Report], str]:
    """Return a function of a module that is imported when it is called."""

    def make(report: Report) -> str:
        said: str = getattr(importlib.import_module(f"mlcheck.report.{module}"), function)(report)
        return said

    return make


def _json(report: Report) -> str:
    return report.model_dump_json(indent=1) + "\n"


def _text(report: Report) -> str:
    from mlcheck.report import summary

    stream = io.StringIO()
    summary.write(summary.Plain(stream), report)
    return stream.getvalue()


def _annotations(report: Report) -> str:
    from mlcheck.report import github

    return "".join(f"{line}\n" for line in github.errors(report))


FORMATS: Mapping[str, Format] = {
    "json": Format("everything, for programs and for `mlcheck report`", _json),
    "html": Format("one page for a browser, which needs nothing else", _of("html", "page")),
    "junit": Format("JUnit XML, a test suite for each image", _of("junit", "document")),
    "sarif": Format("SARIF 2.1.0, for code scanning", _of("sarif", "document")),
    "gitlab": Format("GitLab's code quality report", _of("gitlab", "document")),
    "tap": Format("Test Anything Protocol, version 13", _of("tap", "document")),
    "github": Format("annotations for GitHub Actions", _annotations, commands=True),
    "markdown": Format("the summary that GitHub shows of a job", _of("github", "markdown")),
    "text": Format("the summary as on the terminal", _text),
}


def to_stdout(content: str, *, commands: bool = False) -> None:
    """Print a report on standard output, where no text of an image may be a command.

    Args:
        commands: whether a CI's runner shall obey what is in it.
    """
    sys.stdout.write(content if commands else text.lines(content))
