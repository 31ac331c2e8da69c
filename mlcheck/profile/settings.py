"""Settings of mlcheck in a file: `mlcheck.toml`, or `[tool.mlcheck]` in `pyproject.toml`."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcheck.model.errors import UsageError
from mlcheck.model.verdict import Source
from mlcheck.profile import toml_file
from mlcheck.profile.schema.settings import Settings

FILE_NAME = "mlcheck.toml"
PROJECT_FILE = "pyproject.toml"
_TABLE = ("tool", "mlcheck")

KEYS = tuple(info.alias or name for name, info in Settings.model_fields.items())
"""The keys of such a file, which are the names of options."""

_PATHS = {"profiles", "waivers"}


@dataclass(frozen=True)
class Setting:
    """A value in a file of settings.

    Args:
        values: as on the command line; paths are absolute.
        source: the line that states it.
    """

    key: str
    values: tuple[str, ...]
    source: Source

    @property
    def words(self) -> list[str]:
        """The words of a command line that say the same."""
        return [f"--{self.key}={value}" for value in self.values]


@dataclass(frozen=True)
class Found:
    """The settings that hold in a directory.

    Args:
        file: None if there is none.
    """

    file: Path | None = None
    settings: tuple[Setting, ...] = ()


def find(start: Path, *, outside: Collection[Path] = ()) -> Found:
    """Return the settings of the nearest directory that has some, from one directory upwards.

    A directory in which everybody may make files, such as /tmp, ends the search: what is there may
    be anybody's.

    Args:
        start: absolute.
        outside: directories of images, whose files are not to be trusted: neither they nor what is
            below them is searched.

    Raises:
        UsageError: the file is invalid; the message names the line.
    """
    images = [Path(os.path.realpath(directory)) for directory in outside]
    for directory in (start, *start.parents):
        real = Path(os.path.realpath(directory))
        if any(real.is_relative_to(image) for image in images):
            continue
        try:
            mode = directory.stat().st_mode
        except OSError:
            break
        if mode & stat.S_ISVTX and mode & stat.S_IWOTH:
            break
        for name in (FILE_NAME, PROJECT_FILE):
            file = directory / name
            if os.path.lexists(file) and (found := _read(file)) is not None:
                return found
    return Found()


def _read(file: Path) -> Found | None:
    data, lines = toml_file.read(file)
    if file.name == PROJECT_FILE:
        for number, key in enumerate(_TABLE, 1):
            if key not in data:
                return None
            data = data[key]
            if not isinstance(data, dict):
                place = f"{toml_file.shown(file)}:{lines[_TABLE[:number]]}"
                raise UsageError(
                    f"{place}: {'.'.join(_TABLE[:number])}: Input should be a valid table. "
                    f"Found: {data!r}."
                )
        length = len(_TABLE)
        lines = {path[length:]: n for path, n in lines.items() if path[:length] == _TABLE}
    valid = toml_file.validate(Settings, file, data, lines)
    assert valid is not None
    settings = tuple(
        Setting(key, tuple(_values(file, key, value)), Source(toml_file.shown(file), lines[key,]))
        for key, value in valid.model_dump(by_alias=True, exclude_none=True).items()
    )
    return Found(file, settings)


def _values(file: Path, key: str, value: Any) -> Iterator[str]:
    """Yield the values of a key as on the command line, with paths as seen from everywhere."""
    for one in value if isinstance(value, list) else [value]:
        if key in _PATHS:
            yield str(file.parent / one)
        elif key == "output" and "=" in one and not one.endswith("=-"):
            form, _, name = one.partition("=")
            yield f"{form}={file.parent / name}"
        elif key == "bind":
            yield str(file.parent / one)  # its first part is the directory
        else:
            yield one
