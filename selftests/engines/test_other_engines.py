"""An engine of another distribution: one class and one entry point."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlcheck.engines import select
from mlcheck.model.errors import UsageError

pytestmark = pytest.mark.slow

PROGRAM = Path(sys.executable).with_name("mlcheck")

SHELF = """\
from mlcheck.engines.base import Declaration
from mlcheck.engines.sandbox.engine import Sandbox


class Shelf(Sandbox):
    def describe(self):
        return "a sandbox by another name"


SHELF = Declaration(Shelf, opens={"directory": None})
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A directory on Python's path, in which distributions lie as pip installs them."""
    (tmp_path / "packages").mkdir()
    return tmp_path / "packages"


@pytest.fixture
def mlcheck(tmp_path: Path, tiny_rootfs: Path, packages: Path) -> Run:
    """Runs mlcheck beside an image ./mini:v9 and its profile."""
    release = shutil.copytree(tiny_rootfs, tmp_path / "mini:v9", symlinks=True) / "etc/os-release"
    release.write_text('ID="mini"\nVERSION_ID="9.1"\n')
    (tmp_path / "profiles/mini").mkdir(parents=True)
    text = '[os]\nid = "mini"\nversion = "9"\n[commands]\nrun = ["id"]\n'
    (tmp_path / "profiles/mini/image.toml").write_text(text)

    def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, *words],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "200", "PYTHONPATH": str(packages), **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


def installed(packages: Path, module: str, code: str, engine: str = "shelf") -> None:
    """Put a distribution with one module and one engine on Python's path."""
    (packages / f"{module}.py").write_text(code)
    info = packages / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[console_scripts]\nx = y:z\n\n[mlcheck.engines]\n{engine} = {module}:SHELF\n"
    )


CHECK = ("check", "./mini:v9", "--profiles", "profiles")


def test_it_judges_runs_and_is_listed(mlcheck: Run, packages: Path) -> None:
    installed(packages, "shelf_engine", SHELF)
    for workers in ("0", "2"):
        done = mlcheck(*CHECK, "--engine", "shelf", "-n", workers, "-k", "os-release or commands")
        assert done.returncode == 0, done.stdout
        assert "mini:v9@shelf" in done.stdout
    done = mlcheck("exec", "./mini:v9", "--engine", "shelf", "--", "sh", "-c", "echo ran $HOME")
    assert (done.stdout, done.returncode) == ("ran /tmp\n", 0), done.stderr
    said = mlcheck("doctor").stdout
    assert "shelf: works: a sandbox by another name\n    opens: directory\n" in said
    assert "    directory: sandbox\n" in said, "it asked not to be chosen"
    assert "archive, shelf;" in " ".join(mlcheck("check", "--help").stdout.split())


def test_it_may_be_chosen_first(mlcheck: Run, packages: Path) -> None:
    installed(packages, "shelf_engine", SHELF.replace("None}", "1}"))
    assert "    directory: shelf\n" in mlcheck("doctor").stdout
    assert "mini:v9@shelf" in mlcheck(*CHECK, "-k", "os-release").stdout


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import no_such_module\n", "cannot be imported: ModuleNotFoundError: No module named"),
        ("SHELF = 1\n", "is none: shelf_engine:SHELF is no mlcheck.engines.base.Declaration"),
        ("", "cannot be imported: AttributeError"),
    ],
)
def test_one_that_is_broken(mlcheck: Run, packages: Path, code: str, words: str) -> None:
    installed(packages, "shelf_engine", code)
    done = mlcheck(*CHECK, "--engine", "shelf", "-k", "os-release")
    said = done.stdout + done.stderr
    assert done.returncode == 3, said
    assert f"the engine shelf of shelf-engine {words}" in said
    assert "Install shelf-engine again, or uninstall it." in said
    assert "Traceback" not in said
    assert "shelf: cannot be used here: the engine shelf of" in mlcheck("doctor").stdout
    done = mlcheck(*CHECK, "-k", "os-release")
    assert done.returncode == 0, "nobody needs it"


def test_one_with_a_name_that_is_taken(mlcheck: Run, packages: Path) -> None:
    installed(packages, "shelf_engine", SHELF, "sandbox")
    for words in (CHECK, (*CHECK, "--engine", "sandbox"), ("exec", "./mini:v9", "--", "true")):
        done = mlcheck(*words)
        said = done.stdout + done.stderr
        assert done.returncode in (2, 4), said
        assert "more than one engine is called 'sandbox'" in said
        assert "mlcheck-images" in said
        assert "shelf-engine" in said
        assert "Traceback" not in said


def test_what_an_engine_needs_is_imported_by_who_uses_it(mlcheck: Run) -> None:
    done = mlcheck(*CHECK, "-k", "os-release", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "mlcheck.engines.sandbox.engine" in imported
    assert not imported & {"docker", "requests", "mlcheck.engines.apptainer.engine"}


def test_no_other_name_is_an_engine() -> None:
    with pytest.raises(UsageError, match="there is no engine 'nerdctl'"):
        select.engine("nerdctl")
