"""The microarchitecture level of the CPU (x86-64 psABI, "Low-level system information")."""

from __future__ import annotations

from mlcheck.engines.base import OpenImage
from mlcheck.model.command import CommandResult
from mlcheck.model.errors import ProbeError

SIGILL = 128 + 4
"""Exit status of a command that ended because the CPU lacks an instruction."""

# As Linux names the flags in /proc/cpuinfo: sse3 is pni, lzcnt is abm, osxsave shows as xsave.
_FLAGS = {
    1: "cmov cx8 fpu fxsr mmx sse sse2 syscall",
    2: "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3",
    3: "abm avx avx2 bmi1 bmi2 f16c fma movbe xsave",
    4: "avx512f avx512bw avx512cd avx512dq avx512vl",
}


def level(cpuinfo: str) -> tuple[int, tuple[str, ...]]:
    """Return the level of a CPU, 0 to 4, and the flags that it lacks for the next.

    Args:
        cpuinfo: text of /proc/cpuinfo. That of another architecture has level 0.
    """
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            there = set(value.split())
            break
    else:
        there = set()
    for number, names in _FLAGS.items():
        lacking = tuple(name for name in names.split() if name not in there)
        if lacking:
            return number - 1, lacking
    return max(_FLAGS), ()


def is_images_fault(image: OpenImage, result: CommandResult, needs: int | None) -> bool:
    """Return whether a command ended by SIGILL although the CPU has the level that the image needs.

    Raises:
        ProbeError: see `require`.
    """
    if result.ended != "exited" or result.exit_code != SIGILL:
        return False
    require(image, needs, result.argv[0])
    return True


def require(image: OpenImage, needs: int | None, program: str) -> None:
    """Require that the CPU has the level that the image needs, if `program` ended by SIGILL.

    Args:
        needs: that level, or None if the image does not state it.

    Raises:
        ProbeError: it does not: the image cannot be judged on this machine.
    """
    done = image.run(["cat", "/proc/cpuinfo"], limit_s=20, output_limit=16 * 1024 * 1024)
    has, lacking = level(done.stdout.decode("utf-8", "replace"))
    if needs is not None and has < needs:
        raise ProbeError(
            f"{program} ended by SIGILL: the image needs a CPU of x86-64-v{needs} "
            f"(_x86_64-microarch-level {needs}), and this one has x86-64-v{has}: it lacks "
            f"{', '.join(lacking)}.",
            f"Judge the image on a machine with x86-64-v{needs}.",
        )
