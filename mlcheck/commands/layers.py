"""`mlcheck layers`: the layers of an image, and what they hold in vain."""

from __future__ import annotations

import argparse

from mlcheck.checks import layers as checks
from mlcheck.commands import common
from mlcheck.errors import UsageError
from mlcheck.facts import Layers
from mlcheck.probes import layers as layers_probe
from mlcheck.probes import to_json
from mlcheck.report import text

_WIDTH = 60


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `layers`."""
    common.add_command(
        commands,
        "layers",
        run,
        "image",
        help="list the layers of an image, their sizes, and what is stored in vain",
        description="List the layers of an image: their sizes, what is stored in vain (copies of "
        "which only owner or mode differ, files that a later layer deletes or replaces), package "
        "caches, secrets, and the line of the image's history that made each.",
        epilog="examples:\n  mlcheck layers ml-pyroot:alma9-python311 --engine docker\n"
        "  mlcheck layers docker-archive:ml-pyroot.tar --engine archive --json",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    with common.opened(arguments) as image, common.asking(arguments, image) as static:
        if image.layers is None:
            raise UsageError(
                f"{image.ref.text}: the engine {image.engine} sees one file system without layers.",
                "Give an image of docker or podman (--engine), or an archive: docker save -o "
                "FILE.tar NAME:TAG, then docker-archive:FILE.tar.",
            )
        found = static(layers_probe.probe, image.layers)
    if arguments.json:
        common.print_json(to_json(found))
    else:
        for line in table(found):
            print(text.printable(line.replace("\n", "\\n")))
    return 0


def table(found: Layers) -> list[str]:
    """A line for each layer, the total, then what should not be in a layer."""
    rows = [("layer", "size", "wasted", "made by")]
    for layer in found.layers:
        by = checks.instruction(layer.created_by, _WIDTH)
        wasted = checks.shown(layer.wasted) if layer.wasted else "-"
        rows.append((str(layer.number), checks.shown(layer.size), wasted, by))
    rows.append(("total", checks.shown(found.size), checks.shown(found.wasted), ""))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join(
            [*(f"{cell:>{n}}" for cell, n in zip(row, widths, strict=False)), row[3]]
        ).rstrip()
        for row in rows
    ]
    for layer in found.layers:
        lines += [f"layer {layer.number}: {what}" for what in checks.remarks(layer)]
    return lines
