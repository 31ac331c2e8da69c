"""The `mlcheck` command."""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import io
import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import mlcheck
from mlcheck.model import errors
from mlcheck.model.errors import (
    INTERRUPTED,
    MISTAKE,
    NOT_JUDGED,
    READER_GONE,
    REPORT_IT,
    MlcheckError,
    UsageError,
)
from mlcheck.model.image_ref import FORMS
from mlcheck.report import text

_NAMES = """
    check images info packages layers diff facts exec snapshot explain
    doctor cache report verify matrix release config completion
"""
_COMMANDS = {
    **{name: f"mlcheck.cli.{name}" for name in _NAMES.split()},
    "schema": "mlcheck.cli.schemas",
    "reference": "mlcheck.reference.cli",
}
"""The module of each command. Only the module of the command given is imported: together they take
half a second."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: `mlcheck.model.errors` lists those that all commands share.
    """
    argv = sys.argv[1:] if argv is None else argv
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:  # closed by the caller (>&-): open something to write to
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            setattr(sys, name, open(number, "w"))  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Text from an image may not fit any encoding, least of all a terminal's ASCII. stderr is
        # set up like this from the start.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        os.stat(os.getcwd())  # noqa: PTH109, PTH116
    except (FileNotFoundError, PermissionError) as error:
        gone = isinstance(error, FileNotFoundError)
        what = "was removed" if gone else "is one that this user may not enter"
        print(f"mlcheck: the working directory {what}. Go to another one: cd", file=sys.stderr)
        return MISTAKE
    arguments = argparse.Namespace()
    try:
        if argv[:1] == ["check"] and not {"-h", "--help"} & set(argv):
            return int(importlib.import_module(_COMMANDS["check"]).run(argv[1:]))
        arguments = _parsed(argv)
        code = int(arguments.run(arguments))
        sys.stdout.flush()  # notice here, not at exit, that the reader has gone
        return code
    except UsageError as error:
        print(f"mlcheck: {text.lines(str(error))}", file=sys.stderr)
        return MISTAKE
    except MlcheckError as error:
        _show(error, arguments)
        return NOT_JUDGED
    except KeyboardInterrupt:
        print("mlcheck: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone; keep Python from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except OSError as error:
        # The machine failed: a full disk, a removed directory. The command did not do its work, and
        # a traceback would not help.
        where = f"{error.filename}: " if error.filename else ""
        if error.errno == errno.ENOSPC and not where:
            where = "the output: "
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"mlcheck: {text.line(where)}{error.strerror or error}.", file=sys.stderr)
        return NOT_JUDGED
    except Exception as error:
        # Python's own exit code for it is 1, as if the image did not conform.
        unforeseen = MlcheckError(f"mlcheck itself failed: {errors.unforeseen(error)}", REPORT_IT)
        unforeseen.__cause__ = error
        _show(unforeseen, arguments)
        return NOT_JUDGED


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the words of a command line, and those that the settings add."""
    top = parser(argv)
    command = _commands(top).get(argv[0]) if argv else None
    options = (
        {word for action in command._actions for word in action.option_strings} if command else ()
    )
    if "--profiles" in options and not {"-h", "--help"} & set(argv):
        from mlcheck.cli import config

        judges = argv[0] == "release"
        if judges:
            from mlcheck.pytest_plugin.argv import joined

            argv = [argv[0], *joined(argv[1:])]
        argv = [argv[0], *config.words(argv[1:], options=options, judges=judges), *argv[1:]]
    return top.parse_args(argv)


def _commands(of: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


def _show(error: MlcheckError, arguments: argparse.Namespace) -> None:
    """Print an error for people, with --full-trace also where it arose."""
    if getattr(arguments, "full_trace", False):
        print(text.lines("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    print(f"mlcheck: {text.lines(str(error))}", file=sys.stderr)


class _Help(argparse.HelpFormatter):
    """Keeps texts of several lines, such as examples, as they are written."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class _Parser(argparse.ArgumentParser):
    """A parser that ends with mlcheck's exit code after a mistake.

    It accepts no abbreviated option: --profile is not --profiles.
    """

    def __init__(self, **how: Any) -> None:
        super().__init__(**{**how, "formatter_class": _Help, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        known = re.findall(r"[\w.-]+", wrong[2]) if wrong else []
        if wrong and (close := difflib.get_close_matches(wrong[1], known, 1)):
            message += f". Did you mean {close[0]!r}?"
        if unknown := re.match(r"unrecognized arguments: (--[\w-]+)", message):
            known = [*_options(self)]
            longer = [option for option in known if option.startswith(unknown[1])]
            if close := longer or difflib.get_close_matches(unknown[1], known, 1):
                message += f". Did you mean {' or '.join(sorted(close))}?"
        if message.startswith("unrecognized arguments:") and "exec" in sys.argv[1:2]:
            message += ". What belongs to the command comes behind --, as in: -- ls -l"
        self.print_usage(sys.stderr)
        self.exit(MISTAKE, f"{self.prog}: error: {message}\n")


def _options(of: argparse.ArgumentParser) -> set[str]:
    """Return the long options of a parser and of its commands."""
    found = {word for action in of._actions for word in action.option_strings}
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            found = found.union(*map(_options, action.choices.values()))
    return {word for word in found if word.startswith("--")}


def parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Build the parser of the command in `argv`, or of all commands if it names none."""
    top = _Parser(
        prog="mlcheck",
        description="A conformance test suite for machine-learning container images.",
        epilog=f"An IMAGE is one of:\n{FORMS}\n\nmlcheck COMMAND --help says more, with examples.",
    )
    top.add_argument("-V", "--version", action="version", version=f"mlcheck {mlcheck.__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    wanted = argv[0] if argv and argv[0] in _COMMANDS else None
    for name, module in _COMMANDS.items():
        if wanted in (None, name):
            importlib.import_module(module).add_arguments(commands)
    for command in commands.choices.values():
        command.add_argument(
            "--full-trace", action="store_true", help="with an error, also show where it arose"
        )
    return top
