"""Directories of this machine that are visible to an image's commands: only those that the user
names, read-only, and only on directories that the image has."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlcheck.engines.base import Bind
from mlcheck.image.api import RootFS
from mlcheck.model.errors import UsageError

_OWN = ("/proc", "/sys", "/dev", "/tmp", "/.singularity.d")  # noqa: S108 - the container's
_FORM = "It is --bind DIR:TARGET, with the absolute path in the image behind the last colon."


def parse(text: str) -> Bind:
    """Parse a bind: `DIR:TARGET`, optionally followed by `:ro`.

    Raises:
        UsageError: the text is not a bind, the directory does not exist, or nothing may be bound on
            that target.
    """
    source, _, target = text.removesuffix(":ro").rpartition(":")
    if target == "rw":
        raise UsageError(f"--bind {text}: what is bound cannot be written.", _FORM)
    if not source or not target.startswith("/") or posixpath.normpath(target) != target:
        raise UsageError(f"--bind {text}: no directory and target.", _FORM)
    if target == "/" or any(f"{target}/".startswith(f"{own}/") for own in _OWN):
        raise UsageError(f"--bind {text}: nothing can be bound on {target}.", _FORM)
    directory = Path(source).expanduser().absolute()
    if not directory.is_dir():
        raise UsageError(f"--bind {text}: there is no directory {directory}.", _FORM)
    if {":", ","} & set(str(directory) + target):
        raise UsageError(
            f"--bind {text}: a path with a colon or a comma cannot be given to every engine.",
            "Make a symbolic link to the directory, and name that.",
        )
    return Bind(str(directory), target)


def parse_all(texts: Iterable[str]) -> tuple[Bind, ...]:
    """Parse all binds of a run.

    Raises:
        UsageError: a text is not a bind, or a target lies on or below another one.
    """
    found = tuple(parse(text) for text in texts)
    for index, one in enumerate(found):
        for other in (*found[:index], *found[index + 1 :]):
            if f"{one.target}/".startswith(f"{other.target}/"):
                raise UsageError(f"--bind: {one.target} lies on or below {other.target}.", _FORM)
    return found


def usable(rootfs: RootFS, binds: Iterable[Bind]) -> tuple[Bind, ...]:
    """Return the binds whose target is a directory of the image, not reached through a link.

    An engine would create the other targets, or refuse to start: reporting a missing mount point is
    left to a rule.
    """
    return tuple(bind for bind in binds if _is_directory(rootfs, bind.target))


def _is_directory(rootfs: RootFS, path: str) -> bool:
    final = rootfs.resolve(path).final
    return (
        final is not None and final.type == "directory" and rootfs.resolve(path).final_path == path
    )


def words(option: str, binds: Iterable[Bind], end: str = "") -> Iterator[str]:
    """Return the options by which a person binds the same directories."""
    for bind in binds:
        yield from (option, f"{bind.source}:{bind.target}{end}")
