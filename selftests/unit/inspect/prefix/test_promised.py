"""A prefix that is not there is one failure; a good image that has nothing of a kind has none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.conda.facts import CondaRecords, FilePresence
from mlcheck.inspect.deployed.facts import SINGULARITY_FILES, SINGULARITY_LINKS
from mlcheck.inspect.elf.facts import ElfFiles, Libraries, LoaderPaths
from mlcheck.inspect.files.facts import Scripts
from mlcheck.inspect.jupyter.facts import Kernelspecs
from mlcheck.inspect.packages.facts import Distribution, Distributions
from mlcheck.inspect.prefix import promised as probe
from mlcheck.inspect.prefix.facts import Prefix, PromisedPrefix
from mlcheck.inspect.server.facts import Programs
from mlcheck.profile.catalog import Profile
from selftests import warm
from selftests.checkout import CHECKOUT
from selftests.images import write
from selftests.rules import judge

SINGULARITY_D = ".singularity.d"
CONFIGURED = "export PATH=/opt/venv/bin:/usr/bin\nexport VIRTUAL_ENV=/opt/venv\n"
SEE = "(see prefix-there)"
PROFILE = """\
prefix = "/opt/venv"
shells = ["/bin/sh"]
[packages.required]
wheel = { import = false }
[rpath]
forbidden = ["/opt/venv"]
[libraries]
system = ["libc.so.6"]
[scripts]
portable = ["pip*"]
[kernelspecs]
generation = "new"
[kernelspecs.generations.new.python3]
argv = ["sh"]
"""


def judged(images: list[Path], profiles: Path, report: Path) -> dict[str, dict[str, list[str]]]:
    """For each image, by its name: messages or headlines of its tests, by outcome."""
    done = warm.pytest(
        *("-q", "-p", "no:cacheprovider", "-m", "not slow"),
        *(f"--profiles={profiles}", f"--mlcheck-json={report}", "--profile=own"),
        *(f"--image={image}" for image in images),
    )
    assert report.is_file(), done.stdout + done.stderr
    assert "Traceback" not in done.stdout
    told = json.loads(report.read_text())
    names = {image["id"]: Path(image["reference"]).name for image in told["images"]}
    found: dict[str, dict[str, list[str]]] = {image.name: {} for image in images}
    for result in told["results"]:
        said = result["message"] if result["outcome"] == "skipped" else result["check"]
        found[names[result["image"]]].setdefault(result["outcome"], []).append(said)
    return found


def own(tmp_path: Path, text: str) -> Path:
    folder = tmp_path / "profiles" / "own"
    folder.mkdir(parents=True)
    (folder / "image.toml").write_text(text)
    return folder.parent


def link(root: Path, target: str) -> None:
    (root / "opt").mkdir(exist_ok=True)
    (root / "opt/venv").symlink_to(target)


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda root: None, "does not exist"),
    "file": (lambda root: write(root, "opt/venv", "x"), "is no directory but a file"),
    "dangling": (lambda root: link(root, "/nowhere"), "does not exist"),
    "outside": (lambda root: link(root, str(CHECKOUT)), "does not exist"),
    "loop": (lambda root: link(root, "venv"), "loop"),
    "below-a-file": (lambda root: write(root, "opt", "x"), "opt"),
    "empty": (lambda root: (root / "opt/venv").mkdir(parents=True), "is an empty directory"),
    "other": (lambda root: write(root, "opt/venv/README", "x"), "neither conda-meta nor"),
}
"""What is at the prefix, and what is said of it."""


@pytest.mark.slow
def test_a_wrong_prefix_is_one_failure(tmp_path: Path, tiny_rootfs: Path) -> None:
    images = []
    for name, (plant, _) in WRONG.items():
        root = tmp_path / name
        shutil.copytree(tiny_rootfs, root, symlinks=True)
        shutil.rmtree(root / "opt", ignore_errors=True)
        write(root, "srv/venvs/good/pyvenv.cfg", "home = /usr/bin\n")
        write(root, "srv/venvs/good/bin/python3", "")
        plant(root)
        images.append(root)
    profiles = own(tmp_path, PROFILE)
    for name, outcomes in judged(images, profiles, tmp_path / "report.json").items():
        # Without kernels there are none of the promised: that is no matter of the prefix.
        failed = {*outcomes["failed"]} - {"packages-promised", "script-shebangs"}
        assert failed <= {"prefix-there", "kernelspecs-promised"}, (name, failed)
        assert "prefix-there" in failed, name
        assert "error" not in outcomes, name
        if name != "other":
            assert failed == {*outcomes["failed"]} == {"prefix-there"}, name
            assert sum(SEE in said for said in outcomes["skipped"]) > 10, name
    report = json.loads((tmp_path / "report.json").read_text())
    for result in report["results"]:
        if result["check"] == "prefix-there":
            (finding,) = result["findings"]
            name = result["image"].rpartition("@")[0].rpartition("/")[2]
            assert WRONG[name][1] in finding["found"], (name, finding["found"])
            assert "/srv/venvs/good (a virtual environment)" in finding["found"]
            assert finding["source"].endswith("image.toml:1")


def test_near_names_come_first() -> None:
    others = (
        Prefix("/usr", "system"),
        Prefix("/opt/venv", "venv"),
        Prefix("/srv/data/conda", "conda"),
    )
    fact = PromisedPrefix("/opt/venvv", None, "does not exist", filled=False, others=others)
    (finding,) = judge("prefix-there", fact, Profile.of({"prefix": "/opt/venvv"})).findings
    assert finding.found.startswith("does not exist; the image has /opt/venv (a virtual env")
    assert "/usr (the system's Python)" in finding.found


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("conda-meta/history", "conda"),
        ("condabin/conda", "conda"),  # of which a build has deleted conda-meta
        ("etc/conda/activate.d/x.sh", "conda"),
        ("pyvenv.cfg", "venv"),
        ("bin/python3.12", "python"),
        ("lib/python3.11/dist-packages/x.py", "python"),
        ("bin/python3-config", None),
        ("lib/python3.11/x.py", None),
    ],
)
def test_kinds(tmp_path: Path, path: str, kind: str | None) -> None:
    write(tmp_path, f"env/{path}", "")
    assert probe.probe(DirectoryRootFS(tmp_path), "/env").kind == kind


def test_a_slash_at_the_end_is_the_same_prefix() -> None:
    assert Profile.of({"prefix": "//opt/./venv/"}).expect.prefix == "/opt/venv"


@pytest.fixture
def small_venv(tmp_path: Path, tiny_rootfs: Path) -> Path:
    """An image with a virtual environment in which nothing but one package is installed."""
    root = tmp_path / "small"
    shutil.copytree(tiny_rootfs, root, symlinks=True)
    made = tmp_path / "made"
    venv.create(made, with_pip=False, symlinks=True)
    (root / "opt").mkdir(exist_ok=True)
    made.rename(root / "opt/venv")
    for name in ("activate", "activate.csh", "activate.fish", "Activate.ps1"):
        (root / "opt/venv/bin" / name).unlink(missing_ok=True)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    info = f"opt/venv/lib/{version}/site-packages/wheel-1.0.dist-info/METADATA"
    write(root, info, "Metadata-Version: 2.1\nName: wheel\nVersion: 1.0\n")
    return root


@pytest.mark.slow
def test_a_small_virtual_environment_conforms(small_venv: Path, tmp_path: Path) -> None:
    text = 'prefix = "/opt/venv/"\n[packages.required]\nwheel = { import = false }\n'
    text += '[rpath]\nforbidden = ["/opt/venv"]\n'
    found = judged([small_venv], own(tmp_path, text), tmp_path / "report.json")["small"]
    assert set(found) == {"passed", "skipped"}, found
    assert {*found["passed"]} >= {"prefix-there", "packages-promised", "python-requirements"}
    said = " | ".join(found["skipped"])
    assert "is an ELF file" in said
    assert "/opt/venv is a virtual environment, not conda's" in said
    assert "no file in /opt/venv/bin is a script" in said
    assert SEE not in said


@pytest.mark.slow
def test_a_snapshot_of_it_waives_nothing(small_venv: Path, tmp_path: Path) -> None:
    for path in SINGULARITY_FILES:
        write(small_venv, path, "#!/bin/sh\n", 0o755)
    write(small_venv, f"{SINGULARITY_D}/env/10-docker2singularity.sh", CONFIGURED, 0o755)
    (small_venv / ".singularity.d/libs").mkdir()
    for path, target in SINGULARITY_LINKS.items():
        (small_venv / path.lstrip("/")).symlink_to(f".singularity.d/{target}")
    written = tmp_path / "image.toml"
    done = subprocess.run(
        [*(sys.executable, "-m", "mlcheck.cli", "snapshot"), str(small_venv), "-o", str(written)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    text = written.read_text()
    assert 'prefix = "/opt/venv"' in text
    assert "waivers" not in text
    assert "nothing to compare" not in text + done.stderr


# --- Nothing of a kind, and nothing looked at ------------------------------------------------

NO_PATHS = LoaderPaths({}, {}, {})
VENV = Profile.of(
    {
        "prefix": "/opt/venv",
        "rpath": {"forbidden": ["/opt/venv"]},
        "scripts": {"installed": ["/usr/local/bin/*"]},
    }
)
NO_RECORDS = CondaRecords("/opt/venv", (), ())
PIP = Distribution("pip", "1", (), "/x")
NONE = Kernelspecs((), (), None)


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        (judge("elf-readable", ElfFiles({}, 5), VENV), "skipped"),
        (judge("elf-readable", ElfFiles({}, 0), VENV), "failed"),  # not a file was looked at
        (judge("rpath-hard-coded", ElfFiles({}, 5), NO_PATHS, VENV), "skipped"),
        (judge("rpath-relative", ElfFiles({}, 0), NO_PATHS, VENV), "failed"),
        (judge("libraries-resolve", Libraries(()), VENV), "skipped"),
        (judge("script-shebangs", Scripts(()), VENV), "skipped"),
        (judge("python-requirements", Distributions("3.11", ()), NO_RECORDS), "skipped"),
        (judge("python-requirements", Distributions("3.11", (PIP,)), NO_RECORDS), "passed"),
        (judge("conda-files-present", FilePresence(0, ()), NO_RECORDS, VENV), "failed"),
        (judge("conda-depends", "/opt/venv", NO_RECORDS), "skipped"),  # which the one above tells
        (judge("programs-executable", Programs(()), VENV), "skipped"),
        (judge("programs-executable", Programs((), (), ("/usr/local/bin",)), VENV), "failed"),
        (judge("wrapper-targets", Programs(()), VENV), "skipped"),
        (judge("kernelspecs-valid", NONE, VENV), "skipped"),
    ],
)
def test_nothing_of_a_kind(verdict: object, outcome: str) -> None:
    assert getattr(verdict, "outcome") == outcome  # noqa: B009


def test_what_is_promised_by_name_has_to_be_there() -> None:
    portable = Profile.of({"prefix": "/opt/venv", "scripts": {"portable": ["pip*"]}})
    assert judge("script-shebangs", Scripts(()), portable).outcome == "failed"
    named = Profile.of({"scripts": {"installed": ["/usr/local/bin/*", "/usr/local/bin/tool"]}})
    (finding,) = judge("programs-executable", Programs(()), named).findings
    assert finding.subject == "/usr/local/bin/tool"
    specs = {"generation": "none", "generations": {"none": {}}}
    none = Profile.of({"kernelspecs": specs})
    assert judge("kernelspecs-promised", NONE, None, none).outcome == "passed"
