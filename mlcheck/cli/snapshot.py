"""`mlcheck snapshot`: write expectations from a good image."""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path

from mlcheck.cli import common
from mlcheck.inspect.prefix.facts import KIND_WORDS
from mlcheck.model.errors import UsageError
from mlcheck.profile.catalog import FILE_NAME
from mlcheck.report import text


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `snapshot`."""
    parser = commands.add_parser(
        "snapshot",
        help="write an image.toml from a good image",
        description="Write an image.toml from a good image: system, packages that were requested "
        "by name, commands, kernels, environment, files, sizes. The suite then judges the image by "
        "it; expectations that do not hold are left out and listed in a comment. So the image "
        "passes at once, and the next one is compared with it. This takes as long as the suite "
        "does.",
        epilog="examples:\n  mlcheck snapshot ./my-image > image.toml\n"
        "  mlcheck snapshot -o profiles/my-image/image.toml me/my-image:v1\n"
        "  mlcheck snapshot --extends ml-base me/analysis:v1 > image.toml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common.add_image(parser)
    common.add_no_cache(parser)
    parser.add_argument(
        "--extends",
        metavar="NAME",
        help="write only the additions to this profile, whose tests then run too",
    )
    parser.add_argument(
        "--name", help="name of the new profile, which is its folder (default: the image's)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write to a new file, not to stdout"
    )
    parser.add_argument(
        "--json", action="store_true", help="as JSON, including what is not promised"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the file.

    Raises:
        UsageError: the output exists, or a profile is missing.
    """
    if arguments.output is not None and arguments.output.exists():
        raise UsageError(
            f"{arguments.output} exists, and is not overwritten.",
            "Remove it, or name another file.",
        )
    from mlcheck.inspect.rules import all_rules
    from mlcheck.snapshot import found, writing
    from mlcheck.snapshot.suite_run import Trial

    catalog = common.catalog(arguments)
    with common.opened(arguments) as image, common.asking(arguments, image) as static:
        common.progress(f"reading {image.ref.text}")
        there = found.look(image, static)
        for other in there.others:
            common.progress(f"nothing is written of {other.path} ({KIND_WORDS[other.kind]})")
        ref, engine = image.ref, image.engine
    name = writing.profile_name(arguments.name or ref.name)
    parent, tag = None, ref.tag
    if arguments.extends is not None:
        try:
            parent = catalog.load(arguments.extends, tag)
        except UsageError:  # no such tag: expectations that depend on the tag are dropped
            parent, tag = catalog.load(arguments.extends), None
        if name in parent.lineage:
            name += "-snapshot"
    subject = writing.Subject(
        ref.text,
        engine,
        name,
        parent,
        () if parent else writing.fitting(catalog, there),
    )
    judge = Trial(
        ref.text,
        engine,
        f"{name}:{tag}" if tag else name,
        profiles=tuple(arguments.profiles),
        options=("--no-cache",) if arguments.no_cache else (),
        progress=common.progress,
    )
    settled = writing.write(there, subject, all_rules(), judge, datetime.date.today())
    written = settled.document.text()
    for check, said in settled.broken.items():
        common.progress(f"left out, because it does not hold here: {check}: {said[0]}")
    common.progress(f"{len(settled.checks)} checks judged what was written, and it holds")
    if arguments.json:
        told = {
            "image": ref.text,
            "engine": engine,
            "profile": name,
            "expectations": settled.document.data(),
            "checks": sorted(settled.checks),
            "broken": settled.broken,
            "untried": settled.untried,
        }
        written = json.dumps(told, indent=1, default=str) + "\n"
    if arguments.output is None:
        print(text.lines(written), end="")
        return 0
    try:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        with arguments.output.open("x", encoding="utf-8") as file:
            file.write(written)
    except OSError as error:
        raise UsageError(f"{arguments.output} cannot be written: {error.strerror}.") from None
    if arguments.output.name != FILE_NAME:
        common.progress(f"mlcheck reads it as {name}/{FILE_NAME}, in a directory for --profiles")
    return 0
