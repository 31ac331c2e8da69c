"""Options that several commands share, and opening the image."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcheck import cache
from mlcheck.engines import select
from mlcheck.engines.base import OpenImage, PullPolicy, Start
from mlcheck.model.errors import UsageError
from mlcheck.model.image_ref import ImageRef
from mlcheck.report import formats, text

if TYPE_CHECKING:
    from mlcheck.engines.resolve import Resolved
    from mlcheck.profile.catalog import Catalog, Profile


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    *images: str,
    **texts: Any,
) -> argparse.ArgumentParser:
    """Add a command with --json; with names of images, also those and the options for reading them.

    Args:
        run: function that returns the exit code.
        texts: help, description and epilog.
    """
    parser = commands.add_parser(name, **texts)
    if images:
        add_image(parser, *images)
        add_no_cache(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)
    return parser


def print_json(told: object) -> None:
    """Print JSON for programs, as all commands do with --json."""
    # The same JSON: GitHub's runner looks for its commands anywhere in a line.
    print(json.dumps(told, indent=1).replace("##[", "##\\u005b"))


def write_report(content: str, output: Path | None, *, commands: bool = False) -> None:
    """Write a report to a file or to standard output.

    Args:
        commands: whether a CI's runner shall obey what is in it.
    """
    if output is None or str(output) == formats.STDOUT:
        formats.to_stdout(content, commands=commands)
        return
    try:
        output.write_text(content, encoding="utf-8")
    except OSError as error:
        remedy = "Name a file that can be written."
        raise UsageError(f"{output}: {error.strerror}.", remedy) from None


_COLOURS = {"red": 31, "green": 32}


def painted(colour: str, words: str) -> str:
    """Colour words for stdout, if it is a terminal with colours.

    NO_COLOR and FORCE_COLOR work as in pytest: https://no-color.org, https://force-color.org
    """
    able = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if os.environ.get("NO_COLOR") or not (able or os.environ.get("FORCE_COLOR")):
        return words
    return f"\x1b[{_COLOURS[colour]}m{words}\x1b[0m"


def add_profiles(parser: argparse.ArgumentParser) -> None:
    """Add --profiles."""
    parser.add_argument(
        "--profiles",
        action="append",
        default=[],
        metavar="DIR",
        help="directory with your own image.toml folders, which state what is published and "
        "expected; repeatable",
    )


def add_profile(parser: argparse.ArgumentParser, told: str) -> None:
    """Add --profile.

    Args:
        told: its purpose, for the help.
    """
    parser.add_argument("--profile", metavar="NAME[:TAG]", help=told)


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add --engine."""
    parser.add_argument("--engine", choices=select.engines(), default=select.AUTO)


def add_image(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add IMAGE, or several images with these names, and the options for opening one."""
    for name in names or ("image",):
        parser.add_argument(name, metavar=name.upper())
    add_engine(parser)
    parser.add_argument(
        "--pull",
        choices=("missing", "always", "never"),
        default="missing",
        help="when to fetch the image from its registry",
    )
    add_profiles(parser)


_STARTED_NS = time.time_ns()


def add_no_cache(parser: argparse.ArgumentParser) -> None:
    """Add --no-cache."""
    parser.add_argument(
        "--no-cache",
        action="store_true",
        help="read the image anew, and keep no facts of it (see `mlcheck cache`)",
    )


@contextmanager
def asking(arguments: argparse.Namespace, image: OpenImage) -> Iterator[cache.Static]:
    """Ask static probes about an image, and say at the end if facts came from the cache."""
    if arguments.no_cache:
        os.environ[cache.OFF] = "1"
    static = cache.asking(image, _STARTED_NS)
    yield static
    for note in static.notes:
        progress(note)


def progress(line: str) -> None:
    """Print progress for a person on stderr."""
    print(f"mlcheck: {text.line(line)}", file=sys.stderr, flush=True)


def catalog(arguments: argparse.Namespace) -> Catalog:
    """Return the profiles that --profiles names, and those of the suite."""
    from mlcheck.profile.catalog import SUITE, Catalog

    return Catalog([*map(Path, arguments.profiles), SUITE])


def chosen_profile(arguments: argparse.Namespace) -> Profile | None:
    """Load the profile that --profile names.

    Raises:
        UsageError: there is no such profile, or it has no such tag.
    """
    if arguments.profile is None:
        return None
    name, _, tag = arguments.profile.partition(":")
    return catalog(arguments).load(name, tag or None)


def resolved(
    arguments: argparse.Namespace, images: Sequence[str], pull: PullPolicy = "missing"
) -> list[Resolved]:
    """Resolve image references."""
    from mlcheck.engines.resolve import resolve
    from mlcheck.profile.published import Published

    return resolve(images, Published(catalog(arguments)), engines=[arguments.engine], pull=pull)


@contextmanager
def opened(
    arguments: argparse.Namespace, name: str = "image", start: Start = Start()
) -> Iterator[OpenImage]:
    """Open the image of `add_image`."""
    ref = _meant(arguments, getattr(arguments, name))
    select.check_exists(ref)
    ((engine, _),) = select.choose(ref, [arguments.engine])
    with select.open_image(
        ref, engine, pull=arguments.pull, start=start, progress=progress
    ) as image:
        yield image


def _meant(arguments: argparse.Namespace, text: str) -> ImageRef:
    from mlcheck.engines.resolve import understood

    ref = select.with_default_tag(understood(text))
    if ref.kind != "registry":
        return ref  # no profile can add anything
    from mlcheck.profile.published import ALL

    if text == ALL:
        raise UsageError(f"{ALL} is more than one image.", "`mlcheck images` lists them.")
    (meant,) = resolved(arguments, [text], arguments.pull)
    if meant.why:
        progress(f"{meant.ref.text} is {meant.why}")
    return meant.ref
