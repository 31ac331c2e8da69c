"""The record of verdicts: what each check says of each reference image and planted fault.

`verdicts/IMAGE/good.txt` has the outcome of every check that ran, `verdicts/IMAGE/FAULT.txt` what
differs from it with the fault, and what was found. `make verdicts` writes the record anew;
test_defects.py compares. What a fault must be caught by is not taken from here: a fault says so
itself (`mlcheck/reference/defects`).
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import pytest

from mlcheck.inspect.rules import all_rules
from selftests.judging import Report, untried

RECORD = Path(__file__).parent / "verdicts"
WRITING = "MLCHECK_WRITE_VERDICTS"
"""Variable of the environment; set: the record is written and not compared."""
_PYTHON = ("3", "11")
"""Whose packages the reference images had when the record was written."""

LAYERS = {name for name in all_rules() if name.startswith("layers-")}
"""Checks of images that have layers; a directory has none. Proven by test_layers.py."""
NOT_OF_CONTENT = {"deployed-digest", "server-any-user", "user-installs"}
NOT_OF_CONTENT |= {name for name in all_rules() if name.startswith("gpu-")} - {"gpu-hint"}
"""Checks that a plain directory gives nothing to, proven by test_deployed.py,
test_serving_on_engines.py, and by test_gpu_ladder.py with a stand-in for the driver."""
WITHOUT_PROFILE = {"startable"}
"""Checks that only an image without a profile promises, proven by test_start_program.py."""
PROVEN_ELSEWHERE = NOT_OF_CONTENT | WITHOUT_PROFILE | {"prefix-there"}
"""Checks of which no planted fault is proof; that of the prefix is proven by test_prefix.py."""
DEPLOYED = {"deployed-digest", "deployed-readable", "singularity-d"}
DEPLOYED |= {"on-host-bash", "on-host-zsh", "on-host-programs", "on-host-libraries"}
"""Checks of images that are deployed as directories."""


def told(report: Report) -> dict[str, str]:
    """What a report on one image says of each check: its outcome, and a line for each finding."""
    found = {}
    for result in report["results"]:
        findings = [
            f"  {_plain(finding['subject'])}: {_plain(finding['found'])}"
            for finding in result["findings"]
        ]
        more = ["  and more"] if len(findings) > _FINDINGS else []
        outcome = "untried" if result["untried"] else result["outcome"]
        said = "\n".join([outcome, *findings[:_FINDINGS], *more])
        found[result["check"] or result["test"].partition("[")[0]] = said
    return found


def with_fault(report: Report, good: Report) -> dict[str, str]:
    """What is said of an image with a fault, as far as it differs from the good image's."""
    before = told(good)
    return {check: said for check, said in told(report).items() if before.get(check) != said}


def recorded(
    name: str, fault: str, now: dict[str, str], report: Report, good: Report
) -> dict[str, str]:
    """What the record says of the checks that were tried. On another Python, for which PyPI has
    other packages, the test is skipped.

    Args:
        fault: "good" for the good image.
        now: what is said now, and is written where the record is written anew.
        report: where it is said.
        good: what is said of the good image, which tells what cannot be tried here.
    """
    if platform.python_version_tuple()[:2] != _PYTHON:
        pytest.skip(f"the record of verdicts is of Python {'.'.join(_PYTHON)}")
    file = RECORD / name / f"{fault}.txt"
    if WRITING in os.environ:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{check} {said}\n" for check, said in sorted(now.items())))
    blocks = re.findall(r"^(\S+) (.*(?:\n  .*)*)", file.read_text(), re.MULTILINE)
    tried = told(report).keys() - untried(good)
    return {check: said for check, said in blocks if check in tried}


def _plain(text: str) -> str:
    """A text without what differs between machines and runs."""
    for pattern, name in _DIFFER:
        text = pattern.sub(name, text)
    return " ".join(text.split())


_FINDINGS = 5
"""Of each check; where a package list is missing, there are hundreds."""
_MAJOR, _MINOR = platform.python_version_tuple()[:2]
_DIFFER = (
    (re.compile(r"it said: .*", re.DOTALL), "it said"),
    (re.compile(r"prints For the content .*", re.DOTALL), "prints the banner"),
    # Which of two the banner ends with depends on who may write the prefix.
    (re.compile(r"To install new pkg\(s\), .*|To create your own new env, .*", re.DOTALL), "HINT"),
    (re.compile(r"/\S*/reference/[0-9a-f]{20}/[\w:.-]+"), "IMAGE"),
    (re.compile(rf"{_MAJOR}\.{_MINOR}(\.\d+)?\b"), "PYTHON"),
    (re.compile(rf"\b(py|python|cpython-|cp){_MAJOR}{_MINOR}"), r"\1PYTHON"),
    (re.compile(r"\b0x[0-9a-f]+\b"), "ADDRESS"),
    (re.compile(r"\b[0-9a-f]{8,}\b"), "DIGEST"),
    (re.compile(r"\b\d+ (bytes|[kMG]B)\b"), "SIZE"),
    (re.compile(r"\b\d+(\.\d+)? ?(ms|s)\b"), "TIME"),
)
