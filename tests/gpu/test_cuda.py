"""CUDA without a GPU: libraries, and the hint about the driver."""

from __future__ import annotations

from mlcheck.inspect.framework.computation import shown_by
from mlcheck.inspect.framework.facts import CudaLibraries, CudaLibrary, Hint, Hints
from mlcheck.model.command import CommandResult
from mlcheck.model.rule import rule
from mlcheck.model.verdict import Finding, ShowFile, Verdict, judged, skipped
from mlcheck.profile.catalog import Profile, promised


@rule("cuda-libraries", keys=["framework.cuda"], also=["framework.opens"])
def test_cuda_libraries(libraries: CudaLibraries, profile: Profile) -> Verdict:
    """The loader finds in the image every CUDA library that the framework needs or opens, and each
    is of the version that its name says.

    Why: Frameworks open CUDA's libraries by name and go on with the CPU where one is missing, with
    a warning that nobody reads (https://www.tensorflow.org/install/pip).

    Fix: Install the package that has the library (cudatoolkit, cudnn, nccl, libcublas, ...), in the
    version that the framework was built for.
    """
    expected = promised(profile.expect.framework)
    source = profile.source("framework")
    if libraries.package is None:
        found = "no such package in the prefix"
        see = shown_by(expected.module)
        return judged(1, [Finding(expected.module, found, "a package", source, see)])
    findings = [
        Finding(
            need.by or libraries.package,
            f"{'needs' if need.by else 'opens'} {need.soname}: {_not_found(need)}",
            "found by the loader",
            source if need.by else profile.source("framework", "opens"),
            ShowFile("readelf -d", need.by) if need.by else _looked_for(need),
        )
        for need in libraries.needs
        if need.path is None
    ]
    findings += [
        Finding(
            need.path,
            f"says that it is {need.says} (DT_SONAME)",
            need.soname,
            source if need.by else profile.source("framework", "opens"),
            ShowFile("readelf -d", need.path),
        )
        for need in {one.path: one for one in libraries.needs}.values()
        if need.path is not None and need.says is not None and _is_other(need.soname, need.says)
    ]
    if not libraries.needs:
        found = "needs and opens no library of CUDA"
        wanted = f"a build for CUDA {expected.cuda}"
        findings = [Finding(libraries.package, found, wanted, source, shown_by(expected.module))]
    return judged(len(libraries.needs), findings)


@rule("gpu-hint", keys=["framework.hints"])
def test_gpu_hint(hints: Hints, profile: Profile) -> Verdict:
    """The hint about the GPU driver is shown when an NVIDIA device is there and libcuda.so.1 cannot
    be loaded, and not when it can.

    Why: The hint of usatlas/ML-Containers looks for libcuda.so alone, which engines do not bring,
    and so tells people to repair a GPU that works.

    Fix: Look for libcuda.so.1, the name that programs load, with the loader; it may lie anywhere.
    """
    if hints.driver:
        return skipped("libcuda.so.1 is there: what is said without it is judged without --nv")
    source = profile.source("framework", "hints")
    if hints.problem:
        first, *others = promised(profile.expect.framework).hints
        see = ShowFile("ls -l", first, tuple(others))
        finding = Finding("hint", hints.problem, "hints that can be tried", source, see)
        return judged(1, [finding])
    findings = [
        Finding(hint.path, found, wanted, source, ShowFile("cat -v", hint.path))
        for hint in hints.hints
        for found, wanted in _untrue(hint)
    ]
    return judged(len(hints.hints), findings)


def _not_found(need: CudaLibrary) -> str:
    places = [f"not in {', '.join(need.searched)}"] if need.searched else []
    places += [f"{path} {why}" for path, why in need.rejected]
    return "; ".join(places) or "not in any directory"


def _is_other(wanted: str, says: str) -> bool:
    """Whether a library that is found by one name is another, or of another version, by its own.
    Of two versions one may be longer, and a name may have a suffix (libcudart-d0da41ae.so.11.0)."""
    (name, _, version), (own, _, its) = wanted.partition(".so"), says.partition(".so")
    if not (own.startswith(name) or name.startswith(own)):
        return True
    numbers = list(zip(version.split(".")[1:], its.split(".")[1:], strict=False))
    return any(one != other for one, other in numbers)


def _looked_for(need: CudaLibrary) -> ShowFile:
    first, *others = (f"{directory}/{need.soname}" for directory in need.searched or ("/usr/lib",))
    return ShowFile("ls -l", first, tuple(others))


def _untrue(hint: Hint) -> list[tuple[str, str]]:
    for name, result in (
        ("", hint.alone),
        (" where lspci shows a GPU", hint.without),
        (" where libcuda.so.1 can be loaded", hint.with_library),
    ):
        if result.ended != "exited" or result.exit_code in (125, 126, 127):
            return [(result.how_it_ended + name, "a script that can be sourced")]
    complaint = [line for line in _lines(hint.without) if line not in _lines(hint.alone)]
    if not complaint:
        what = "says nothing where lspci shows an NVIDIA device and libcuda.so.1 cannot be loaded"
        return [(what, "a hint")]
    said = [line for line in _lines(hint.with_library) if line in complaint]
    if said:
        what = f"says where libcuda.so.1 can be loaded: {said[0]}"
        return [(what, "nothing about a driver that is not there")]
    return []


def _lines(result: CommandResult) -> list[str]:
    return [line.strip() for line in result.stdout.splitlines() if line.strip()]
