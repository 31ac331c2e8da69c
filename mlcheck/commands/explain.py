"""`mlcheck explain`: what a check asks, why, how it is tested, and how to waive it."""

from __future__ import annotations

import argparse
import datetime
import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlcheck.explaining import Explained
    from mlcheck.verdict import Rule

_WIDTH = 100
_LABEL = 11
WAIVED_DAYS = 30
"""For how long the ready waiver is: long enough for a release, short enough to be looked at."""


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `explain`."""
    parser = commands.add_parser(
        "explain",
        help="tell a check's rule, its reason, how it is tested, and how to waive it",
        description="Tell of a check its rule and the reason for it, the test that asks it, which "
        "keys of an image.toml it compares with, which planted faults prove it, what to do when it "
        "fails, and how to waive it. Without CHECK: all checks, a line each.",
        epilog="examples:\n  mlcheck explain\n  mlcheck explain rpath-hard-coded\n"
        "  mlcheck explain libraries-resolve --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("check", nargs="?", metavar="CHECK", help="as a failure begins with it")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the explanation, or the list."""
    from mlcheck import explaining

    if arguments.check is None:
        if arguments.json:
            listed = [
                {"check": check, "group": group, "rule": rule.rule}
                for check, (rule, group) in explaining.rules().items()
            ]
            print(json.dumps({"checks": listed}, indent=1))
        else:
            print("\n".join(_list(explaining.rules())))
        return 0
    found = explaining.explain(arguments.check)
    until = datetime.date.today() + datetime.timedelta(days=WAIVED_DAYS)
    if arguments.json:
        print(json.dumps(_json(found, until), indent=1))
    else:
        print("\n".join(_text(found, until)))
    return 0


def _list(rules: Mapping[str, tuple[Rule, str]]) -> Iterator[str]:
    width = max(map(len, rules)) + 2
    last = ""
    for check, (rule, group) in rules.items():
        if group != last:
            yield f"\n{group}" if last else group
            last = group
        first = rule.rule.partition(": ")[0].removesuffix(".")
        yield f"  {check:{width}}{textwrap.shorten(first, _WIDTH - width - 2, placeholder=' ...')}"


def _json(found: Explained, until: datetime.date) -> dict[str, object]:
    rule = found.rule
    return {
        "check": rule.check,
        "group": found.group,
        "rule": rule.rule,
        "why": rule.why,
        "remedy": rule.remedy,
        "keys": dict(found.keys),
        "tests": [
            {
                "test": f"{test.file}::{test.name}",
                "only": test.only,
                "slow": test.slow,
                "facts": dict(test.facts),
            }
            for test in found.tests
        ],
        "defects": [
            {"name": defect.name, "plants": defect.plants, "images": sorted(defect.images)}
            for defect in found.defects
        ],
        "waiver": _waiver(rule, until),
    }


def _text(found: Explained, until: datetime.date) -> Iterator[str]:
    rule = found.rule
    yield f"{rule.check}: {found.group}"
    yield ""
    yield from _row("rule", rule.rule)
    yield from _row("why", rule.why)
    yield from _row("remedy", rule.remedy)
    yield ""
    label = "tested by"
    for test in found.tests:
        whose = f"; only for {test.only} and what extends it" if test.only else ""
        yield from _row(label, f"{test.file}::{test.name}{'; slow' * test.slow}{whose}")
        yield from _row("", test.about)
        label = ""
    label = "facts"
    facts = {name: said for test in found.tests for name, said in test.facts.items()}
    for name, said in facts.items():
        yield from _row(label, f"{name}: {said}")
        label = ""
    label = "profile"
    for key, said in found.keys.items():
        yield from _row(label, f"{key}: {said}")
        label = ""
    if not found.keys:
        yield from _row(label, "no key switches it on or off")
    names = [defect.name for defect in found.defects]
    yield from _row("proven by", ", ".join(names) or _NO_DEFECT)
    if names:
        plain = found.defects[0]
        image = sorted(plain.images)[0]
        yield ""
        yield f"See it fail ({plain.plants.removesuffix('.')}):"
        yield f'    pytest --image "$(mlcheck reference build {image} --defect {plain.name})"'
    yield ""
    yield "Waive it, in the image.toml of the image:"
    yield ""
    yield from (f"    {line}" for line in _waiver(rule, until).splitlines())


_NO_DEFECT = (
    "self-tests with a stand-in: no fault in an image's files alone can show it (it takes a GPU, "
    "CVMFS, or an engine that starts an image as another user)"
)


def _waiver(rule: Rule, until: datetime.date) -> str:
    return (
        "[[waivers]]\n"
        f'check = "{rule.check}"\n'
        'match = "*"              # which findings: what the first column of the failure names\n'
        'reason = "..."           # why it is accepted, with a link\n'
        f"until = {until.isoformat()}       # after that day it fails again\n"
    )


def _row(label: str, said: str) -> list[str]:
    indent = " " * _LABEL
    return textwrap.wrap(
        said,
        _WIDTH,
        initial_indent=f"{label:{_LABEL}}",
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
