"""Reading tar archives: what Python's tarfile and GNU tar find in them, and nothing else."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcheck.image.byte_sources import FileBytes, Passing, Source
from mlcheck.image.tar_headers import BLOCK, SIZE_LIMIT, BrokenArchive, Member
from mlcheck.image.tar_reader import TarReader, TarStream
from selftests.archives import layer, member

END = bytes(2 * BLOCK)
LATIN = os.fsdecode(b"caf\xe9")
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


class Held:
    """Bytes in memory as a source."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def pread(self, offset: int, count: int) -> bytes:
        return self._data[offset : offset + count]


def read(reader: TarReader, piece: int = 1000) -> Iterator[tuple[Member, bytes]]:
    while (one := reader.next()) is not None:
        yield one, b"".join(iter(lambda: reader.read(piece), b""))


def cut(archive: bytes, piece: int) -> list[bytes]:
    return [archive[n : n + piece] for n in range(0, len(archive), piece)]


# As Python's tarfile reads it


def by_tarfile(archive: bytes) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as tar:
        for one in tar:
            content = tar.extractfile(one) if one.isreg() else None
            data = content.read() if content else b""
            target = one.linkname if one.issym() or one.islnk() else None
            kind = {tarfile.AREGTYPE: b"0"}.get(one.type, one.type)
            found.append(
                (one.name.rstrip("/"), kind, one.mode & 0o7777, one.uid, one.gid, target, data)
            )
    return found


LETTERS = {
    "file": b"0",
    "hard link": b"1",
    "symlink": b"2",
    "char": b"3",
    "block": b"4",
    "directory": b"5",
    "fifo": b"6",
}


def told(found: Iterator[tuple[Member, bytes]]) -> list[tuple[object, ...]]:
    return [
        (
            *(one.name.rstrip("/"), LETTERS[one.type], one.mode, one.uid, one.gid, one.target),
            content,
        )
        for one, content in found
    ]


NAMES = st.text(st.characters(exclude_characters="\0/"), min_size=1, max_size=300).filter(
    lambda name: name.strip() == name
)
FIELDS = st.one_of(
    st.fixed_dictionaries({"content": st.binary(max_size=1500)}),
    st.fixed_dictionaries({"content": st.none()}),
    st.fixed_dictionaries({"to": NAMES}),
    st.fixed_dictionaries({"link": NAMES}),
    st.sampled_from([{"type": kind} for kind in (tarfile.FIFOTYPE, tarfile.CHRTYPE)]),
)
OWNED = st.fixed_dictionaries(
    {"uid": st.integers(0, 2**40), "gid": st.integers(0, 2**31), "mode": st.integers(0, 0o7777)}
)


@given(
    st.lists(st.tuples(NAMES, FIELDS, OWNED), max_size=4),
    st.sampled_from(FORMATS[1:]),
    st.sampled_from([1, 7, 511, 512, 513, 4096, 100_000]),
)
def test_what_tarfile_writes_is_read_as_it_reads_it(
    files: list[tuple[str, dict[str, Any], dict[str, Any]]], form: int, piece: int
) -> None:
    archive = layer(*(member(n, **fields, **own, form=form) for n, fields, own in files))
    expected = by_tarfile(archive)
    assert told(read(TarReader(Held(archive)))) == expected
    assert told(read(TarStream(cut(archive, piece)), piece)) == expected


def test_contents_may_be_left_unread() -> None:
    archive = layer(*(member(f"{n}", bytes([n]) * n * 700) for n in range(9)))
    for reader in (TarReader(Held(archive)), TarStream(cut(archive, 300))):
        names = []
        while (one := reader.next()) is not None:
            names.append(one.name)
            assert reader.read(n := int(one.name)) == bytes([n]) * n
        assert names == [f"{n}" for n in range(9)]


def test_a_member_is_a_source_of_its_own() -> None:
    inner = layer(member("inside", b"x" * 3000))
    archive = layer(member("first", b"1"), member("layer.tar", inner), member("last", b"2"))
    stream = TarStream(cut(archive, 100))
    found: dict[str, list[str]] = {}
    while (one := stream.next()) is not None:
        source = stream.content()
        found[one.name] = [m.name for m, _ in read(TarReader(source))] if one.size > 9 else []
    assert found == {"first": [], "layer.tar": ["inside"], "last": []}


@given(
    st.lists(st.binary(max_size=50)), st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)))
)
def test_what_passes_by_is_as_if_it_lay_there(
    pieces: list[bytes], steps: list[tuple[int, int]]
) -> None:
    """As long as nobody goes back further than the byte before the last place."""
    whole, passing, at = b"".join(pieces), Passing(pieces), 0
    for step, count in steps:
        at += step
        assert passing.pread(at, count) == whole[at : at + count]
        if 0 < at <= len(whole):
            assert passing.pread(at - 1, 1) == whole[at - 1 : at]


def test_what_has_passed_by_is_gone() -> None:
    passing = Passing(cut(bytes(range(200)), 10))
    assert passing.pread(150, 2) == b"\x96\x97"
    with pytest.raises(BrokenArchive, match="cannot be read backwards"):
        passing.pread(10, 1)


# The end


MEMBERS = [
    member("a", b"x" * 700),
    member("n" * 200, b"", form=tarfile.GNU_FORMAT),
    member("ü", b"y" * 512, uid=2**40),
]


@pytest.mark.parametrize("unmarked", [False, True], ids=["marked", "unmarked"])
def test_an_archive_that_was_cut_is_known_as_such(unmarked: bool) -> None:
    archive = layer(*MEMBERS)
    whole = [one.name for one, _ in read(TarReader(Held(archive)))]
    ends = [len(b"".join(MEMBERS[:n])) for n in range(len(MEMBERS) + 1)]
    for length in range(0, len(archive) - len(END) + 1, 100):
        for at in {length, length // BLOCK * BLOCK}:
            reader = TarReader(Held(archive[:at]), end_may_be_unmarked=unmarked)
            if unmarked and at in ends:
                names = [one.name for one, _ in read(reader)]
                assert names == whole[: ends.index(at)]
            else:
                with pytest.raises(BrokenArchive, match="broke off"):
                    list(read(reader))


def test_a_layer_may_end_before_its_padding() -> None:
    archive = b"".join(MEMBERS[:1])
    for at in range(BLOCK + 690, len(archive)):
        for may in (False, True):
            reader = TarReader(
                Held(archive[:at]), end_may_be_unmarked=True, padding_may_be_missing=may
            )
            if may and at >= BLOCK + 700:
                assert [one.name for one, _ in read(reader)] == ["a"]
            else:
                with pytest.raises(BrokenArchive, match="broke off"):
                    list(read(reader))


def test_one_block_of_zeros_is_an_end() -> None:
    archive = b"".join(MEMBERS) + bytes(BLOCK)
    assert len(list(read(TarReader(Held(archive))))) == len(MEMBERS)


def test_nothing_is_read_behind_the_end() -> None:
    archive = layer(*MEMBERS) + member("behind") + END
    assert len(list(read(TarReader(Held(archive))))) == len(MEMBERS)


# Numbers


@pytest.mark.parametrize("size", [8 * 1024**3, 2**40, SIZE_LIMIT])
@pytest.mark.parametrize("form", FORMATS[1:], ids=["gnu", "pax"])
def test_sizes_that_do_not_fit_into_octal_digits(size: int, form: int, tmp_path: Path) -> None:
    """Of a file of holes, so that what lies behind the content can be read."""
    header = member("huge", size=size, form=form)
    if size > 2**40:
        reader = TarReader(Held(header))
        huge = reader.next()
    else:
        path = tmp_path / "huge.tar"
        with path.open("wb") as file:
            file.write(header)
            file.seek(size, os.SEEK_CUR)
            file.write(member("behind") + END)
        reader = TarReader(FileBytes(path))
        huge, behind = reader.next(), reader.next()
        assert behind is not None
        assert behind.name == "behind"
    assert huge is not None
    assert huge.size == size


@pytest.mark.parametrize("size", [SIZE_LIMIT + 1, 2**63, 2**87])
def test_sizes_behind_which_no_offset_is(size: int) -> None:
    archive = member("x", size=size, form=tarfile.GNU_FORMAT)
    with pytest.raises(BrokenArchive, match="broken header"):
        TarReader(Held(archive)).next()


def test_a_negative_number_is_refused() -> None:
    archive = member("x", uid=-5, form=tarfile.GNU_FORMAT)
    with pytest.raises(BrokenArchive, match="broken header"):
        TarReader(Held(archive)).next()


# As GNU tar unpacks it


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tar") / "tree"
    long = "d" * 90 + "/" + "e" * 90 + "/" + "f" * 90
    for name in ("a/b", long, LATIN):
        (root / name).mkdir(parents=True)
    (root / "a/b/file").write_bytes(os.urandom(5000))
    (root / "a/empty").touch()
    (root / long / ("g" * 90)).write_text("deep")
    (root / LATIN / LATIN).write_text("latin")
    (root / "a/new\nline").write_text("=")
    (root / "a/set").write_text("x")
    (root / "a/set").chmod(0o6755)
    (root / "a/b").chmod(0o1777)
    os.link(root / "a/b/file", root / "a/z-hard")
    os.mkfifo(root / "a/fifo")
    (root / "a/link").symlink_to("../" * 60 + "target")
    (root / "a/absolute").symlink_to("/etc/passwd")
    return root


def unpacked(top: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(top))
        data = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        to = str(path.readlink()) if path.is_symlink() else None
        same = first.setdefault(status.st_ino, name)
        mode = None if to else stat.S_IMODE(status.st_mode)
        found[name] = (stat.S_IFMT(status.st_mode), mode, to, data, same)
    return found


KINDS = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
}


def by_us(source: Source) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for one, content in read(TarReader(source)):
        name = os.path.normpath(one.name)
        if name == ".":
            continue
        if one.type == "hard link":
            assert one.target is not None
            found[name] = found[os.path.normpath(one.target)]
            continue
        mode = None if one.type == "symlink" else one.mode
        found[name] = (KINDS[one.type], mode, one.target, content, name)
    return found


@pytest.mark.parametrize("form", ["gnu", "oldgnu", "pax", "posix"])
def test_what_gnu_tar_writes_is_read_as_it_unpacks_it(
    form: str, tree: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "x.tar"
    pack = ["tar", "-C", str(tree), f"--format={form}", "--sort=name", "-cf", str(archive), "."]
    subprocess.run(pack, check=True)
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-C", str(tmp_path / "out"), "-xpf", str(archive)], check=True)
    assert by_us(FileBytes(archive)) == unpacked(tmp_path / "out")


@pytest.mark.parametrize("form", ["v7", "ustar"])
def test_old_formats_of_gnu_tar(form: str, tree: Path, tmp_path: Path) -> None:
    """Without what these cannot say."""
    archive = tmp_path / "x.tar"
    pack = ["tar", "-C", str(tree), f"--format={form}", "--sort=name", "-cf", str(archive)]
    leave = ["--exclude=d*", "--exclude=link", "--exclude=fifo"]
    subprocess.run([*pack, *leave, "."], check=True)
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-C", str(tmp_path / "out"), "-xpf", str(archive)], check=True)
    assert by_us(FileBytes(archive)) == unpacked(tmp_path / "out")


@pytest.mark.parametrize(
    "form",
    [
        ["--format=gnu"],
        *(["--format=posix", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0")),
    ],
    ids=" ".join,
)
def test_files_with_holes_are_refused_by_name(form: list[str], tmp_path: Path) -> None:
    """Neither docker nor podman writes one; what they are would have to be put together."""
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(10_000_000)
        file.seek(5_000_000)
        file.write(b"x")
    archive = tmp_path / "x.tar"
    pack = ["tar", "-C", str(tmp_path), *form, "--sparse", "-cf", str(archive)]
    subprocess.run([*pack, "holes"], check=True)
    with pytest.raises(BrokenArchive, match="the sparse file 'holes'"):
        list(read(TarReader(FileBytes(archive))))


def test_a_backup_that_gnu_tar_wrote_is_refused_or_read(tree: Path, tmp_path: Path) -> None:
    """`--incremental` lists each directory, which no image does."""
    archive = tmp_path / "x.tar"
    subprocess.run(["tar", "-C", str(tree), "--incremental", "-cf", str(archive), "."], check=True)
    with pytest.raises(BrokenArchive, match="no file"):
        list(read(TarReader(FileBytes(archive))))
