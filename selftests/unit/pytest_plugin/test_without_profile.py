"""Images that no profile knows: which ones, and by what they are judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlcheck.engines import select
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.rules import promised
from mlcheck.model.errors import ProbeError, UsageError
from mlcheck.model.image_ref import ImageRef
from mlcheck.profile.catalog import SUITE, Catalog, Profile
from mlcheck.pytest_plugin import without_profile
from mlcheck.pytest_plugin.without_profile import Found
from mlcheck.report import overview
from selftests import reports
from selftests.environments import PYTHON, conda, environment, package
from selftests.images import script, write


def expectations(root: Path) -> Found:
    ref = ImageRef.parse(str(root))
    return without_profile.expectations(
        ref, "sandbox", "missing", lambda line: None, time.time_ns()
    )


def data(root: Path) -> dict[str, object]:
    return expectations(root).data


@pytest.mark.parametrize(
    ("image", "own", "here", "meant"),
    [
        ("me/notebook:v1", [], [], True),
        ("./good", [], [], True),
        ("./ml-pyrot", [], [], True),
        ("ml-pyrot:alma9-python311", [], [], False),
        ("ml-pyrot:alma9-python311", [], ["docker"], True),
        ("ml-pyroot:alma9-python311", [], ["docker"], False),
        ("me/notebook:v1", ["profiles"], ["docker"], False),
    ],
)
def test_an_image_is_meant_to_have_no_profile(
    monkeypatch: pytest.MonkeyPatch, image: str, own: list[str], here: list[str], meant: bool
) -> None:
    monkeypatch.setattr(select, "stores_with", lambda ref: here)
    assert without_profile.is_meant(ImageRef.parse(image), Catalog([SUITE]), own) is meant


def test_the_environment_is_found(root: Path) -> None:
    assert data(root) == {}
    script(root, "usr/local/bin/python3", "true")
    commands = {"python3": ("python3", "--version")}
    assert data(root) == {"commands": commands, "prefix": "/usr/local", "rpath": {}}
    conda(root, "opt/conda", zlib="1")
    (root / "usr/local/bin/python3").unlink()
    assert data(root) == {"prefix": "/opt/conda", "rpath": {"forbidden": ["/opt/conda"]}}


def test_the_system_s_python_with_what_pip_added(root: Path) -> None:
    """Nobody knows of the system's packages who asked for them; they are judged as requirements of
    others."""
    package(root, f"usr/lib/{PYTHON}/site-packages", "numpy", "1")
    script(root, "usr/bin/python3", "true")
    assert data(root) == {
        "commands": {"python3": ("python3", "--version")},
        "prefix": "/usr",
        "rpath": {},
    }
    there = f"usr/local/lib/{PYTHON}/dist-packages"
    package(root, there, "torch", "1")
    write(root, f"{there}/torch-1.dist-info/REQUESTED", "")
    assert data(root)["packages"] == {"required": {"torch": {}}}
    rules = promised(Profile.of(data(root)), compared=False)
    assert {"imports", "python-requirements", "packages-promised"} <= {*rules}


def test_what_starts_the_image_is_judged(root: Path) -> None:
    write(root, ".singularity.d/runscript", "#!/bin/sh\nOCI_ENTRYPOINT='\"/start.sh\"'\n")
    assert data(root) == {"startable": True}
    assert set(promised(Profile.of(data(root)), compared=False)) >= {"startable"}


def test_a_virtual_environment_may_name_itself(root: Path) -> None:
    environment(root, "opt/venv", numpy="1")
    found = data(root)
    assert found == {"prefix": "/opt/venv", "rpath": {}}
    rules = promised(Profile.of(found), compared=False)
    assert {"elf-readable", "libraries-resolve", "python-requirements", "rpath-relative"} <= {
        *rules
    }
    assert "rpath-hard-coded" not in rules


def test_packages_and_kernels_of_the_python_on_path(root: Path) -> None:
    """And kernels in other languages; no profile can say half a character, which an image may have
    in a kernel's argv."""
    environment(root, "opt/venv", numpy="1")
    script(root, "opt/venv/bin/jupyter", "true")
    script(root, "opt/venv/bin/python3", "true")
    spec = {"argv": ["/opt/venv/bin/python3"], "display_name": "P", "language": "python"}
    other = {**spec, "language": "R", "argv": ["R"]}
    away = {**spec, "argv": ["/usr/bin/python3"]}
    half = {**spec, "argv": [*spec["argv"], "\ud800"]}
    for name, one in {"good": spec, "ir": other, "away": away, "half": half}.items():
        write(root, f"opt/venv/share/jupyter/kernels/{name}/kernel.json", json.dumps(one))
    start = 'export PATH="/opt/venv/bin:/bin"\n'
    write(root, ".singularity.d/env/10-docker2singularity.sh", start)
    found = Profile.of(data(root)).expect
    assert found.kernels().keys() == {"good", "ir"}
    assert found.packages.required.keys() == {"numpy"}
    assert found.commands.keys() == {"python3", "jupyter"}


def test_an_image_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none"):
        data(tmp_path / "none")


def test_what_could_not_be_looked_for_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And keeps nothing else from being judged."""

    def refused(*_: object) -> None:
        raise ProbeError("/opt/private may not be read.")

    script(root, "usr/local/bin/python3", "true")
    monkeypatch.setattr(without_profile, "prefix_of", refused)
    found = expectations(root)
    assert found.data == {"commands": {"python3": ("python3", "--version")}}
    assert found.troubles == ("the environment: /opt/private may not be read.",)


def test_a_directory_that_may_hold_an_environment_is_said(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listdir = DirectoryRootFS.listdir

    def refused(self: DirectoryRootFS, path: str) -> list[str]:
        if path == "/opt/private":
            raise ProbeError(f"{path} may not be read.")
        return listdir(self, path)

    (root / "opt/private").mkdir(parents=True)
    monkeypatch.setattr(DirectoryRootFS, "listdir", refused)
    said = "/opt/private cannot be looked into: an environment may be there"
    found = expectations(root)
    assert (found.troubles, found.notes) == ((said,), ())
    script(root, "usr/local/bin/python3", "true")
    found = expectations(root)
    assert (found.troubles, found.notes) == ((), (said,))


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--rule", "deployed-*"]], ids=["all", "some"])
def test_what_could_not_be_read_is_in_the_report(
    root: Path, tmp_path: Path, more: list[str]
) -> None:
    """Not only on standard error: no exit code 0 for what was not looked at."""
    write(root, "opt/there", "")
    plugin = (
        "from mlcheck.model.errors import ProbeError\n"
        "from mlcheck.pytest_plugin import without_profile\n"
        "def prefix_of(*_):\n    raise ProbeError('/opt/private may not be read.')\n"
        "without_profile.prefix_of = prefix_of\n"
    )
    (tmp_path / "unreadable.py").write_text(plugin)
    report = tmp_path / "report.json"
    words = ["check", str(root), "-p", "unreadable", f"--output=json={report}", *more]
    done = subprocess.run(
        [sys.executable, "-m", "mlcheck", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(report.read_text())
    assert told["exit_code"] == done.returncode
    assert "/opt/private may not be read." in done.stdout
    (image,) = told["images"]
    if more:
        # It may be nothing of what was chosen.
        assert any("/opt/private" in note for note in image["notes"])
    else:
        assert (done.returncode, image["verdict"]) == (3, "NOT JUDGED")
        (error,) = [one for one in told["results"] if one["outcome"] == "error"]
        assert error["message"].endswith("the environment: /opt/private may not be read.")


def test_it_never_conforms_and_names_the_command() -> None:
    image = reports.image("./a b", without_profile=True)
    (one,) = overview.images(reports.report(reports.result(image), images=(image,)))
    assert one.verdict == ("WHAT WAS JUDGED HOLDS", "yellow")
    assert one.not_judged() == [
        (overview.NO_PROFILE, ["mlcheck snapshot './a b' -o profiles/mini/image.toml"])
    ]
