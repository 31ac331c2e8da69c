"""Files in a directory that is private to this user; all access is relative to its descriptor."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator

SIZE_LIMIT = 256 * 1024**2
"""Most bytes of one file that are read."""


def open_own_directory(path: str, at: int | None) -> int:
    """Open a directory that nobody else can write in and that is not reached through a symlink."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        os.close(fd)
        raise PermissionError(0, "it is not this user's alone")
    return fd


def exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def content(folder: int, name: str) -> bytes | None:
    """Return the content of one of our files, or None if there is no such file."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=folder)
    except OSError:
        return None
    with os.fdopen(fd, "rb", buffering=0) as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > SIZE_LIMIT:
            return None
        try:
            return file.read()
        except OSError:
            return None


def put(folder: int, name: str, data: bytes) -> None:
    """Write a file completely or not at all."""
    partial = f".partial-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(partial, flags, 0o600, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(partial, dir_fd=folder)
        raise


@contextlib.contextmanager
def locked(folder: int, name: str) -> Iterator[None]:
    """Hold the lock of one answer; the kernel releases it however its holder ends.

    The file is removed while it is locked. A process that waited for it then holds a lock that
    nobody else can find: at worst, the same answer is computed twice.
    """
    lock = f"{name}.lock"
    try:
        fd = os.open(
            lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
        )
    except OSError:  # a cache that can only be read
        yield
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock, dir_fd=folder)
        os.close(fd)


def names(fd: int) -> list[str]:
    try:
        return sorted(os.listdir(fd))
    except OSError:
        return []


def remove(root: int, key: str) -> None:
    """Remove a folder. A process that still needs something in it computes that again."""
    with contextlib.suppress(OSError):
        fd = open_own_directory(key, root)
        try:
            for name in names(fd):
                os.unlink(name, dir_fd=fd)
        finally:
            os.close(fd)
        os.rmdir(key, dir_fd=root)
