"""Directories of this machine that are shown to an image's commands: only what the user names,
read-only, and only on directories that the image has."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlcheck.engines.base import Bind, RootFS
from mlcheck.errors import UsageError

_OWN = ("/proc", "/sys", "/dev", "/tmp", "/.singularity.d")  # noqa: S108 - the container's
_FORM = "It is --bind DIR:TARGET, with the absolute path in the image behind the last colon."


def parse(text: str) -> Bind:
    """A bind as the user writes it: `DIR:TARGET`, also with `:ro` behind it.

    Raises:
        UsageError: it is none, the directory is not there, or nothing may be bound on that target.
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
    """All binds of a run.

    Raises:
        UsageError: one is none, or a target lies on or below another one.
    """
    found = tuple(parse(text) for text in texts)
    for index, one in enumerate(found):
        for other in (*found[:index], *found[index + 1 :]):
            if f"{one.target}/".startswith(f"{other.target}/"):
                raise UsageError(f"--bind: {one.target} lies on or below {other.target}.", _FORM)
    return found


def usable(rootfs: RootFS, binds: Iterable[Bind]) -> tuple[Bind, ...]:
    """Those whose target is a directory of the image, reached through no link.

    An engine would make the others, or refuse to start: that an image lacks a mount point is for
    a check to say.
    """
    return tuple(bind for bind in binds if _is_directory(rootfs, bind.target))


def _is_directory(rootfs: RootFS, path: str) -> bool:
    final = rootfs.resolve(path).final
    return (
        final is not None and final.type == "directory" and rootfs.resolve(path).final_path == path
    )


def words(option: str, binds: Iterable[Bind], end: str = "") -> Iterator[str]:
    """The options of a command by which a person binds the same."""
    for bind in binds:
        yield from (option, f"{bind.source}:{bind.target}{end}")
