"""docs/adding-an-image.md: an image that is none of the suite's gets a folder with an image.toml
elsewhere, and is judged. It is a Debian with JupyterLab: no conda, no package list, no jovyan."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlcheck import reference
from mlcheck.reference import cache, tree
from selftests import warm
from selftests.checkout import CHECKOUT

PAGE = (CHECKOUT / "docs/adding-an-image.md").read_text(encoding="utf-8")
PROFILE = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]
"""The first image.toml of the page, as a reader would copy it."""

STATUS = """\
Package: base-files
Status: install ok installed
Version: 12.4+deb12u9
Architecture: amd64
"""


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Laid out as `pip install jupyterlab` leaves a Debian: Python and its packages in /usr/local.
    Python and JupyterLab are real; of Debian's own packages, the database tells of one."""
    root = tmp_path_factory.mktemp("images") / "debian-lab:v1"
    cache.clone(reference.build("machine-learning-notebook-cpu"), root)
    shutil.rmtree(root / "opt/conda/conda-meta")
    shutil.rmtree(root / ".singularity.d")
    shutil.rmtree(root / "home/jovyan")
    shutil.rmtree(root / "usr/local")
    (root / "opt/conda").rename(root / "usr/local")
    kernel = "/usr/local/share/jupyter/kernels/python3/kernel.json"
    tree.replace(root, kernel, "/opt/conda/bin/python", "python")  # as ipykernel writes it
    tree.write(root, "/usr/lib/os-release", 'ID=debian\nVERSION_ID="12"\n')
    tree.write(root, "/var/lib/dpkg/status", STATUS)
    return root


def judge(image: Path, profiles: Path, *more: str) -> dict[str, Any]:
    report = profiles / "report.json"
    done = warm.pytest(
        *("-q", "-p", "no:cacheprovider", "--profiles", profiles, "--image", image),
        *(f"--mlcheck-json={report}", *more),
    )
    assert report.is_file(), done.stdout + done.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    return found


@pytest.mark.slow
def test_the_image_of_the_page(debian: Path, tmp_path: Path) -> None:
    folder = tmp_path / "debian-lab"
    folder.mkdir()
    (folder / "image.toml").write_text(PROFILE)
    (folder / "test_own.py").write_text(
        "def test_own(host):\n    assert host.file('/etc/os-release').contains('debian')\n"
    )
    found = judge(debian, tmp_path)
    said = [(r["outcome"], r["check"] or r["test"], r["message"]) for r in found["results"]]
    assert not [one for one in said if one[0] not in ("passed", "skipped")]
    passed = {name for outcome, name, _ in said if outcome == "passed"}
    # Everything that the page's profile promises was judged, its own test too.
    assert passed >= {"os-release", "packages-promised", "imports", "commands", "shells"}
    assert passed >= {"kernelspecs-promised", "kernels-start", "jupyterlab-starts"}
    assert any("test_own.py" in name for name in passed)
    assert all(message for outcome, _, message in said if outcome == "skipped")
