"""`mlcheck facts`: what the probes find in an image."""

from __future__ import annotations

import argparse
import json

from mlcheck.commands import common
from mlcheck.errors import NothingRuns
from mlcheck.probes import PROBES, Questions, to_json
from mlcheck.report import text


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `facts`."""
    facts = common.add_command(
        commands,
        "facts",
        _run,
        "image",
        help="print what the probes find in an image, without judging it",
        description="Print what the probes find in an image, without judging it.",
        epilog="examples:\n  mlcheck facts ml-pyroot:alma9-python311\n"
        "  mlcheck facts ./ml-pyroot.sif --probe elf --json",
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
    found: dict[str, object] = {}
    with common.opened(arguments) as image, common.asking(arguments, image) as static:
        ask = Questions(static=static)
        for name in names:
            try:
                found[name] = to_json(PROBES[name](image, ask))
            except NothingRuns as error:
                if arguments.probe:
                    raise
                common.progress(f"left out {name}: {error.what}")
    if arguments.json:
        common.print_json(found)
    else:
        for name, fact in found.items():
            print(f"{name}:")
            _print_fact(fact, 1)
    return 0


def _print_fact(value: object, depth: int) -> None:
    """JSON data as indented text, one fact a line."""
    indent = "  " * depth
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, dict | list) and item:
                print(text.printable(f"{indent}{key}:"))
                _print_fact(item, depth + 1)
            else:
                print(text.printable(f"{indent}{key}: {_scalar(item)}"))
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                line = ", ".join(f"{key}={_scalar(inner)}" for key, inner in item.items())
                print(text.printable(f"{indent}{line}"))
            else:
                print(text.printable(f"{indent}{_scalar(item)}"))


def _scalar(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
