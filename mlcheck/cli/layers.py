"""`mlcheck layers`: list an image's layers, and the bytes wasted in them."""

from __future__ import annotations

import argparse

from mlcheck.cli import common
from mlcheck.inspect.layers import probe as layers_probe
from mlcheck.inspect.layers.facts import Layers
from mlcheck.inspect.layers.words import remarks
from mlcheck.inspect.probe_catalog import to_json
from mlcheck.model.errors import UsageError
from mlcheck.model.layer_history import instruction
from mlcheck.model.units import shown
from mlcheck.report import text

_WIDTH = 60


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `layers`."""
    common.add_command(
        commands,
        "layers",
        run,
        "image",
        help="list the layers of an image, their sizes, and wasted bytes",
        description="List the layers of an image: their sizes, wasted bytes (copies that differ "
        "only in owner or mode, files that a later layer deletes or replaces), package caches, "
        "secrets, and the line of the image's history that made each layer.",
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
        found = layers_probe.examined(image, image.layers, static)
    if arguments.json:
        common.print_json(to_json(found))
    else:
        for line in table(found):
            print(text.line(line))
    return 0


def table(found: Layers) -> list[str]:
    """Return a line for each layer, the total, then what should not be in a layer."""
    rows = [("layer", "size", "wasted", "made by")]
    for layer in found.layers:
        by = instruction(layer.created_by, _WIDTH)
        wasted = shown(layer.wasted) if layer.wasted else "-"
        rows.append((str(layer.number), shown(layer.size), wasted, by))
    rows.append(("total", shown(found.size), shown(found.wasted), ""))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join(
            [*(f"{cell:>{n}}" for cell, n in zip(row, widths, strict=False)), row[3]]
        ).rstrip()
        for row in rows
    ]
    for layer in found.layers:
        lines += [f"layer {layer.number}: {what}" for what in remarks(layer)]
    return lines
