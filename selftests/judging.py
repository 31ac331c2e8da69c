"""Has the suite judge reference images, and reads what it reports."""

from __future__ import annotations

import fcntl
import functools
import json
import typing
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from mlcheck import reference
from mlcheck.inspect.rules import all_rules
from mlcheck.model.rule import Rule
from mlcheck.profile.catalog import SUITE
from mlcheck.reference.atlas import ROOT_STAND_IN
from selftests import warm

ML = [name for name in reference.NAMES if name.startswith("ml-")]
"""The reference images of the ML-Containers, which have a package list."""
COMPARED = {"machine-learning-notebook-gpu": "machine-learning-notebook-cpu"}
"""Images that are compared with another one."""

Report = Mapping[str, Any]
"""A JSON report (docs/report.schema.json)."""


def judge(report: Path, *arguments: str) -> Report:
    """Run the suite and read its report.

    Args:
        report: file for it.
        arguments: images, and options of pytest.
    """
    done = warm.pytest("-q", "-p", "no:cacheprovider", f"--mlcheck-json={report}", *arguments)
    assert report.is_file(), done.stdout + done.stderr
    found: Report = json.loads(report.read_text())
    assert "Traceback" not in done.stdout, done.stdout
    assert done.returncode == found["exit_code"]
    return found


def by_outcome(report: Report) -> dict[str, set[str]]:
    """Names of rules by their outcome; a test that is no rule stands with its own name."""
    outcomes: dict[str, set[str]] = {}
    for result in report["results"]:
        outcomes.setdefault(result["outcome"], set()).add(result["check"] or result["test"])
    return outcomes


def untried(report: Report) -> set[str]:
    """The checks that this machine or engine cannot try: zsh is not here, or no GPU."""
    return {result["check"] for result in report["results"] if result["untried"]}


def by_image(report: Report) -> dict[str, Report]:
    """The part of a report on each image, by what it was asked for with."""
    return {
        image["reference"]: {
            "images": [image],
            "results": [result for result in report["results"] if result["image"] == image["id"]],
        }
        for image in report["images"]
    }


@functools.cache
def good_list(name: str) -> Path:
    """The package list of a good image."""
    return reference.build(name) / "list-of-pkgs-inside.txt"


def with_lists(name: str, directory: Path) -> list[str]:
    """The options that compare with a checked-in copy of a good image's package list, and with
    ml-base's; none for an image that has no list.

    Args:
        directory: for the copy.
    """
    if name not in ML:
        return []
    copy = directory / f"{name}.txt"
    copy.write_bytes(good_list(name).read_bytes())
    return [f"--package-list={copy}", f"--base-list={good_list('ml-base')}"]


def with_surroundings(name: str) -> list[str]:
    """What an image needs besides itself, as options: what it is compared with, what is bound."""
    options = []
    if name in COMPARED:
        options.append(f"--compare={reference.build(COMPARED[name])}")
    if name == "atlas-jupyter":
        options.append(f"--bind={ROOT_STAND_IN}:/mycvmfs")
    return options


def good_in_a_directory(name: str, of_all_workers: Path) -> Report:
    """What the good image gets without any engine; judged once, whichever tests and workers ask."""
    report = of_all_workers / f"good-{name}.json"
    with (of_all_workers / f"good-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not report.exists():
            options = [*with_lists(name, of_all_workers), *with_surroundings(name)]
            judge(report.with_suffix(".new"), f"--image={reference.build(name)}", *options)
            report.with_suffix(".new").rename(report)
    known: Report = json.loads(report.read_text())
    return known


def slow_rules() -> dict[str, Rule]:
    """The rules that `-m "not slow"` leaves out."""
    return {name: rule for name, rule in all_rules().items() if rule.slow}


def without_slow_tests(but: Set[str]) -> list[str]:
    """The options that leave out the slow rules that ask for more facts than these rules do: what
    a server says of a kernel that dies takes longer than to judge the kernel."""
    slow = slow_rules()
    asked = {fact for name in but & slow.keys() for fact in _facts(slow[name])}
    if not asked:
        return ["-m", "not slow"]
    return [
        f"--deselect=tests/{rule.file.relative_to(SUITE)}::{rule.check.__name__}"
        for rule in slow.values()
        if not _facts(rule) <= asked
    ]


def _facts(rule: Rule) -> Set[object]:
    parameters = typing.get_type_hints(rule.check)
    return {kind for name, kind in parameters.items() if name not in ("profile", "return")}
