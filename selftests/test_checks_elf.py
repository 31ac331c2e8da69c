"""The checks of RPATH and libraries, on literal facts."""

from __future__ import annotations

import pytest

from mlcheck.checks import elf
from mlcheck.facts import ElfFile, ElfFiles, Libraries, LibraryNeed, Problem
from mlcheck.profile import Profile

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
def test_an_entry_in_the_prefix_is_found_wherever_it_stands(rpath: str) -> None:
    for facts in (files(rpath=rpath), files(runpath=rpath)):
        (finding,) = elf.hard_coded(facts, PROFILE).findings
        assert finding.subject == "/opt/conda/bin/root.exe"
        assert finding.found.partition(" entry ")[2] in rpath.split(":")


@pytest.mark.parametrize(
    "rpath", [None, CORRECTED, "$ORIGIN/../lib", "/opt/conda2/lib", "/opt/condalib", "/opt"]
)
def test_other_entries_are_not_hard_coded(rpath: str | None) -> None:
    assert elf.hard_coded(files(rpath=rpath), PROFILE).findings == ()


def test_entries_of_a_build_machine_are_reported_not_failed() -> None:
    verdict = elf.hard_coded(files(rpath=CORRECTED), PROFILE)
    assert verdict.outcome == "passed"
    assert [note.split()[0] for note in verdict.notes] == [
        "/0000000000000",
        CORRECTED.rpartition(":")[2],
    ]


@pytest.mark.parametrize(
    ("rpath", "found"),
    [
        ("", "an empty RPATH entry"),
        ("$ORIGIN:", "an empty RPATH entry"),
        (":$ORIGIN", "an empty RPATH entry"),
        ("lib", "RPATH entry lib"),
        ("./lib:$ORIGIN", "RPATH entry ./lib"),
        ("../lib", "RPATH entry ../lib"),
        ("$LIB", "RPATH entry $LIB"),
    ],
)
def test_relative_and_empty_entries(rpath: str, found: str) -> None:
    assert [finding.found for finding in elf.relative(files(rpath=rpath), PROFILE).findings] == [
        found
    ]


@pytest.mark.parametrize("rpath", [None, CORRECTED, "${ORIGIN}/../lib", "/usr/lib64"])
def test_entries_that_are_not_relative(rpath: str | None) -> None:
    assert elf.relative(files(rpath=rpath), PROFILE).outcome == "passed"


def test_required_entries() -> None:
    assert elf.required(files(rpath=CORRECTED), PROFILE).outcome == "passed"
    assert elf.required(files(runpath="$ORIGIN/../lib"), PROFILE).outcome == "passed"
    (finding,) = elf.required(files(rpath="$ORIGIN"), PROFILE).findings
    assert (finding.found, finding.expected) == ("$ORIGIN", "$ORIGIN/../lib")
    (finding,) = elf.required(ElfFiles({}, 0), PROFILE).findings
    assert finding.found == "no ELF file at this path"


def test_a_prefix_without_any_elf_file_does_not_pass() -> None:
    nothing = ElfFiles({}, 0)
    for verdict in (elf.readable(nothing), elf.relative(nothing, PROFILE)):
        assert verdict.outcome == "failed"
    assert elf.hard_coded(nothing, PROFILE).outcome == "failed"


def test_a_broken_file_is_named() -> None:
    broken = ElfFiles(files().files, 2, (Problem("/opt/conda/lib/x.so", "is truncated"),))
    (finding,) = elf.readable(broken).findings
    assert (finding.subject, finding.found) == ("/opt/conda/lib/x.so", "is truncated")


def need(soname: str, by: str, path: str | None, final: str | None = None) -> LibraryNeed:
    return LibraryNeed(soname, by, path, final or path, 64, "X86_64", ("/usr/lib64",))


PROGRAM = "/opt/conda/bin/root.exe"
GOOD = (
    need("libGL.so.1", "", "/usr/lib64/libGL.so.1", "/usr/lib64/libGL.so.1.7.0"),
    need("libCore.so", PROGRAM, "/opt/conda/lib/libCore.so"),
)


def test_libraries_that_resolve() -> None:
    assert elf.resolve(Libraries(GOOD), PROFILE).outcome == "passed"
    assert elf.system(Libraries(GOOD), PROFILE).outcome == "passed"


def test_a_library_that_does_not_resolve_shows_the_searched_path() -> None:
    libraries = Libraries((*GOOD, need("libx.so.2", PROGRAM, None)))
    (finding,) = elf.resolve(libraries, PROFILE).findings
    assert finding.subject == PROGRAM
    assert "libx.so.2" in finding.found
    assert "/usr/lib64" in finding.found
    assert elf.system(libraries, PROFILE).outcome == "passed"


def test_programs_without_any_need_prove_nothing() -> None:
    assert elf.resolve(Libraries(GOOD[:1]), PROFILE).outcome == "skipped"


@pytest.mark.parametrize(
    "gl",
    [
        need("libGL.so.1", "", None),
        need("libGL.so.1", "", "/opt/conda/lib/libGL.so.1"),
        need("libGL.so.1", "", "/usr/lib64/libGL.so.1", "/opt/conda/lib/libGL.so.1.7.0"),
    ],
)
def test_a_system_library_that_is_missing_or_from_the_prefix(gl: LibraryNeed) -> None:
    (finding,) = elf.system(Libraries((gl, GOOD[1])), PROFILE).findings
    assert finding.subject == "libGL.so.1"


def test_a_rejected_candidate_is_named() -> None:
    rejected = (("/usr/lib64/libGL.so.1", "is a 32-bit file"),)
    gl = LibraryNeed("libGL.so.1", "", None, None, None, None, ("/usr/lib64",), rejected)
    (finding,) = elf.system(Libraries((gl,)), PROFILE).findings
    assert "/usr/lib64/libGL.so.1 is a 32-bit file" in finding.found


def test_a_profile_without_promises_skips_with_a_reason() -> None:
    empty = Profile.of({})
    for verdict in (
        elf.hard_coded(files(), empty),
        elf.relative(files(), empty),
        elf.required(files(), empty),
        elf.system(Libraries(GOOD), empty),
    ):
        assert verdict.outcome == "skipped"
        assert verdict.not_applicable
