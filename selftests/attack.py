"""A standing attack: inputs that cost more than they weigh, and inputs broken at random.

    python -m selftests.attack [--seconds N] [NAME ...]

Each amplifier is read in a process of its own, whose memory and CPU time are printed. It fails if
it takes more than MEMORY, or ends by anything but an answer or an error of mlcheck's own. Time is
compared with that of decompressing 8 GiB here, which any archive may cost (`mlcheck.image.budget`):
FACTOR times that fails. Then hypothesis breaks archives at random until the seconds are over.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlcheck.engines import select
from mlcheck.image import budget
from mlcheck.image.byte_sources import _zstd
from mlcheck.inspect.elf import paths as elf_paths
from mlcheck.inspect.elf import probe as elf
from mlcheck.model.errors import MlcheckError
from mlcheck.model.image_ref import ImageRef
from selftests.archives import configuration, digest, docker_archive, layer, member
from selftests.checkout import CHECKOUT

MEMORY = 1024
"""MB of memory that one input may take."""

FACTOR = 5
"""Times the CPU time of decompressing INFLATED_FREE bytes that one input may take."""

PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": _zstd().compress}

Made = Callable[[Path], Path]
CORPUS: dict[str, Made] = {}


def amplifier(made: Made) -> Made:
    """Add an input to the corpus: a function that writes it at a path."""
    CORPUS[made.__name__.replace("_", "-")] = made
    return made


# Amplifiers


@amplifier
def empty_files(path: Path) -> Path:
    return docker_archive(path, [layer(*_headers(590_000))], how="gzip")


@amplifier
def empty_files_in_four_layers(path: Path) -> Path:
    layers = [layer(*_headers(400_000, f"d{number}/")) for number in range(4)]
    return docker_archive(path, layers, how="gzip")


@amplifier
def a_layer_that_is_named_again(path: Path) -> Path:
    one = layer(*_headers(100_000))
    table = [{"Config": "config.json", "RepoTags": None, "Layers": ["layer"] * 60}]
    files = {
        "config.json": configuration([one] * 60),
        "layer": gzip.compress(one),
        "manifest.json": json.dumps(table).encode(),
    }
    path.write_bytes(layer(*(member(name, data) for name, data in files.items())))
    return path


@amplifier
def implied_directories(path: Path) -> Path:
    deep = "/".join(["d"] * 1900)
    return docker_archive(path, [layer(*(member(f"{n}/{deep}/x") for n in range(2000)))])


@amplifier
def long_targets(path: Path) -> Path:
    links = [member(f"l{n}", to="a/../" * 180_000 + f"l{n + 1}") for n in range(2)]
    return docker_archive(path, [layer(member("a", None), *links)], how="gzip")


@amplifier
def chained_targets(path: Path) -> Path:
    chain = [member(f"l{n}", to="a/../" * 800 + f"l{n + 1}") for n in range(39)]
    heads = [member(f"b{n}", to="l0") for n in range(20_000)]
    ends = [member("a", None), member("l39", None)]
    return docker_archive(path, [layer(*ends, *chain, *heads)], how="gzip")


@amplifier
def empty_frames(path: Path) -> Path:
    return _stored(path, _zstd().compress(b""), "zstd")


@amplifier
def skippable_frames(path: Path) -> Path:
    return _stored(path, b"\x50\x2a\x4d\x18\0\0\0\0", "zstd")


@amplifier
def empty_members(path: Path) -> Path:
    return _stored(path, gzip.compress(b""), "gzip")


@amplifier
def empty_frames_in_gzip(path: Path) -> Path:
    path.write_bytes(gzip.compress(empty_frames(path).read_bytes()))
    return path


@amplifier
def bombs(path: Path) -> Path:
    """Layers of zeros, each within the limit, which is that of the image."""
    layers = [layer(member(f"{number}", "x")) for number in range(3)]
    part, count = 1 << 26, 64
    info = tarfile.TarInfo("zeros")
    info.size = part * count
    zeros = _zstd().compress(bytes(part)) * count
    stored = _zstd().compress(info.tobuf()) + zeros + _zstd().compress(bytes(1024))
    names = [f"{digest(one)[7:]}-{number}/layer.tar" for number, one in enumerate(layers)]
    return docker_archive(path, layers, changed=dict.fromkeys(names, stored))


@amplifier
def names_for_the_loader(path: Path) -> Path:
    """ELF files that name the same 64 KiB again and again, and search paths without an end."""
    needed = _elf(1, b"x" * 65_000 + b"\0", 980)
    lists = [b":".join(b"/a/%d/%d" % (n, k) for k in range(1000)) + b"\0" for n in range(400)]
    files = [member(f"opt/conda/n{n}", needed) for n in range(21)]
    files += [member(f"opt/conda/p{n}", _elf(15, text, 1)) for n, text in enumerate(lists)]
    files.append(member("opt/conda/r", _elf(15, b"/opt/conda:" * 5900 + b"\0", 980)))
    return docker_archive(path, [layer(*files)], how="gzip")


def _headers(count: int, prefix: str = "") -> Iterator[bytes]:
    """Empty files: headers of which only the name changes."""
    for number in range(count):
        name = f"{prefix}{number:09}".encode()
        block = bytearray(512)
        block[: len(name)] = name
        block[100:156] = b"0000644\0" + b"0000000\0" * 2 + b"0" * 11 + b"\0" + b"0" * 11 + b"\0" * 9
        block[148:156] = b" " * 8
        block[156:157], block[257:265] = b"0", b"ustar\x0000"
        block[148:156] = b"%06o\0 " % sum(block)
        yield bytes(block)


def _stored(path: Path, empty: bytes, how: str) -> Path:
    """An image whose layer begins with 20 MB of frames or members without content."""
    one = layer(member("a", "x"))
    stored = empty * (20_000_000 // len(empty)) + PACKERS[how](one)
    return docker_archive(path, [one], changed={f"{digest(one)[7:]}-0/layer.tar": stored})


def _elf(tag: int, names: bytes, count: int) -> bytes:
    """A library for x86-64 that has the first of its names so many times."""
    start = 64 + 2 * 56
    table = struct.pack("<qQ", tag, 0) * count
    size = len(table) + 48
    at = start + size
    table += struct.pack("<qQqQqQ", 5, at, 10, len(names), 0, 0)
    head = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header = struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    whole = struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, at + len(names), at + len(names), 4096)
    dynamic = struct.pack("<IIQQQQQQ", 2, 4, start, start, start, size, size, 8)
    return head + header + whole + dynamic + table + names


# Reading them


def look(path: Path) -> str:
    """Read all that the archive's readers read; return what became of it."""
    try:
        with select.open_image(ImageRef.parse(f"docker-archive:{path}"), "archive") as image:
            rootfs = image.rootfs
            count = 0
            for file in rootfs.walk("/"):
                count += 1
                rootfs.resolve(file.path)
            found = elf.probe(rootfs, "/opt/conda")
            elf_paths.probe(rootfs, found, ["/opt/conda"], {})
            if image.layers is not None:
                image.layers.read(lambda _: False, lambda *_: None)
            return f"{count} files, {len(found.files)} ELF files, {len(found.problems)} problems"
    except MlcheckError as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


def measured(path: Path) -> tuple[int, str, float, int]:
    """Return exit code, the last line, seconds of CPU time and MB of memory of reading a file."""
    command = [sys.executable, "-m", "selftests.attack", "--look", str(path)]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, cwd=CHECKOUT, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        *_, last = said.read().decode(errors="replace").splitlines() or [""]
    seconds = usage.ru_utime + usage.ru_stime
    memory, _, words = last.partition(" MB ")
    # That of wait4 would count what the process had before exec, which is this one's.
    if process.returncode or not memory.isdecimal():
        return process.returncode, last, seconds, usage.ru_maxrss // 1024
    return 0, words, seconds, int(memory)


def peak() -> int:
    """Return the most memory that this process has had, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 1024


def decompressing() -> float:
    """Return the seconds of CPU time in which this machine decompresses INFLATED_FREE bytes."""
    part = 1 << 26
    packed = gzip.compress(bytes(part), 1)
    before = time.process_time()
    gzip.decompress(packed)
    return (time.process_time() - before) * budget.INFLATED_FREE / part


def amplifiers(names: list[str], directory: Path) -> list[str]:
    """Read each input of the corpus; return those that fail."""
    failed = []
    usual = decompressing()
    print(f"decompressing {budget.INFLATED_FREE >> 30} GiB takes {usual:.1f} s of CPU time here")
    for name in names:
        path = CORPUS[name](directory / "x.tar")
        size = path.stat().st_size
        code, said, seconds, memory = measured(path)
        wrong = code != 0 or memory > MEMORY or seconds > FACTOR * usual
        failed += [name] if wrong else []
        mark = "FAILED" if wrong else "ok"
        print(
            f"{mark:7}{name:30}{size / 1e6:7.2f} MB {seconds:7.1f} s {memory:6} MB  {said[:150]}",
            flush=True,
        )
    return failed


def broken_at_random(seconds: float, directory: Path) -> None:
    """Break archives at random for so long. What is no error of mlcheck's own is raised."""
    files = [member("d", None), member("d/f", b"content"), member("d/l", to="../d/f")]
    files += [member("d/h", link="d/f"), member("opt/conda/lib/x.so", _elf(1, b"libc.so.6\0", 1))]
    whole = [
        docker_archive(directory / f"{how}.tar", [layer(*files)] * 2, how=how).read_bytes()
        for how in ("", "gzip", "zstd")
    ]
    whole += [packed(whole[0]) for packed in PACKERS.values()]
    change = st.tuples(st.integers(0, 2**16), st.binary(max_size=12))

    @settings(deadline=None, database=None, max_examples=200, suppress_health_check=[*HealthCheck])
    @given(st.sampled_from(whole), st.lists(change, min_size=1, max_size=4), st.integers(0, 2**16))
    def broken(content: bytes, changes: list[tuple[int, bytes]], end: int) -> None:
        data = bytearray(content)
        for at, new in changes:
            data[at % len(data) : at % len(data) + len(new)] = new
        path = directory / "broken.tar"
        path.write_bytes(data[: end if end % 7 == 0 else None])
        look(path)

    ends = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < ends:
        broken()
        rounds += 1
    print(f"{200 * rounds} archives broken at random: each ends as an answer or an error")


def main() -> int:
    """Attack; return 1 if an input fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="of archives broken at random")
    parser.add_argument("--look", type=Path, help="read one archive")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CORPUS))
    arguments = parser.parse_args()
    if arguments.look:
        said = look(arguments.look)
        print(f"{peak()} MB {said}")
        return 0
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(prefix="mlcheck-attack-") as directory:
        failed = amplifiers(arguments.names or [*CORPUS], Path(directory))
        broken_at_random(arguments.seconds, Path(directory))
    print(f"failed: {', '.join(failed)}" if failed else "nothing failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
