"""The `mlcheck` command."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence

import mlcheck
from mlcheck import opening
from mlcheck.commands import common, images, info, packages
from mlcheck.errors import MlcheckError, NothingRuns, UsageError
from mlcheck.image import FORMS
from mlcheck.probes import PROBES, Questions, to_json
from mlcheck.reference import cli as reference_cli
from mlcheck.report import text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 2 for a user's mistake and 3 for an engine's trouble."""
    arguments = _parser().parse_args(argv)
    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()  # that the reader has gone must show here, not at exit
        return code
    except UsageError as error:
        print(f"mlcheck: {text.printable(str(error))}", file=sys.stderr)
        return 2
    except MlcheckError as error:
        print(f"mlcheck: {text.printable(str(error))}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcheck",
        description="A conformance test suite for machine-learning container images. The suite "
        "itself is run by pytest: pytest --image IMAGE",
        epilog=f"An IMAGE is one of:\n{FORMS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=mlcheck.__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    images.add_arguments(commands)
    info.add_arguments(commands)
    packages.add_arguments(commands)

    facts = commands.add_parser(
        "facts",
        help="print what the probes find in an image, without judging it",
        description="Print what the probes find in an image, without judging it.",
    )
    common.add_image(facts)
    facts.add_argument(
        "--probe",
        action="append",
        choices=sorted(PROBES),
        metavar="NAME",
        help=f"only this one; repeatable. One of: {', '.join(sorted(PROBES))}",
    )
    facts.add_argument("--json", action="store_true", help="as JSON")
    facts.set_defaults(run=_facts)

    execute = commands.add_parser(
        "exec",
        help="run a command in an image as the suite does, and show what it prints",
        description="Run a command in an image exactly as the suite does. The exit code is the "
        "command's own; 124 when it did not end within its limit.",
    )
    common.add_image(execute)
    execute.add_argument("--limit", type=float, default=600.0, metavar="SECONDS")
    execute.add_argument("argv", nargs="+", metavar="ARG")
    execute.set_defaults(run=_exec)

    doctor = commands.add_parser(
        "doctor",
        help="say which engines work on this machine, and what helps where one does not",
        description="Try every engine for real. The exit code is 3 when none can run commands.",
    )
    doctor.add_argument("--json", action="store_true", help="as JSON")
    doctor.set_defaults(run=_doctor)

    reference_cli.add_arguments(commands)
    return parser


def _facts(arguments: argparse.Namespace) -> int:
    names = arguments.probe or list(PROBES)
    found: dict[str, object] = {}
    with common.opened(arguments) as image:
        for name in names:
            try:
                found[name] = to_json(PROBES[name](image, Questions()))
            except NothingRuns as error:
                if arguments.probe:
                    raise
                common.progress(f"left out {name}: {error.what}")
    if arguments.json:
        print(json.dumps(found, indent=1, ensure_ascii=True))
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


def _exec(arguments: argparse.Namespace) -> int:
    with common.opened(arguments) as image:
        stdin = b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()
        done = image.run(arguments.argv, limit_s=arguments.limit, stdin=stdin)
    sys.stdout.buffer.write(done.stdout)
    sys.stdout.buffer.flush()
    sys.stderr.buffer.write(done.stderr)
    if done.exit_code is None:
        common.progress(
            f"the command was ended by a limit ({done.ended}) after {done.seconds:.0f} s"
        )
        return 124
    return done.exit_code


def _doctor(arguments: argparse.Namespace) -> int:
    from mlcheck import doctor

    findings = doctor.examine()
    chosen = doctor.chosen(findings)
    if arguments.json:
        engines = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"engines": engines, "auto": chosen, "gpu": doctor.gpu_line()}, indent=1))
    else:
        for finding in findings:
            state = "works" if finding.usable else "cannot be used here"
            print(text.printable(f"{finding.engine}: {state}: {finding.what}"))
            for line in finding.remedy.splitlines():
                print(text.printable(f"    {line}"))
            if finding.usable:
                print(f"    opens: {', '.join(finding.kinds)}")
        print("--engine auto takes, by the kind of image:")
        for kind, name in chosen.items():
            print(f"    {kind}: {name or 'nothing: no engine for it works here'}")
        print(f"GPU: {doctor.gpu_line()}")
    able = [found for found in findings if found.usable and found.engine not in opening.ONLY_READ]
    return 0 if able else 3


if __name__ == "__main__":
    sys.exit(main([*sys.argv[1:]] or ["--help"]))
