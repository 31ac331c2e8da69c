"""`mlcheck info`: print what is known about images without opening them."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from mlcheck.cli import common
from mlcheck.engines import image_info
from mlcheck.model.errors import (
    MISTAKE,
    NOT_JUDGED,
    EngineError,
    MlcheckError,
    UsageError,
    raising_only,
)
from mlcheck.model.units import shown
from mlcheck.report import text


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `info`."""
    parser = common.add_command(
        commands,
        "info",
        run,
        help="print digest, size, creation time and labels of images without fetching them",
        description="Print what is known about images without fetching or opening them: digests, "
        "compressed size, creation time, platform, labels. The source is the registry, or the "
        "engine given by --engine docker or podman, or a SIF file, an archive or a directory. "
        "Properties that the source does not record are listed.",
        epilog="examples:\n  mlcheck info ml-pyroot:alma9-python311\n  mlcheck info all --json\n"
        "  mlcheck info --engine docker ml-pyroot:alma9-python311\n  mlcheck info ./ml-pyroot.sif",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    common.add_engine(parser)
    common.add_profiles(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what is known about each image; an error in one does not stop the others."""
    found: list[image_info.ImageInfo] = []
    code = 0
    # The registry knows more than an unpacked copy.
    for one in common.resolved(arguments, arguments.images, "always"):
        try:
            with raising_only(EngineError, f"describing {one.ref.text}"):
                told = image_info.describe(one.ref, arguments.engine, common.progress)
        except MlcheckError as error:
            print(f"mlcheck: {text.lines(str(error))}", file=sys.stderr)
            code = max(code, MISTAKE if isinstance(error, UsageError) else NOT_JUDGED)
            continue
        if not arguments.json:
            if found:
                print()
            print(text.lines(as_text(told)))
        found.append(told)
    if arguments.json:
        common.print_json({"images": [asdict(one) for one in found]})
    return code


def as_text(found: image_info.ImageInfo) -> str:
    """Format what is known about an image, one line for each thing."""
    platform = "/".join(filter(None, (found.os, found.architecture))) or None
    if platform and found.platforms:
        platform = f"{platform} (of {', '.join(found.platforms)})"
    lists = {
        name: None if value is None else " ".join(value) or "none"
        for name, value in (("entrypoint", found.entrypoint), ("command", found.cmd))
    }
    words: list[tuple[str, str | None]] = [
        ("index digest", found.index_digest),
        ("manifest digest", found.manifest_digest),
        ("config digest", found.config_digest),
        ("file digest", found.file_digest),
        ("compressed size", _size(found.compressed_size)),
        ("unpacked size", _size(found.unpacked_size)),
        ("layers", None if found.layers is None else str(found.layers)),
        ("created", found.created),
        ("platform", platform),
        *lists.items(),
    ]
    # Few images have an index, and only SIF files have a digest of their own.
    rare = ("index digest", "file digest")
    rows = [(name, value) for name, value in words if value is not None or name not in rare]
    if found.labels is None:
        rows.append(("labels", None))
    else:
        labels = [f"{key}={value}" for key, value in sorted(found.labels.items())] or ["none"]
        rows += zip(["labels", *[""] * (len(labels) - 1)], labels, strict=True)
    for store, which in found.here.items():
        same = "this image" if which == "same" else "another image under this name"
        rows.append((f"in {store}", same))
    untold = [name for name, value in rows if value is None]
    lines = [f"{found.image}", f"  {'told by':16} {found.source}"]
    lines += [
        f"  {name:16} {' '.join(value.splitlines())}".rstrip() for name, value in rows if value
    ]
    if untold:
        lines.append(f"  {'not told':16} {', '.join(untold)}")
    lines += [f"  {'note':16} {note}" for note in found.notes]
    return "\n".join(lines)


def _size(count: int | None) -> str | None:
    if count is None:
        return None
    return f"{count} bytes" if count < 1000 else f"{shown(count)} ({count} bytes)"
