"""The checks of ROOT at work, the CPU's level and the loader's list, on literal facts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mlcheck.checks import root_runs
from mlcheck.engines.base import PLAINLY, OpenImage
from mlcheck.errors import ProbeError
from mlcheck.facts import CommandResult, PyRoot, RootProgram
from mlcheck.probes import cpu
from mlcheck.probes import root_runs as probe
from mlcheck.probes.loader_trace import loaded
from mlcheck.profile import Profile
from mlcheck.verdict import Verdict
from selftests import images

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
PYROOT = PyRoot(DONE, root_runs.EXPECTED, "6.30/04", None)
PROGRAM = RootProgram(
    compiler="/opt/conda/bin/g++",
    flags=DONE,
    build=DONE,
    run=DONE,
    answers=root_runs.EXPECTED,
    zlib="1.3.1",
    libraries={"libz.so.1": "/opt/conda/lib/libz.so.1.3.1"},
)


def found(verdict: Verdict) -> list[tuple[str, str]]:
    return [(finding.subject, finding.found) for finding in verdict.findings]


def test_good() -> None:
    assert root_runs.pyroot(PYROOT, PROFILE).outcome == "passed"
    verdict = root_runs.program(PROGRAM, PROFILE)
    assert verdict.outcome == "passed"
    assert verdict.notes == ("/opt/conda/bin/g++; zlib 1.3.1 from /opt/conda/lib/libz.so.1.3.1",)


def test_pyroot() -> None:
    raised = replace(PYROOT, answers=None, error="ImportError: libCling.so")
    assert found(root_runs.pyroot(raised, PROFILE)) == [("import ROOT", "ImportError: libCling.so")]
    for value in (2.9, float("nan"), float("inf")):
        wrong = replace(PYROOT, answers={**root_runs.EXPECTED, "mean": value})
        assert found(root_runs.pyroot(wrong, PROFILE)) == [("mean", str(value))]
    less = replace(PYROOT, answers={"entries": 4.0})
    assert [what for what, _ in found(root_runs.pyroot(less, PROFILE))] == ["mean", "bin 3"]


def test_an_unknown_instruction_has_its_own_message() -> None:
    (finding,) = root_runs.pyroot(replace(PYROOT, illegal=True, error="x"), PROFILE).findings
    assert finding.subject == "SIGILL"
    assert "x86-64-v3" in finding.expected
    (finding,) = root_runs.program(replace(PROGRAM, illegal=True), PROFILE).findings
    assert finding.subject == "SIGILL"
    assert root_runs.needed_level(PROFILE) == 3
    assert root_runs.needed_level(Profile.of({})) is None


def test_program() -> None:
    def bad(**changed: object) -> list[tuple[str, str]]:
        return found(root_runs.program(replace(PROGRAM, **changed), PROFILE))  # type: ignore[arg-type]

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
    assert bad(answers={**root_runs.EXPECTED, "entries": 3.0}) == [("entries", "3.0")]
    skipped = root_runs.program(replace(PROGRAM, build=None, answers=None), PROFILE)
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
    assert probe.program(sandbox, PLAINLY, 3).compiler is None


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
