"""`mlcheck images`: list the published images, and where they are on this machine."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import asdict, dataclass

from mlcheck import reference
from mlcheck.cli import common
from mlcheck.engines import select
from mlcheck.engines.oci.images import plain_name
from mlcheck.profile.published import Published
from mlcheck.report import text


@dataclass(frozen=True, slots=True)
class Row:
    """One image.

    Args:
        image: name that --image accepts.
        reference: reference in a registry; None for a reference image, which is built on demand.
        aliases: other names of it.
        here: its places on this machine: "docker", "podman", a directory, or "docker: NAME" for
            an image that has only its short name.
    """

    image: str
    reference: str | None
    aliases: tuple[str, ...]
    here: tuple[str, ...]


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `images`."""
    parser = common.add_command(
        commands,
        "images",
        run,
        help="list the published images, and where they are on this machine",
        description="List the published images by the names that --image accepts, their references "
        "in their registries, and where they are on this machine: in docker, in podman, unpacked "
        "on CVMFS. No network is used.",
        epilog="examples:\n  mlcheck images\n  mlcheck images --json\n"
        "  pytest --image ml-pyroot:alma9-python311",
    )
    common.add_profiles(parser)


def rows(published: Published) -> list[Row]:
    """List all images that can be named without knowing where they are stored."""
    held = {store: select.names_in(store) for store in select.stores()}
    found = []
    for image in published.images:
        here = [store for store in held if plain_name(image.registry) in held[store]]
        here += [f"{store}: {image.short}" for store in held if image.short in held[store]]
        here += [path for path in image.directories if os.path.isdir(path)]  # noqa: PTH112
        aliases = tuple(f"{alias}:{image.tag}" for alias in image.aliases)
        found.append(Row(image.short, image.registry, aliases, tuple(here)))
    found += [
        Row(f"reference:{name}:{reference.default_tag(name)}", None, (), ())
        for name in reference.NAMES
    ]
    return found


def run(arguments: argparse.Namespace) -> int:
    """Print the list."""
    found = rows(Published(common.catalog(arguments)))
    if arguments.json:
        common.print_json({"images": [asdict(row) for row in found]})
        return 0
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(text.lines(table(found, width)))
    return 0


def table(found: list[Row], width: int | None) -> str:
    """Format the images as a table; on a narrow terminal, an image takes several lines.

    Args:
        width: of the terminal, in characters; None without one.
    """
    lines = [
        (
            ", ".join((row.image, *row.aliases)),
            row.reference or "built on the spot",
            ", ".join(row.here) or "-",
        )
        for row in found
    ]
    head = ("IMAGE", "REGISTRY", "HERE")
    columns = [max(len(line[n]) for line in (head, *lines)) for n in range(2)]
    longest = max(len(line[2]) for line in (head, *lines))
    if width is None or sum(columns) + 4 + longest <= width:
        return "\n".join(
            f"{first:{columns[0]}}  {second:{columns[1]}}  {third}"
            for first, second, third in (head, *lines)
        )
    narrow = []
    for row, (_, place, _) in zip(found, lines, strict=True):
        narrow.append(row.image)
        details = [*(f"also {alias}" for alias in row.aliases), place]
        details += [f"here: {where}" for where in row.here]
        narrow += [f"    {line}" for line in details]
    return "\n".join(narrow)
