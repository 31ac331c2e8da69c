"""`mlcheck facts`: print what the probes find in an image."""

from __future__ import annotations

import argparse
import json

from mlcheck.cli import common
from mlcheck.inspect.prefix.facts import Environments, Prefixes
from mlcheck.inspect.probe_catalog import OF_ENVIRONMENTS, PROBES, facts_about, to_json
from mlcheck.model.errors import NOTHING_JUDGED, NotApplicable, Untried
from mlcheck.report import text


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `facts`."""
    facts = common.add_command(
        commands,
        "facts",
        _run,
        "image",
        help="print what the probes find in an image, without judging it",
        description="Print what the probes find in an image, without judging it, for every "
        "environment of conda and Python (`--probe environments` lists them). The exit code is 5 "
        "if all requested facts are about environments and there is none.",
        epilog="examples:\n  mlcheck facts ml-pyroot:alma9-python311\n"
        "  mlcheck facts ./ml-pyroot.sif --probe elf --json",
    )
    common.add_profile(
        facts, "ask only about the environment and the files that this profile names"
    )
    facts.add_argument(
        "--probe",
        action="append",
        choices=sorted(PROBES),
        metavar="NAME",
        help=f"only this one; repeatable. One of: {', '.join(sorted(PROBES))}",
    )


def _run(arguments: argparse.Namespace) -> int:
    names = arguments.probe or list(PROBES)
    profile = common.chosen_profile(arguments)
    found: dict[str, object] = {}
    with common.opened(arguments) as image, common.asking(arguments, image) as static:
        facts = facts_about(image, static, profile)
        for name in names:
            try:
                found[name] = to_json(PROBES[name](facts))
            except (NotApplicable, Untried) as error:
                if arguments.probe:
                    raise
                common.progress(f"left out {name}: {error.what}")
        searched = facts[Environments]
    missing = [name for name in found if name in OF_ENVIRONMENTS and not found[name]]
    for name in missing:
        common.progress(f"{name}: nothing was looked at: {_not_there(name, searched)}")
    if arguments.json:
        common.print_json(found)
    else:
        for name, fact in found.items():
            print(f"{name}:")
            _print_fact(fact, 1)
    return NOTHING_JUDGED if missing and len(missing) == len(found) else 0


def _not_there(name: str, searched: Prefixes) -> str:
    there = ", ".join(one.path for one in searched.found)
    where = f"only {there}" if there else searched.searched
    return f"{OF_ENVIRONMENTS[name]} is in the image ({where})"


def _print_fact(value: object, depth: int) -> None:
    """Print JSON data as indented text, one fact per line."""
    indent = "  " * depth
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, dict | list) and item:
                print(text.line(f"{indent}{key}:"))
                _print_fact(item, depth + 1)
            else:
                print(text.line(f"{indent}{key}: {_scalar(item)}"))
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                line = ", ".join(f"{key}={_scalar(inner)}" for key, inner in item.items())
                print(text.line(f"{indent}{line}"))
            else:
                print(text.line(f"{indent}{_scalar(item)}"))


def _scalar(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
