"""TOML files that people write: read, validated, and explained with file and line."""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from mlcheck.model.errors import UsageError
from mlcheck.profile.toml_lines import Path as KeyPath
from mlcheck.profile.toml_lines import line_numbers

Model = TypeVar("Model", bound=BaseModel)


def read(file: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """Return what a file says, and the line of each key and list element.

    Raises:
        UsageError: it cannot be read, or is not TOML.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # reading a FIFO would never end
            raise UsageError(f"{shown(file)}: is no regular file.", "Put one in its place.")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{shown(file)}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{shown(file)}:{number}: this is not TOML: it is not encoded as UTF-8.",
            "Save the file as UTF-8.",
        ) from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        place = f"{file}:{line[1]}" if line else str(file)
        raise UsageError(f"{place}: this is not TOML: {error}.") from None
    return data, line_numbers(text)


def validate(
    model: type[Model],
    file: Path,
    data: dict[str, Any],
    lines: Mapping[KeyPath, int],
    *,
    may_lack: Callable[[KeyPath], bool] = lambda path: False,
) -> Model | None:
    """Return what a file says as a model; None if only keys are missing that it may lack.

    Args:
        may_lack: tells whether the key at a path may be missing, although the model requires it.

    Raises:
        UsageError: it is invalid; the message has a line for each mistake, with its line and key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        messages = [
            _explain(model, file, data, lines, dict(item))
            for item in error.errors()
            if item["type"] != "missing" or not may_lack(tuple(item["loc"]))
        ]
    if messages:
        raise UsageError("\n".join(messages))
    return None


def shown(file: Path) -> str:
    """Shorten a path to what a person in this working directory would type."""
    try:
        # Do not resolve the file itself: it may be a dangling symlink or a loop.
        directory = os.path.realpath(file.parent)
        return str((Path(directory) / file.name).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(file)


def did_you_mean(word: str, known: Sequence[str] | Mapping[str, object]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _explain(
    model: type[BaseModel],
    file: Path,
    data: dict[str, Any],
    lines: Mapping[KeyPath, int],
    error: Mapping[str, Any],
) -> str:
    """Format one of pydantic's errors: file, line, key, what is wrong and what is allowed."""
    # pydantic adds the names of types and "[key]" to the location; only parts that the document
    # contains are kept.
    path: KeyPath = ()
    here: Any = data
    for part in error["loc"]:
        known = part in here if isinstance(here, dict) else isinstance(part, int)
        if known:
            path, here = (*path, part), here[part]
        elif error["type"] == "missing":
            path = (*path, part)
    line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), 1)
    key = ".".join(str(part) for part in path) or "the document"
    if error["type"] == "extra_forbidden":
        allowed = _allowed(model, path[:-1])
        hint = did_you_mean(str(path[-1]), allowed)
        what = f"unknown key. Allowed here: {', '.join(allowed)}.{hint}"
    elif error["type"] == "missing":
        what = f"this key is missing. Allowed here: {', '.join(_allowed(model, path[:-1]))}."
    else:
        what = f"{_in_words_of_toml(error['msg'])}. Found: {error['input']!r}."
    return f"{shown(file)}:{line}: {key}: {what}"


_WORDS = {"tuple": "list", "dictionary": "table", "date or datetime": "date such as 2027-06-30"}
"""TOML's words for Python's."""


def _in_words_of_toml(message: str) -> str:
    for theirs, ours in _WORDS.items():
        message = message.replace(f"a valid {theirs}", f"a valid {ours}")
    return message


def _allowed(root: type[BaseModel], path: KeyPath) -> list[str]:
    """Return the keys that the table at `path` may have."""
    annotation: Any = root
    for part in path:
        model = _model(annotation)
        if model is not None:
            fields = {info.alias or name: info for name, info in model.model_fields.items()}
            annotation = fields[str(part)].annotation
        else:
            # dict[KEY, VALUE] or tuple[ELEMENT, ...]
            annotation = [item for item in get_args(annotation) if item is not Ellipsis][-1]
    model = _model(annotation)
    return [info.alias or name for name, info in model.model_fields.items()] if model else []


def _model(annotation: Any) -> type[BaseModel] | None:
    """Return the model in an annotation, also in `Model | None`."""
    for candidate in (annotation, *get_args(annotation)):
        if (
            isinstance(candidate, type)
            and issubclass(candidate, BaseModel)
            and (candidate is annotation or type(None) in get_args(annotation))
        ):
            return candidate
    return None
