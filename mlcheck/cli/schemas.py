"""Write the JSON schemas in docs/: `image.toml` for editors, the JSON report for programs.

`python -m mlcheck.cli.schemas DIR` writes them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mlcheck.profile.schema import ImageToml
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


SCHEMAS = {"image.schema.json": image_schema, "report.schema.json": report_schema}


def as_text(schema: dict[str, Any]) -> str:
    """Return the text of a schema file."""
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    for name, make in SCHEMAS.items():
        (Path(sys.argv[1]) / name).write_text(as_text(make()), encoding="utf-8")
