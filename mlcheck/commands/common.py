"""What several commands share: their options, and opening the image."""

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

from mlcheck import kept, opening
from mlcheck.engines.base import OpenImage, PullPolicy, Start
from mlcheck.errors import UsageError
from mlcheck.image import ImageRef
from mlcheck.report import text

if TYPE_CHECKING:
    from mlcheck.profile import Catalog, Profile
    from mlcheck.resolving import Resolved


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    *images: str,
    **texts: Any,
) -> argparse.ArgumentParser:
    """Add a command with --json; with names of images, those and the options of reading them.

    Args:
        run: returns the exit code.
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
    """Print for a program, as all commands do with --json."""
    print(json.dumps(told, indent=1))


_COLOURS = {"red": 31, "green": 32}


def painted(colour: str, words: str) -> str:
    """Words for stdout in a colour, where that is a terminal that has some.

    NO_COLOR and FORCE_COLOR decide as with pytest: https://no-color.org, https://force-color.org
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
        help="directory with image.toml folders of your own, which say what is published and "
        "expected; repeatable",
    )


def add_profile(parser: argparse.ArgumentParser, told: str) -> None:
    """Add --profile.

    Args:
        told: what it is for.
    """
    parser.add_argument("--profile", metavar="NAME[:TAG]", help=told)


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add --engine."""
    parser.add_argument("--engine", choices=opening.ENGINES, default=opening.AUTO)


def add_image(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add IMAGE, or several by these names, and the options of opening one."""
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
        help="read the image anew, and keep nothing of it (see `mlcheck cache`)",
    )


@contextmanager
def asking(arguments: argparse.Namespace, image: OpenImage) -> Iterator[kept.Static]:
    """Asks static probes about an image, and says at the end if facts had been kept."""
    if arguments.no_cache:
        os.environ[kept.OFF] = "1"
    static = kept.asking(image, _STARTED_NS)
    yield static
    for note in static.notes:
        progress(note)


def progress(line: str) -> None:
    """Tell a person what happens, on stderr."""
    print(f"mlcheck: {text.printable(line)}", file=sys.stderr, flush=True)


def catalog(arguments: argparse.Namespace) -> Catalog:
    """The profiles that --profiles names, and those of the suite."""
    from mlcheck.profile import SUITE, Catalog

    return Catalog([*map(Path, arguments.profiles), SUITE])


def chosen_profile(arguments: argparse.Namespace) -> Profile | None:
    """The one that --profile names.

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
    """Which images are meant."""
    from mlcheck.published import Published
    from mlcheck.resolving import resolve

    return resolve(images, Published(catalog(arguments)), engines=[arguments.engine], pull=pull)


@contextmanager
def opened(
    arguments: argparse.Namespace, name: str = "image", start: Start = Start()
) -> Iterator[OpenImage]:
    """The image of `add_image`."""
    ref = _meant(arguments, getattr(arguments, name))
    opening.check_exists(ref)
    ((engine, _),) = opening.choose(ref, [arguments.engine])
    with opening.open_image(
        ref, engine, pull=arguments.pull, start=start, progress=progress
    ) as image:
        yield image


def _meant(arguments: argparse.Namespace, text: str) -> ImageRef:
    from mlcheck.resolving import understood

    ref = opening.with_default_tag(understood(text))
    if ref.kind != "registry":
        return ref  # what no profile can tell more of
    from mlcheck.published import ALL

    if text == ALL:
        raise UsageError(f"{ALL} is more than one image.", "`mlcheck images` lists them.")
    (meant,) = resolved(arguments, [text], arguments.pull)
    if meant.why:
        progress(f"{meant.ref.text} is {meant.why}")
    return meant.ref
