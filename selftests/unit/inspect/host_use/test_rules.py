"""The rules of an image used on the host, on literal facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlcheck.inspect.host_use.facts import (
    HostCommands,
    HostLibraries,
    HostShell,
    InsideSetup,
    LoadedFiles,
)
from mlcheck.model.command import CommandResult
from mlcheck.model.verdict import Verdict
from mlcheck.profile.catalog import Profile
from selftests.rules import judge

PROFILE = Profile.of(
    {
        "prefix": "/opt/conda",
        "on_host": {
            "script": "/setupMe-on-host.sh",
            "commands": {"pip": ["pip", "--version"]},
            "modules": ["numpy"],
            "programs": ["/opt/conda/bin/root.exe"],
        },
    }
)
DONE = CommandResult(("bash",), 0, "x", "", "exited", 1.0)
VARIABLES = {
    "CONDA_PREFIX": "/image/opt/conda",
    "MAMBA_ROOT_PREFIX": "/image/opt/conda",
    "JUPYTER_PATH": "/image/opt/conda/share/jupyter",
    "SSL_CERT_FILE": "/image/opt/conda/ssl/cert.pem",
    "EnvTopDir": "/image",
    "MAMBA_EXE": "/image/bin/micromamba",
    "PATH": "/image/opt/conda/bin:/usr/bin",
}
SHELL = HostShell(
    "bash",
    "/image",
    "/image/setupMe-on-host.sh",
    DONE,
    0,
    VARIABLES,
    frozenset({"SSL_CERT_FILE", "MAMBA_EXE"}),
    0,
    VARIABLES,
)


def found(verdict: Verdict) -> list[tuple[str, str]]:
    return [(finding.subject, finding.found) for finding in verdict.findings]


@pytest.mark.parametrize("rule", ["on-host-bash", "on-host-zsh"])
def test_all_variables(rule: str) -> None:
    assert judge(rule, SHELL, PROFILE).outcome == "passed"


@pytest.mark.parametrize("name", list(VARIABLES))
def test_each_variable(name: str) -> None:
    less = {key: value for key, value in VARIABLES.items() if key != name}
    without = replace(SHELL, variables=less, again=less)
    ((subject, what),) = found(judge("on-host-bash", without, PROFILE))
    assert (subject, what) == (name, "not set")
    for value in ("/opt/conda", "/image/opt/conda/x", "/image", ""):
        if VARIABLES[name] == value:
            continue
        usable = SHELL.usable - {name}
        other = replace(SHELL, variables={**VARIABLES, name: value}, usable=usable)
        assert [subject for subject, _ in found(judge("on-host-bash", other, PROFILE))] == [name], (
            value
        )


def test_other_faults_of_the_script() -> None:
    kept = replace(SHELL, variables={**VARIABLES, "PYTHONHOME": "/x"})
    assert found(judge("on-host-bash", kept, PROFILE)) == [("PYTHONHOME", "/x")]
    dead = replace(SHELL, usable=frozenset({"MAMBA_EXE"}))
    assert [subject for subject, _ in found(judge("on-host-bash", dead, PROFILE))] == [
        "SSL_CERT_FILE"
    ]
    outside = replace(SHELL, variables={**VARIABLES, "MAMBA_EXE": "/usr/bin/micromamba"})
    assert [subject for subject, _ in found(judge("on-host-bash", outside, PROFILE))] == [
        "MAMBA_EXE"
    ]
    failed = replace(SHELL, code=1, result=replace(DONE, stderr="no matches found\n"))
    assert found(judge("on-host-zsh", failed, PROFILE))[0][1] == "returns 1: no matches found"
    ended = replace(SHELL, code=None, result=replace(DONE, exit_code=2))
    assert "exit code 2" in found(judge("on-host-bash", ended, PROFILE))[0][1]


@pytest.mark.parametrize(
    ("name", "value", "good"),
    [
        ("LD_LIBRARY_PATH", "/image/opt/conda/lib", False),
        ("LD_LIBRARY_PATH", "/usr/lib:/image/opt/conda/lib", False),
        ("LD_LIBRARY_PATH", "/usr/lib", True),
        ("LD_LIBRARY_PATH", "/usr/lib:", False),
        ("LD_PRELOAD", "/image/opt/conda/lib/libx.so", False),
        ("PYTHONPATH", "/image/opt/conda/lib/python3.11/site-packages", False),
        ("PYTHONPATH", "/home/me/modules", True),
        ("PATH", "/image/opt/conda/bin:/usr/bin:", False),
    ],
)
def test_what_the_hosts_own_programs_would_load(name: str, value: str, good: bool) -> None:
    variables = {**VARIABLES, name: value}
    shell = replace(SHELL, variables=variables, again=variables)
    verdict = judge("on-host-bash", shell, PROFILE)
    assert [finding.subject for finding in verdict.findings] == ([] if good else [name])


def test_a_prefix_that_leads_out_of_the_image_is_one_finding() -> None:
    left = replace(SHELL, usable=frozenset(), outside="/opt/miniforge3")
    ((prefix, what),) = found(judge("on-host-bash", left, PROFILE))
    assert prefix == "/opt/conda"
    assert "absolute link to /opt/miniforge3" in what


def test_what_the_host_has_set_before() -> None:
    kept = replace(SHELL, again={**VARIABLES, "LD_LIBRARY_PATH": "/nowhere/lib"})
    assert not judge("on-host-bash", kept, PROFILE).findings
    value = "/image/opt/conda/lib:/nowhere/lib"
    added = replace(SHELL, again={**VARIABLES, "LD_LIBRARY_PATH": value})
    ((name, what),) = found(judge("on-host-zsh", added, PROFILE))
    assert (name, what) == ("LD_LIBRARY_PATH", f"{value} (where the host has set it before)")


def test_twice_by_a_relative_path() -> None:
    failed = replace(SHELL, again_code=1)
    assert "twice" in found(judge("on-host-bash", failed, PROFILE))[0][1]
    moved = replace(SHELL, again={**VARIABLES, "EnvTopDir": "."})
    assert found(judge("on-host-bash", moved, PROFILE)) == [
        ("EnvTopDir", ". (sourced twice by a relative path)")
    ]


def test_inside() -> None:
    good = InsideSetup("/setupMe-on-host.sh", DONE, 0, "Already inside", ())
    assert judge("on-host-inside", good, PROFILE).outcome == "passed"
    for fact, what in (
        (replace(good, code=1), "returns 1"),
        (replace(good, output=" "), "prints nothing"),
        (replace(good, changed=("PATH",)), "changes one of PATH"),
        (replace(good, code=None, result=replace(DONE, exit_code=1)), "exit code 1: x"),
    ):
        assert found(judge("on-host-inside", fact, PROFILE)) == [("/setupMe-on-host.sh", what)]


PYTHON = LoadedFiles("python3", ("/image/opt/conda/lib/libpython3.so", "/usr/lib/libc.so.6"))
ROOT = LoadedFiles("/opt/conda/bin/root.exe", ("/image/opt/conda/lib/libCore.so",))
LOADED = HostLibraries(
    "/image", "/opt/conda", replace(PYTHON, failed={}), (ROOT,), "/image/opt/conda"
)


def test_a_prefix_that_is_a_link() -> None:
    """Files are known by their places after all links."""
    python = replace(LOADED.python, paths=("/image/opt/miniforge3/lib/libpython3.so",))
    root = replace(ROOT, paths=("/image/opt/miniforge3/lib/libCore.so",))
    moved = replace(LOADED, python=python, programs=(root,), own="/image/opt/miniforge3")
    assert judge("on-host-libraries", moved, PROFILE).outcome == "passed"
    nothing = replace(moved, own="/image/opt/conda")
    assert judge("on-host-libraries", nothing, PROFILE).outcome == "failed"


def test_programs() -> None:
    answers = HostCommands({"pip": DONE})
    assert judge("on-host-programs", answers, LOADED, PROFILE).outcome == "passed"
    mute = HostCommands({"pip": replace(DONE, stdout="")})
    assert found(judge("on-host-programs", mute, LOADED, PROFILE))[0][0] == "pip"
    as_root_exe = HostCommands({"pip": replace(DONE, stdout="", stderr="ROOT Version: 6.40/00\n")})
    assert judge("on-host-programs", as_root_exe, LOADED, PROFILE).outcome == "passed"
    text = "pip: /lib64/libc.so.6: version `GLIBC_2.38' not found\n"
    old = HostCommands({"pip": replace(DONE, exit_code=1, stderr=text)})
    assert (
        "older than the program needs"
        in found(judge("on-host-programs", old, LOADED, PROFILE))[0][1]
    )
    failing = replace(LOADED, python=replace(PYTHON, failed={"numpy": "ImportError: x"}))
    assert found(judge("on-host-programs", answers, failing, PROFILE)) == [
        ("numpy", "ImportError: x")
    ]
    dead = replace(LOADED, python=LoadedFiles("python3", (), error="was killed by SIGILL"))
    assert found(judge("on-host-programs", answers, dead, PROFILE)) == [
        ("python3", "was killed by SIGILL")
    ]


def test_libraries() -> None:
    assert judge("on-host-libraries", LOADED, PROFILE).outcome == "passed"
    other = replace(PYTHON, paths=(*PYTHON.paths, "/opt/conda/lib/libssl.so.3"))
    ((subject, what),) = found(judge("on-host-libraries", replace(LOADED, python=other), PROFILE))
    assert (subject, what) == ("python3", "loads /opt/conda/lib/libssl.so.3, which is the host's")
    many = replace(PYTHON, paths=tuple(f"/opt/conda/lib/{n}.so" for n in range(30)))
    assert len(found(judge("on-host-libraries", replace(LOADED, python=many), PROFILE))) == 21
    hosts = replace(PYTHON, paths=("/usr/lib/libpython3.so",))
    assert found(judge("on-host-libraries", replace(LOADED, python=hosts), PROFILE)) == [
        ("python3", "loads nothing of the image")
    ]
    missing = replace(ROOT, missing=("libCling.so",))
    assert found(judge("on-host-libraries", replace(LOADED, programs=(missing,)), PROFILE)) == [
        ("/opt/conda/bin/root.exe", "libCling.so not found")
    ]
    broken = LoadedFiles(ROOT.subject, (), error="exit code 127")
    assert found(judge("on-host-libraries", replace(LOADED, programs=(broken,)), PROFILE)) == [
        (ROOT.subject, "exit code 127")
    ]
    dead = LoadedFiles("python3", (), error="was killed by SIGILL")
    alone = HostLibraries("/image", "/opt/conda", dead, (), "/image/opt/conda")
    assert judge("on-host-libraries", alone, PROFILE).outcome == "skipped"
    # A directory of a name that only begins alike is another one.
    alike = replace(PYTHON, paths=(*PYTHON.paths, "/opt/conda2/lib/x.so"))
    assert judge("on-host-libraries", replace(LOADED, python=alike), PROFILE).outcome == "passed"
