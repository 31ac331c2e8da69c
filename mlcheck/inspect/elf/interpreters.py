"""The dynamic loaders of an image: which one it is, and the directories that each trusts."""

from __future__ import annotations

from collections.abc import Iterator

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.elf import tokens

_FALLBACK = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")
_OF_MUSL = ("/lib", "/usr/local/lib", "/usr/lib")
_ITSELF = ("c.", "pthread.", "rt.", "m.", "dl.", "util.", "xnet.")

_SIZE_LIMIT = 4 * 1024 * 1024
_PATH_LIMIT = 64 * 1024
_MUSL = "ld-musl-"
_MUSLS = (_MUSL, "libgcompat.so")
"""Beginnings of their names; gcompat, for programs made for glibc, hands on to musl's."""
_LETTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_/.-")
_LONGEST = 100
"""Bytes of a default directory's name."""


def is_musl(rootfs: RootFS, interpreter: str) -> bool:
    """Return whether a program's interpreter is musl's loader."""
    paths = (interpreter, rootfs.resolve(interpreter).final_path)
    return any(path.rpartition("/")[2].startswith(_MUSLS) for path in paths)


def is_itself(soname: str) -> bool:
    """Return whether musl's loader takes itself for a needed library, whatever files there are."""
    return soname.startswith("lib") and soname[3:].startswith(_ITSELF)


def directories_of_musl(rootfs: RootFS, interpreter: str) -> tuple[str, ...]:
    """Return the directories that musl's loader is configured for."""
    real = rootfs.resolve(interpreter).final_path
    name = next((p for p in (interpreter, real) if _MUSL in p), real).rpartition("/")[2]
    architecture = name.removeprefix(_MUSL).removesuffix(".so.1")
    above = interpreter.rpartition("/")[0].rpartition("/")[0]
    path = f"{above}/etc/ld-musl-{architecture}.path"
    if rootfs.resolve(path).final is None:
        return _OF_MUSL
    try:
        text = rootfs.read(path, _PATH_LIMIT).decode("utf-8", "surrogateescape")
    except Unreadable:
        return ()
    return tuple(tokens.entries_of_musl(text))


def directories_of_glibc(rootfs: RootFS, interpreter: str) -> tuple[str, ...]:
    """Return the directories that glibc's loader was built with, read from the loader itself.

    It keeps them as one array of strings, each ending in a slash.
    """
    try:
        content = rootfs.read(interpreter or "/", _SIZE_LIMIT)
    except Unreadable:
        return _FALLBACK
    found: list[str] = []
    for text in _ending_in_slash(content):
        # The first one may have other bytes before it.
        if found and text is not None and text.startswith((b"/lib", b"/usr/lib")):
            found.append(text.decode("ascii"))
            continue
        if len(found) > 1:
            break
        start = -1 if text is None else max(text.rfind(b"/lib"), text.rfind(b"/usr/lib"))
        if text is not None and text[:start].endswith(b"/usr"):
            start -= len(b"/usr")
        found = [text[start:].decode("ascii")] if text is not None and start >= 0 else []
    return tuple(one.rstrip("/") for one in found) if len(found) > 1 else _FALLBACK


def _ending_in_slash(content: bytes) -> Iterator[bytes | None]:
    """Yield for each string its letters at the end if it ends in a slash, else None."""
    for text in content.split(b"\0"):
        if not text.endswith(b"/"):
            yield None
            continue
        end = text[-_LONGEST:]
        start = max((at + 1 for at, byte in enumerate(end) if byte not in _LETTERS), default=0)
        yield end[start:]
