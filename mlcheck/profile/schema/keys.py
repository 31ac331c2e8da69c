"""Descriptions of the keys of an `image.toml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from mlcheck.profile.schema import ImageToml
from mlcheck.profile.schema.table import Table

JUDGED_WITH = {
    "framework.opens": "framework.cuda",
    "integrity.edited": "prefix",
    "integrity.removed": "prefix",
    "integrity.replaced": "prefix",
    "packages.checked_in": "packages.list",
    "packages.sorted": "packages.list",
    "packages.system": "packages.list",
    "scripts.portable": "prefix",
}
"""Keys whose rules judge what another key names, so that one without the other promises nothing."""


def meaning(key: str) -> str | None:
    """Return the description of a key such as "packages.required"; `*` stands for any name.

    Returns:
        The description in the JSON schema; None if there is no such key.
    """
    field = _field(key.split("."), any_name=False)
    if field is None:
        return None
    # Fall back to the description of the table, or of the tables in a table of tables.
    annotation = field.annotation
    table = _table(annotation) or next(filter(None, map(_table, get_args(annotation))), None)
    return " ".join((field.description or (table.__doc__ if table else None) or "").split())


def is_required(path: Sequence[str]) -> bool:
    """Return whether the table of a key must have that key."""
    field = _field(path)
    return field is not None and field.is_required()


def is_said(value: object, path: Sequence[str]) -> bool:
    """Return whether expectations say something at a key: True, or not its default.

    Args:
        value: a table, or what stands in one.
        path: the rest of the key's path; `*` stands for any name.
    """
    if not path:
        return value is not None and value not in ((), {}, "", False)
    name, rest = path[0], path[1:]
    if isinstance(value, Mapping):
        below = value.values() if name == "*" else [value[name]] if name in value else []
        return any(is_said(one, rest) for one in below)
    if not isinstance(value, Table):
        return False
    for field, info in type(value).model_fields.items():
        if (info.alias or field) == name:
            found = getattr(value, field)
            if rest or info.is_required():
                return is_said(found, rest)
            default = info.get_default(call_default_factory=True)
            if isinstance(found, bool):  # False is a promise only where the default says nothing
                return found or default is None
            return found not in (None, default)
    return False


def _field(path: Sequence[str], *, any_name: bool = True) -> FieldInfo | None:
    """Find the field of a key; for a key whose name is free, the field of its table.

    Args:
        any_name: whether the path has actual names in place of `*`.
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
    """Return the table in an annotation, also in `Table | None`."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, Table):
            return one if one is annotation or type(None) in get_args(annotation) else None
    return None
