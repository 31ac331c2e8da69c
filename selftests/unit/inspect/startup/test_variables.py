"""Lists of directories, compared with the programs that read them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlcheck.inspect.startup.variables import depends_on_directory
from mlcheck.model.environment import Environment
from mlcheck.profile.catalog import Profile
from selftests.rules import judge

VALUES = [
    "/usr/lib64",
    "/usr/lib64:",
    ":/usr/lib64",
    "/usr/lib64::/usr/lib",
    "/usr/lib64:/usr/lib",
    ":",
    "",
    ".",
    "/usr/lib64:.",
    "lib",
    "/usr/lib64:lib:/usr/lib",
    "/usr/lib64;/usr/lib",
    "/usr/lib64;",
    "/usr//lib64/:/usr/lib/",
]
"""Values; the directory `lib` is below the working directory."""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A working directory, with a program, a module and a library in it and in lib."""
    library = next(
        path
        for place in ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
        for path in sorted(Path(place).glob("**/libz.so.1"))
    )
    for directory in (tmp_path, tmp_path / "lib"):
        directory.mkdir(exist_ok=True)
        (directory / "mlcheck-probe").write_text("#!/bin/sh\necho found\n")
        (directory / "mlcheck-probe").chmod(0o755)
        (directory / "mlcheck_probe.py").write_text("")
        shutil.copy(library, directory / "libmlcheckprobe.so")
    return tmp_path


def prints_found(here: Path, name: str, value: str, *argv: str) -> bool:
    done = subprocess.run(
        argv, cwd=here, env={name: value}, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() == "found"


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("shell", ["bash", "dash", "zsh", "python"])
def test_path_compared_with_what_searches_it(shell: str, value: str, here: Path) -> None:
    program = sys.executable if shell == "python" else shutil.which(shell)
    if program is None:
        pytest.skip(f"this machine has no {shell}")
    code = "import os; os.execvp('mlcheck-probe', ['x'])"
    options = {"bash": ("--norc", "--noprofile"), "zsh": ("-f",)}.get(shell, ())
    argv = (program, *options, "-c", code if shell == "python" else "mlcheck-probe")
    found = prints_found(here, "PATH", value, *argv)
    if value == "" and shell == "zsh":
        assert not found  # it alone takes the empty list for an empty one
        return
    assert found == bool(depends_on_directory("PATH", value))


@pytest.mark.parametrize("value", VALUES)
def test_ld_library_path_compared_with_the_loader(value: str, here: Path) -> None:
    code = "import ctypes; ctypes.CDLL('libmlcheckprobe.so'); print('found')"
    found = prints_found(here, "LD_LIBRARY_PATH", value, sys.executable, "-S", "-c", code)
    assert found == bool(depends_on_directory("LD_LIBRARY_PATH", value))


@pytest.mark.parametrize("value", VALUES)
def test_pythonpath_compared_with_python(value: str, here: Path) -> None:
    script = here / "scripts/script.py"
    script.parent.mkdir()
    script.write_text("import mlcheck_probe; print('found')")
    found = prints_found(here, "PYTHONPATH", value, sys.executable, str(script))
    assert found == bool(depends_on_directory("PYTHONPATH", value))


@pytest.mark.parametrize("value", VALUES)
def test_include_path_compared_with_the_compiler(value: str, here: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("this machine has no gcc")
    for directory in (here, here / "lib"):
        (directory / "mlcheck_probe.h").write_text("")
    source = here / "source/x.c"
    source.parent.mkdir()
    source.write_text("#include <mlcheck_probe.h>\n")
    done = subprocess.run(
        [compiler, "-E", str(source)],
        cwd=here,
        env={"CPATH": value, "PATH": os.environ["PATH"]},
        capture_output=True,
        check=False,
    )
    assert (done.returncode == 0) == bool(depends_on_directory("CPATH", value))


def test_origin_is_no_working_directory() -> None:
    assert depends_on_directory("LD_LIBRARY_PATH", "$ORIGIN/../lib:${ORIGIN}/x") == []
    assert depends_on_directory("PATH", "$ORIGIN/../lib")
    assert depends_on_directory("MANPATH", "/usr/share/man:") == []  # the system's own


ENVIRONMENT = {"equals": {"A": "1"}, "starts": {"LD_LIBRARY_PATH": ["/usr/lib64"]}}
KERNELS = {
    "generation": "1",
    "generations": {"1": {"python3": {"argv": ["x"], "usersite": True}}},
}


@pytest.mark.parametrize(
    ("variables", "promise", "wrong"),
    [
        ({}, {}, []),
        ({"LD_LIBRARY_PATH": "/usr/lib64:"}, {}, ["LD_LIBRARY_PATH"]),
        ({"PATH": "/bin::/usr/bin"}, {}, ["PATH"]),
        ({"PATH": "/bin:"}, {"environment": {"equals": {"A": "1", "PATH": "/bin:"}}}, []),
        ({"PYTHONHOME": "/opt/conda"}, {}, ["PYTHONHOME"]),
        ({"PYTHONHOME": ""}, {}, []),
        ({"PYTHONHOME": "/x"}, {"environment": {"equals": {"A": "1", "PYTHONHOME": "/x"}}}, []),
        ({"PYTHONUSERBASE": "/opt/user"}, {}, []),
        ({"PYTHONUSERBASE": "/opt/user"}, {"kernelspecs": KERNELS}, ["PYTHONUSERBASE"]),
        ({"PYTHONNOUSERSITE": "1"}, {"kernelspecs": KERNELS}, ["PYTHONNOUSERSITE"]),
        ({"JUPYTER_TOKEN": "ml"}, {}, []),
        ({"JUPYTER_TOKEN": "ml"}, {"jupyterlab": {"kernel": "python3"}}, ["JUPYTER_TOKEN"]),
    ],
)
def test_variables_that_break_a_promise(
    variables: dict[str, str], promise: dict[str, object], wrong: list[str]
) -> None:
    env = {"A": "1", "PATH": "/bin", "LD_LIBRARY_PATH": "/usr/lib64", **variables}
    config = Environment(env, (), (), None, None, None, None, "/env.sh")
    verdict = judge("environment", config, Profile.of({"environment": ENVIRONMENT, **promise}))
    assert [finding.subject for finding in verdict.findings] == wrong
