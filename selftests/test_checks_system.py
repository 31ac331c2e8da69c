"""The checks of system, Python, commands, files, scripts, kernels and root-config."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest

from mlcheck.checks import files, kernelspecs, root_config, system
from mlcheck.facts import (
    CommandResult,
    Commands,
    ElfFile,
    ElfFiles,
    File,
    Files,
    FileType,
    Kernelspec,
    Kernelspecs,
    OsRelease,
    Problem,
    PromisedPrefix,
    PythonInfo,
    PythonProbe,
    ResolvedFile,
    RootConfig,
    Script,
    Scripts,
    Shell,
    Shells,
)
from mlcheck.profile import Profile
from mlcheck.verdict import Verdict


def subjects(verdict: Verdict) -> list[str]:
    return [finding.subject for finding in verdict.findings]


def answer(
    stdout: str = "",
    exit_code: int | None = 0,
    ended: Literal["exited", "timeout", "output-limit"] = "exited",
    stderr: str = "",
) -> CommandResult:
    return CommandResult(("x",), exit_code, stdout, stderr, ended, 0.1)


# --- operating system ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"ID": "almalinux", "VERSION_ID": "9.5"}, []),
        ({"ID": "almalinux", "VERSION_ID": "9"}, []),
        ({"ID": "centos", "VERSION_ID": "9"}, ["ID"]),
        ({"ID": "almalinux", "VERSION_ID": "8.10"}, ["VERSION_ID"]),
        ({"ID": "almalinux", "VERSION_ID": "90"}, ["VERSION_ID"]),
        ({}, ["ID", "VERSION_ID"]),
    ],
)
def test_os_release(fields: dict[str, str], wrong: list[str]) -> None:
    profile = Profile.of({"os": {"id": "almalinux", "version": "9"}})
    assert subjects(system.os_release(OsRelease(fields, None), profile)) == wrong


def test_os_release_that_cannot_be_read() -> None:
    profile = Profile.of({"os": {"id": "almalinux", "version": "9"}})
    fact = OsRelease({}, None, (Problem("/etc/os-release", "is a FIFO"),))
    assert subjects(system.os_release(fact, profile)) == ["/etc/os-release"]


# --- Python -------------------------------------------------------------------------------

PYTHON = Profile.of({"prefix": "/opt/conda", "python": {"version": "3.11"}})
PLACE = PromisedPrefix("/opt/conda", "conda")


@pytest.mark.parametrize(
    ("version", "prefix", "wrong"),
    [
        ("3.11.9", "/opt/conda", []),
        ("3.1.1", "/opt/conda", ["version"]),
        ("3.9.19", "/opt/conda", ["version"]),
        ("3.11.9", "/usr", ["sys.prefix"]),
    ],
)
def test_python_version(version: str, prefix: str, wrong: list[str]) -> None:
    probe = PythonProbe(PythonInfo(f"{prefix}/bin/python3", prefix, version), answer())
    assert subjects(system.python_version(probe, PLACE, PYTHON)) == wrong


def test_python_that_does_not_answer() -> None:
    verdict = system.python_version(
        PythonProbe(None, answer("", 127, stderr="no file")), PLACE, PYTHON
    )
    assert verdict.findings[0].found == "exit code 127: no file"


# --- micromamba ---------------------------------------------------------------------------


def entry(path: str, type_: FileType = "file", mode: int = 0o755, size: int = 10) -> ResolvedFile:
    file = File(path, type_, mode, 0, 0, size)
    return ResolvedFile(path, file, file, path)


def program(path: str, interpreter: str | None = None) -> ElfFile:
    dynamic = interpreter is not None
    return ElfFile(path, 64, "X86_64", "EXEC", None, None, (), None, interpreter, dynamic)


MAMBA = Profile.of({"micromamba": {"path": "/bin/mm", "link": "/opt/conda/bin/mm"}})
TWO = {path: entry(path) for path in ("/bin/mm", "/opt/conda/bin/mm")}


def micromamba(elf: dict[str, ElfFile], paths: dict[str, ResolvedFile] = TWO) -> list[str]:
    return subjects(system.micromamba(ElfFiles(elf, 2), Files(paths), MAMBA))


def test_micromamba() -> None:
    good = {path: program(path) for path in TWO}
    dynamic = {**good, "/bin/mm": program("/bin/mm", "/lib64/ld-linux-x86-64.so.2")}
    bigger = {**TWO, "/opt/conda/bin/mm": entry("/opt/conda/bin/mm", size=11)}
    missing = {**TWO, "/bin/mm": ResolvedFile("/bin/mm", None, None, "/bin/mm", "is not there")}
    assert micromamba(good) == []
    assert micromamba({}) == ["/bin/mm", "/opt/conda/bin/mm"]
    assert micromamba(dynamic) == ["/bin/mm"]
    assert micromamba(good, bigger) == ["/opt/conda/bin/mm"]
    assert micromamba(good, missing) == ["/bin/mm"]


# --- commands and shells ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "found"),
    [
        (answer("1.0"), None),
        (answer("", stderr="bzip2, version 1.0.8"), None),
        (answer(""), "ended with 0 and printed nothing"),
        (answer("usage", 2), "exit code 2: usage"),
        (answer("", 132), "ended by signal 4 and printed nothing"),
        (answer("x", None, "timeout"), "did not end within 0 s: x"),
        (answer("y", None, "output-limit"), "printed without end and was stopped"),
    ],
)
def test_commands(result: CommandResult, found: str | None) -> None:
    profile = Profile.of({"commands": {"tool": ["tool", "--version"]}})
    verdict = system.commands(Commands({"tool": result}), profile)
    assert [finding.found for finding in verdict.findings] == ([found] if found else [])


@pytest.mark.parametrize(
    ("shell", "good"),
    [
        (Shell("/bin/zsh", "/opt/conda/bin/zsh", answer("mlcheck-42\n")), True),
        (Shell("/bin/zsh", "/opt/conda/bin/zsh", answer("", 1)), False),
        (Shell("/bin/zsh", "/opt/conda/bin/zsh", answer("")), False),
        (Shell("/bin/zsh", None, None), False),
    ],
)
def test_shells(shell: Shell, good: bool) -> None:
    verdict = system.shells(Shells((shell,)), Profile.of({"shells": ["/bin/zsh"]}))
    assert verdict.outcome == ("passed" if good else "failed")


# --- files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("promise", "there", "found"),
    [
        ({}, entry("/f"), None),
        ({"type": "directory"}, entry("/f"), "a file"),
        ({"mode": "0755"}, entry("/f"), None),
        ({"mode": "0755"}, entry("/f", mode=0o644), "mode 0644"),
        ({"mode": "0755"}, entry("/f", mode=0o4755), "mode 4755"),
        ({}, entry("/f", mode=0o600), "mode 0600"),
        ({}, entry("/f", mode=0o646), "mode 0646"),
        ({}, entry("/f", mode=0o664), None),
        ({}, ResolvedFile("/f", None, None, "/f", "is not there"), "is not there"),
        ({"type": "symlink"}, entry("/f"), "a file"),
    ],
)
def test_files(promise: dict[str, Any], there: ResolvedFile, found: str | None) -> None:
    verdict = files.files(Files({"/f": there}), Profile.of({"files": {"/f": promise}}))
    assert [finding.found for finding in verdict.findings] == ([found] if found else [])


@pytest.mark.parametrize(
    ("target", "good"),
    [("/opt/conda/bin/zsh", True), ("../opt/conda/bin/zsh", True), ("/usr/bin/zsh", False)],
)
def test_a_symlink_and_its_target(target: str, good: bool) -> None:
    link = File("/bin/zsh", "symlink", 0o777, 0, 0, 5, target)
    there = ResolvedFile("/bin/zsh", link, File("/x", "file", 0o755, 0, 0, 5), "/x")
    promise = {"type": "symlink", "target": "*/opt/conda/bin/zsh", "mode": "0755"}
    profile = Profile.of({"files": {"/bin/zsh": promise}})
    assert files.files(Files({"/bin/zsh": there}), profile).outcome == (
        "passed" if good else "failed"
    )


# --- scripts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "good"),
    [
        (Script("/opt/conda/bin/pip", ("/usr/bin/env", "python3"), "/x", 0o755), True),
        (Script("/opt/conda/bin/pip", ("/opt/conda/bin/python",), "/x", 0o755), False),
        (Script("/opt/conda/bin/late", ("/opt/conda/bin/python",), "/x", 0o755), True),
        (Script("/opt/conda/bin/late", ("/gone/python",), None, 0o755), False),
        (Script("/opt/conda/bin/late", ("/bin/sh",), "/bin/sh", 0o644), False),
    ],
)
def test_shebangs(script: Script, good: bool) -> None:
    profile = Profile.of({"prefix": "/opt/conda", "scripts": {"portable": ["pip*"]}})
    verdict = files.shebangs(Scripts((script,)), profile)
    assert verdict.outcome == ("passed" if good else "failed")


def test_scripts_that_name_the_prefix_are_reported() -> None:
    profile = Profile.of({"prefix": "/opt/conda"})
    script = Script("/opt/conda/bin/late", ("/opt/conda/bin/python",), "/x", 0o755)
    (note,) = files.shebangs(Scripts((script,)), profile).notes
    assert note.endswith("late")


# --- kernels ------------------------------------------------------------------------------

KERNEL = {
    "argv": ["python3-nohome", "-s", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
    "display_name": "ML-Python3",
    "metadata": {"debugger": True},
}
KERNELS = Profile.of(
    {
        "prefix": "/opt/conda",
        "kernelspecs": {"generation": "g", "generations": {"g": {"python3": KERNEL}}},
    }
)
SPEC = Kernelspec(
    "python3",
    "/opt/conda/share/jupyter/kernels/python3/kernel.json",
    tuple(KERNEL["argv"]),
    "ML-Python3",
    "python",
    {"debugger": True},
    {},
    "/opt/conda/bin/python3-nohome",
)


def kernels(*specs: Kernelspec, listed: dict[str, str] | None = None) -> Kernelspecs:
    return Kernelspecs(specs, ("/opt/conda/share/jupyter/kernels",), listed)


def test_kernels_as_promised() -> None:
    good = kernels(SPEC, listed={"python3": "/opt/conda/share/jupyter/kernels/python3"})
    assert kernelspecs.promised(good, KERNELS).outcome == "passed"
    assert kernelspecs.argv(good, KERNELS).outcome == "passed"
    assert kernelspecs.valid(good, KERNELS).outcome == "passed"


def test_missing_extra_and_foreign_kernels() -> None:
    assert subjects(kernelspecs.promised(kernels(), KERNELS)) == ["python3"]
    extra = replace(SPEC, name="ir")
    assert subjects(kernelspecs.promised(kernels(SPEC, extra), KERNELS)) == ["ir"]
    foreign = replace(SPEC, path="/root/.local/share/jupyter/kernels/python3/kernel.json")
    assert subjects(kernelspecs.promised(kernels(foreign), KERNELS)) == ["python3"]
    shown = kernels(SPEC, listed={"python3": "/p", "host": "/h"})
    assert subjects(kernelspecs.promised(shown, KERNELS)) == ["host"]


@pytest.mark.parametrize(
    "change",
    [
        {"argv": ("python3", *SPEC.argv[1:])},
        {"argv": SPEC.argv[:1] + SPEC.argv[2:]},
        {"display_name": "Python 3"},
        {"language": "R"},
        {"metadata": {}},
        {"metadata": {"debugger": 1}},
        {"argv0": None},
    ],
)
def test_a_kernel_that_deviates(change: dict[str, Any]) -> None:
    changed: Kernelspec = replace(SPEC, **change)
    assert subjects(kernelspecs.argv(kernels(changed), KERNELS)) == ["python3"]
    assert kernelspecs.promised(kernels(changed), KERNELS).outcome == "passed"


@pytest.mark.parametrize(("argv0", "subject"), [("python", []), ("python2", ["python3"])])
def test_a_python_that_is_jupyters_own(argv0: str, subject: list[str]) -> None:
    """In a Debian with JupyterLab no program is called `python`, and Jupyter needs none."""
    profile = Profile.of(
        {"kernelspecs": {"generation": "g", "generations": {"g": {"python3": {}}}}}
    )
    spec = replace(SPEC, argv=(argv0, *SPEC.argv[1:]), argv0=None)
    assert subjects(kernelspecs.argv(kernels(spec), profile)) == subject


def test_a_malformed_kernel_fails_one_check_only() -> None:
    problem = Problem(f"{SPEC.path}:3", "is no JSON")
    broken = replace(kernels(), problems=(problem,))
    assert kernelspecs.valid(broken, KERNELS).outcome == "failed"
    assert kernelspecs.promised(broken, KERNELS).outcome == "passed"
    assert kernelspecs.argv(broken, KERNELS).outcome == "skipped"


# --- root-config --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "text", "good"),
    [
        (answer("-L/opt/conda/lib -lCore -lz -ldl"), "", True),
        (answer("-L/opt/conda/lib -lCore -lzstd"), "-lz", False),
        (answer("-lCore -lz", 1), "-lz", False),
        (None, 'libs="-lCore -lz"\n', True),
        (None, 'libs="-lCore -lzstd"\n', False),
    ],
)
def test_root_config(run: CommandResult | None, text: str, good: bool) -> None:
    profile = Profile.of({"root_config": {"libs": ["-lz"]}})
    verdict = root_config.libs(RootConfig("/opt/conda/bin/root-config", run, text), profile)
    assert verdict.outcome == ("passed" if good else "failed")


def test_root_config_that_is_not_there() -> None:
    profile = Profile.of({"root_config": {"libs": ["-lz"]}})
    verdict = root_config.libs(RootConfig(None, None, None), profile)
    assert subjects(verdict) == ["root-config"]
