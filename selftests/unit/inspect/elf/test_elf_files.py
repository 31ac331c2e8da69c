"""ELF files: real ones against binutils' and patchelf's view, and broken ones."""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import random
import select
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lief
import pytest

from mlcheck.image.api import Unreadable
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.elf import lief_client
from mlcheck.inspect.elf import probe as elf
from mlcheck.inspect.elf.facts import ElfFile
from mlcheck.model.errors import ProbeError

PATCHELF = Path(sys.executable).parent / "patchelf"
TRUE = Path(shutil.which("true") or "/bin/true")


def patched(target: Path, *arguments: str) -> Path:
    """A copy of true(1), changed by patchelf."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(TRUE, target)
    subprocess.run([PATCHELF, *arguments, target], check=True)
    return target


def parsed(path: Path) -> ElfFile:
    with path.open("rb") as file:
        return elf.parse(file, str(path))


def what(content: bytes) -> str:
    with pytest.raises(Unreadable) as raised:
        elf.parse(content, "/x")
    assert raised.value.path == "/x"
    return raised.value.what


def test_a_program_of_this_machine_as_patchelf_sees_it() -> None:
    found = parsed(TRUE)

    def says(option: str) -> list[str]:
        command = [str(PATCHELF), option, str(TRUE)]
        return subprocess.check_output(command, text=True).splitlines()

    assert list(found.needed) == says("--print-needed")
    assert [found.interpreter] == says("--print-interpreter")
    assert found.bits == struct.calcsize("P") * 8
    assert found.machine.lower() == os.uname().machine
    assert found.dynamic
    assert found.type in ("DYN", "EXEC")
    assert found.rpath is None
    assert found.runpath is None


@pytest.mark.parametrize("path", ["/opt/conda/lib:$ORIGIN/../lib", ":", "lib", "/é"])
def test_rpath_and_runpath_are_told_apart(tmp_path: Path, path: str) -> None:
    runpath = parsed(patched(tmp_path / "a", "--set-rpath", path))
    assert (runpath.rpath, runpath.runpath) == (None, path)
    rpath = parsed(patched(tmp_path / "b", "--force-rpath", "--set-rpath", path))
    assert (rpath.rpath, rpath.runpath) == (path, None)


def test_empty_runpath_is_not_none(tmp_path: Path) -> None:
    content = patched(tmp_path / "a", "--set-rpath", "/only-here").read_bytes()
    assert content.count(b"/only-here\0") == 1
    found = elf.parse(content.replace(b"/only-here\0", bytes(11)), "/x")
    assert found.runpath == ""


@pytest.mark.parametrize("option", ["--add-needed", "--set-rpath", "--set-soname"])
def test_names_that_are_not_utf_8(tmp_path: Path, option: str) -> None:
    content = patched(tmp_path / "a", option, "only-here").read_bytes()
    assert "not UTF-8" in what(content.replace(b"only-here", b"only\xffhere"))


def test_interpreter_that_is_not_utf_8() -> None:
    content = TRUE.read_bytes()
    found = elf.parse(content, "/x").interpreter
    assert found is not None
    odd = b"\xff" + found.encode()[1:]
    assert "not UTF-8" in what(content.replace(found.encode(), odd, 1))


def test_soname_and_needs(tmp_path: Path) -> None:
    found = parsed(patched(tmp_path / "a", "--set-soname", "liba.so.7", "--add-needed", "libb.so"))
    assert found.soname == "liba.so.7"
    assert "libb.so" in found.needed


def test_every_file_once(tmp_path: Path) -> None:
    top = tmp_path / "opt/conda"
    patched(top / "bin/root.exe", "--set-rpath", "/opt/conda/lib")
    patched(top / "lib/deep/down/libx.so", "--set-soname", "libx.so")
    (top / "bin/hard").hardlink_to(top / "bin/root.exe")
    (top / "bin/soft").symlink_to("root.exe")
    (top / "bin/script").write_text("#!/bin/sh\n")
    (top / "bin/empty").touch()
    os.mkfifo(top / "bin/fifo")
    (tmp_path / "outside").write_bytes(TRUE.read_bytes())
    found = elf.probe(DirectoryRootFS(tmp_path))
    assert sorted(found.files) == ["/opt/conda/bin/hard", "/opt/conda/lib/deep/down/libx.so"]
    assert found.files["/opt/conda/bin/hard"].runpath == "/opt/conda/lib"
    assert found.scanned == 4
    assert not found.problems


def test_broken_files_are_problems_and_the_rest_is_read(tmp_path: Path) -> None:
    content = TRUE.read_bytes()
    (tmp_path / "cut.so").write_bytes(content[: len(content) // 2])
    (tmp_path / "magic.so").write_bytes(b"\x7fELF")
    (tmp_path / "whole.so").write_bytes(content)
    found = elf.probe(DirectoryRootFS(tmp_path), "/")
    assert list(found.files) == ["/whole.so"]
    assert sorted(problem.path for problem in found.problems) == ["/cut.so", "/magic.so"]


def test_named_files(tmp_path: Path) -> None:
    patched(tmp_path / "bin/a")
    (tmp_path / "b").symlink_to("/bin/a")
    found = elf.probe_files(DirectoryRootFS(tmp_path), ["/bin/a", "/b", "/c"])
    assert sorted(found.files) == ["/b", "/bin/a"]
    assert [problem.path for problem in found.problems] == ["/c"]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"#!/bin/sh\n", "no ELF"),
        (b"\x7fELF", "header"),
        (b"\x7fELF\x03\x01" + bytes(60), "header"),
        (b"\x7fELF\x02\x09" + bytes(60), "header"),
    ],
)
def test_what_is_no_elf_file(content: bytes, word: str) -> None:
    assert word in what(content)


def segments(content: bytes | bytearray) -> dict[int, int]:
    """Offset of the (last) program header of each type, of a 64-bit little-endian file."""
    (at,) = struct.unpack_from("<Q", content, 32)
    (count,) = struct.unpack_from("<H", content, 56)
    offsets = range(at, at + 56 * count, 56)
    return {struct.unpack_from("<I", content, offset)[0]: offset for offset in offsets}


only_64_bit = pytest.mark.skipif(
    TRUE.read_bytes()[4:6] != b"\x02\x01", reason="writes 64-bit little-endian headers"
)


@only_64_bit
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_truncated(keep: float) -> None:
    content = TRUE.read_bytes()
    assert what(content[: int(len(content) * keep)])


@only_64_bit
@pytest.mark.parametrize(("at", "form", "value"), [(32, "<Q", (1 << 64) - 1), (54, "<H", 0)])
def test_program_headers_elsewhere_or_of_another_size(at: int, form: str, value: int) -> None:
    content = bytearray(TRUE.read_bytes())
    struct.pack_into(form, content, at, value)
    assert "program headers" in what(bytes(content))


@only_64_bit
def test_dynamic_section_outside_the_file() -> None:
    content = bytearray(TRUE.read_bytes())
    struct.pack_into("<Q", content, segments(content)[2] + 8, 1 << 40)
    assert "truncated" in what(bytes(content))


@only_64_bit
def test_dynamic_section_that_the_loader_takes_from_elsewhere() -> None:
    content = bytearray(TRUE.read_bytes())
    header = segments(content)[2]
    (address,) = struct.unpack_from("<Q", content, header + 16)
    struct.pack_into("<Q", content, header + 16, address - 64)
    assert "elsewhere" in what(bytes(content))


@only_64_bit
def test_two_dynamic_sections() -> None:
    content = bytearray(TRUE.read_bytes())
    headers = segments(content)
    note = headers[4]
    content[note : note + 56] = content[headers[2] : headers[2] + 56]
    assert "more than one" in what(bytes(content))


def with_dynamic(tag: int, value: int) -> bytes:
    """true(1) with the value of one dynamic entry replaced."""
    content = bytearray(TRUE.read_bytes())
    offset, _, _, size = struct.unpack_from("<QQQQ", content, segments(content)[2] + 8)
    for at in range(offset, offset + size, 16):
        if struct.unpack_from("<q", content, at)[0] == tag:
            struct.pack_into("<Q", content, at + 8, value)
            return bytes(content)
    raise AssertionError(tag)


@only_64_bit
@pytest.mark.parametrize(
    ("tag", "value"),
    [(5, 1 << 40), (10, 1 << 40), (10, 1), (1, 1 << 30)],
    ids=["table elsewhere", "table too long", "table too short", "name outside"],
)
def test_strings_outside_the_file_or_table(tag: int, value: int) -> None:
    assert "string table" in what(with_dynamic(tag, value))


def with_entries(entries: bytes, names: bytes = b"") -> bytes:
    """true(1) with another dynamic section, and `names` as its string table."""
    content = bytearray(TRUE.read_bytes())
    headers = segments(content)
    start = len(content) + -len(content) % 4096
    address = 1 << 24
    table = struct.pack("<qQqQqQ", 5, address, 10, len(names), 0, 0)
    size = len(entries) + len(table)
    content += bytes(start - len(content)) + names + entries + table
    struct.pack_into(
        *("<IIQQQQQQ", content, headers[4], 1, 6, start, address, 0),
        *(len(names) + size, len(names) + size, 4096),
    )
    at = start + len(names)
    struct.pack_into("<QQQQQ", content, headers[2] + 8, at, address + len(names), 0, size, size)
    return bytes(content)


@only_64_bit
def test_a_search_path_behind_more_entries_than_lief_reads() -> None:
    """lief stops after 1,000 entries; a loader goes on."""
    many = struct.pack("<qQ", 0x6FFFFFFB, 0) * 2000
    found = elf.parse(with_entries(many + struct.pack("<qQ", 15, 0), b"/opt/conda/lib\0"), "/x")
    assert found.rpath == "/opt/conda/lib"


@only_64_bit
def test_more_names_than_lief_reads() -> None:
    names = struct.pack("<qQ", 1, 0) * 1000
    assert "1000 names" in what(with_entries(names, b"libx.so\0"))


@only_64_bit
def test_names_that_name_the_same_bytes_again_and_again() -> None:
    """A file of 80 KB must not stand for 60 MB of names."""
    for tag in (1, 15):
        names = struct.pack("<qQ", tag, 0) * 3
        assert "names of over" in what(with_entries(names, b"x" * 50_000 + b"\0"))
        assert elf.parse(with_entries(names, b"x" * 40_000 + b"\0"), "/x").dynamic


@only_64_bit
def test_a_search_path_without_an_end() -> None:
    assert "over 1000 entries" in what(
        with_entries(struct.pack("<qQ", 29, 0), b":".join([b"/a"] * 1001) + b"\0")
    )
    assert elf.parse(
        with_entries(struct.pack("<qQ", 29, 0), b":".join([b"/a"] * 1000) + b"\0"), "/x"
    ).runpath


@only_64_bit
def test_names_of_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond the limit for all of them is a problem, and not left out."""
    content = with_entries(struct.pack("<qQ", 1, 0), b"x" * 10_000 + b"\0")
    for number in range(20):
        (tmp_path / f"{number:02}").write_bytes(content)
    monkeypatch.setattr(elf, "ALL_NAMES_SIZE", 100_000)
    found = elf.probe(DirectoryRootFS(tmp_path), "/")
    assert (len(found.files), len(found.problems), found.scanned) == (9, 11, 20)
    assert "names for the loader" in found.problems[0].what


@only_64_bit
@pytest.mark.parametrize(
    ("names", "word"), [(b"x" * 70_000 + b"\0", "name of over"), (b"x" * 5000, "outside its")]
)
def test_names_without_an_end(names: bytes, word: str) -> None:
    assert word in what(with_entries(struct.pack("<qQ", 15, 0), names))


@only_64_bit
def test_a_dynamic_section_of_gigabytes(tmp_path: Path) -> None:
    content = bytearray(TRUE.read_bytes())
    struct.pack_into("<Q", content, segments(content)[2] + 32, 1 << 32)
    with (tmp_path / "big.so").open("wb") as file:
        file.write(content)
        file.truncate(1 << 33)
    found = elf.probe(DirectoryRootFS(tmp_path), "/")
    assert ["dynamic section of" in problem.what for problem in found.problems] == [True]


@only_64_bit
def test_of_a_large_file_little_is_read(tmp_path: Path) -> None:
    with (tmp_path / "big.so").open("wb") as file:
        file.write(TRUE.read_bytes())
        file.truncate(1 << 40)
    found = elf.probe(DirectoryRootFS(tmp_path), "/").files["/big.so"]
    assert found.needed == elf.parse(TRUE.read_bytes(), "/x").needed


def in_full(path: Path) -> ElfFile | None:
    """What lief finds when it is given the whole file; None: it cannot parse it."""
    found = lief.ELF.parse(str(path), elf_config())
    if found is None:
        return None
    header = found.header
    of = {
        kind: [getattr(entry, attribute) for entry in found.dynamic_entries if type(entry) is kind]
        for kind, attribute in (
            (lief.ELF.DynamicEntryRpath, "rpath"),
            (lief.ELF.DynamicEntryRunPath, "runpath"),
            (lief.ELF.DynamicEntryLibrary, "name"),
            (lief.ELF.DynamicSharedObject, "name"),
        )
    }
    rpath, runpath, needed, soname = of.values()
    flags = next((e for e in found.dynamic_entries if e.tag.name == "FLAGS_1"), None)
    needs = found.symbols_version_requirement
    definitions = [one.auxiliary_symbols for one in found.symbols_version_definition]
    defined = tuple(str(names[0].name) for names in map(list, definitions))
    return ElfFile(
        path=str(path),
        bits=64 if header.identity_class == lief.ELF.Header.CLASS.ELF64 else 32,
        machine=header.machine_type.name,
        type=header.file_type.name,
        rpath=rpath[-1] if rpath else None,
        runpath=runpath[-1] if runpath else None,
        needed=tuple(needed),
        soname=soname[-1] if soname else None,
        interpreter=str(found.interpreter) if found.has_interpreter else None,
        dynamic=any(s.type == lief.ELF.Segment.TYPE.DYNAMIC for s in found.segments),
        versions_needed=tuple(
            (str(one.name), str(version.name))
            for one in needs
            for version in one.get_auxiliary_symbols()
            if not version.flags & 2
        ),
        versions=defined or None,
        no_default_directories=flags is not None and bool(flags.value & 0x800),
    )


def elf_config() -> lief.ELF.ParserConfig:
    """Without what takes minutes: symbols and relocations."""
    config = lief.ELF.ParserConfig()
    for part in ("dyn_symbols", "notes", "overlay", "relocations"):
        setattr(config, f"parse_{part}", False)
    config.parse_symtab_symbols = False
    return config


def elf_files_of_this_machine() -> Iterator[Path]:
    for top in ("/usr", sys.prefix, sys.base_prefix):
        for directory, _, names in os.walk(top):
            for name in names:
                path = Path(directory, name)
                if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                    with path.open("rb") as file:
                        if file.read(4) == b"\x7fELF":
                            yield path


def same_as_in_full(path: Path) -> tuple[str, bool, bool] | None:
    """Compare what is cut out with the whole; what kind of file it is."""
    whole = in_full(path)
    try:
        found = parsed(path)
    except Unreadable:
        # lief reads what a loader refuses: debug files, whose sections are elsewhere.
        assert "/debug/" in str(path), path
        return None
    assert whole is not None
    alone = dataclasses.replace(found, refused="", filters=(), auxiliaries=(), audits=())
    assert alone == whole
    return found.type, found.dynamic, found.interpreter is not None


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_what_is_cut_out_says_the_same_as_the_whole_file(part: int) -> None:
    """A quarter of the ELF files of this machine: programs, libraries, objects, debug files."""
    files = itertools.islice(elf_files_of_this_machine(), part, None, 8)
    with ThreadPoolExecutor() as pool:
        compared = set(pool.map(same_as_in_full, files))
    assert len(compared) >= 3


@only_64_bit
def test_a_segment_that_cannot_be_mapped() -> None:
    content = bytearray(TRUE.read_bytes())
    at = segments(content)[1] + 8
    struct.pack_into("<Q", content, at, struct.unpack_from("<Q", content, at)[0] + 16)
    assert "cannot be mapped" in what(bytes(content))


@only_64_bit
def test_segments_that_overlap() -> None:
    content = bytearray(TRUE.read_bytes())
    at = segments(content)[1] + 16
    struct.pack_into("<Q", content, at, struct.unpack_from("<Q", content, at)[0] % 4096)
    assert "overlaps" in what(bytes(content))


@only_64_bit
@pytest.mark.skipif(shutil.which("objcopy") is None, reason="there is no objcopy here")
def test_debug_files_are_no_damaged_libraries(tmp_path: Path) -> None:
    debug = tmp_path / "lib/debug/true"
    debug.parent.mkdir(parents=True)
    subprocess.run(["objcopy", "--only-keep-debug", TRUE, debug], check=True)
    for name in ("true.debug", "libtrue.so"):
        shutil.copy(debug, tmp_path / "lib" / name)
    found = elf.probe(DirectoryRootFS(tmp_path), "/")
    assert [problem.path for problem in found.problems] == ["/lib/libtrue.so"]
    assert "debugging information alone" in found.problems[0].what
    assert not found.files


@only_64_bit
def test_a_core_file_may_be_cut_off() -> None:
    content = bytearray(TRUE.read_bytes())
    struct.pack_into("<H", content, 16, 4)
    struct.pack_into("<I", content, segments(content)[2], 4)
    assert elf.parse(bytes(content[: len(content) // 2]), "/x").type == "CORE"


@only_64_bit
def test_of_several_search_paths_the_last_counts() -> None:
    entries = struct.pack("<qQqQqQ", 15, 0, 15, 2, 29, 4)
    found = elf.parse(with_entries(entries, b"a\0b\0c\0"), "/x")
    assert (found.rpath, found.runpath) == ("b", "c")


@only_64_bit
def test_other_names_for_the_loader() -> None:
    tags = (0x6FFFFEFC, 0x6FFFFEFB, 0x7FFFFFFD, 0x7FFFFFFF)
    entries = b"".join(struct.pack("<qQ", tag, 2 * at) for at, tag in enumerate(tags))
    entries += struct.pack("<qQ", 0x6FFFFFFB, 0x800)
    found = elf.parse(with_entries(entries, b"a\0b\0c\0d\0"), "/x")
    assert (found.audits, found.auxiliaries, found.filters) == (("a", "b"), ("c",), ("d",))
    assert found.no_default_directories


@only_64_bit
@pytest.mark.parametrize("tag", [0x6FFFFFFC, 0x6FFFFFFE])
@pytest.mark.parametrize("table", [b"\1" * 40, b""], ids=["no end", "outside"])
def test_tables_of_versions_that_lead_nowhere(tag: int, table: bytes) -> None:
    address = 1 << 24 if table else 1 << 40
    entries = struct.pack("<qQ", tag, address)
    assert "symbol version" in what(with_entries(entries, table))


@only_64_bit
def test_unknown_machine_and_type_keep_their_numbers() -> None:
    content = bytearray(TRUE.read_bytes())
    struct.pack_into("<HH", content, 16, 0xFE99, 60000)
    found = elf.parse(bytes(content), "/x")
    assert (found.type, found.machine) == (str(0xFE99), "60000")


@only_64_bit
def test_mutated_files_never_raise_anything_else() -> None:
    """A few hundred crafted files; lief alone was tried with 150,000."""
    original = TRUE.read_bytes()
    dynamic = struct.unpack_from("<Q", original, segments(original)[2] + 8)[0]
    places = [(4, 64), (64, 64 + 56 * 13), (dynamic, dynamic + 400), (0, len(original) - 8)]
    extremes = [0, 1, 0xFFFF, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1]
    chance = random.Random(2)
    for _ in range(600):
        content = bytearray(original)
        for _ in range(chance.choice([1, 2, 5])):
            start, end = chance.choice(places)
            at = chance.randrange(start, end)
            value = chance.choice([*extremes, chance.randrange(len(original))])
            struct.pack_into("<Q", content, at, value)
        if chance.random() < 0.2:
            del content[chance.randrange(len(content)) :]
        try:
            found = elf.parse(bytes(content), "/x")
        except Unreadable:
            continue
        assert found.bits in (32, 64)


class Trickle(io.RawIOBase):
    """A file that gives few bytes at once, and at `broken` an error of the disk."""

    def __init__(self, content: bytes, broken: int) -> None:
        self._file = io.BytesIO(content)
        self._broken = broken

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._file.tell() >= self._broken:
            raise OSError(5, "Input/output error")
        return self._file.readinto(buffer[:7])


def test_slow_streams_are_read_to_the_end() -> None:
    content = TRUE.read_bytes()
    slow = io.BufferedReader(Trickle(content, len(content) + 1))
    assert elf.parse(slow, "/x") == elf.parse(content, "/x")


def test_disk_errors_are_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(TRUE, tmp_path / "a")
    rootfs = DirectoryRootFS(tmp_path)
    broken = io.BufferedReader(Trickle(TRUE.read_bytes(), 4096))
    monkeypatch.setattr(rootfs, "open", lambda path: broken)
    with pytest.raises(ProbeError, match="Input/output error"):
        elf.probe_files(rootfs, ["/a"])


def test_from_a_stream_and_from_bytes_the_same() -> None:
    content = TRUE.read_bytes()
    assert elf.parse(content, "/x") == elf.parse(io.BytesIO(content), "/x")


def test_the_parser_is_started_again_after_it_was_killed() -> None:
    content = TRUE.read_bytes()
    before = elf.parse(content, "/x")
    process = lief_client.LIEF._process
    assert process is not None
    process.kill()
    process.wait()
    assert elf.parse(content, "/x") == before
    assert lief_client.LIEF._process is not process


@pytest.mark.parametrize(
    ("program", "error", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", Unreadable, "crash.*11"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            ProbeError,
            "too little memory",
        ),
        ("raise ImportError('lief')", ProbeError, "lief, which parses.*exit code 1"),
    ],
)
def test_a_parser_that_crashes_or_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, error: type, words: str
) -> None:
    (tmp_path / "lief_server.py").write_text(program)
    monkeypatch.setattr(lief_client, "__file__", str(tmp_path / "lief_client.py"))
    monkeypatch.setattr(elf, "LIEF", lief_client.Lief())
    with pytest.raises(error, match=words):
        elf.parse(TRUE.read_bytes(), "/x")


def test_the_parser_ends_with_the_process_that_asks() -> None:
    program = (
        "import sys, time; from mlcheck.inspect.elf import lief_client, probe as elf;"
        f"elf.parse(open({str(TRUE)!r}, 'rb').read(), '/x');"
        "print(lief_client.LIEF._process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        parser = os.pidfd_open(int(process.stdout.readline()))
        process.kill()
    ended, _, _ = select.select([parser], [], [], 30)
    os.close(parser)
    assert ended
