"""The suite as a user runs it: options, outcomes, exit codes, messages and reports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest

from mlcheck.cli.schemas import report_schema
from mlcheck.pytest_plugin.progress import Progress
from selftests import warm
from selftests.checkout import CHECKOUT


class Suite:
    """A small image, its profile, and pytest to run on them."""

    def __init__(self, directory: Path, tiny_rootfs: Path) -> None:
        self.image = directory / "images" / "mini:v9"
        shutil.copytree(tiny_rootfs, self.image, symlinks=True)
        self.profiles = directory / "profiles"
        (self.profiles / "mini").mkdir(parents=True)
        self.os_release("mini", "9.1")
        self.profile('[os]\nid = "mini"\nversion = "9"\n')
        self.directory = directory

    def os_release(self, os_id: str, version: str) -> None:
        text = f'ID="{os_id}"\nVERSION_ID="{version}"\n'
        (self.image / "etc" / "os-release").write_text(text)

    def profile(self, text: str) -> None:
        (self.profiles / "mini" / "image.toml").write_text(text)

    def run(
        self, *arguments: str, image: str | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return warm.pytest(
            *("-p", "no:cacheprovider", "--profiles", self.profiles),
            *("--image", image or self.image, *arguments),
            env={**os.environ, "COLUMNS": "200", **(env or {})},
        )


@pytest.fixture
def suite(tmp_path: Path, tiny_rootfs: Path) -> Suite:
    return Suite(tmp_path, tiny_rootfs)


def test_an_image_that_conforms(suite: Suite) -> None:
    done = suite.run()
    assert done.returncode == 0, done.stdout
    assert "mini:v9@sandbox  CONFORMS  (1 passed" in done.stdout


def test_an_image_that_does_not_conform(suite: Suite) -> None:
    suite.os_release("mini", "10")
    done = suite.run("-k", "os_release")
    assert done.returncode == 1
    for words in (
        "mini:v9@sandbox  DOES NOT CONFORM",
        "os-release: VERSION_ID: 10",
        "found     10",
        "expected  9 or 9.x",
        "profiles/mini/image.toml:3",
        f"reproduce cat -v {suite.image}/etc/os-release",
        "fix: Build from the base image",
    ):
        assert words in done.stdout, words
    assert "Traceback" not in done.stdout


WAIVER = """
[[waivers]]
check = "os-release"
match = "VERSION_ID"
reason = "upgrade planned"
until = {until}
"""


@pytest.mark.slow
def test_a_waiver_until_its_last_day_and_after_it(suite: Suite) -> None:
    suite.os_release("mini", "10")
    promise = '[os]\nid = "mini"\nversion = "9"\n'
    suite.profile(promise + WAIVER.format(until="2999-12-31"))
    done = suite.run("-k", "os_release")
    assert done.returncode == 0, done.stdout
    assert "waived  os-release: upgrade planned (until 2999-12-31)" in done.stdout
    suite.profile(promise + WAIVER.format(until="2020-02-02"))
    done = suite.run("-k", "os_release")
    assert done.returncode == 1
    assert "waived until 2020-02-02: upgrade planned" in done.stdout
    assert "which is over: the check fails again" in done.stdout


def test_a_waiver_that_fits_nothing_any_more_is_named(suite: Suite) -> None:
    suite.profile('[os]\nid = "mini"\nversion = "9"\n' + WAIVER.format(until="2999-12-31"))
    done = suite.run("-k", "os_release")
    assert done.returncode == 0, done.stdout
    assert "mini/image.toml:5: os-release: this waiver matches no finding any more" in done.stdout


@pytest.mark.slow
def test_a_baseline_lets_only_new_findings_fail(suite: Suite) -> None:
    suite.os_release("other", "9.1")
    file = str(suite.directory / "waivers.toml")
    chosen = ("-k", "os-release")
    done = suite.run(
        *chosen, "--write-waivers", file, "--until", "2999-12-31", "--reason", "rebuilt in May"
    )
    assert done.returncode == 1
    assert f"mlcheck: judge with it: --waivers {file}" in done.stdout
    done = suite.run(*chosen, "--waivers", file)
    assert done.returncode == 0, done.stdout
    assert "waived  os-release: rebuilt in May (until 2999-12-31)" in done.stdout
    suite.os_release("other", "8")
    done = suite.run(*chosen, "--waivers", file)
    assert done.returncode == 1
    assert "FAILED  os-release: VERSION_ID" in done.stdout


def test_a_waiver_of_a_check_that_is_misspelt_is_named(suite: Suite) -> None:
    waiver = WAIVER.format(until="2999-12-31")
    own = waiver.replace("os-release", "my-own-rule")
    profile = '[os]\nid = "other"\nversion = "9"\n'
    suite.profile(profile + waiver.replace("os-release", "os-relese") + own)
    done = suite.run("-k", "os_release")
    assert done.returncode == 1
    said = "mini/image.toml:5: there is no rule 'os-relese'. Did you mean 'os-release'?"
    assert said in done.stdout
    assert "my-own-rule" not in done.stdout
    suite.profile(profile + waiver)
    assert "there is no rule" not in suite.run("-k", "test_commands").stdout


def test_a_warning_fails_an_image_only_where_it_shall(suite: Suite) -> None:
    suite.os_release("other", "9.1")
    profile = '[os]\nid = "mini"\nversion = "9"\n[severity]\n'
    suite.profile(f'{profile}"os-*" = "warning"\nos-relese = "error"\n')
    done = suite.run("-k", "os-release")
    assert done.returncode == 0, done.stdout
    assert "warning os-release: ID: other" in done.stdout
    assert "1 warned about" in done.stdout
    assert "severity: there is no rule 'os-relese'. Did you mean 'os-release'?" in done.stdout
    done = suite.run("-k", "os-release", "--fail-on", "warning")
    assert done.returncode == 1
    assert "FAILED  os-release: ID: other" in done.stdout


def test_a_waiver_covers_only_what_it_names(suite: Suite) -> None:
    suite.os_release("other", "10")
    suite.profile('[os]\nid = "mini"\nversion = "9"\n' + WAIVER.format(until="2999-12-31"))
    done = suite.run("-k", "os_release")
    assert done.returncode == 1
    assert "os-release: ID: other" in done.stdout


def test_nothing_checked_is_not_green(suite: Suite) -> None:
    suite.profile("")
    done = suite.run()
    assert done.returncode == 5
    assert "mini:v9@sandbox  NOTHING WAS CHECKED" in done.stdout


def test_every_skip_has_its_reason(suite: Suite) -> None:
    """In the summary, but for what the profile does not promise, which is counted there."""
    suite.profile("")
    done = suite.run("-k", "kernelspecs-valid or layers-secrets", "-rs")
    (counted,) = [line for line in done.stdout.splitlines() if "has no expectations   [" in line]
    assert "prefix-there" in counted
    assert "kernelspecs-valid" not in counted
    assert "  skipped the profile promises no kernels, and there are none" in done.stdout
    assert "  skipped this engine sees one file system" in done.stdout


def test_an_engine_that_cannot_start_is_an_error_and_no_failure(suite: Suite) -> None:
    suite.profile('shells = ["/bin/sh"]\n[os]\nid = "mini"\nversion = "9"\n')
    done = suite.run("-k", "test_shells or os_release", env={"PATH": "/nowhere"})
    assert done.returncode == 3
    assert "NOT JUDGED  (1 of 5; 1 error, 1 passed)" in done.stdout
    assert "FAILED" not in done.stdout
    assert "Traceback" not in done.stdout
    assert "unshare" in done.stdout


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("./no-such-directory:v1", "there is no directory"),
        ("/dev", "/dev holds no image"),
        ("BAD NAME", "is no image reference"),
        ("oci-archive:/nowhere/mini:v9", "there is no /nowhere/mini:v9"),
        ("./mini.sif", "there is no ./mini.sif"),
        ("reference:nothing", "there is no reference image"),
    ],
)
def test_a_mistake_is_one_message_and_ends_with_4(
    suite: Suite, image: str, words: str, workers: list[str]
) -> None:
    if image.startswith("./no-such"):
        done = suite.run(*workers, "--profile", "mini", image=image)
    elif "mini" in image:
        engine = "podman" if image.startswith("oci") else "apptainer"
        done = suite.run(*workers, f"--engine={engine}", image=image)
    else:
        done = suite.run(*workers, image=image)
    said = done.stdout + done.stderr
    assert done.returncode == 4, said
    assert words in said
    assert said.count(words) == 1
    assert "Traceback" not in said
    assert "INTERNALERROR" not in said


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("docker", "is an image of kind directory, which docker does not open"),
        ("sandbox,podman", "is an image of kind directory, which podman does not open"),
        ("sandbox,dokker", "there is no engine 'dokker'; known: auto, docker, podman"),
    ],
)
def test_an_engine_that_does_not_fit(suite: Suite, engine: str, words: str) -> None:
    done = suite.run("--engine", engine)
    assert done.returncode == 4
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_gpus_that_an_engine_does_not_give(suite: Suite) -> None:
    always = suite.run("--nv=always", "-k", "os_release")
    assert always.returncode == 3
    assert "NOT JUDGED" in always.stdout
    assert "The engine sandbox gives no GPU to an image." in always.stdout
    # --nv alone asks where it can be given, and takes no other word for its value.
    assert suite.run("--nv", "tests/general", "-k", "os_release").returncode == 0


def test_collect_only_asks_no_engine(suite: Suite) -> None:
    done = suite.run(*("--collect-only", "-q", "--engine", "docker,podman"), image="nobody/mini:v1")
    assert done.returncode == 0, done.stdout
    assert "[mini:v1@docker]" in done.stdout
    assert "[mini:v1@podman]" in done.stdout


def test_collect_only_needs_no_engine(suite: Suite, tmp_path: Path) -> None:
    nowhere = {"PATH": "/nowhere", "DOCKER_HOST": f"unix://{tmp_path}/none"}
    done = suite.run("--collect-only", "-q", image="nobody/mini:v1", env=nowhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[mini:v1@docker]" in done.stdout


def test_an_engine_named_twice_runs_once(suite: Suite) -> None:
    done = suite.run("--engine", "auto,sandbox", "-k", "os_release")
    assert done.returncode == 0
    assert "1 passed" in done.stdout


@pytest.mark.engine("apptainer")
def test_each_test_runs_on_each_engine(suite: Suite, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = suite.run("--engine", "sandbox", "--engine", "apptainer", f"--mlcheck-json={report}")
    assert done.returncode == 0, done.stdout
    found = json.loads(report.read_text())
    assert [image["engine"] for image in found["images"]] == ["sandbox", "apptainer"]
    outcomes = {
        image["engine"]: [
            (result["check"], result["outcome"])
            for result in found["results"]
            if result["image"] == image["id"]
        ]
        for image in found["images"]
    }
    assert outcomes["sandbox"] == outcomes["apptainer"]
    assert ("os-release", "passed") in outcomes["sandbox"]


@pytest.mark.slow
def test_an_image_stays_with_one_worker(suite: Suite, tmp_path: Path) -> None:
    """As many images as workers: each is opened and probed once."""
    others = []
    for number in range(3):
        others.append(tmp_path / f"other-{number}" / "mini:v9")
        shutil.copytree(suite.image, others[-1], symlinks=True)
    images = [f"--image={path}" for path in others]
    (suite.profiles / "mini/test_where.py").write_text(
        "import os\n"
        "def test_one(image, mlcheck_target, record_property):\n"
        "    record_property('where', f'{mlcheck_target.id} {os.getpid()}')\n"
        "def test_two(image, mlcheck_target, record_property):\n"
        "    record_property('where', f'{mlcheck_target.id} {os.getpid()}')\n"
    )
    (suite.profiles / "mini/test_where_else.py").write_text(
        (suite.profiles / "mini/test_where.py").read_text()
    )
    xml = tmp_path / "junit.xml"
    done = suite.run("-n", "2", f"--junitxml={xml}", "-k", "test_one or test_two", *images)
    assert done.returncode == 0, done.stdout
    properties = ET.parse(xml).iter("property")
    where = {str(found.get("value")) for found in properties if found.get("name") == "where"}
    assert len(where) == 4  # each image in one process, although two files ask for it
    assert len({place.rpartition(" ")[2] for place in where}) == 2


def test_collect_only_needs_no_image(suite: Suite) -> None:
    done = suite.run("--collect-only", "-q", "--profile", "mini", image="./not/there:v1")
    assert done.returncode == 0, done.stdout
    assert "test_os_release[there:v1@sandbox]" in done.stdout


def test_tests_of_other_images_are_not_collected(suite: Suite) -> None:
    done = suite.run("--collect-only", "-q")
    assert "tests/general/" in done.stdout
    assert "tests/ml-pyroot/" not in done.stdout


def test_a_profile_s_own_tests_run_on_its_images(suite: Suite) -> None:
    (suite.profiles / "mini" / "test_own.py").write_text(
        "def test_own(image):\n    assert image.rootfs.lstat('/etc/os-release') is not None\n"
    )
    done = suite.run("-k", "own or os_release")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_the_checked_in_list_of_a_profile_lies_beside_it(suite: Suite) -> None:
    promise = '[packages]\nlist = "/list.txt"\nchecked_in = "checked-in.txt"\n'
    suite.profile(promise)
    (suite.image / "list.txt").write_text("numpy 1.26.4\n")
    (suite.profiles / "mini" / "checked-in.txt").write_text("numpy 2.0.0\n")
    child = suite.profiles / "child"
    child.mkdir()
    (child / "image.toml").write_text('extends = "mini"\n')
    for arguments in ([], ["--profile", "child:v9"]):
        done = suite.run("-k", "checked_in", *arguments)
        assert done.returncode == 1, done.stdout
        assert "package-list-checked-in: numpy: 1.26.4" in done.stdout
        assert "mini/checked-in.txt:1" in done.stdout


def test_a_list_with_which_nothing_would_be_compared_is_refused(suite: Suite) -> None:
    file = suite.directory / "list.txt"
    file.write_text("numpy 2.0.0\n")
    done = suite.run("--package-list", str(file))
    assert done.returncode == 4
    assert "--package-list: the profile says nothing at packages.list" in done.stderr


@pytest.mark.slow
def test_workers_leave_no_directory_that_no_test_used(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    assert suite.run("-k", "os_release", "-n", "2").returncode == 0
    assert list(temporary.iterdir()) == []
    own = suite.profiles / "mini" / "test_own.py"
    own.write_text("def test_own(image, tmp_path):\n    (tmp_path / 'kept').touch()\n")
    assert suite.run("-k", "own or os_release", "-n", "2").returncode == 0
    assert [path.name for path in temporary.rglob("kept")] == ["kept"]


@pytest.mark.slow
def test_several_images_are_judged_side_by_side(suite: Suite) -> None:
    other = suite.directory / "images" / "mini:v10"
    other.mkdir()
    (other / "etc").mkdir()
    (other / "etc" / "os-release").write_text("ID=mini\nVERSION_ID=10\n")
    done = suite.run("--image", str(other), "-k", "os_release", "-n", "2")
    assert done.returncode == 1
    assert "mini:v9@sandbox  WHAT WAS SELECTED HOLDS" in done.stdout
    assert "mini:v10@sandbox  DOES NOT CONFORM" in done.stdout


def test_two_images_of_one_name_are_told_apart(suite: Suite) -> None:
    other = suite.directory / "elsewhere" / "mini:v9"
    (other / "etc").mkdir(parents=True)
    (other / "etc" / "os-release").write_text("ID=mini\nVERSION_ID=10\n")
    twice = ["--image", str(other), "--image", str(other)]
    done = suite.run(*twice, "-k", "os_release")
    assert done.returncode == 1
    assert f"{suite.image}@sandbox  WHAT WAS SELECTED HOLDS  (1 of 4; 1 passed)" in done.stdout
    assert f"{other}@sandbox  DOES NOT CONFORM  (1 of 4; 1 failed)" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_the_json_report_follows_its_schema(suite: Suite, workers: list[str]) -> None:
    suite.os_release("mini", "10")
    file = suite.directory / "report.json"
    suite.run("--mlcheck-json", str(file), *workers)
    report = json.loads(file.read_text())
    jsonschema.Draft202012Validator(report_schema()).validate(report)
    assert report["exit_code"] == 1
    assert report["counts"]["failed"] == 1
    assert [image["id"] for image in report["images"]] == ["mini:v9@sandbox"]
    (failed,) = [result for result in report["results"] if result["outcome"] == "failed"]
    assert failed["check"] == "os-release"
    assert failed["findings"][0]["subject"] == "VERSION_ID"
    assert failed["findings"][0]["source"].endswith("mini/image.toml:3")


def test_junit_says_which_image(suite: Suite) -> None:
    suite.os_release("mini", "10")
    file = suite.directory / "junit.xml"
    suite.run("--junitxml", str(file), "-k", "os_release or kernelspecs_valid")
    cases = list(ET.parse(file).getroot().iter("testcase"))
    assert len(cases) == 2
    assert all("[mini:v9@sandbox]" in case.attrib["name"] for case in cases)
    assert [len(case.findall("failure")) for case in cases] == [0, 1]
    assert [len(case.findall("skipped")) for case in cases] == [1, 0]


def test_what_an_image_prints_cannot_steer_the_terminal(suite: Suite) -> None:
    suite.os_release("mini\x1b[2J\x07\u202e", "9")
    done = suite.run("-k", "os_release", "--color=no")
    assert done.returncode == 1
    assert "mini\\x1b[2J\\x07\\u202e" in done.stdout
    assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["--image={}", "--image {}", "--compare {0} --image={0}"])
def test_an_image_cannot_configure_pytest(suite: Suite, form: str) -> None:
    """pytest would take the directory behind an option that it does not know yet for tests."""
    planted = suite.directory / "planted"
    evil = f"from pathlib import Path\nPath({str(planted)!r}).write_text('run')\n"
    (suite.image / "conftest.py").write_text(evil)
    (suite.image / "evil_plugin.py").write_text(evil)
    (suite.image / "pytest.ini").write_text("[pytest]\npythonpath = .\naddopts = -p evil_plugin\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", *form.format(suite.image).split()),
            *("--profiles", str(suite.profiles), "-k", "os_release"),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not planted.exists()


class Screen:
    """Stands in for pytest's terminal reporter: what is on it."""

    def __init__(self, isatty: bool) -> None:
        self.isatty = isatty
        self.lines: list[str] = [""]

    def ensure_newline(self) -> None:
        if self.lines[-1]:
            self.lines.append("")

    def write_line(self, line: str) -> None:
        self.lines[-1:] = [self.lines[-1] + line, ""]

    def rewrite(self, line: str, **_: object) -> None:
        self.lines[-1] = line


PULLING = [f"mini:v1: pulling mini:v1: {n} of 3 layers, {n} of 9 MB" for n in range(4)]


def test_progress_on_a_terminal_is_a_line_that_changes() -> None:
    screen = Screen(isatty=True)
    progress = Progress(cast(Any, screen))
    for line in [*PULLING, "other:v1: loading it into docker, once"]:
        progress(line)
    assert screen.lines == [
        f"mlcheck: {PULLING[-1]}",
        "mlcheck: other:v1: loading it into docker, once",
    ]


def test_progress_in_a_log_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    screen = Screen(isatty=False)
    progress = Progress(cast(Any, screen))
    for line in PULLING:
        progress(line)
        clock[0] += Progress.EVERY_S / 2
    progress("other:v1: loading it")
    assert screen.lines == [
        f"mlcheck: {PULLING[0]}",
        f"mlcheck: {PULLING[2]}",
        "mlcheck: other:v1: loading it",
        "",
    ]
