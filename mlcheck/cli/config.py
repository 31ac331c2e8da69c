"""`mlcheck config`: which options a file of settings gives, and where it says so."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from mlcheck.cli import common
from mlcheck.model.errors import UsageError

FOR_EVERY_COMMAND = frozenset({"profiles", "pull"})
"""Keys that count for all commands with these options, and not for `check` alone."""


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `config`."""
    common.add_command(
        commands,
        "config",
        _run,
        help="print the options that mlcheck.toml or pyproject.toml gives",
        description="Print which options hold in this directory without being typed, and which "
        "line says so. mlcheck.toml, or [tool.mlcheck] in pyproject.toml, is searched for from "
        "the working directory upwards; the directory of an image that is judged is never "
        "searched. What is typed replaces what is there.",
        epilog="examples:\n  mlcheck config\n  mlcheck config --json",
    )


def _run(arguments: argparse.Namespace) -> int:
    from mlcheck.profile import settings

    found = settings.find(Path.cwd())
    known = {setting.key: setting for setting in found.settings}
    if arguments.json:
        told = {
            "file": found.file and str(found.file),
            "settings": {
                key: {"values": setting.values, "source": str(setting.source)}
                for key, setting in known.items()
            },
        }
        common.print_json(told)
        return 0
    if found.file is None:
        print(f"no {settings.FILE_NAME} here or above, and no [tool.mlcheck] in a")
        print(f"{settings.PROJECT_FILE}: all options have their defaults.")
    width = max(map(len, settings.KEYS)) + 2
    for key in settings.KEYS:
        setting = known.get(key)
        said = ", ".join(setting.values) or "(none)" if setting else "-"
        source = f"   ({setting.source})" if setting else ""
        print(f"{key:{width}}{said}{source}")
    return 0


def words(
    typed: Sequence[str], *, options: Collection[str] | None = None, judges: bool = False
) -> list[str]:
    """Return the words of a command line that the settings add to the words typed.

    Args:
        options: of the command; None: all.
        judges: whether the command judges images, so that all keys count of which it has the
            option.

    Raises:
        UsageError: the file of settings is invalid.
    """
    from mlcheck.engines import select
    from mlcheck.profile import settings

    found = settings.find(Path.cwd(), outside=[*_images(typed)])
    added: list[str] = []
    for setting in found.settings:
        option = f"--{setting.key}"
        counts = judges or setting.key in FOR_EVERY_COMMAND
        if options is not None and not (option in options and counts):
            continue
        if any(word == option or word.startswith(f"{option}=") for word in typed):
            continue
        for name in setting.values if setting.key == "engine" else ():
            if name not in select.engines():
                raise UsageError(
                    f"{setting.source}: engine: there is no engine {name!r}.",
                    f"Known are: {', '.join(select.engines())}.",
                )
        added += setting.words
    if added and (options is None or judges):
        common.progress(f"options of {os.path.relpath(str(found.file))}: {' '.join(added)}")
    return added


def _images(typed: Sequence[str]) -> Iterator[Path]:
    """Yield the directories among the words typed: any may be an image."""
    from mlcheck.pytest_plugin import argv

    for word in argv.joined(typed):
        option, _, value = word.partition("=")
        if option in ("--image", "--compare"):
            word = value
        elif word.startswith("-"):
            continue
        for path in (word, word.partition(":")[2]):
            directory = Path(path).expanduser() if path else None
            if directory is not None and os.path.isdir(directory):  # noqa: PTH112
                yield directory
