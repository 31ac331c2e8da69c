"""What the people who are not root find: their PATH, their terminals, and these self-tests."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlcheck.engines.oci import server as oci_server
from mlcheck.engines.oci.dialect import DOCKER
from mlcheck.model.errors import EngineError
from selftests import images
from selftests.checkout import CHECKOUT


def self_tests(directory: Path, *options: str, **env: str) -> str:
    """What pytest says of the self-tests in `directory`, judged as those here are."""
    (directory / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    plugins = ("-p", "selftests.conftest", "-p", "no:cacheprovider")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "--rootdir", directory, *options, directory],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT), "PYTEST_ADDOPTS": "", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "workers"])
def test_what_fails_is_named_at_once(tmp_path: Path, workers: tuple[str, ...]) -> None:
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "@pytest.fixture\ndef broken(): raise ValueError\n"
        "def test_one(): assert False\n"
        "def test_two(broken): pass\n"
        "def test_three(): pass\n"
    )
    at_once = self_tests(tmp_path, *workers).partition("= ERRORS =")[0].splitlines()
    assert "FAILED test_some.py::test_one" in at_once
    assert "ERROR test_some.py::test_two" in at_once
    assert not [line for line in at_once if "test_three" in line]


@pytest.mark.slow
def test_each_skips_what_only_the_other_can_do(tmp_path: Path) -> None:
    """Also in CI, where every other skip is a failure."""
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "@pytest.mark.root_only\ndef test_of_root(): pass\n"
        "@pytest.mark.user_only\ndef test_of_a_user(): pass\n"
        "def test_skipped(): pytest.skip('there is no such thing here')\n"
    )
    said = self_tests(tmp_path, "-v", CI="true")
    root = os.geteuid() == 0
    assert f"::test_of_root {'PASSED' if root else 'SKIPPED'}" in said
    assert f"::test_of_a_user {'SKIPPED' if root else 'PASSED'}" in said
    assert "1 failed, 1 passed, 1 skipped" in said
    assert "skipped in CI, where nothing may be missing: Skipped: there is no such thing" in said


def test_make_selftest_says_how_long_it_takes() -> None:
    command = ["make", "-n", "selftest", "FAST=", "MAKEFLAGS="]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert "about twenty minutes on two cores" in done.stdout
    assert "--durations=20" in done.stdout


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """An image whose name, files and words are in no encoding that all terminals have."""
    image = tmp_path / "bäd"
    images.write(image, "etc/os-release", 'ID=debian\nNAME="Dëbian ☃"\nVERSION_ID=12\n')
    images.write(image, "usr/bin/ünï\udcff", "#!/no/such/pythön\n", 0o755)
    return image


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize(
    "command",
    ["facts IMAGE", "facts IMAGE --json", "info IMAGE", "diff IMAGE OTHER", "cache", "images"],
)
def test_every_terminal_can_show_what_is_said(
    strange: Path, tmp_path: Path, command: str, encoding: str
) -> None:
    """Never a traceback of UnicodeEncodeError, whatever the locale."""
    images.write(tmp_path / "other", "etc/os-release", "ID=debian\n")
    places = {"IMAGE": str(strange), "OTHER": f"{tmp_path}/other"}
    env = {"LC_ALL": "C", "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mlcheck.cli",
            *(places.get(word, word) for word in command.split()),
        ],
        env=os.environ | env | {"MLCHECK_CACHE_DIR": f"{tmp_path}/cäche"},
        capture_output=True,
        check=False,
    )
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert "Traceback" not in said
    assert done.returncode == (1 if command.startswith("diff") else 0), said


def test_a_daemon_off_the_path_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/usr/sbin is not on an ordinary user's PATH. The daemon and its places are stand-ins."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(oci_server, "_SYSTEM_PROGRAMS", f"{tmp_path}/sbin", raising=False)
    dialect = replace(DOCKER, sockets=(f"{tmp_path}/none.sock",))
    with pytest.raises(EngineError, match="is not installed"):
        oci_server.found(dialect)
    images.script(tmp_path, "sbin/dockerd", "exit 0")
    with pytest.raises(EngineError, match="does not run: no socket at"):
        oci_server.found(dialect)
