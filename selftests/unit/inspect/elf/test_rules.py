"""The rules of RPATH and libraries, on literal facts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.elf import paths
from mlcheck.inspect.elf.facts import ElfFile, ElfFiles, Libraries, LibraryNeed
from mlcheck.model.files import Problem
from mlcheck.model.verdict import Verdict
from mlcheck.profile.catalog import Profile
from selftests.rules import judge

PROFILE = Profile.of(
    {
        "prefix": "/opt/conda",
        "rpath": {
            "forbidden": ["/opt/conda"],
            "required": {"/opt/conda/bin/root.exe": ["$ORIGIN/../lib"]},
        },
        "libraries": {"system": ["libGL.so.1"]},
    }
)
# What upstream's README shows, after its correction.
CORRECTED = (
    "/0000000000000:$ORIGIN:$ORIGIN/../lib:/home/conda/feedstock_root/build_artifacts/"
    "root_base_1689430670413/_build_env/lib"
)


@pytest.fixture
def rootfs(tmp_path: Path) -> DirectoryRootFS:
    """An image without the directories that are named."""
    return DirectoryRootFS(tmp_path)


def of_paths(rule: str, rootfs: DirectoryRootFS, found: ElfFiles) -> Verdict:
    """The verdict of a rule about the paths in these files."""
    rpath = PROFILE.expect.rpath
    assert rpath is not None
    led = paths.probe(rootfs, found, rpath.forbidden, rpath.required)
    return judge(rule, *(() if rule == "rpath-required" else (found,)), led, PROFILE)


def files(rpath: str | None = None, runpath: str | None = None) -> ElfFiles:
    path = "/opt/conda/bin/root.exe"
    file = ElfFile(path, 64, "X86_64", "DYN", rpath, runpath, (), None, None, True)
    return ElfFiles({path: file}, scanned=1)


@pytest.mark.parametrize(
    "rpath",
    [
        "/opt/conda/lib:$ORIGIN",
        "$ORIGIN:/opt/conda/lib",
        "$ORIGIN:/opt/conda/lib:$ORIGIN/../lib",
        "/opt/conda",
        "/opt/conda/",
        "/opt/conda/lib/",
        "/opt/conda/lib/root/",
        "/opt//conda/./lib",
        "//opt/conda/lib",
        "/opt/x/../conda/lib",
    ],
)
def test_an_entry_in_the_prefix_is_found_wherever_it_stands(
    rootfs: DirectoryRootFS, rpath: str
) -> None:
    for facts in (files(rpath=rpath), files(runpath=rpath)):
        (finding,) = of_paths("rpath-hard-coded", rootfs, facts).findings
        assert finding.subject == "/opt/conda/bin/root.exe"
        assert finding.found.partition(" entry ")[2] in rpath.split(":")


@pytest.mark.parametrize(
    "rpath", [None, CORRECTED, "$ORIGIN/../lib", "/opt/conda2/lib", "/opt/condalib", "/opt"]
)
def test_other_entries_are_not_hard_coded(rootfs: DirectoryRootFS, rpath: str | None) -> None:
    assert of_paths("rpath-hard-coded", rootfs, files(rpath=rpath)).findings == ()


def test_entries_of_a_build_machine_are_reported_not_failed(rootfs: DirectoryRootFS) -> None:
    verdict = of_paths("rpath-hard-coded", rootfs, files(rpath=CORRECTED))
    assert verdict.outcome == "passed"
    assert [note.split()[0] for note in verdict.notes] == [
        "/0000000000000",
        CORRECTED.rpartition(":")[2],
    ]


@pytest.mark.parametrize(
    ("rpath", "found"),
    [
        ("$ORIGIN:", "an empty RPATH entry"),
        (":$ORIGIN", "an empty RPATH entry"),
        ("lib", "RPATH entry lib"),
        ("./lib:$ORIGIN", "RPATH entry ./lib"),
        ("../lib", "RPATH entry ../lib"),
        ("$LIB", "RPATH entry $LIB"),
        ("$ORIGINAL/../lib", "RPATH entry $ORIGINAL/../lib"),
        ("$ORIGIN_/lib", "RPATH entry $ORIGIN_/lib"),
        ("lib/$ORIGIN", "RPATH entry lib/$ORIGIN"),
    ],
)
def test_relative_and_empty_entries(rootfs: DirectoryRootFS, rpath: str, found: str) -> None:
    assert [
        finding.found for finding in of_paths("rpath-relative", rootfs, files(rpath=rpath)).findings
    ] == [found]


@pytest.mark.parametrize("rpath", [None, "", CORRECTED, "${ORIGIN}/../lib", "/usr/lib64"])
def test_entries_that_are_not_relative(rootfs: DirectoryRootFS, rpath: str | None) -> None:
    assert of_paths("rpath-relative", rootfs, files(rpath=rpath)).outcome == "passed"


def test_required_entries(rootfs: DirectoryRootFS) -> None:
    assert of_paths("rpath-required", rootfs, files(rpath=CORRECTED)).outcome == "passed"
    assert of_paths("rpath-required", rootfs, files(runpath="$ORIGIN/../lib")).outcome == "passed"
    (finding,) = of_paths("rpath-required", rootfs, files(rpath="$ORIGIN")).findings
    assert (finding.found, finding.expected) == ("$ORIGIN", "$ORIGIN/../lib")
    (finding,) = of_paths("rpath-required", rootfs, ElfFiles({}, 0)).findings
    assert finding.found.startswith("no ELF file at this path")


def test_a_prefix_without_any_elf_file_does_not_pass(rootfs: DirectoryRootFS) -> None:
    nothing = ElfFiles({}, 0)
    for verdict in (
        judge("elf-readable", nothing, PROFILE),
        of_paths("rpath-relative", rootfs, nothing),
    ):
        assert verdict.outcome == "failed"
    assert of_paths("rpath-hard-coded", rootfs, nothing).outcome == "failed"


def test_a_broken_file_is_named() -> None:
    broken = ElfFiles(files().files, 2, (Problem("/opt/conda/lib/x.so", "is truncated"),))
    (finding,) = judge("elf-readable", broken, PROFILE).findings
    assert (finding.subject, finding.found) == ("/opt/conda/lib/x.so", "is truncated")


@pytest.mark.parametrize(
    ("path", "facts", "found"),
    [
        ("lib/libx.so.1", {}, None),
        ("lib/libx.so.1", {"machine": "AARCH64"}, "is for 64-bit AARCH64"),
        ("lib/libx.so.1", {"refused": "has no dynamic section"}, "has no dynamic section"),
        ("lib/libx.so", {"refused": "has no dynamic section"}, None),
        ("lib/python3.11/x.cpython-311-x86_64-linux-gnu.so", {"bits": 32}, "is for 32-bit X86_64"),
        ("aarch64-conda-linux-gnu/sysroot/lib/libc.so.6", {"machine": "AARCH64"}, None),
        ("bin/x", {"refused": "is a program"}, None),
    ],
)
def test_libraries_that_no_loader_takes(
    path: str, facts: dict[str, object], found: str | None
) -> None:
    whole = f"/opt/conda/{path}"
    program = replace(files().files[PROGRAM], interpreter="/lib64/ld-linux-x86-64.so.2")
    one = replace(program, path=whole, interpreter=None, **facts)  # type: ignore[arg-type]
    elf = ElfFiles({PROGRAM: program, whole: one}, 2)
    findings = judge("elf-readable", elf, PROFILE).findings
    assert [(f.subject, f.found) for f in findings] == ([(whole, found)] if found else [])


def test_what_a_system_library_needs() -> None:
    missing = ("libGL.so.1", need("libGLX.so.0", "/usr/lib64/libGL.so.1.7.0", None))
    verdict = judge("libraries-system", Libraries(GOOD, (), (missing,)), PROFILE)
    (finding,) = verdict.findings
    assert finding.subject == "libGL.so.1"
    assert "libGL.so.1.7.0 needs libGLX.so.0" in finding.found


def need(soname: str, by: str, path: str | None, final: str | None = None) -> LibraryNeed:
    return LibraryNeed(soname, by, path, final or path, 64, "X86_64", ("/usr/lib64",))


PROGRAM = "/opt/conda/bin/root.exe"
GOOD = (
    need("libGL.so.1", "", "/usr/lib64/libGL.so.1", "/usr/lib64/libGL.so.1.7.0"),
    need("libCore.so", PROGRAM, "/opt/conda/lib/libCore.so"),
)


def test_libraries_that_resolve() -> None:
    assert judge("libraries-resolve", Libraries(GOOD), PROFILE).outcome == "passed"
    assert judge("libraries-system", Libraries(GOOD), PROFILE).outcome == "passed"


def test_a_library_that_does_not_resolve_shows_the_searched_path() -> None:
    libraries = Libraries((*GOOD, need("libx.so.2", PROGRAM, None)))
    (finding,) = judge("libraries-resolve", libraries, PROFILE).findings
    assert finding.subject == PROGRAM
    assert "libx.so.2" in finding.found
    assert "/usr/lib64" in finding.found
    assert judge("libraries-system", libraries, PROFILE).outcome == "passed"


def test_programs_without_any_need_prove_nothing() -> None:
    assert judge("libraries-resolve", Libraries(GOOD[:1]), PROFILE).outcome == "skipped"


@pytest.mark.parametrize(
    "gl",
    [
        need("libGL.so.1", "", None),
        need("libGL.so.1", "", "/opt/conda/lib/libGL.so.1"),
        need("libGL.so.1", "", "/usr/lib64/libGL.so.1", "/opt/conda/lib/libGL.so.1.7.0"),
    ],
)
def test_a_system_library_that_is_missing_or_from_the_prefix(gl: LibraryNeed) -> None:
    (finding,) = judge("libraries-system", Libraries((gl, GOOD[1])), PROFILE).findings
    assert finding.subject == "libGL.so.1"


def test_a_rejected_candidate_is_named() -> None:
    rejected = (("/usr/lib64/libGL.so.1", "is a 32-bit file"),)
    gl = LibraryNeed("libGL.so.1", "", None, None, None, None, ("/usr/lib64",), rejected)
    (finding,) = judge("libraries-system", Libraries((gl,)), PROFILE).findings
    assert "/usr/lib64/libGL.so.1 is a 32-bit file" in finding.found


def test_an_environment_that_is_the_systems_has_its_libraries() -> None:
    gl = replace(GOOD[0], path="/usr/lib/libGL.so.1", final_path="/usr/lib/libGL.so.1.7")
    libraries = Libraries((gl, *GOOD[1:]))
    for prefix, good in (("/usr", True), ("/usr/lib", False)):
        profile = Profile.of({"prefix": prefix, "libraries": {"system": [gl.soname]}})
        assert (not judge("libraries-system", libraries, profile).findings) == good
