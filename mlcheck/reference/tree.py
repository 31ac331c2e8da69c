"""Change a tree that may share files with another tree by hard links.

No function writes into an existing file: a changed file is removed and made anew, so that the other
tree keeps its content. Paths are absolute inside the tree ("/opt/conda/bin/root.exe").
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path


def at(root: Path, path: str) -> Path:
    """Return the path on this machine of `path` in the tree."""
    return root / path.lstrip("/")


def write(root: Path, path: str, content: str | bytes, mode: int = 0o644) -> None:
    """Write a regular file at `path`, replacing whatever is there."""
    target = at(root, path)
    _clear(target)
    data = content.encode() if isinstance(content, str) else content
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    target.chmod(mode)


def copy(root: Path, path: str, source: Path, mode: int) -> None:
    """Copy this machine's file `source` to `path`."""
    target = at(root, path)
    _clear(target)
    shutil.copyfile(source, target)
    target.chmod(mode)


def overlay(root: Path, top: Path, python: str) -> None:
    """Copy every file below `top` to the same place in the tree.

    Args:
        python: the version, such as "3.11", that replaces `3.X` in paths with `python3.X`.
    """
    for source in sorted(top.rglob("*")):
        if source.is_file() and "__pycache__" not in source.parts:
            content = source.read_bytes()
            path = f"/{source.relative_to(top)}".replace("python3.X", f"python{python}")
            # A wheel does not keep modes: a file that begins like a script is executable.
            write(root, path, content, 0o755 if content.startswith(b"#!") else 0o644)


def symlink(root: Path, path: str, to: str) -> None:
    """Write a symbolic link at `path`, replacing whatever is there."""
    target = at(root, path)
    _clear(target)
    target.symlink_to(to)


def remove(root: Path, path: str) -> None:
    """Remove a file, a link, or a directory with everything below it."""
    target = at(root, path)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink()


def own(root: Path, path: str) -> Path:
    """Give the regular file at `path` content and mode of its own; returns where it is."""
    target = at(root, path)
    content, mode = target.read_bytes(), stat.S_IMODE(target.stat().st_mode)
    write(root, path, content, mode)
    return target


def chmod(root: Path, path: str, mode: int) -> None:
    """Change the permission bits of a regular file in this tree only."""
    own(root, path).chmod(mode)


def replace(root: Path, path: str, old: str, new: str) -> None:
    """Replace the only occurrence of `old` in a text file.

    Raises:
        ValueError: it does not occur exactly once.
    """
    target = at(root, path)
    text = target.read_text()
    if text.count(old) != 1:
        raise ValueError(f"{path} holds {old!r} {text.count(old)} times, not once")
    write(root, path, text.replace(old, new), stat.S_IMODE(target.stat().st_mode))


def tidy_modes(root: Path, below: Path | None = None, group: Sequence[str] = ()) -> None:
    """Set modes regardless of the umask: directories 0755, programs 0755, other files 0644.

    /tmp and /var/tmp are writable by everybody, with the sticky bit.

    Args:
        below: a finished tree; files shared with it are not changed.
        group: directories that a group may write too, with everything below them: directories 2775,
            programs 0775, other files 0664.
    """
    writable = tuple(f"{at(root, path)}/" for path in group)
    for directory, _, files in os.walk(root):
        more = 0o020 if f"{directory}/".startswith(writable) else 0
        _set_mode(directory, 0o2775 if more else 0o755)
        for name in files:
            path = f"{directory}/{name}"
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and not _is_shared(status, path, root, below):
                _set_mode(path, more | (0o755 if status.st_mode & 0o111 else 0o644))
    for sticky in ("tmp", "var/tmp"):
        if (root / sticky).is_dir():
            _set_mode(str(root / sticky), 0o1777)


def _is_shared(status: os.stat_result, path: str, root: Path, below: Path | None) -> bool:
    if below is None or status.st_nlink == 1:
        return False
    with contextlib.suppress(OSError):
        other = os.lstat(below / os.path.relpath(path, root))
        return (other.st_dev, other.st_ino) == (status.st_dev, status.st_ino)
    return False


def _set_mode(path: str, mode: int) -> None:
    if stat.S_IMODE(os.lstat(path).st_mode) != mode:
        os.chmod(path, mode)  # noqa: PTH101


def _clear(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
