"""Where tests are looked for: nothing that lies above, beside or in a directory of --profiles keeps
it from being used, and nothing but its own has an effect."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from selftests.checkout import CHECKOUT
from selftests.docs.test_errors import python_for_all

AS_ROOT = os.geteuid() == 0
PROFILE = '[os]\nid = "mini"\nversion = "9"\n'
RAISES = "raise SystemError('this has no business here')\n"


class Home:
    """A directory of an ordinary user with an image, its profile, and all that is odd."""

    def __init__(self, top: Path) -> None:
        self.top, self.path = top, top / "home"
        self.profiles = self.path / "profiles"
        (self.profiles / "mini").mkdir(parents=True)
        (self.path / "mini:v9/etc").mkdir(parents=True)
        (self.path / "mini:v9/usr").mkdir()
        (self.path / "mini:v9/etc/os-release").write_text("ID=mini\nVERSION_ID=9\n")
        (self.profiles / "mini/image.toml").write_text(PROFILE)
        (self.profiles / "mini/test_mini.py").write_text(
            "def test_mini(image, fruit): assert fruit == 'pear'\n"
        )
        (self.profiles / "conftest.py").write_text(
            "import pytest\n@pytest.fixture\ndef fruit(): return 'pear'\n"
        )

    def private(self, directory: Path) -> None:
        """Make a directory with something in it, of somebody else."""
        (directory / "x").mkdir(parents=True)
        (directory / "x/test_x.py").write_text(RAISES)
        directory.chmod(0o700 if AS_ROOT else 0)

    def odd(self, directory: Path) -> None:
        """Fill a directory with what cannot be looked at or leads nowhere."""
        self.private(directory / "private")
        self.private(directory / "tests")  # pytest looks into test* first
        for name in ("a_link", "test_a_link.py"):
            (directory / name).symlink_to(self.top / "private/x/test_x.py")
        (directory / "a_directory").symlink_to(self.top / "private/x")
        (directory / "gone").symlink_to("nowhere")
        (directory / "test_gone.py").symlink_to("nowhere.py")
        (directory / "test_loop.py").symlink_to("test_loop.py")
        (directory / "around").symlink_to("..")
        os.mkfifo(directory / "test_fifo.py")

    def give(self) -> None:
        """Let the ordinary user have it, but for what is private."""
        if not AS_ROOT:
            return
        for entry in [self.path, *self.path.rglob("*")]:
            if not {"private", "tests"} & set(entry.relative_to(self.path).parts):
                os.lchown(entry, 65534, 65534)

    def run(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run `mlcheck` as an ordinary user."""
        lower = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        return subprocess.run(
            [*(lower if AS_ROOT else []), python_for_all(), "-m", "mlcheck.cli", *words],
            cwd=cwd or self.path,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path]),
                "HOME": str(self.path),
                "COLUMNS": "200",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def check(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("check", "./mini:v9", "-k", "test_mini or os-release", *words)


@pytest.fixture
def home() -> Iterator[Home]:
    top = Path(tempfile.mkdtemp(prefix="mlcheck-home-"))
    try:
        top.chmod(0o755)
        found = Home(top)
        found.private(top / "private")
        yield found
    finally:
        for entry in top.rglob("*"):
            if entry.is_dir() and not entry.is_symlink():
                entry.chmod(0o755)
        shutil.rmtree(top)


def holds(done: subprocess.CompletedProcess[str], passed: int = 2) -> None:
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert re.search(rf"[( ]{passed} passed[,)]", said)
    assert "Traceback" not in said
    assert "no business here" not in said


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n1"]])
def test_whatever_lies_around_and_in_a_directory_of_profiles(
    home: Home, workers: list[str]
) -> None:
    for directory in (home.path, home.profiles, home.profiles / "mini"):
        home.odd(directory)
    home.give()
    for profiles in (["profiles"], ["./mini:v9/../profiles"], [str(home.profiles)]):
        holds(home.check(*workers, *(f"--profiles={one}" for one in profiles)))


@pytest.mark.slow
def test_directories_with_a_whole_machine_in_them(home: Home) -> None:
    """The root of the file system, a home, the checkout: their other tests are none of ours."""
    (home.path / "project/mini").mkdir(parents=True)
    (home.path / "project/test_unit.py").write_text(RAISES)
    (home.path / "project/mini/test_unit.py").write_text(RAISES)
    home.odd(home.path)
    home.give()
    for others in (["/"], ["."], [str(CHECKOUT)], ["/", "."], [".", "/tmp"]):
        holds(home.check("--profiles=profiles", *(f"--profiles={one}" for one in others)))
    shutil.move(home.profiles / "mini", home.path / "mini")
    shutil.move(home.profiles / "conftest.py", home.path / "conftest.py")
    holds(home.check("--profiles=."))


@pytest.mark.slow
def test_a_project_around_has_no_effect(home: Home) -> None:
    (home.path / "conftest.py").write_text(RAISES)
    (home.top / "conftest.py").write_text(RAISES)
    (home.path / "pytest.ini").write_text("[pytest]\naddopts = --nonsense\n")
    (home.path / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "--nonsense"\n')
    home.give()
    holds(home.check("--profiles=profiles"))
    holds(home.check(f"--profiles={home.profiles}", "--profiles=/"))


def _rename(home: Home) -> None:
    (home.profiles / "mini/image.toml").rename(home.profiles / "mini/Image.toml")


def _replace(home: Home) -> Path:
    file = home.profiles / "mini/image.toml"
    file.unlink()
    return file


def _close(path: Path) -> None:
    path.chmod(0)
    if AS_ROOT:
        os.chown(path, 0, 0)


MISTAKES: dict[str, tuple[Callable[[Home], object], list[str], str]] = {
    "a folder that is private": (
        lambda home: _close(home.profiles / "mini"),
        [],
        "no profile 'mini': profiles/mini cannot be read: Permission denied",
    ),
    "a file that is private": (
        lambda home: _close(home.profiles / "mini/image.toml"),
        [],
        "profiles/mini/image.toml: cannot be read: Permission denied",
    ),
    "a directory that is private": (
        lambda home: _close(home.profiles),
        [],
        "profiles is no directory of profiles: it cannot be read: Permission denied",
    ),
    "in a directory that is private": (
        lambda home: None,
        ["--profiles=../private/x"],
        "../private/x is no directory of profiles: it cannot be read: Permission denied",
    ),
    "a link in a circle": (
        lambda home: (home.path / "circle").symlink_to("circle"),
        ["--profiles=circle"],
        "it cannot be read: Too many levels of symbolic links",
    ),
    "a file that is a directory": (
        lambda home: _replace(home).mkdir(),
        [],
        "profiles/mini/image.toml: is no regular file",
    ),
    "a file that is a FIFO": (
        lambda home: os.mkfifo(_replace(home)),
        [],
        "profiles/mini/image.toml: is no regular file",
    ),
    "a file that leads nowhere": (
        lambda home: _replace(home).symlink_to("nowhere"),
        [],
        "profiles/mini/image.toml: cannot be read: No such file or directory",
    ),
    "a file that leads in a circle": (
        lambda home: _replace(home).symlink_to("image.toml"),
        [],
        "profiles/mini/image.toml: cannot be read: Too many levels of symbolic links",
    ),
    "a file that is not UTF-8": (
        lambda home: _replace(home).write_bytes(b"\xff"),
        [],
        "profiles/mini/image.toml:1: this is not TOML: it is not encoded as UTF-8",
    ),
    "a file with a capital letter": (
        _rename,
        [],
        "profiles/mini/Image.toml is not spelled image.toml.\nRename it: mv profiles/mini/Image",
    ),
    "the folder in place of its directory": (
        lambda home: None,
        ["--profiles=profiles/mini"],
        "profiles/mini is its folder, not the directory that holds such folders.\n"
        "Name that: --profiles profiles",
    ),
    "the file in place of the directory": (
        lambda home: None,
        ["--profiles=profiles/mini/image.toml"],
        "Name the one above that folder: --profiles profiles",
    ),
    "a path in place of a name": (
        lambda home: None,
        ["--profile=./profiles/mini"],
        "Write --profiles profiles --profile mini",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_wrong_is_said(home: Home, name: str) -> None:
    change, words, says = MISTAKES[name]
    home.give()
    change(home)
    done = home.check(*(words or ["--profiles=profiles"]))
    said = done.stdout + done.stderr
    assert (done.returncode, says in said) == (4, True), said
    assert "Traceback" not in said
    assert "INTERNALERROR" not in said


def test_a_file_of_tests_that_may_not_be_read_is_named(home: Home) -> None:
    home.give()
    (home.profiles / "mini/test_mini.py").chmod(0)
    if AS_ROOT:
        os.chown(home.profiles / "mini/test_mini.py", 0, 0)
    done = home.check("--profiles=profiles")
    said = done.stdout + done.stderr
    assert done.returncode not in (0, 1), said
    assert f"{home.profiles}/mini/test_mini.py has tests, and this user may not read it" in said
    assert "Traceback" not in said


@pytest.mark.root_only
def test_a_working_directory_that_this_user_may_not_enter(home: Home) -> None:
    home.give()
    python = python_for_all()
    script = (
        "import os, sys\nos.chdir(sys.argv[1])\nos.setgroups([])\nos.setgid(65534)\n"
        f"os.setuid(65534)\nos.execv({python!r}, [{python!r}, *sys.argv[2:]])\n"
    )
    done = subprocess.run(
        [python, "-c", script, home.top / "private/x", "-m", "mlcheck.cli", "check", "/x"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    said = "mlcheck: the working directory is one that this user may not enter. Go to another"
    assert done.returncode in (2, 4)
    assert done.stderr.startswith(said), done.stderr
