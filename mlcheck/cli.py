"""The `mlcheck` command."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import mlcheck
from mlcheck.errors import MlcheckError, UsageError
from mlcheck.image import FORMS
from mlcheck.report import text

_COMMANDS = {
    **{
        name: f"mlcheck.commands.{name}"
        for name in (
            *("images", "info", "packages", "layers", "diff", "facts", "exec", "doctor", "cache"),
            *("explain", "snapshot", "report"),
        )
    },
    "reference": "mlcheck.reference.cli",
}
"""In which module each command is. Only that of the command given is imported: together they
take half a second."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 2 for a user's mistake (4 of `diff`, for which 1 says that
    images differ, as of pytest) and 3 for an engine's trouble."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser(argv).parse_args(argv)
    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()  # that the reader has gone must show here, not at exit
        return code
    except UsageError as error:
        print(f"mlcheck: {text.printable(str(error))}", file=sys.stderr)
        return int(getattr(arguments, "mistake", 2))
    except MlcheckError as error:
        print(f"mlcheck: {text.printable(str(error))}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _Parser(argparse.ArgumentParser):
    """One that ends with the command's own exit code for a mistake."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(self.get_default("mistake") or 2, f"{self.prog}: error: {message}\n")


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mlcheck",
        description="A conformance test suite for machine-learning container images. The suite "
        "itself is run by pytest: pytest --image IMAGE",
        epilog=f"An IMAGE is one of:\n{FORMS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=mlcheck.__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    wanted = argv[0] if argv and argv[0] in _COMMANDS else None
    for name, module in _COMMANDS.items():
        if wanted in (None, name):
            importlib.import_module(module).add_arguments(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main([*sys.argv[1:]] or ["--help"]))
