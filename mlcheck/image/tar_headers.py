"""Headers of untrusted tar archives: ustar, pax and GNU, as docker and podman read them.

Formats: https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html#tag_20_92_13_06 and
https://www.gnu.org/software/tar/manual/html_node/Standard.html. The standard library's parser
takes three times as long, which is half of the time of an image of 50,000 files; reads a header of
any length into memory; takes a broken header for the end; and gives old GNU headers with access
times a wrong name. Here the headers of a member have a limit, and headers that are not understood
are rejected.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Callable
from typing import Literal, NamedTuple

from mlcheck.model.files import FileType

BLOCK = 512
"""Bytes of a header; contents are padded to a multiple."""

SIZE_LIMIT = 2**60
"""Most bytes of one member's content; with more, offsets behind it would not fit into 63 bits."""

HEADER_LIMIT = 1024 * 1024
"""Most bytes of all headers of one member: names and extended attributes, at most 64 KiB each."""

Read = Callable[[int], bytes]
"""Returns exactly that many of the next bytes; raises BrokenArchive if there are fewer."""

_TYPES: dict[bytes, FileType | Literal["hard link"]] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hard link",
    b"2": "symlink",
    b"3": "char",
    b"4": "block",
    b"5": "directory",
    b"6": "fifo",
}
_FIELDS = struct.Struct("100s8s8s8s12s12x8sc100s8s")
_PREFIX = slice(345, 500)
_SPACES = sum(b" " * 8)
_EMPTY = bytes(BLOCK)
_ADLER = 65521
"""Modulus of Adler's checksum: https://datatracker.ietf.org/doc/html/rfc1950#section-8.2."""


class BrokenArchive(Exception):  # noqa: N818 - words that follow "the archive"
    """The stream is not an intact archive."""


class Member(NamedTuple):
    """A member as its headers describe it; `name` and `target` are untrusted.

    Args:
        size: bytes of content that follow; 0 for all but regular files.
    """

    name: str
    type: FileType | Literal["hard link"]
    mode: int
    uid: int
    gid: int
    size: int
    target: str | None


def next_member(read: Read) -> Member | None:
    """Return the member whose first header comes next, or None at the archive's end.

    Raises:
        BrokenArchive: there is no valid header, or one of a kind that no image has.
    """
    name = target = None
    extended: dict[str, bytes] = {}
    left = HEADER_LIMIT
    while True:
        block = read(BLOCK)
        if block == _EMPTY:
            return None
        found, mode, uid, gid, size, checksum, kind, linked, magic = _FIELDS.unpack_from(block)
        # The sum of all bytes, with the checksum itself counted as spaces. Adler's checksum
        # contains it and takes a tenth of the time.
        expected = _number(checksum)
        total = (expected - _SPACES + sum(checksum) + 1) % _ADLER
        if zlib.adler32(block) & 0xFFFF != total and expected != _signed_sum(block):
            raise BrokenArchive("has a broken header")
        if kind in _TYPES:
            break
        if kind == b"S":  # GNU's older form
            raise _sparse(found.partition(b"\0")[0] if name is None else name)
        # This header describes the member that comes next.
        length = _number(size)
        left -= BLOCK + length
        if left < 0:
            raise BrokenArchive(f"has a header of more than {HEADER_LIMIT} bytes")
        content = read(length + -length % BLOCK)[:length]
        if kind == b"L":
            name = content.partition(b"\0")[0]
        elif kind == b"K":
            target = content.partition(b"\0")[0]
        elif kind == b"x":
            extended = _records(content)
        elif kind != b"g":  # for all members: docker and podman ignore it
            raise BrokenArchive("holds something that is no file")
    if extended:
        if any(key.startswith("GNU.sparse.") for key in extended):
            own = extended.get("path", found.partition(b"\0")[0] if name is None else name)
            raise _sparse(extended.get("GNU.sparse.name", own))
        name = extended.get("path", name)
        target = extended.get("linkpath", target)
        size = extended.get("size", size)
        uid = extended.get("uid", uid)
        gid = extended.get("gid", gid)
    if name is None:
        name = found.partition(b"\0")[0]
        # In GNU's own format, times are in the place of the name's prefix.
        if magic[:6] == b"ustar\0" and (prefix := block[_PREFIX].partition(b"\0")[0]):
            name = prefix + b"/" + name
    if target is None:
        target = linked.partition(b"\0")[0]
    member_type = _TYPES[kind]
    if kind == b"\0" and name.endswith(b"/"):
        member_type = "directory"  # as before POSIX
    is_link = member_type in ("symlink", "hard link")
    length = _number(size) if member_type == "file" else 0
    if b"\0" in name or b"\0" in target or length > SIZE_LIMIT:
        raise BrokenArchive("has a broken header")
    return Member(
        name.decode("utf-8", "surrogateescape"),
        member_type,
        _usual_number(mode) & 0o7777,
        _usual_number(uid),
        _usual_number(gid),
        length,
        target.decode("utf-8", "surrogateescape") if is_link else None,
    )


def _sparse(name: bytes) -> BrokenArchive:
    shown = name.decode("utf-8", "replace")[:200]
    return BrokenArchive(f"has the sparse file {shown!r}, whose holes (tar --sparse) are not read")


def _number(field: bytes) -> int:
    """Parse a number: octal text; or binary (GNU), if the text has too few digits; or of a pax
    record, which is decimal and has been checked."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    if text.isdigit():
        try:
            return int(text, 8)
        except ValueError:
            raise BrokenArchive("has a broken header") from None
    if text:
        raise BrokenArchive("has a broken header")
    return 0


_usual_number = functools.lru_cache(maxsize=256)(_number)
"""For modes and owners, most of which are the same."""


def _signed_sum(block: bytes) -> int:
    """Return the checksum as some old programs compute it."""
    values = memoryview(block).cast("b")
    return sum(values) - sum(values[148:156]) + _SPACES


def _records(content: bytes) -> dict[str, bytes]:
    """Return the records of a pax header that matter here; numbers as the octal text of
    a header."""
    found: dict[str, bytes] = {}
    start = 0
    while start < len(content):
        digits, space, _ = content[start : start + 20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record = content[start : start + length]
        key, equals, value = record[len(digits) + 1 :].partition(b"=")
        if not (space and equals and len(record) == length and record.endswith(b"\n")):
            raise BrokenArchive("has a broken header")
        start += length
        name, value = key.decode("utf-8", "replace"), value[:-1]
        if name in ("size", "uid", "gid"):
            if not value.isdigit() or len(value) > 20:
                raise BrokenArchive("has a broken header")
            value = b"%o" % int(value)
        elif name not in ("path", "linkpath") and not name.startswith("GNU.sparse."):
            continue
        found[name] = value
    return found
