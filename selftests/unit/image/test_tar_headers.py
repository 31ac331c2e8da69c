"""Headers of tar archives: what the standard library writes and reads is understood alike."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcheck.image.tar_headers import BLOCK, HEADER_LIMIT, BrokenArchive, Member, next_member
from selftests.archives import member

END = bytes(2 * BLOCK)
LATIN = os.fsdecode(b"caf\xe9")
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def members(archive: bytes) -> list[Member]:
    """All of them, of files that have no content."""
    file = io.BytesIO(archive)

    def read(count: int) -> bytes:
        data = file.read(count)
        if len(data) < count:
            raise BrokenArchive("broke off")
        return data

    found = []
    while (one := next_member(read)) is not None:
        found.append(one)
    return found


def refused(archive: bytes) -> str:
    with pytest.raises(BrokenArchive) as caught:
        members(archive)
    return str(caught.value)


@pytest.mark.parametrize("form", FORMATS, ids=["ustar", "gnu", "pax"])
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("a", {}),
        ("d/" * 60 + "a", {}),
        ("ü/ß", {"mode": 0o6755}),
        (LATIN, {}),
        ("owned", {"uid": 1234, "gid": 70_000}),
        ("dir", {"type": tarfile.DIRTYPE}),
        ("fifo", {"type": tarfile.FIFOTYPE}),
        ("zero", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}),
        ("disk", {"type": tarfile.BLKTYPE, "devmajor": 8}),
        ("link", {"to": "../" * 20 + "target"}),
        ("hard", {"link": "first"}),
        ("new\nline = x", {}),
        ("timed", {"mtime": 1_700_000_000}),
    ],
)
def test_every_kind_in_every_format(form: int, name: str, fields: dict[str, Any]) -> None:
    archive = member(name, form=form, **fields) + END
    (found,) = members(archive)
    expected = tarfile.TarFile(fileobj=io.BytesIO(archive), errors="surrogateescape").next()
    assert expected is not None
    name = found.name.rstrip("/")
    assert (name, found.mode, found.uid, found.gid, found.size, found.target or "") == (
        *(expected.name, expected.mode, expected.uid, expected.gid, expected.size),
        expected.linkname,
    )


@pytest.mark.parametrize("form", FORMATS[1:], ids=["gnu", "pax"])
def test_what_does_not_fit_into_a_field(form: Literal[1, 2]) -> None:
    name, target = "n" * 300, "t" * 5000
    archive = member(name, form=form, to=target) + member("big", form=form, uid=2**31, gid=2**40)
    first, second = members(archive + END)
    assert (first.name, first.target) == (name, target)
    assert (second.uid, second.gid) == (2**31, 2**40)
    info = tarfile.TarInfo("huge")
    info.size = 2**40
    file = io.BytesIO(info.tobuf(form))
    huge = next_member(file.read)
    assert huge is not None
    assert huge.size == 2**40


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=300),
            st.integers(0, 0o7777),
            st.integers(0, 2**32),
        ),
        max_size=5,
    ),
    st.sampled_from(FORMATS[1:]),
)
def test_as_the_standard_library_reads_it(files: list[tuple[str, int, int]], form: int) -> None:
    archive = b"".join(member(name, form=form, mode=mode, uid=uid) for name, mode, uid in files)
    expected = tarfile.TarFile(fileobj=io.BytesIO(archive + END), errors="surrogateescape")
    assert [(one.name.rstrip("/"), one.mode, one.uid) for one in members(archive + END)] == [
        (one.name.rstrip("/"), one.mode, one.uid) for one in expected
    ]


@given(st.binary(min_size=BLOCK, max_size=BLOCK), st.integers(0, BLOCK - 1), st.binary(max_size=9))
def test_anything_is_a_member_the_end_or_refused(noise: bytes, at: int, some: bytes) -> None:
    damaged = bytearray(member("name", to="target"))
    damaged[at : at + len(some)] = some
    for archive in (noise, bytes(damaged[:BLOCK])):
        with contextlib.suppress(BrokenArchive):
            members(archive + END)


def test_one_changed_bit_is_seen() -> None:
    archive = bytearray(member("name"))
    archive[3] ^= 1
    assert refused(bytes(archive) + END) == "has a broken header"


def test_a_time_of_gnu_is_no_part_of_a_name() -> None:
    """GNU tar --incremental has times where ustar has the beginning of a name."""
    block = bytearray(member("name", form=tarfile.GNU_FORMAT))
    block[345:357] = b"14712345670\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (found,) = members(bytes(block) + END)
    assert found.name == "name"


def test_a_directory_as_before_posix() -> None:
    (found,) = members(member("old/", type=tarfile.AREGTYPE, form=tarfile.USTAR_FORMAT) + END)
    assert found.type == "directory"


def test_records_of_all_members_are_ignored_as_docker_does() -> None:
    info = tarfile.TarInfo("x")
    first = tarfile.TarInfo.create_pax_global_header({"path": "other"})
    assert [one.name for one in members(first + info.tobuf() + END)] == ["x"]


@pytest.mark.parametrize(
    ("archive", "why"),
    [
        (member("s", type=tarfile.GNUTYPE_SPARSE), "the sparse file 's'"),
        (member("s", pax_headers={"GNU.sparse.major": "1"}), "the sparse file 's'"),
        (
            member("d/GNUSparseFile.0/s", pax_headers={"GNU.sparse.name": "d/s"}),
            "the sparse file 'd/s'",
        ),
        (member("s", pax_headers={"GNU.sparse.map": "0,1"}), "the sparse file 's'"),
        (member("s" * 150, type=b"S", form=tarfile.GNU_FORMAT), "the sparse file 'sss"),
        (member("s", type=b"V"), "no file"),
        (member("x", pax_headers={"size": "-1"}), "broken header"),
        (member("x", pax_headers={"size": "1_0"}), "broken header"),
        (member("x", pax_headers={"uid": "9" * 30}), "broken header"),
        (member("x", pax_headers={"path": "a\0b"}), "broken header"),
        (member("x", pax_headers={"comment": "x" * HEADER_LIMIT}), "a header of more than"),
        (member("n" * 300)[:700], "broke off"),
    ],
)
def test_refused(archive: bytes, why: str) -> None:
    assert why in refused(archive + (b"" if why == "broke off" else END))


@pytest.mark.parametrize("record", [b"5 a=", b"99 a=b\n", b"x a=b\n", b"6 a=bc", b"0 a=b\n", b"\n"])
def test_records_that_are_none(record: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    archive = info.tobuf() + record + bytes(-len(record) % BLOCK) + member("x") + END
    assert refused(archive) == "has a broken header"
