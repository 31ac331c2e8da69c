"""What is known of a key of an `image.toml`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from mlcheck.expectations import ImageToml
from mlcheck.expectations.table import Table


def meaning(key: str) -> str | None:
    """What a key of an `image.toml` says, such as "packages.required"; `*` stands for any name.

    Returns:
        The text that the schema has too; None: there is no such key.
    """
    field = _field(key.split("."), any_name=False)
    if field is None:
        return None
    # Of a table of tables, what each of them is.
    annotation = field.annotation
    table = _table(annotation) or next(filter(None, map(_table, get_args(annotation))), None)
    return " ".join((field.description or (table.__doc__ if table else None) or "").split())


def is_required(path: Sequence[str]) -> bool:
    """Whether the table in which a key stands must have that key."""
    field = _field(path)
    return field is not None and field.is_required()


def _field(path: Sequence[str], *, any_name: bool = True) -> FieldInfo | None:
    """What is known of a key; of one that anybody may choose, what is known of its table.

    Args:
        any_name: whether names that anybody may choose stand in the path, and not `*`.
    """
    annotation: Any = ImageToml
    field: FieldInfo | None = None
    for part in path:
        model = _table(annotation)
        if model is None:
            if get_origin(annotation) is not dict or not (any_name or part == "*"):
                return None
            annotation = get_args(annotation)[-1]
            continue
        fields = {info.alias or name: info for name, info in model.model_fields.items()}
        if part not in fields:
            return None
        field = fields[part]
        annotation = field.annotation
    return field


def _table(annotation: Any) -> type[Table] | None:
    """The table that an annotation means, also as `Table | None`."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, Table):
            return one if one is annotation or type(None) in get_args(annotation) else None
    return None
