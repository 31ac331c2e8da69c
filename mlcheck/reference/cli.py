"""`mlcheck reference`: build reference images, and list the faults that can be planted."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mlcheck.model.errors import UsageError
from mlcheck.reference import DEFECTS, NAMES, build, default_tag, export
from mlcheck.reference.defects import find


def add_arguments(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Add the command `reference`. Its namespace has `run`, which returns the exit code."""
    parser = subparsers.add_parser(
        "reference",
        help="build reference images, list faults",
        description="Build known-good images, and list the faults that can be planted in them.",
        epilog="examples:\n  mlcheck reference build ml-pyroot\n"
        "  mlcheck reference build ml-pyroot --defect rpath --output ./broken\n"
        "  mlcheck reference defects --json",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    building = commands.add_parser(
        "build",
        help="build a reference image",
        description="Build a reference image, or take it from the cache, and print its path.",
    )
    building.add_argument(
        "image", metavar="REFERENCE[:TAG]", help=f"{' or '.join(NAMES)}; TAG is {default_tag()}"
    )
    building.add_argument(
        "--defect", action="append", default=[], metavar="D", help="plant this fault; repeatable"
    )
    building.add_argument(
        "--real", action="store_true", help="use real packages instead of stand-ins; takes minutes"
    )
    building.add_argument(
        "--output", type=Path, metavar="PATH", help="write a copy there that you may change"
    )
    building.add_argument(
        "--format",
        choices=("dir", "tar", "docker-archive"),
        default="dir",
        help="format of the copy: a directory, a tar for `docker import`, or one for "
        "`docker load` (default: %(default)s)",
    )
    building.set_defaults(run=_build)

    listing = commands.add_parser("defects", help="list the faults that can be planted")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=_defects)


def _build(arguments: argparse.Namespace) -> int:
    name, _, tag = arguments.image.partition(":")
    if arguments.format != "dir" and arguments.output is None:
        raise UsageError(
            f"--format {arguments.format} writes a file, and no --output says where.",
            f"Add for example --output {name}.tar",
        )
    if arguments.output is not None and arguments.format == "dir":
        export.check_new(arguments.output)  # fail before minutes of building
    layered = [
        defect
        for defect in (find(given, name) for given in sorted(set(arguments.defect)))
        if defect.layers is not None and arguments.format == "docker-archive"
    ]
    path = build(
        name,
        tag=tag or None,
        defects=set(arguments.defect) - {defect.name for defect in layered},
        real=arguments.real,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if arguments.output is not None:
        if arguments.format == "dir":
            export.export_directory(path, arguments.output)
        elif arguments.format == "tar":
            export.export_tar(path, arguments.output)
        else:
            export.export_docker_archive(path, arguments.output, layered)
        path = arguments.output
    print(path)
    return 0


def _defects(arguments: argparse.Namespace) -> int:
    if arguments.json:
        told = [
            {
                "name": defect.name,
                "images": sorted(defect.images),
                "plants": defect.plants,
                "caught_by": sorted(defect.caught_by),
            }
            for defect in DEFECTS.values()
        ]
        print(json.dumps(told, indent=2))
        return 0
    for defect in DEFECTS.values():
        print(f"{defect.name}  ({', '.join(sorted(defect.images))})")
        print(f"    {defect.plants}")
        print(f"    caught by: {', '.join(sorted(defect.caught_by))}")
    return 0
