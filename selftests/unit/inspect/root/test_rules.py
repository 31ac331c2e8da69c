"""The rules of ROOT at work, the CPU's level and the loader's list, on literal facts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mlcheck.engines.base import PLAINLY, OpenImage
from mlcheck.inspect.elf.loader_trace import loaded
from mlcheck.inspect.root import probe
from mlcheck.inspect.root.facts import PyRoot, RootProgram
from mlcheck.inspect.system import cpu
from mlcheck.model.command import CommandResult
from mlcheck.model.errors import ProbeError
from mlcheck.model.verdict import Verdict
from mlcheck.profile.catalog import Profile
from selftests import images
from selftests.rules import judge

PROFILE = Profile.of(
    {
        "prefix": "/opt/conda",
        "root_config": {"libs": ["-lz"]},
        "packages": {
            "required": {"_x86_64-microarch-level": {"version": "3", "import": False}, "root": {}}
        },
    }
)
DONE = CommandResult(("x",), 0, "", "", "exited", 1.0)
EXPECTED = {"entries": 4.0, "mean": 3.0, "bin 3": 2.0}
CLING = {"sum by cling": 12.0}
ANSWERS = {**EXPECTED, **CLING}
PYROOT = PyRoot(DONE, ANSWERS, "6.30/04", None)
PROGRAM = RootProgram(
    compiler="/opt/conda/bin/g++",
    flags=DONE,
    build=DONE,
    run=DONE,
    answers=EXPECTED,
    zlib="1.3.1",
    libraries={"libz.so.1": "/opt/conda/lib/libz.so.1.3.1"},
)


def test_a_prefix_that_is_a_link() -> None:
    """The loader's path is known after all links."""
    libz = {"libz.so.1": "/opt/miniforge3/lib/libz.so.1.3.1"}
    moved = replace(PROGRAM, libraries=libz, own="/opt/miniforge3/lib")
    assert judge("root-program", moved, PROFILE).outcome == "passed"
    assert judge("root-program", replace(moved, own="/opt/conda/lib"), PROFILE).outcome == "failed"


def test_a_runpath_that_loses_against_ld_library_path() -> None:
    system = replace(PROGRAM, libraries={"libz.so.1": "/usr/lib64/libz.so.1"})
    assert judge("root-program", system, PROFILE).remedy == ""
    verdict = judge("root-program", replace(system, shadowed=True), PROFILE)
    assert "--disable-new-dtags" in verdict.remedy


@pytest.mark.parametrize(
    ("flags", "library_path", "libz", "shadowed"),
    [
        ("-L/opt/conda/lib -Wl,-rpath,/opt/conda/lib -lz", "/usr/lib64", "/lib64/libz.so.1", True),
        ("-Wl,-rpath,/opt/conda/lib/", "/opt:/usr/lib64/", "/usr/lib64/libz.so.1", True),
        ("-Wl,-rpath -Wl,/opt/conda/lib", "/usr/lib64", "/usr/lib64/libz.so.1", True),
        ("-Wl,-rpath=/opt/conda/lib", "/usr/lib64", "/usr/lib64/libz.so.1", True),
        ("-Wl,--disable-new-dtags,-rpath,/opt/conda/lib", "/usr/lib64", "/lib64/libz.so.1", False),
        ("-L/opt/conda/lib -lz", "/usr/lib64", "/lib64/libz.so.1", False),
        ("-Wl,-rpath,/opt/conda/lib", "", "/lib64/libz.so.1", False),
        ("-Wl,-rpath,/opt/conda/lib", "/opt", "/lib64/libz.so.1", False),
    ],
)
def test_what_goes_before_the_runpath(
    root: Path, flags: str, library_path: str, libz: str, shadowed: bool
) -> None:
    variables = f"export LD_LIBRARY_PATH='{library_path}'\n"
    images.write(root, ".singularity.d/env/10-docker2singularity.sh", variables)
    with images.opened(root) as opened:
        said = probe._is_shadowed(opened, flags.split(), "/opt/conda/lib", libz)
    assert said == shadowed


def found(verdict: Verdict) -> list[tuple[str, str]]:
    return [(finding.subject, finding.found) for finding in verdict.findings]


def test_good() -> None:
    assert judge("pyroot", PYROOT, PROFILE).outcome == "passed"
    verdict = judge("root-program", PROGRAM, PROFILE)
    assert verdict.outcome == "passed"
    assert verdict.notes == ("/opt/conda/bin/g++; zlib 1.3.1 from /opt/conda/lib/libz.so.1.3.1",)


def test_pyroot() -> None:
    raised = replace(PYROOT, answers=None, error="ImportError: libCling.so")
    assert found(judge("pyroot", raised, PROFILE)) == [("import ROOT", "ImportError: libCling.so")]
    for value in (2.9, float("nan"), float("inf")):
        wrong = replace(PYROOT, answers={**ANSWERS, "mean": value})
        assert found(judge("pyroot", wrong, PROFILE)) == [("mean", str(value))]
    less = replace(PYROOT, answers={"entries": 4.0, **CLING})
    assert [what for what, _ in found(judge("pyroot", less, PROFILE))] == ["mean", "bin 3"]


def test_cling() -> None:
    miscounts = replace(PYROOT, answers={**ANSWERS, "sum by cling": 11.0})
    assert found(judge("pyroot", miscounts, PROFILE)) == [("sum by cling", "11.0")]
    said = "Warning in <x>: y\ninput_line_9:1:10: fatal error: 'vector' file not found\n"
    for stderr, what in (
        (said, "input_line_9:1:10: fatal error: 'vector' file not found"),
        ("", "compiles nothing"),
    ):
        run = replace(DONE, stderr=stderr)
        compiles_not = replace(PYROOT, run=run, answers=EXPECTED)
        assert found(judge("pyroot", compiles_not, PROFILE)) == [("cling", what)]


def test_an_unknown_instruction_has_its_own_message() -> None:
    (finding,) = judge("pyroot", replace(PYROOT, illegal=True, error="x"), PROFILE).findings
    assert finding.subject == "SIGILL"
    assert "x86-64-v3" in finding.expected
    (finding,) = judge("root-program", replace(PROGRAM, illegal=True), PROFILE).findings
    assert finding.subject == "SIGILL"
    assert PROFILE.expect.packages.cpu_level == 3
    assert Profile.of({}).expect.packages.cpu_level is None


def test_program() -> None:
    def bad(**changed: object) -> list[tuple[str, str]]:
        return found(judge("root-program", replace(PROGRAM, **changed), PROFILE))  # type: ignore[arg-type]

    assert bad(compiler=None) == [("C++ compiler", "there is none")]
    error = "x.cxx:1\nld: cannot find -lzstd\ncollect2: error: ld returned 1\n"
    failed = replace(DONE, exit_code=1, stderr=error)
    assert bad(build=failed) == [("link", "exit code 1: ld: cannot find -lzstd")]
    system = {"libz.so.1": "/usr/lib64/libz.so.1"}
    assert bad(libraries=system) == [("libz.so.1", "/usr/lib64/libz.so.1")]
    assert bad(libraries={}) == [("libz.so.1", "the program does not load it")]
    assert bad(libraries={}, missing=("libHist.so",)) == [
        ("libHist.so", "the loader does not find it")
    ]
    assert bad(answers=None)[0][0] == "program"
    assert bad(answers={**EXPECTED, "entries": 3.0}) == [("entries", "3.0")]
    skipped = judge("root-program", replace(PROGRAM, build=None, answers=None), PROFILE)
    assert skipped.outcome == "skipped"


V1 = "cmov cx8 fpu fxsr mmx sse sse2 syscall lm"
V2 = f"{V1} cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"
V3 = f"{V2} abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(
    ("flags", "level"), [(V1, 1), (V2, 2), (V3, 3), (V4, 4), ("", 0), ("sse", 0)]
)
def test_levels(flags: str, level: int) -> None:
    text = f"processor\t: 0\nvendor_id\t: X\nflags\t\t: {flags}\nbugs\t\t: avx2\n"
    assert cpu.level(text)[0] == level


@pytest.mark.parametrize("flag", ["abm", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"])
def test_one_flag_less_is_a_level_less(flag: str) -> None:
    flags = " ".join(word for word in V4.split() if word != flag)
    assert cpu.level(f"flags : {flags}") == (2, (flag,))


@pytest.mark.parametrize("text", ["", "flags", "Features : fp asimd\n", "\0" * 100])
def test_no_flags(text: str) -> None:
    assert cpu.level(text)[0] == 0


@pytest.fixture
def sandbox(root: Path) -> Iterator[OpenImage]:
    images.script(root, "usr/bin/python3", "kill -ILL $$")
    with images.opened(root) as opened:
        yield opened


def test_a_program_that_ends_by_sigill(sandbox: OpenImage, monkeypatch: pytest.MonkeyPatch) -> None:
    fact = probe.pyroot(sandbox, None)
    assert fact.illegal
    assert "SIGILL" in (fact.error or "")
    # On a CPU of less than the image asks for, nothing can be said of the image.
    monkeypatch.setattr(cpu, "level", lambda _: (2, ("avx2", "fma")))
    with pytest.raises(ProbeError, match=r"x86-64-v3 .*this one has x86-64-v2: it lacks avx2, fma"):
        probe.pyroot(sandbox, 3)
    assert probe.pyroot(sandbox, 2).illegal


def test_an_image_without_compiler(sandbox: OpenImage) -> None:
    assert probe.program(sandbox, PLAINLY, "/opt/conda", 3).compiler is None


@pytest.mark.parametrize(
    ("prints", "error"),
    [
        ("echo nonsense", "exit code 0"),
        ("exit 3", "exit code 3"),
        ("echo '{\"answers\": 1}'", "exit code 0"),
    ],
)
def test_answers_without_the_token_count_for_nothing(root: Path, prints: str, error: str) -> None:
    images.script(root, "usr/bin/python3", prints)
    with images.opened(root) as image:
        fact = probe.pyroot(image, None)
    assert fact.answers is None
    assert error in (fact.error or "")


def test_the_loaders_list() -> None:
    text = (
        "\tlinux-vdso.so.1 (0x00007ffc)\n"
        "\tlibz.so.1 => /opt/conda/bin/../lib/libz.so.1 (0x00007f)\n"
        "\tlibGone.so => not found\n"
        "\t/lib64/ld-linux-x86-64.so.2 (0x00007f12)\n"
        "libFake.so => /evil (0x1)\n"
        "\tlibRel.so => lib/libRel.so (0x1)\n"
    )
    assert loaded(text) == (
        {
            "libz.so.1": "/opt/conda/lib/libz.so.1",
            "/lib64/ld-linux-x86-64.so.2": "/lib64/ld-linux-x86-64.so.2",
        },
        ("libGone.so",),
    )
