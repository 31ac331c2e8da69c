"""Byte code that Python runs without a look at its source.

A `.pyc` file has the time and size of its source, or a hash of it; Python compiles a source anew if
they differ. If the file says that its hash is not to be checked, Python runs it whatever the source
has become: https://docs.python.org/3/reference/import.html#pyc-invalidation and PEP 552.
"""

from __future__ import annotations

import importlib.util
import posixpath
from collections.abc import Iterator
from typing import BinaryIO

from mlcheck.engines.base import Ask
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.conda.facts import ByteCode, StaleByteCode
from mlcheck.inspect.prefix.facts import PrefixPath
from mlcheck.inspect.registry import fact
from mlcheck.model.files import File

SOURCE_LIMIT = 16 * 1024 * 1024
"""Bytes of a source; the largest known one has 2 MB."""

_HEADER = 16
_HASHED, _CHECKED = 1, 2
_SHORTER_HASH = 3450
"""The first magic number of Python 3.11, which hashes with fewer rounds."""

_MASK = (1 << 64) - 1


@fact()
def byte_code(rootfs: RootFS, ask: Ask, prefix: PrefixPath) -> ByteCode:
    """Compare byte code that is never checked with its source."""
    return ask(probe, rootfs, prefix)


def probe(rootfs: RootFS, prefix: str) -> ByteCode:
    """Find the byte code in a prefix that Python does not check, and compare it with its source.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    stale = []
    compared = 0
    for path, header in _unchecked(rootfs, prefix):
        source = _source(path)
        if source is None:
            continue
        compared += 1
        try:
            wanted = source_hash(header[:4], rootfs.read(source, SOURCE_LIMIT))
        except Unreadable as unreadable:
            if rootfs.lstat(source) is not None:
                stale.append(StaleByteCode(path, source, f"its source {unreadable.what}"))
            continue  # without a source, Python does not look into __pycache__
        if wanted != header[8:_HEADER]:
            stale.append(StaleByteCode(path, source, "is of another source"))
    return ByteCode(compared, tuple(stale))


def _unchecked(rootfs: RootFS, prefix: str) -> Iterator[tuple[str, bytes]]:
    for file, header in rootfs.each(prefix, _is_unchecked, _header):
        if not isinstance(header, Unreadable):
            yield file.path, header


def _is_unchecked(path: str, head: bytes) -> bool:
    if not path.endswith(".pyc") or len(head) < _HEADER:
        return False
    flags = int.from_bytes(head[4:8], "little")
    return bool(flags & _HASHED) and not flags & _CHECKED


def _header(_: File, content: BinaryIO) -> bytes:
    return content.read(_HEADER)


def _source(path: str) -> str | None:
    """Return the source of `__pycache__/NAME.cpython-311.pyc`; None if Python does not take it for
    that: a `.pyc` elsewhere is only used where there is no source."""
    directory, name = posixpath.split(path)
    parent, cache = posixpath.split(directory)
    if cache != "__pycache__" or name.count(".") not in (2, 3):
        return None
    return f"{parent}/{name.partition('.')[0]}.py"


def source_hash(magic: bytes, source: bytes) -> bytes:
    """Return the hash that Python writes into byte code.

    Args:
        magic: the first four bytes of the byte code, which tell the version of Python.
    """
    if magic == importlib.util.MAGIC_NUMBER:
        return importlib.util.source_hash(source)
    rounds = 1 if int.from_bytes(magic[:2], "little") >= _SHORTER_HASH else 2
    key = int.from_bytes(magic, "little")
    return sip_hash(key, 0, source, rounds, rounds + 2).to_bytes(8, "little")


def sip_hash(k0: int, k1: int, data: bytes, rounds: int, last_rounds: int) -> int:
    """Return SipHash-`rounds`-`last_rounds` (https://131002.net/siphash/)."""
    state = [
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    ]
    end = len(data) - len(data) % 8
    for start in range(0, end, 8):
        _mix(state, int.from_bytes(data[start : start + 8], "little"), rounds)
    _mix(state, (len(data) & 0xFF) << 56 | int.from_bytes(data[end:], "little"), rounds)
    state[2] ^= 0xFF
    _rounds(state, last_rounds)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


def _mix(state: list[int], word: int, rounds: int) -> None:
    state[3] ^= word
    _rounds(state, rounds)
    state[0] ^= word


def _rounds(state: list[int], count: int) -> None:
    a, b, c, d = state
    for _ in range(count):
        a = (a + b) & _MASK
        b = _turned(b, 13) ^ a
        a = _turned(a, 32)
        c = (c + d) & _MASK
        d = _turned(d, 16) ^ c
        a = (a + d) & _MASK
        d = _turned(d, 21) ^ a
        c = (c + b) & _MASK
        b = _turned(b, 17) ^ c
        c = _turned(c, 32)
    state[:] = a, b, c, d


def _turned(word: int, by: int) -> int:
    return (word << by | word >> (64 - by)) & _MASK
