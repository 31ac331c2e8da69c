"""What is for other people's CI: action.yml, the template for GitLab, the workflows in docs/ci.md,
and `mlcheck matrix`. There is no runner here: a stand-in runs the scripts as they describe it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from mlcheck.model.errors import UsageError
from mlcheck.profile.catalog import SUITE, Catalog
from mlcheck.release import jobs
from selftests.checkout import CHECKOUT

BIN = Path(sys.executable).parent
ACTION = CHECKOUT / "action.yml"
GITLAB = CHECKOUT / "ci/gitlab.yml"
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
REPOSITORY = "https://git.example.org/group/suite"
REPORTS = {"report.html", "report.json", "junit.xml"}

PYTHON = f"""#!/bin/sh
# Stands in for `python3 -m venv DIR`: pip there says what it would install.
[ "$1 $2" = "-m venv" ] || exit 9
mkdir -p "$3/bin"
ln -sf {BIN}/mlcheck "$3/bin/mlcheck"
printf '#!/bin/sh\\necho "$@" >>"%s/pip"\\n' "$RUNNER" >"$3/bin/pip"
chmod +x "$3/bin/pip"
"""


def read(file: Path) -> Any:
    return YAML(typ="safe").load(file)


def valid(schema: str, file: Path) -> None:
    """Against the schema that the vendor publishes; check-jsonschema has a copy."""
    done = subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Runner:
    """A directory with an image `mini:v9` and a profile, in which scripts of CI run."""

    def __init__(self, directory: Path, rootfs: Path) -> None:
        self.work, self.directory = directory / "work", directory
        (self.work / "profiles/mini").mkdir(parents=True)
        (self.work / "profiles/mini/image.toml").write_text('[os]\nid = "mini"\nversion = "9"\n')
        shutil.copytree(rootfs, self.work / "mini:v9", symlinks=True)
        self.os_version("9")
        (directory / "bin").mkdir()
        (directory / "bin/python3").write_text(PYTHON)
        (directory / "bin/python3").chmod(0o755)
        for name in ("output", "summary"):
            (directory / name).touch()

    def os_version(self, version: str) -> None:
        release = self.work / "mini:v9/etc/os-release"
        release.write_text(f'ID="mini"\nVERSION_ID="{version}"\n')

    def script(self, text: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """As `shell: bash` of GitHub, and GitLab where there is bash."""
        kept = {name: os.environ[name] for name in ("HOME", "MLCHECK_NO_CACHE", "PYTEST_ADDOPTS")}
        file = self.directory / "script.sh"
        file.write_text(text)
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", file],
            cwd=self.work,
            env={
                **kept,
                "PATH": f"{self.directory}/bin:{os.environ['PATH']}",
                "RUNNER": str(self.directory),
                "CI": "true",
                **env,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def action(self, **inputs: str) -> subprocess.CompletedProcess[str]:
        """Run the steps of action.yml that are scripts, until one fails; the last one's end."""
        action = read(ACTION)
        given = {
            name: inputs.get(name, one.get("default", "")) for name, one in action["inputs"].items()
        }
        for step in action["runs"]["steps"]:
            if "run" not in step:
                continue
            env = {
                name: EXPRESSION.sub(lambda found: given[found[1].removeprefix("inputs.")], text)
                for name, text in step.get("env", {}).items()
            }
            env |= {
                "GITHUB_ACTIONS": "true",
                "GITHUB_ACTION_PATH": str(CHECKOUT),
                "GITHUB_OUTPUT": str(self.directory / "output"),
                "GITHUB_STEP_SUMMARY": str(self.directory / "summary"),
                "GITHUB_WORKSPACE": str(self.work),
                "RUNNER_TEMP": str(self.directory),
            }
            done = self.script(step["run"], env)
            if done.returncode:
                break
        return done

    def output(self) -> dict[str, str]:
        lines = (self.directory / "output").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def gitlab(
        self, repository: str = REPOSITORY, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return self.gitlab_job(".mlcheck", repository, **variables)

    def gitlab_job(
        self, extends: str, repository: str = REPOSITORY, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a job that extends one of the template's."""
        template = read(GITLAB)
        job: dict[str, Any] = template[extends]
        defaults: dict[str, str] = {}
        while True:
            defaults = {**job.get("variables", {}), **defaults}
            if "extends" not in job:
                break
            job = template[job["extends"]]
        (script,) = job["script"]
        settings = {"MLCHECK_REPOSITORY": repository} if repository else {}
        return self.script(script, {**defaults, **settings, **variables})


@pytest.fixture
def runner(tmp_path: Path, tiny_rootfs: Path) -> Runner:
    return Runner(tmp_path, tiny_rootfs)


def test_the_action_is_valid() -> None:
    valid("github-actions", ACTION)
    action = read(ACTION)
    used = set(re.findall(r"inputs\.([\w-]+)", ACTION.read_text()))
    assert used == set(action["inputs"]), "an input that nothing uses, or one that there is not"
    for step in action["runs"]["steps"]:
        assert "${{" not in step.get("run", ""), "what users write would become part of a script"


@pytest.mark.slow
def test_the_action_judges_and_reports(runner: Runner) -> None:
    options = "-k=os-release or test_no_such\n--network\n"
    done = runner.action(images="./mini:v9", profiles="profiles", options=options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mini:v9@sandbox  WHAT WAS SELECTED HOLDS  (1 of 4; 1 passed" in done.stdout
    reports = Path(runner.output()["reports"])
    assert {file.name for file in reports.iterdir()} == {*REPORTS, "report.sarif"}
    assert json.loads((reports / "report.json").read_text())["counts"]["passed"] == 1
    assert (runner.directory / "pip").read_text() == f"install --quiet {CHECKOUT}\n"
    assert "WHAT WAS SELECTED HOLDS" in (runner.directory / "summary").read_text()
    runner.os_version("10")
    again = runner.action(images="./mini:v9", profiles="profiles", options=options)
    assert again.returncode == 1
    assert re.search(r"^::error .*file=profiles/mini/image\.toml,line=3", again.stdout, re.M)
    assert Path(runner.output()["reports"]) != reports, "the first report would be lost"


HOSTILE = "$(touch${IFS}pwned) `touch pwned` ;touch${IFS}pwned; * ' \" --help &"


@pytest.mark.slow
def test_what_is_given_to_the_action_is_no_script(runner: Runner) -> None:
    for given in ({"images": HOSTILE}, {"images": "./mini:v9", "engine": HOSTILE}):
        assert runner.action(**given).returncode == 4, given
    assert runner.action(images="./mini:v9", profiles=HOSTILE).returncode == 4
    assert runner.action(images="./mini:v9", options=f"--nonsense={HOSTILE}").returncode == 4
    for done in (runner.action(images="*"), runner.action(images="x", options="*")):
        assert "'*'" in done.stderr, "a pattern for files"
    assert sorted(entry.name for entry in runner.work.iterdir()) == ["mini:v9", "profiles"]


@pytest.mark.slow
def test_several_images_and_none(runner: Runner) -> None:
    shutil.copytree(runner.work / "mini:v9", runner.work / "mini:v8", symlinks=True)
    both = "./mini:v9\n  ./mini:v8 "
    done = runner.action(images=both, profiles="profiles", options="-k=os-release")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mini:v8@sandbox  WHAT WAS SELECTED HOLDS" in done.stdout
    assert "mini:v9@sandbox  WHAT WAS SELECTED HOLDS" in done.stdout
    done = runner.action(images=" ")
    assert (done.returncode, "no image was given" in done.stderr) == (4, True)


@pytest.mark.slow
def test_the_template_for_gitlab(runner: Runner) -> None:
    valid("gitlab-ci", GITLAB)
    options = "--profiles=profiles\n-k=os-release or test_no_such"
    done = runner.gitlab(MLCHECK_IMAGES="./mini:v9", MLCHECK_OPTIONS=options)
    assert done.returncode == 0, done.stdout + done.stderr
    written = {file.name for file in (runner.work / "mlcheck-reports").iterdir()}
    assert written == {*REPORTS, "gl-code-quality.json"}
    assert (runner.directory / "pip").read_text() == f"install --quiet git+{REPOSITORY}\n"
    runner.os_version("10")
    assert runner.gitlab(MLCHECK_IMAGES="./mini:v9", MLCHECK_OPTIONS=options).returncode == 1
    assert runner.gitlab(MLCHECK_IMAGES=HOSTILE).returncode == 4
    assert not list(runner.directory.rglob("pwned"))


@pytest.mark.slow
def test_a_release_on_gitlab(runner: Runner, tmp_path: Path) -> None:
    """Each job of the child pipeline, then the one that joins, with and without a lost report."""
    with (runner.work / "profiles/mini/image.toml").open("a") as profile:
        profile.write(
            "[tags]\npattern = 'v\\d'\nexamples = ['v8', 'v9']\n"
            "[published]\nregistry = 'example.org/me/{name}:{tag}'\n"
        )
    shutil.copytree(runner.work / "mini:v9", runner.work / "mini:v8", symlinks=True)
    words = ["matrix", "mini", "--engine=sandbox", "--profiles=profiles", "--gitlab=ci/mlcheck.yml"]
    told = subprocess.run(
        [BIN / "mlcheck", *words], cwd=runner.work, capture_output=True, text=True, check=True
    )
    file = tmp_path / ".gitlab-ci.yml"
    file.write_text(told.stdout)
    valid("gitlab-ci", file)
    pipeline = read(file)
    assert pipeline["include"] == [{"local": "/ci/mlcheck.yml"}]
    names = [name for name in pipeline if name not in ("include", "stages", "report")]
    assert names == ["mini-v8-sandbox", "mini-v9-sandbox"]
    for name in names:
        variables = dict(pipeline[name]["variables"])
        variables["MLCHECK_IMAGES"] = f"./{variables['MLCHECK_IMAGES']}"  # not in a registry
        variables["MLCHECK_OPTIONS"] = "--profiles=profiles"
        done = runner.gitlab_job(pipeline[name]["extends"], **variables)
        assert done.returncode == 0, done.stdout + done.stderr
    joining = pipeline["report"]
    joined = runner.gitlab_job(joining["extends"], **joining["variables"])
    assert joined.returncode == 0, joined.stderr
    assert "mini:v8@sandbox" in (runner.work / "all.html").read_text()
    (runner.work / "mlcheck-reports/mini-v8-sandbox/report.json").unlink()
    lost = runner.gitlab_job(joining["extends"], **joining["variables"])
    assert (lost.returncode, "no report of mini:v8 on sandbox" in lost.stderr) == (3, True)
    assert json.loads((runner.work / "all.json").read_text())["counts"]["error"] == 1


def test_images_for_gpus_get_runners_with_one(capsys: pytest.CaptureFixture[str]) -> None:
    from mlcheck.cli import main as cli

    assert cli.main(["matrix", "ml-t*:alma9-*", "--gitlab", "/ci/mlcheck.yml"]) == 0
    pipeline = json.loads(capsys.readouterr().out)
    extended = {name: job["extends"] for name, job in pipeline.items() if name.startswith("ml-")}
    assert {name: "gpu" in name for name in extended} == {
        name: template == ".mlcheck-gpu" for name, template in extended.items()
    }
    assert len(set(extended.values())) == 2


def test_the_template_for_gitlab_installs_what_is_named(runner: Runner) -> None:
    """And nothing that somebody else has put under mlcheck's name into an index."""
    done = runner.gitlab("")
    assert (done.returncode, "MLCHECK_REPOSITORY" in done.stderr) != (0, True)
    assert "set it to the URL of the git repository of mlcheck" in done.stderr
    assert not (runner.directory / "pip").exists()
    assert runner.gitlab("", MLCHECK_SOURCE="./mlcheck.whl", MLCHECK_IMAGES="*").returncode == 4
    assert (runner.directory / "pip").read_text() == "install --quiet ./mlcheck.whl\n"


def workflows() -> list[tuple[str, str]]:
    """The YAML in docs/ci.md, each with the file that its first line names."""
    blocks = re.findall(r"```yaml\n# (\S+)\n(.*?)```", (CHECKOUT / "docs/ci.md").read_text(), re.S)
    return [(name, text) for name, text in blocks]


@pytest.mark.parametrize(("name", "text"), workflows(), ids=[name for name, _ in workflows()])
def test_the_workflows_in_the_docs_are_valid(name: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / Path(name).name
    file.write_text(text)
    valid("gitlab-ci" if "gitlab" in name else "github-workflows", file)
    inputs = read(ACTION)["inputs"]
    for job in read(file).get("jobs", {}).values():
        for step in job.get("steps", ()):
            assert "${{" not in step.get("run", "")
            if step.get("uses") == "./mlcheck":
                assert set(step["with"]) <= set(inputs)
    variables = read(GITLAB)[".mlcheck"]["variables"]
    for job in (one for one in read(file).values() if isinstance(one, dict)):
        if job.get("extends") == ".mlcheck":
            assert {key for key in job["variables"] if "MLCHECK" in key} <= set(variables)


def test_there_are_workflows_in_the_docs() -> None:
    assert len(workflows()) >= 3


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Profiles of our own before those of the suite."""
    own = tmp_path_factory.mktemp("profiles")
    (own / "mine").mkdir()
    (own / "mine/image.toml").write_text(
        "[tags]\npattern = 'v\\d'\nexamples = ['v1', 'v2']\n"
        "[published]\nregistry = 'example.org/me/{name}:{tag}'\n"
        "[framework]\nmodule = 'torch'\ncuda = '12'\n"
    )
    return Catalog([own, SUITE])


def test_matrix(catalog: Catalog) -> None:
    found = list(jobs.published(catalog, ["mine"], ["docker", "podman"]))
    assert [(job.image, job.engine) for job in found] == [
        ("mine:v1", "docker"),
        ("mine:v1", "podman"),
        ("mine:v2", "docker"),
        ("mine:v2", "podman"),
    ]
    assert found[0] == jobs.Job(
        "mine:v1", "mine", "v1", "example.org/me/mine:v1", "docker", True, "mine-v1-docker"
    )
    gpu = {job.name: job.gpu for job in jobs.published(catalog, [], ["auto"])}
    assert (gpu["ml-torch-gpu"], gpu["ml-tensorflow-cpu"], gpu["ml-base"]) == (True, False, False)
    some = [job.image for job in jobs.published(catalog, ["*:alma9-*", "min?:v2"], ["auto"])]
    assert {image.partition(":")[2].partition("-")[0] for image in some} == {"alma9", "v2"}


@pytest.mark.parametrize(
    ("patterns", "engine", "words"), [(["mine:v3"], "auto", "mine:v3"), ([], "dock", "'dock'")]
)
def test_a_slip_is_no_empty_matrix(
    catalog: Catalog, patterns: list[str], engine: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        list(jobs.published(catalog, patterns, [engine]))


@pytest.mark.slow
def test_matrix_for_github() -> None:
    """One line, as $GITHUB_OUTPUT wants it, whose value is what fromJSON makes a matrix of."""
    program = [str(BIN / "mlcheck"), "matrix", "ml-t*", "--engine", "docker,podman"]
    done = subprocess.run([*program, "--github"], capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    name, _, value = line.partition("=")
    plain = subprocess.run([*program, "--json"], capture_output=True, text=True, check=True)
    jobs = json.loads(plain.stdout)["jobs"]
    assert (name, json.loads(value)) == ("matrix", {"include": jobs})
    assert len({job["slug"] for job in jobs}) == len(jobs) == 18
    assert all(re.fullmatch(r"[\w.-]+", job["slug"]) for job in jobs)


def test_more_jobs_than_github_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlcheck.cli.matrix.GITHUB_LIMIT", 16)
    from mlcheck.cli import main as cli

    assert cli.main(["matrix", "--json"]) == 0
    assert cli.main(["matrix", "--github"]) == 4
