"""`mlcheck cache`: show or clear what mlcheck keeps on this machine."""

from __future__ import annotations

import argparse
import os
from collections import Counter

from mlcheck import cache
from mlcheck.cli import common
from mlcheck.reference import cache as reference
from mlcheck.report import text

_TIME = "%Y-%m-%d %H:%MZ"


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `cache`."""
    parser = common.add_command(
        commands,
        "cache",
        _show,
        help="show the facts kept of images that were judged, and the reference images",
        description="Show what is kept on this machine: facts read from images' files, so that an "
        "unchanged image is not read again, and reference images. Facts take at most "
        f"{cache.LIMIT >> 20} MB; those of the image that was not judged for the longest time are "
        f"removed first. --no-cache or {cache.OFF}=1 reads everything anew.",
        epilog="examples:\n  mlcheck cache\n  mlcheck cache clear --reference",
    )
    parts = parser.add_subparsers(metavar="COMMAND")
    clearing = parts.add_parser("clear", help="delete all facts")
    clearing.add_argument(
        "--reference", action="store_true", help="remove the reference images too"
    )
    # Arguments before `clear` count too.
    clearing.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="as JSON")
    clearing.set_defaults(run=_clear)


def _show(arguments: argparse.Namespace) -> int:
    store = cache.default()
    folders = store.folders()
    size = sum(folder.size for folder in folders)
    layers = reference.layers()
    if arguments.json:
        facts = {
            "path": os.fsdecode(store.path),
            "size": size,
            "limit": cache.LIMIT,
            "kept": [
                {
                    "kind": folder.kind,
                    "name": folder.name,
                    "entries": folder.entries,
                    "size": folder.size,
                    "used": folder.used.isoformat(timespec="seconds"),
                }
                for folder in folders
            ],
        }
        images = {
            "path": os.fsdecode(reference.cache_root()),
            "images": [
                {
                    "name": layer.label,
                    "path": str(layer.path),
                    "used": layer.used.isoformat(),
                    "finished": layer.finished,
                }
                for layer in layers
            ],
        }
        common.print_json({"facts": facts, "reference": images})
        return 0
    print(text.line(f"facts: {store.path}"))
    print(f"    {_megabytes(size)} of at most {cache.LIMIT >> 20} MB")
    if store.trouble:
        print(text.line(f"    {store.trouble}"))
    for folder in folders:
        facts_word = "fact" if folder.entries == 1 else "facts"
        print(
            text.line(
                f"    {folder.used:{_TIME}}  {_megabytes(folder.size):>9}  "
                f"{folder.entries} {facts_word} of the {folder.kind} {folder.name}"
            )
        )
    # No size is given: the files are hard links of each other by the hundred thousand, and counting
    # them takes minutes.
    print(text.line(f"reference images: {reference.cache_root()}"))
    counts = Counter((layer.label, layer.finished) for layer in layers)
    for layer in {(layer.label, layer.finished): layer for layer in reversed(layers)}.values():
        count = counts[layer.label, layer.finished]
        state = "" if layer.finished else ", not finished"
        print(text.line(f"    {layer.used:{_TIME}}  {count} of {layer.label}{state}"))
    return 0


def _clear(arguments: argparse.Namespace) -> int:
    size = cache.default().clear()
    removed, in_use = reference.clear() if arguments.reference else (0, 0)
    if arguments.json:
        images = {"removed": removed, "in_use": in_use}
        common.print_json({"facts": {"removed": size}, "reference": images})
        return 0
    print(f"{_megabytes(size)} of facts removed")
    if arguments.reference:
        held = f"; {in_use} in use and left" if in_use else ""
        print(f"{removed} reference images removed{held}")
    return 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
