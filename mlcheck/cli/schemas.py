"""`mlcheck schema`: the JSON schemas of the files that people and programs write and read.

`python -m mlcheck.cli.schemas DIR` writes those in docs/.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mlcheck.profile.schema import ImageToml
from mlcheck.profile.schema.settings import Settings
from mlcheck.profile.waivers import WaiversToml
from mlcheck.report.model import SCHEMA_VERSION, Report

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def image_schema() -> dict[str, Any]:
    """Return the schema of an `image.toml`.

    A table may leave keys to its parent, so only tables that are never merged have required keys.
    """
    schema = ImageToml.model_json_schema()
    for name, definition in schema["$defs"].items():
        if name not in ("Waiver", "Tags", "Published"):
            definition.pop("required", None)
    return {"$schema": _DIALECT, **schema}


def report_schema() -> dict[str, Any]:
    """Return the schema of the file that --mlcheck-json writes."""
    schema = Report.model_json_schema(mode="serialization")
    return {"$schema": _DIALECT, "version": SCHEMA_VERSION, **schema}


def waivers_schema() -> dict[str, Any]:
    """Return the schema of the file that --write-waivers writes."""
    return {"$schema": _DIALECT, **WaiversToml.model_json_schema()}


def settings_schema() -> dict[str, Any]:
    """Return the schema of a `mlcheck.toml`."""
    return {"$schema": _DIALECT, **Settings.model_json_schema()}


_NAMED = {
    "image": (image_schema, "an image.toml"),
    "report": (report_schema, "the JSON report"),
    "waivers": (waivers_schema, "a file of waivers"),
    "config": (settings_schema, "mlcheck.toml"),
}
"""Schemas by the name that `mlcheck schema` takes, and what each is of."""

SCHEMAS = {"image.schema.json": image_schema, "report.schema.json": report_schema}


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `schema`."""
    listed = ", ".join(f"{name} ({what})" for name, (_, what) in _NAMED.items())
    parser = commands.add_parser(
        "schema",
        help="print the JSON schema of image.toml, for editors, or of another file",
        description=f"Print a JSON schema, draft 2020-12. SCHEMA is one of: {listed}.",
        epilog="examples:\n  mlcheck schema >image.schema.json\n  mlcheck schema report",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "schema",
        nargs="?",
        choices=[*_NAMED],
        default="image",
        metavar="SCHEMA",
        help="default: image",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    make, _ = _NAMED[arguments.schema]
    print(as_text(make()), end="")
    return 0


def as_text(schema: dict[str, Any]) -> str:
    """Return the text of a schema file."""
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    for name, make in SCHEMAS.items():
        (Path(sys.argv[1]) / name).write_text(as_text(make()), encoding="utf-8")
