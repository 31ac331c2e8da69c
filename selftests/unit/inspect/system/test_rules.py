"""The rules of system, Python, commands, files, scripts, kernels and root-config."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest

from mlcheck.inspect.elf.facts import ElfFile, ElfFiles
from mlcheck.inspect.jupyter.facts import Kernelspec, Kernelspecs, KernelsPrefix
from mlcheck.inspect.prefix.facts import PromisedPrefix
from mlcheck.inspect.root.facts import RootConfig
from mlcheck.inspect.system.facts import (
    Commands,
    Micromamba,
    NamedPython,
    OsRelease,
    PythonInfo,
    PythonProbe,
    Shell,
    Shells,
)
from mlcheck.model.command import CommandResult
from mlcheck.model.files import File, FileType, Problem, ResolvedFile
from mlcheck.model.verdict import Verdict
from mlcheck.profile.catalog import Profile
from selftests.rules import judge


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
    assert subjects(judge("os-release", OsRelease(fields, None), profile)) == wrong


def test_os_release_that_cannot_be_read() -> None:
    profile = Profile.of({"os": {"id": "almalinux", "version": "9"}})
    fact = OsRelease({}, None, (Problem("/etc/os-release", "is a FIFO"),))
    assert subjects(judge("os-release", fact, profile)) == ["/etc/os-release"]


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
    assert subjects(judge("python-version", probe, PLACE, PYTHON)) == wrong


@pytest.mark.parametrize(
    ("name", "path", "prefix", "version", "good"),
    [
        ("python", "/opt/conda/bin/python", "/opt/conda", "3.11.9", True),
        ("python", "/opt/conda/bin/python", "/usr", "3.9.1", False),
        ("python", "/usr/bin/python", "/usr", "3.11.9", False),
        ("python", "/usr/bin/python", "/usr", "2.7.5", True),
        ("python", "/opt/conda/bin/python", "/usr", "2.7.5", False),
        ("python3.11", "/opt/conda/bin/python3.11", "/opt/conda", "3.11.9", True),
        ("python3.11", "/opt/conda/bin/python3.11", "/usr", "3.11.9", False),
        ("python3.11", "/opt/conda/bin/python3.11", "/opt/conda", "3.10.2", False),
        ("python3.9", "/usr/bin/python3.9", "/usr", "3.9.1", True),
    ],
)
def test_pythons_of_other_names(
    name: str, path: str, prefix: str, version: str, good: bool
) -> None:
    info = PythonInfo("/opt/conda/bin/python3", "/opt/conda", "3.11.9")
    other = NamedPython(path, PythonInfo(path, prefix, version), answer())
    probe = PythonProbe(info, answer(), {name: other})
    assert subjects(judge("python-version", probe, PLACE, PYTHON)) == ([] if good else [name])


@pytest.mark.parametrize(
    ("fields", "line", "good"),
    [
        ("almalinux AlmaLinux 9.5", "AlmaLinux release 9.5 (Teal Serval)", True),
        ("almalinux AlmaLinux 9.5", "AlmaLinux release 9.4 (Seafoam Ocelot)", False),
        ("almalinux AlmaLinux 9.5", "CentOS Linux release 7.9.2009 (Core)", False),
        ("almalinux AlmaLinux 9.5", "Rocky Linux release 9.5 (Blue Onyx)", False),
        ("centos CentOS_Linux 7", "CentOS Linux release 7.9.2009 (Core)", True),
        ("centos CentOS_Stream 9", "CentOS Stream release 9", True),
        ("fedora Fedora_Linux 40", "Fedora release 40 (Forty)", True),
        ("ol Oracle_Linux_Server 9.3", "Red Hat Enterprise Linux release 9.3 (Plow)", True),
        ("rhel Red_Hat_Enterprise_Linux 9.4", "Red Hat Enterprise Linux release 9.4 (Plow)", True),
        ("almalinux AlmaLinux 9.5", "", True),
    ],
)
def test_release_files_agree(fields: str, line: str, good: bool) -> None:
    id_, name, version = fields.split()
    name = name.replace("_", " ")
    fact = OsRelease(
        {"ID": id_, "NAME": name, "VERSION_ID": version}, line, (), {"/etc/redhat-release": line}
    )
    profile = Profile.of({"os": {"id": id_, "version": version.partition(".")[0]}})
    assert subjects(judge("os-release", fact, profile)) == ([] if good else ["/etc/redhat-release"])


def test_python_that_does_not_answer() -> None:
    verdict = judge(
        "python-version", PythonProbe(None, answer("", 127, stderr="no file")), PLACE, PYTHON
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


def micromamba(
    elf: dict[str, ElfFile],
    paths: dict[str, ResolvedFile] = TWO,
    contents: tuple[str, ...] = (),
) -> list[str]:
    fact = Micromamba(paths, ElfFiles(elf, 2), dict(zip(TWO, contents, strict=False)))
    return subjects(judge("micromamba", fact, MAMBA))


def test_micromamba() -> None:
    good = {path: program(path) for path in TWO}
    dynamic = {**good, "/bin/mm": program("/bin/mm", "/lib64/ld-linux-x86-64.so.2")}
    missing = {**TWO, "/bin/mm": ResolvedFile("/bin/mm", None, None, "/bin/mm", "is not there")}
    assert micromamba(good) == []
    assert micromamba({}) == ["/bin/mm", "/opt/conda/bin/mm"]
    assert micromamba(dynamic) == ["/bin/mm"]
    assert micromamba(good, contents=("abc", "abc")) == []
    assert micromamba(good, contents=("abc", "def")) == ["/opt/conda/bin/mm"]
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
    verdict = judge("commands", Commands({"tool": result}), profile)
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
    verdict = judge("shells", Shells((shell,)), Profile.of({"shells": ["/bin/zsh"]}))
    assert verdict.outcome == ("passed" if good else "failed")


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


HOME = KernelsPrefix("/opt/conda")


def kernels(*specs: Kernelspec, listed: dict[str, str] | None = None) -> Kernelspecs:
    return Kernelspecs(specs, ("/opt/conda/share/jupyter/kernels",), listed)


def test_kernels_as_promised() -> None:
    good = kernels(SPEC, listed={"python3": "/opt/conda/share/jupyter/kernels/python3"})
    assert judge("kernelspecs-promised", good, HOME, KERNELS).outcome == "passed"
    assert judge("kernelspecs-argv", good, KERNELS).outcome == "passed"
    assert judge("kernelspecs-valid", good, KERNELS).outcome == "passed"


def test_missing_extra_and_foreign_kernels() -> None:
    assert subjects(judge("kernelspecs-promised", kernels(), HOME, KERNELS)) == ["python3"]
    extra = replace(SPEC, name="ir")
    assert subjects(judge("kernelspecs-promised", kernels(SPEC, extra), HOME, KERNELS)) == ["ir"]
    foreign = replace(SPEC, path="/root/.local/share/jupyter/kernels/python3/kernel.json")
    assert subjects(judge("kernelspecs-promised", kernels(foreign), HOME, KERNELS)) == ["python3"]
    shown = kernels(SPEC, listed={"python3": "/p", "host": "/h"})
    assert subjects(judge("kernelspecs-promised", shown, HOME, KERNELS)) == ["host"]


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
    assert subjects(judge("kernelspecs-argv", kernels(changed), KERNELS)) == ["python3"]
    assert judge("kernelspecs-promised", kernels(changed), HOME, KERNELS).outcome == "passed"


@pytest.mark.parametrize(("argv0", "subject"), [("python", []), ("python2", ["python3"])])
def test_a_python_that_is_jupyters_own(argv0: str, subject: list[str]) -> None:
    """In a Debian with JupyterLab no program is called `python`, and Jupyter needs none."""
    profile = Profile.of(
        {"kernelspecs": {"generation": "g", "generations": {"g": {"python3": {}}}}}
    )
    spec = replace(SPEC, argv=(argv0, *SPEC.argv[1:]), argv0=None)
    assert subjects(judge("kernelspecs-argv", kernels(spec), profile)) == subject


def test_a_malformed_kernel_fails_one_check_only() -> None:
    problem = Problem(f"{SPEC.path}:3", "is no JSON")
    broken = replace(kernels(), problems=(problem,))
    assert judge("kernelspecs-valid", broken, KERNELS).outcome == "failed"
    assert judge("kernelspecs-promised", broken, HOME, KERNELS).outcome == "passed"
    assert judge("kernelspecs-argv", broken, KERNELS).outcome == "skipped"


# --- root-config --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "text", "good"),
    [
        (answer("-L/opt/conda/lib -lCore -lz -ldl"), "", True),
        (answer("-L/opt/conda/lib -lCore -lzstd"), "-lz", False),
        (answer("-lCore -lz", 1), "-lz", False),
        (answer("-lCore -l z"), "", True),
        (answer("-lCore -Wl,--no-as-needed,-lz"), "", True),
        (answer("-lCore '-lz'"), "", False),
        (answer("-lCore;-lz"), "", False),
        (None, 'libs="-lCore -lz"\n', True),
        (None, 'libs="-lCore -lzstd"\n', False),
    ],
)
def test_root_config(run: CommandResult | None, text: str, good: bool) -> None:
    profile = Profile.of({"root_config": {"libs": ["-lz"]}})
    verdict = judge("root-config", RootConfig("/opt/conda/bin/root-config", run, text), profile)
    assert verdict.outcome == ("passed" if good else "failed")


@pytest.mark.parametrize(
    ("at_home", "found"),
    [
        (answer("-lCore -lz"), None),
        (answer("-lCore"), "for a user with another home: -lCore"),
        (answer("-lCore -lz", 1), "exit code 1: "),
    ],
)
def test_root_config_for_a_user_with_another_home(
    at_home: CommandResult, found: str | None
) -> None:
    profile = Profile.of({"root_config": {"libs": ["-lz"]}})
    said = RootConfig("/bin/root-config", answer("-lCore -lz"), "", at_home=at_home)
    findings = judge("root-config", said, profile).findings
    assert [finding.found.startswith(found or "") for finding in findings] == [True] * bool(found)


def test_the_end_of_a_long_answer_is_shown() -> None:
    profile = Profile.of({"root_config": {"libs": ["-lz"]}})
    said = RootConfig("/bin/root-config", answer("-lRIO " * 99 + "-lm -ldl"), "")
    (finding,) = judge("root-config", said, profile).findings
    assert finding.found.endswith("-lm -ldl")


def test_root_config_that_is_not_there() -> None:
    profile = Profile.of({"root_config": {"libs": ["-lz"]}})
    verdict = judge("root-config", RootConfig(None, None, None), profile)
    assert subjects(verdict) == ["root-config"]
