"""The prefix in conda's files: taken out again as it was put in, in steps that grow as the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import SupportsIndex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcheck.inspect.conda import relocation

PREFIX, PLACEHOLDER = b"/opt/conda", b"/home/build/_h_env_placehold_placehold_placehold"
PAD = len(PLACEHOLDER) - len(PREFIX)


def before(content: bytes, placeholder: bytes = PLACEHOLDER, *, binary: bool = True) -> bytes:
    return b"".join(relocation.before(content, PREFIX, placeholder, binary))


def installed(content: bytes) -> bytes:
    """A binary file as conda installs it (conda/core/portability.py, binary_replace)."""

    def put_in(match: re.Match[bytes]) -> bytes:
        times = match[0].count(PLACEHOLDER)
        return match[0].replace(PLACEHOLDER, PREFIX) + b"\0" * (PAD * times)

    return re.sub(re.escape(PLACEHOLDER) + rb"[^\0]*\0", put_in, content)


PARTS = st.lists(st.sampled_from([PLACEHOLDER, b"\0", b"\0\0", b"x", b"/opt/con", b"/lib:"]))


@given(PARTS)
def test_what_conda_put_in_is_taken_out_again(parts: list[bytes]) -> None:
    content = b"".join([*parts, b"\0"])
    assert before(installed(content)) == content


@given(PARTS)
def test_text_is_replaced_as_a_whole(parts: list[bytes]) -> None:
    content = b"".join(parts).replace(PLACEHOLDER, PREFIX)
    assert before(content, binary=False) == content.replace(PREFIX, PLACEHOLDER)


@given(st.lists(st.sampled_from([b"/opt/conda", b"/opt/con", b"da", b"/a", b"x"]), max_size=40))
def test_pieces_cut_no_prefix(parts: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relocation, "_PIECE", 16)
        content = b"".join(parts)
        for prefix in (PREFIX, b"/a/a/a"):
            found = b"".join(relocation.before(content, prefix, b"#", binary=False))
            assert found == content.replace(prefix, b"#")


def test_a_file_is_never_larger_than_a_piece_in_memory() -> None:
    pieces = relocation.before(PREFIX * 400_000, PREFIX, b"/" + b"p" * 254, binary=False)
    sizes = [len(piece) for piece in pieces]
    assert sum(sizes) == 400_000 * 255
    assert max(sizes) <= relocation._PIECE * 26


@pytest.mark.parametrize(
    ("content", "there"),
    [
        (b"#!/b/_h_env_placehold_placehold_placehold/bin/python", True),
        (b"/b _placehold_placehold", False),
        (b"_placehold_placehold/x", False),
        (b"_placehold_placehold/_placehold_placehold", True),
        (b"/a\0_placehold_placehold:/c_placehold_placehold", True),
        (b"/a'_placehold_placehold", False),
        (b"", False),
    ],
)
def test_placeholders_are_paths(content: bytes, there: bool) -> None:
    pattern = rb"/[^\0\s:'\"]*_placehold_placehold"
    assert relocation.has_placeholder(content) == there == bool(re.search(pattern, content))


class Counted(bytes):
    """Bytes that count how many of them are looked at."""

    looked = 0

    def find(self, what, start=0, end=None):  # type: ignore[no-untyped-def]
        found = super().find(what, start, len(self) if end is None else end)
        Counted.looked += (len(self) if found < 0 else found) - start + len(what)
        return found

    def rfind(self, what, start=0, end=None):  # type: ignore[no-untyped-def]
        stop = len(self) if end is None else end
        found = super().rfind(what, start, stop)
        Counted.looked += stop - (start if found < 0 else found)
        return found

    def count(self, what, start=0, end=None):  # type: ignore[no-untyped-def]
        stop = len(self) if end is None else end
        Counted.looked += stop - start
        return super().count(what, start, stop)

    def __getitem__(self, key: SupportsIndex | slice) -> bytes:  # type: ignore[override]
        found = super().__getitem__(key)
        Counted.looked += len(found) if isinstance(found, bytes) else 1
        return found  # type: ignore[return-value]


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "a changed text": lambda size: (b"no zero, no prefix " * size)[:size],
    "prefixes alone": lambda size: (PREFIX * size)[:size],
    "one prefix at the end": lambda size: b"x" * size + PREFIX,
    "prefixes with room": lambda size: ((PREFIX + bytes(PAD)) * size)[:size],
    "slashes": lambda size: b"/" * size,
    "half a placeholder": lambda size: (b"_placehold_placehol" * size)[:size],
    "placeholders of no path": lambda size: (b"_placehold_placehold" * size)[:size],
    "zeros": bytes,
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_steps_grow_as_the_file(content: Callable[[int], bytes]) -> None:
    def looked(size: int) -> int:
        Counted.looked = 0
        hostile = Counted(content(size))
        for binary in (True, False):
            pieces: Iterator[bytes] = relocation.before(hostile, PREFIX, PLACEHOLDER, binary)
            Counted.looked += sum(map(len, pieces))
        relocation.has_placeholder(hostile)
        return Counted.looked

    small, large = looked(20_000), looked(200_000)
    assert large < 11 * small


def test_of_a_large_script_no_other_first_lines_are_tried() -> None:
    script = b"#!/usr/bin/python\n" + bytes(relocation.SCRIPT_LIMIT)
    assert not [*relocation.other_shebangs(script, "/opt/conda")]
    others = [*relocation.other_shebangs(script[:100], "/opt/conda")]
    assert (b"#!/opt/conda/bin/python3.11\n", bytes(82)) in others
    assert all(rest is others[0][1] for _, rest in others)  # not one copy for each
