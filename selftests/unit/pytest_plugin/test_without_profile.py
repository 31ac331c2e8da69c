"""Images that no profile knows: which ones, and by what they are judged."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from mlcheck.engines import select
from mlcheck.inspect.rules import promised
from mlcheck.model.errors import ProbeError, UsageError
from mlcheck.model.image_ref import ImageRef
from mlcheck.profile.catalog import SUITE, Catalog, Profile
from mlcheck.pytest_plugin import without_profile
from mlcheck.report import overview
from selftests import reports
from selftests.environments import conda, environment
from selftests.images import script, write


def data(root: Path) -> dict[str, object]:
    ref = ImageRef.parse(str(root))
    return without_profile.expectations(
        ref, "sandbox", "missing", lambda line: None, time.time_ns()
    )


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
    def refused(*_: object) -> None:
        raise ProbeError("/opt/private may not be read.")

    monkeypatch.setattr(without_profile, "prefix_of", refused)
    said: list[str] = []
    ref = ImageRef.parse(str(root))
    found = without_profile.expectations(ref, "sandbox", "missing", said.append, time.time_ns())
    assert found == {}
    assert "what it has for its users is not tried: /opt/private may not be read." in said


def test_it_never_conforms_and_names_the_command() -> None:
    image = reports.image("./a b", without_profile=True)
    (one,) = overview.images(reports.report(reports.result(image), images=(image,)))
    assert one.verdict == ("WHAT WAS JUDGED HOLDS", "yellow")
    assert one.not_judged() == [
        (overview.NO_PROFILE, ["mlcheck snapshot './a b' -o profiles/mini/image.toml"])
    ]
