"""`mlcheck explain`: print a rule, its reason, its test, and a waiver for it."""

from __future__ import annotations

import argparse
import datetime
import json
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from mlcheck.cli import common

if TYPE_CHECKING:
    from mlcheck.model.rule import Rule
    from mlcheck.profile.catalog import Profile
    from mlcheck.reference.defects import Defect

_WIDTH = 100
_LABEL = 11
WAIVED_DAYS = 30
"""Days that the suggested waiver lasts: enough for a release, few enough to be looked at."""


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `explain`."""
    parser = commands.add_parser(
        "explain",
        help="explain a rule: its reason, its test, and how to waive it",
        description="Explain a rule: the reason for it, its test, the keys of an image.toml that "
        "it compares with, the planted faults that prove it, what to do when it fails, and how to "
        "waive it. Without RULE, list all rules, one per line.",
        epilog="examples:\n  mlcheck explain\n  mlcheck explain rpath-hard-coded\n"
        "  mlcheck explain libraries-resolve --json\n"
        "  mlcheck explain --image ml-pyroot:alma9-python311",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "rule", nargs="?", metavar="RULE", help="id of the rule, as its failures print it"
    )
    parser.add_argument(
        "--image",
        metavar="IMAGE",
        help="list the rules by which this image is judged, and those about which its profile "
        "says nothing; the image itself need not be there",
    )
    common.add_profiles(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the explanation, or the list."""
    from mlcheck.inspect import rules

    if arguments.rule is None:
        if arguments.image is None:
            _print_list(rules.all_rules().values(), as_json=arguments.json)
        else:
            _print_promised(_profile(arguments), as_json=arguments.json)
        return 0
    rule = rules.explained(arguments.rule)
    until = datetime.date.today() + datetime.timedelta(days=WAIVED_DAYS)
    if arguments.json:
        print(json.dumps(_json(rule, until), indent=1))
    else:
        print("\n".join(_text(rule, until)))
    return 0


def _profile(arguments: argparse.Namespace) -> Profile:
    """The profile by which the image of --image is judged.

    Raises:
        UsageError: its name means no profile, or that has no such tag.
    """
    from mlcheck.engines.resolve import understood
    from mlcheck.engines.select import with_default_tag

    ref = with_default_tag(understood(arguments.image))
    return common.catalog(arguments).load(ref.name, ref.tag)


def _print_list(listed: Iterable[Rule], *, as_json: bool) -> None:
    if as_json:
        told = [{"check": one.id, "group": one.about, "rule": one.text} for one in listed]
        print(json.dumps({"checks": told}, indent=1))
    else:
        print("\n".join(_list(list(listed))))


def _print_promised(profile: Profile, *, as_json: bool) -> None:
    from mlcheck.inspect import rules

    judged = rules.promised(profile, compared=False)
    others = {
        name: rule
        for name, rule in rules.all_rules().items()
        if name not in judged and rules.is_about(rule, profile)
    }
    if as_json:
        told = {
            "profile": profile.label,
            "promised": list(judged),
            "not_promised": {name: list(rule.keys) for name, rule in others.items()},
        }
        print(json.dumps(told, indent=1))
        return
    print(f"{profile.label} is judged by {len(judged)} rules:\n")
    print("\n".join(_list(list(judged.values()))))
    if others:
        print("\nIts profile says nothing about what these are about:\n")
        width = max(map(len, others)) + 2
        for name, rule in others.items():
            needs = " or ".join(rule.keys) or "--compare IMAGE"
            print(f"  {name:{width}}{needs}")


def _list(listed: list[Rule]) -> Iterator[str]:
    width = max((len(rule.id) for rule in listed), default=0) + 2
    last = ""
    for rule in listed:
        if rule.about != last:
            yield f"\n{rule.about}" if last else rule.about
            last = rule.about
        first = rule.text.partition(": ")[0].removesuffix(".")
        short = textwrap.shorten(first, _WIDTH - width - 2, placeholder=" ...")
        yield f"  {rule.id:{width}}{short}"


def defects_of(rule: Rule) -> list[Defect]:
    """The faults that can be planted to see a rule fail."""
    from mlcheck.reference import DEFECTS

    return [defect for defect in DEFECTS.values() if rule.id in defect.caught_by]


def _keys(rule: Rule) -> dict[str, str]:
    """The keys of a profile that a rule compares with, and what each says."""
    from mlcheck.profile.schema.keys import meaning

    return {key: meaning(key) or "" for key in (*rule.keys, *rule.also)}


def _json(rule: Rule, until: datetime.date) -> dict[str, object]:
    from mlcheck.inspect import rules

    return {
        "check": rule.id,
        "group": rule.about,
        "rule": rule.text,
        "why": rule.why,
        "remedy": rule.fix,
        "page": rules.page_of(rule),
        "keys": _keys(rule),
        "test": _test(rule),
        "only": rules.only_for(rule),
        "slow": rule.slow,
        "facts": rules.facts_of(rule),
        "defects": [
            {"name": defect.name, "plants": defect.plants, "images": sorted(defect.images)}
            for defect in defects_of(rule)
        ],
        "waiver": _waiver(rule, until),
    }


def _test(rule: Rule) -> str:
    return f"{rule.file.parent.name}/{rule.file.name}::{rule.check.__name__}"


def _text(rule: Rule, until: datetime.date) -> Iterator[str]:
    from mlcheck.inspect import rules

    yield f"{rule.id}: {rule.about}"
    yield ""
    yield from _row("rule", rule.text)
    yield from _row("why", rule.why)
    yield from _row("fix", rule.fix)
    yield ""
    only = rules.only_for(rule)
    whose = f"; only for {only} and what extends it" if only else ""
    yield from _row("judged by", f"{_test(rule)}{'; slow' * rule.slow}{whose}")
    label = "facts"
    for name, said in rules.facts_of(rule).items():
        yield from _row(label, f"{name}: {said}")
        label = ""
    label = "profile"
    for key, said in _keys(rule).items():
        yield from _row(label, f"{key}: {said}")
        label = ""
    if not rule.keys:
        yield from _row(label, "no key switches it on or off")
    defects = defects_of(rule)
    names = [defect.name for defect in defects]
    yield from _row("proven by", ", ".join(names) or _NO_DEFECT)
    if page := rules.page_of(rule):
        yield from _row("page", f"{page}, in mlcheck's repository")
    if names:
        plain = min(defects, key=lambda one: not rule.id.startswith(one.name))
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
        f'check = "{rule.id}"\n'
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
