"""Reports as a run of the suite writes them, and what GitHub's runner makes of its output."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from mlcheck.report import github, gitlab, html, reading, sarif
from selftests.junit_schema import breaches
from selftests.reports import HOSTILE
from selftests.unit.pytest_plugin.test_plugin import Suite
from selftests.unit.report.test_reports import parsed


@pytest.fixture
def suite(tmp_path: Path, tiny_rootfs: Path) -> Suite:
    """A small image, with a test of its own that finds HOSTILE in it and prints it."""
    suite = Suite(tmp_path, tiny_rootfs)
    (suite.profiles / "mini" / "test_hostile.py").write_text(
        "from mlcheck import Finding, Verdict, judged, rule\n"
        "from mlcheck.model.verdict import Source\n"
        f"HOSTILE = {HOSTILE!r}\n"
        "@rule('hostile')\n"
        "def test_hostile() -> Verdict:\n"
        "    '''Nothing is hostile.\n\n    Why: Some are.\n\n    Fix: Be kind.\n    '''\n"
        "    print(HOSTILE)\n"
        f"    source = Source({str(suite.profiles / 'mini' / 'image.toml')!r}, 2)\n"
        "    return judged(1, [Finding(HOSTILE, HOSTILE, HOSTILE, source)], [HOSTILE])\n"
    )
    return suite


def obeyed(output: str) -> list[tuple[str, dict[str, str], str]]:
    """The commands that GitHub's runner obeys (ActionCommandManager.TryProcessCommand): lines that
    begin with two colons behind spaces, and what is behind ##[ anywhere; none of them between
    stop-commands and its token."""
    token = None
    found = []
    for line in output.splitlines():
        text = line.lstrip()
        if token is not None:
            if text == f"::{token}::":
                token = None
        elif text.startswith("::stop-commands::"):
            token = text.removeprefix("::stop-commands::")
        elif text.startswith("::") and "::" in text[2:]:
            found.append(parsed(text))
        elif "##[" in line:
            found.append((line, {}, ""))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("more", [["-s", "-rA", "-vv"], ["-n", "2"]], ids=" ".join)
def test_a_run_on_github_prints_annotations_and_no_other_commands(
    suite: Suite, more: list[str]
) -> None:
    summary = suite.directory / "summary.md"
    env = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(suite.directory),
        "GITHUB_STEP_SUMMARY": str(summary),
    }
    done = suite.run("-k", "hostile or os-release", *more, env=env)
    assert done.returncode == 1
    assert HOSTILE.splitlines()[2] in done.stdout, "nothing hostile was printed"
    ((name, properties, message),) = obeyed(done.stdout)
    assert name == "error"
    assert properties == {
        "file": "profiles/mini/image.toml",
        "line": "2",
        "title": "hostile: mini:v9@sandbox",
    }
    assert "fix: Be kind." in message
    assert obeyed(done.stderr) == []
    assert "Be kind" in summary.read_text()


def test_findings_without_an_end(suite: Suite) -> None:
    """Every report of a run is bounded, and tells their true number."""
    (suite.profiles / "mini" / "test_endless.py").write_text(
        "from mlcheck import Finding, Verdict, judged, rule\n"
        "@rule('endless')\n"
        "def test_endless() -> Verdict:\n"
        "    '''Nothing is endless.\n\n    Why: Some are.\n\n    Fix: Stop.\n    '''\n"
        "    text = 'x' * 50_000\n"
        "    many = [Finding(f'{number}{text}', text, text) for number in range(1500)]\n"
        "    return judged(1500, many, [text] * 100)\n"
    )
    files = {kind: suite.directory / f"report.{kind}" for kind in ("json", "html", "xml")}
    done = suite.run(
        *("-k", "endless", "--html", str(files["html"])),
        *("--mlcheck-json", str(files["json"]), "--junitxml", str(files["xml"])),
    )
    assert done.returncode == 1
    assert len(done.stdout) < 500_000
    assert "(and 1499 more)" in done.stdout
    assert all(file.stat().st_size < 20_000_000 for file in files.values())
    (result,) = reading.read(files["json"]).results
    assert len(result.findings) + result.findings_left_out == 1500
    assert len(result.findings) <= 1000


def test_a_run_elsewhere_prints_nothing_for_github(suite: Suite) -> None:
    summary = suite.directory / "summary.md"
    done = suite.run("-k", "os-release", env={"GITHUB_STEP_SUMMARY": str(summary)})
    assert done.returncode == 0
    assert "::" not in done.stdout
    assert not summary.exists()


def test_all_reports_of_one_run_say_the_same(suite: Suite) -> None:
    files = {kind: suite.directory / f"report.{kind}" for kind in ("json", "html", "xml", "sarif")}
    done = suite.run(
        *("-k", "hostile or os-release or kernelspecs-valid", "--html", str(files["html"])),
        *("--mlcheck-json", str(files["json"]), "--junitxml", str(files["xml"])),
        *("--output", f"sarif={files['sarif']}", "--output", "gitlab"),
    )
    assert done.returncode == 1
    report = reading.read(files["json"])
    assert files["sarif"].read_text(encoding="utf-8") == sarif.document(report)
    assert done.stdout == gitlab.document(report), "more than the report is on standard output"
    assert "DOES NOT CONFORM" in done.stderr
    assert {result.outcome for result in report.results} == {"passed", "failed", "skipped"}
    assert report.machine
    assert files["html"].read_text(encoding="utf-8") == html.page(report)
    document = files["xml"].read_text(encoding="utf-8")
    assert breaches(document) == []
    (failure,) = ET.fromstring(document).iter("failure")
    assert "hostile: </script>" in (failure.get("message") or "")
    assert "fix       Be kind." in (failure.text or "")


@pytest.mark.parametrize(
    ("option", "path", "words"),
    [
        ("--html", "/no/such/dir/report", "its directory does not exist"),
        ("--mlcheck-json", "/tmp", "that is a directory"),
        ("--output", "sarrif", "there is no format 'sarrif'. Did you mean 'sarif'?"),
    ],
)
def test_a_report_that_cannot_be_written_is_a_mistake_before_the_start(
    suite: Suite, option: str, path: str, words: str
) -> None:
    done = suite.run(option, path)
    assert done.returncode == 4
    assert f"{option} {path}: {words}" in done.stdout + done.stderr
    assert "starting" not in done.stdout


def test_a_full_disk_is_an_error_beside_the_verdict(suite: Suite) -> None:
    done = suite.run("-k", "os-release", "--html", "/dev/full")
    assert done.returncode == 3
    assert "/dev/full: No space left on device" in done.stdout + done.stderr
    assert "WHAT WAS SELECTED HOLDS" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_html_is_pytest_htmls_option_if_that_is_installed(suite: Suite) -> None:
    """pytest-html has the same option; ours then has only its longer name."""
    other = suite.directory / "site"
    (other / "standin-1.dist-info").mkdir(parents=True)
    (other / "standin-1.dist-info" / "METADATA").write_text("Name: standin\nVersion: 1\n")
    (other / "standin-1.dist-info" / "entry_points.txt").write_text("[pytest11]\nhtml = standin\n")
    (other / "standin.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--html', dest='htmlpath')\n"
    )
    env = {"PYTHONPATH": f"{other}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    theirs, ours = suite.directory / "theirs", suite.directory / "ours"
    done = suite.run(
        "-k", "os-release", "--html", str(theirs), "--mlcheck-html", str(ours), env=env
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ours.exists()
    assert not theirs.exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_progress_names_each_image(suite: Suite, workers: list[str]) -> None:
    other = suite.directory / "images" / "mini:v8"
    other.symlink_to(suite.image)
    arguments = ["-k", "os-release", "--image", str(other), *workers]
    done = suite.run(*arguments)
    told = [line for line in done.stdout.splitlines() if "starting and checking" in line]
    assert len(told) == 2
    assert {line.split()[4] for line in told} == {"mini:v9@sandbox", "mini:v8@sandbox"}
    assert [line.partition("   ")[2] for line in told] == ["(1 of 2)", "(2 of 2)"]
    assert "2 images: 2 hold as far as selected" in done.stdout


def test_quiet_leaves_out_progress(suite: Suite) -> None:
    assert "starting" not in suite.run("-k", "os-release", "-q").stdout


def test_the_job_summary_is_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs of the job's step write there too."""
    file = tmp_path / "summary.md"
    file.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    from selftests import reports

    assert github.add_summary(reports.small())
    assert file.read_text().startswith("before\n## mlcheck")
    assert json.dumps(file.read_text()).count("## mlcheck") == 1
