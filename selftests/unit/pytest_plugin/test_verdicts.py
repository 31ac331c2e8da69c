"""What a run says of an image of which it did not judge everything, and what it ends with."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from mlcheck.report import github, html, junit, overview, reading
from mlcheck.report.model import Report
from selftests import archives, reports, warm

PROGRAM = Path(sys.executable).with_name("mlcheck")
PROFILE = '[os]\nid = "mini"\nversion = "9"\n[files."/etc/os-release"]\n'
FOLDER = """
import os, time
import pytest

def test_of_the_image(host):
    assert host.backend.NAME == "mlcheck"
    assert "mini" in host.check_output("cat /etc/os-release")

def test_of_no_image():
    assert os.environ.get("HOW") != "fails"

def test_that_may_end_the_run():
    match os.environ.get("HOW"):
        case "dies": os._exit(0)
        case "exits": pytest.exit("enough", returncode=0)
        case "interrupts":
            open(os.environ["BEGUN"], "w").close()
            time.sleep(600)

def test_last(image):
    pass
"""


@dataclass(frozen=True)
class Place:
    """An image that conforms, its profile, and tests of a user's own."""

    path: Path

    def command(self, *words: str) -> list[str]:
        report = ("--mlcheck-json", "r.json", "--html", "r.html")
        return [str(PROGRAM), "check", "./mini", "--profiles", "own", *report, *words]

    def environment(self, how: str) -> dict[str, str]:
        return {**os.environ, "COLUMNS": "200", "HOW": how, "BEGUN": str(self.path / "begun")}

    def check(self, *words: str, how: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            cwd=self.path,
            env=self.environment(how),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def report(self) -> Any:
        return json.loads((self.path / "r.json").read_text())

    def told(self) -> list[str]:
        """The verdict as each reader of the report has it, but for the terminal of the run."""
        made = subprocess.run(
            [PROGRAM, "report", "text", "r.json"],
            cwd=self.path,
            capture_output=True,
            text=True,
            check=True,
        )
        page = (self.path / "r.html").read_text().partition('<script type="application/json"')[0]
        return [made.stdout, page, str(self.report()["images"][0]["verdict"])]


@pytest.fixture
def place(tmp_path: Path, tiny_rootfs: Path) -> Place:
    shutil.copytree(tiny_rootfs, tmp_path / "mini", symlinks=True)
    (tmp_path / "mini/etc/os-release").write_text('ID="mini"\nVERSION_ID="9.1"\n')
    folder = tmp_path / "own/mini"
    folder.mkdir(parents=True)
    (folder / "image.toml").write_text(PROFILE)
    (folder / "test_own.py").write_text(FOLDER)
    return Place(tmp_path)


def _verdict(place: Place, done: subprocess.CompletedProcess[str], words: str) -> str:
    """The line with the verdict, which all readers have, and none says that the image conforms."""
    for said in (done.stdout, *place.told()):
        assert words in said, said
        assert words == "CONFORMS" or " CONFORMS" not in said.replace("NOT CONFORM", "")
    return next(line for line in done.stdout.splitlines() if line.startswith("mini@sandbox"))


@pytest.mark.slow
def test_all_is_judged(place: Place) -> None:
    """Also a test that uses no image is one of the image of its folder."""
    done = place.check()
    assert done.returncode == 0, done.stdout + done.stderr
    assert _verdict(place, done, "CONFORMS").startswith("mini@sandbox  CONFORMS  (6 passed, ")
    assert "not judged" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_a_selection_says_how_much_it_is(place: Place, workers: list[str]) -> None:
    done = place.check("-k", "os-release or test_last", *workers)
    assert done.returncode == 0, done.stdout + done.stderr
    line = _verdict(place, done, "WHAT WAS SELECTED HOLDS")
    assert "(2 of 9; 2 passed)" in line
    left_out = place.report()["images"][0]["not_selected"]
    assert {"files", "layers-secrets", "test_of_no_image", "test_of_the_image"} <= {*left_out}
    assert "rpath-hard-coded" not in left_out  # nobody promises it


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["-m", "not slow", "-k", "not test_files["],
        ["--ignore-glob", "*test_own*"],
        ["--deselect", "tests/general/test_files.py::test_files"],
    ],
)
def test_whatever_leaves_tests_out_is_a_selection(place: Place, words: list[str]) -> None:
    done = place.check(*words)
    if "--deselect" in words:  # by the name that pytest prints
        listed = place.check("--collect-only", "-q", "-k", "test_files[").stdout
        name = next(line for line in listed.splitlines() if "::test_files[" in line)
        done = place.check("--deselect", name)
    assert done.returncode == 0, done.stdout + done.stderr
    _verdict(place, done, "WHAT WAS SELECTED HOLDS")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_a_user_s_own_tests_in_a_folder_of_a_name_of_ours(place: Place, workers: list[str]) -> None:
    """A profile that stands for one of the suite: its tests are no less than others."""
    (place.path / "own/mini").rename(place.path / "own/ml-base")
    (place.path / "own/ml-base/image.toml").write_text('shells = ["/bin/sh"]\n')
    left = place.check("--profile=ml-base", "-k", "not test_last", *workers)
    assert left.returncode == 0, left.stdout + left.stderr
    assert "test_last" in place.report()["images"][0]["not_selected"]
    _verdict(place, left, "WHAT WAS SELECTED HOLDS")


@pytest.mark.slow
def test_what_is_no_test_of_the_image_was_not_left_out(place: Place) -> None:
    """A project's own tests beside the folders of images; a file that skips itself."""
    (place.path / "own/tests").mkdir()
    (place.path / "own/tests/test_project.py").write_text("def test_project(): assert 0\n")
    (place.path / "own/mini/test_later.py").write_text(
        "import pytest\npytest.skip('later', allow_module_level=True)\ndef test_later(): ...\n"
    )
    done = place.check()
    assert done.returncode == 0, done.stdout + done.stderr
    _verdict(place, done, "CONFORMS")


@pytest.mark.slow
def test_a_test_of_the_suite_without_a_verdict(place: Place) -> None:
    """As where a plugin or a conftest.py runs tests in its own way, or not at all."""
    (place.path / "others.py").write_text(
        "import pytest\n"
        "class Last:\n"
        "    @pytest.hookimpl(tryfirst=True)\n"
        "    def pytest_pyfunc_call(self): return True\n"
        "def pytest_sessionstart(session): session.config.pluginmanager.register(Last())\n"
    )
    done = subprocess.run(
        place.command("-p", "others"),
        cwd=place.path,
        env={**place.environment(""), "PYTHONPATH": str(place.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    _verdict(place, done, "NOT JUDGED")
    assert "the test passed without a verdict" in done.stdout


def test_paths_are_a_selection_too(place: Place) -> None:
    words = [f"--profiles={place.path}/own", f"--image={place.path}/mini"]
    done = warm.pytest(*words, warm.ROOT / "tests/general/test_system.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mini@sandbox  WHAT WAS SELECTED HOLDS  (1 of 9; " in done.stdout


@pytest.mark.slow
def test_a_worker_that_dies(place: Place) -> None:
    """The test in which it died is told, and is not given to one worker after the other."""
    done = place.check("-n", "2", how="dies")
    assert done.returncode == 3, done.stdout + done.stderr
    line = _verdict(place, done, "NOT JUDGED")
    assert "1 error" in line
    assert "test_that_may_end_the_run[mini@sandbox]' crashed" not in line
    assert "crashed while running" in done.stdout
    assert done.stdout.count("crashed while running") < 6


@pytest.mark.slow
def test_a_test_that_ends_the_run(place: Place) -> None:
    """pytest.exit() with 0, as if all were well."""
    done = place.check(how="exits")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "2 error" in _verdict(place, done, "NOT JUDGED")
    assert "not run: enough   [test_that_may_end_the_run, test_last]" in done.stdout


MANY = """
import pytest

@pytest.mark.parametrize("number", range(60))
def test_one_of_many(image, number):
    assert number % 2
"""
"""Whichever worker has some of them, it stops at the second at the latest."""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_the_first_failure_ends_the_run(place: Place, workers: list[str]) -> None:
    (place.path / "mini/etc/os-release").write_text('ID="mini"\nVERSION_ID="10"\n')
    (place.path / "own/mini/test_many.py").write_text(MANY)
    done = place.check("-x", *workers)
    assert done.returncode == 1, done.stdout + done.stderr
    _verdict(place, done, "DOES NOT CONFORM, and not all of it could be judged")
    assert "not run: stopping after 1 failures" in done.stdout


@pytest.mark.slow
def test_ctrl_c(place: Place) -> None:
    process = subprocess.Popen(
        place.command(),
        cwd=place.path,
        env=place.environment("interrupts"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (place.path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    done = subprocess.CompletedProcess(process.args, process.returncode, output, "")
    assert done.returncode == 130, output
    assert "2 error" in _verdict(place, done, "NOT JUDGED")
    assert "not run: the run was interrupted" in output
    assert place.report()["exit_code"] == 130


@pytest.mark.slow
def test_a_user_s_test_that_fails(place: Place) -> None:
    """Also one that uses nothing of the image's."""
    done = place.check(how="fails")
    assert done.returncode == 1
    assert "1 failed" in _verdict(place, done, "DOES NOT CONFORM")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("def test_a(nothing_of_this_name): ...\n", 3, "NOT JUDGED"),
        ("x = = 1\n", 4, "NOT JUDGED"),
        ("import unittest\nclass T(unittest.TestCase):\n    def test_a(self): assert 0\n", 3, ""),
    ],
    ids=["error at set-up", "cannot be read", "of no image"],
)
def test_a_test_without_a_result_of_the_image(
    place: Place, text: str, code: int, words: str, workers: list[str]
) -> None:
    (place.path / "own/mini/test_more.py").write_text(text)
    done = place.check(*workers)
    assert done.returncode == code, done.stdout + done.stderr
    _verdict(place, done, words or "NOT JUDGED")
    assert "test_more.py" in done.stdout


@pytest.mark.slow
def test_a_test_file_that_cannot_be_read_beside_those_that_can(place: Place) -> None:
    (place.path / "own/mini/test_more.py").write_text("x = = 1\n")
    done = place.check("--continue-on-collection-errors")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "1 error, 6 passed" in _verdict(place, done, "NOT JUDGED")
    assert "test_more.py cannot be read: SyntaxError: invalid syntax" in done.stdout


@pytest.mark.slow
def test_what_cannot_be_tried_here(place: Place) -> None:
    """A process, where the engine only reads: what can be read conforms, which is not all."""
    (place.path / "own/mini/image.toml").write_text('shells = ["/bin/sh"]\n' + PROFILE)
    (place.path / "own/mini/test_own.py").unlink()
    release = archives.member("etc/os-release", 'ID="mini"\nVERSION_ID="9.1"\n')
    shell = archives.member("bin/sh", "#!/bin/sh\n", mode=0o755)
    archives.docker_archive(place.path / "mini.tar", [archives.layer(release, shell)])
    command = place.command("--profile", "mini", "--engine", "archive")
    command[2] = "docker-archive:mini.tar"
    done = subprocess.run(command, cwd=place.path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in (done.stdout, *place.told()):
        assert "WHAT WAS JUDGED HOLDS" in said
        assert " CONFORMS" not in said
    (why,) = [line for line in done.stdout.splitlines() if "  not judged  " in line]
    assert "the engine archive only reads" in why
    assert "shells" in why


@pytest.mark.parametrize(
    ("outcomes", "left_out", "code", "words"),
    [
        (["passed", "skipped"], (), 0, "CONFORMS"),
        (["passed", "waived"], (), 0, "CONFORMS"),
        (["passed"], ("files",), 0, "WHAT WAS SELECTED HOLDS"),
        (["skipped"], ("files",), 5, "NOTHING WAS CHECKED"),
        (["skipped"], (), 5, "NOTHING WAS CHECKED"),
        (["passed", "error"], (), 3, "NOT JUDGED"),
        (["failed", "passed"], ("files",), 1, "DOES NOT CONFORM"),
        (["failed", "error"], (), 1, "DOES NOT CONFORM, and not all of it could be judged"),
    ],
)
def test_verdict_and_exit_code(
    outcomes: list[Any], left_out: tuple[str, ...], code: int, words: str
) -> None:
    image = reports.image(not_selected=left_out)
    results = [reports.result(image, f"check{n}", how) for n, how in enumerate(outcomes)]
    (one,) = overview.images(reports.report(*results, images=(image,)))
    assert one.verdict[0] == words
    assert overview.exit_code([one]) == code


def test_a_promise_that_was_tried_in_part(place: Place) -> None:
    image = reports.image()
    results = [
        reports.result(image, "packages-promised", untried="micromamba was not asked"),
        reports.result(image, "gpu-passed", "skipped", untried="no GPU was asked for (--nv)"),
        reports.result(image, "files"),
    ]
    report = reports.report(*results, images=(image,))
    (one,) = overview.images(report)
    assert one.verdict[0] == "WHAT WAS JUDGED HOLDS"
    assert one.tally() == "2 of 3; 2 passed, 1 skipped"
    (place.path / "r.json").write_text(report.model_dump_json())
    shown = subprocess.run(
        [PROGRAM, "report", "text", place.path / "r.json"], capture_output=True, text=True
    ).stdout
    assert "not judged  micromamba was not asked   [packages-promised]" in shown
    assert "not judged  no GPU was asked for (--nv)   [test_gpu_passed]" in shown
    page = html.page(report).partition('<script type="application/json"')[0]
    for made in (page, unescape(github.markdown(report)), junit.document(report)):
        for words in ("micromamba was not asked", "packages-promised", "no GPU was asked for"):
            assert words in made


@pytest.mark.slow
def test_a_test_that_is_expected_to_fail(place: Place) -> None:
    """By pytest's own mark, without a waiver: why it does not count is told."""
    mark = "@pytest.mark.xfail(reason='not yet')\ndef test_x(image): assert 0\n"
    (place.path / "own/mini/test_more.py").write_text(f"import pytest\n{mark}")
    done = place.check()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "waived  test_x: not yet" in done.stdout


def test_one_image_of_several_of_which_nothing_was_judged() -> None:
    """Left out by -k, it is nobody's concern; with nothing left out, it is not green."""
    good, other = reports.image("a:v1"), reports.image("b:v1")
    left_out = other.model_copy(update={"not_selected": ("files",)})
    for second, code in ((other, 5), (left_out, 0)):
        results = [reports.result(good), reports.result(second, "shells", "skipped")]
        found = overview.images(reports.report(*results, images=(good, second)))
        assert overview.exit_code(found) == code


def test_an_older_report_of_an_interrupted_run(tmp_path: Path) -> None:
    """It has no word of what did not run; pytest ended with 2."""
    image = reports.image()
    told = reports.report(reports.result(image), images=(image,)).model_dump(mode="json")
    for version, code, words in (
        ("1.3", 2, "NOT JUDGED"),
        ("1.3", 0, "CONFORMS"),
        ("1.4", 0, "CONFORMS"),
    ):
        file = tmp_path / "r.json"
        file.write_text(json.dumps(told | {"schema_version": version, "exit_code": code}))
        report: Report = reading.read(file)
        assert overview.images(report)[0].verdict[0] == words, (version, code)


@pytest.mark.slow
def test_what_a_waived_breach_leaves_unjudged(place: Place) -> None:
    """A prefix that is not there is waived: what rests on it was judged by nobody."""
    waiver = '[[waivers]]\ncheck = "prefix-there"\nreason = "soon"\nuntil = 2999-12-31\n'
    rules = '[rpath]\nforbidden = ["/opt/venv"]\n'
    (place.path / "own/mini/image.toml").write_text(
        f'prefix = "/opt/venv"\n{PROFILE}{rules}{waiver}'
    )
    done = place.check()
    assert done.returncode == 0, done.stdout + done.stderr
    _verdict(place, done, "WHAT WAS JUDGED HOLDS")
    assert re.search(r"not judged  /opt/venv .* \(see prefix-there\)", done.stdout)
