"""`mlcheck release` on one machine: the whole way, and the ways in which it may end."""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Scheduler, SpecCluster, Worker

from mlcheck import DISTRIBUTION
from mlcheck.cli import main as cli
from mlcheck.release import where
from selftests.releases import Site
from selftests.waiting import LIMIT_S, eventually


@pytest.fixture
def site(tmp_path: Path, tiny_rootfs: Path) -> Iterator[Site]:
    with contextlib.closing(Site(tmp_path, tiny_rootfs, "one", "bad-two", "gpu-three")) as made:
        yield made


def ended(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


@pytest.mark.slow
def test_a_release_says_what_a_check_says(site: Site) -> None:
    done = site.release(*site.all_images(), "--engine=sandbox")
    assert done.returncode == 1, done.stdout
    assert site.started() == {"one": 1, "bad-two": 1, "gpu-three": 1}
    words = [*site.all_images(), "--engine=sandbox", "-p", "no:cacheprovider"]
    subprocess.run(
        [sys.executable, "-m", "mlcheck.cli", "check", *words, "--mlcheck-json=check.json"],
        cwd=site.path,
        env=site.environment(),
        capture_output=True,
        check=False,
    )
    assert site.outcomes("release/report.json") == site.outcomes("check.json")
    assert site.verdicts() == site.verdicts("check.json")
    for name in ("report.html", "junit.xml", "report.md", "one-v1-sandbox.json"):
        assert (site.path / "release" / name).stat().st_size
    assert "bad-two:v1@sandbox  DOES NOT CONFORM" in done.stdout
    assert "mlcheck: [3/3]" in done.stdout
    assert not [*site.tmp.iterdir()]
    again = site.release(*site.all_images())
    assert again.returncode == 4
    assert "a release is in it already" in again.stdout
    resumed = site.release("--resume")
    assert resumed.returncode == 1, resumed.stdout
    assert site.started()["one"] == 2  # by the check: nothing was judged again


@pytest.mark.slow
def test_who_is_killed_is_tried_again_and_who_hangs_is_an_error(site: Site) -> None:
    site.hold("one")
    site.hold("gpu-three")
    process = site.begin(
        *site.all_images(), "--engine=sandbox", "--retries=1", "--job-limit=30s", "--workers=1"
    )
    site.has_started("one")
    os.kill(site.pids("one")[0], signal.SIGKILL)
    site.let_go("one")
    site.has_started("gpu-three")
    os.kill(site.pids("gpu-three")[0], signal.SIGKILL)
    site.has_started("gpu-three", 2)
    os.kill(site.pids("gpu-three")[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "not judged: 1 of 3 jobs" in output
    assert "gpu-three:v1 sandbox: tried 2 times; the last time: killed by signal 9" in output
    assert site.verdicts() == {
        "one": "CONFORMS",
        "bad-two": "DOES NOT CONFORM",
        "gpu-three": "NOT JUDGED",
    }
    site.let_go("gpu-three")
    resumed = site.release("--resume")
    assert resumed.returncode == 1, resumed.stdout
    assert "3 jobs on local, 2 judged before" in resumed.stdout
    assert site.verdicts()["gpu-three"] == "DOES NOT CONFORM"
    assert site.started() == {"one": 2, "bad-two": 1, "gpu-three": 3}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_lost_when_it_is_ended(site: Site, number: int) -> None:
    site.hold("gpu-three")
    process = site.begin(*site.all_images(), "--engine=sandbox", "--workers=2")
    kept = [site.path / f"release/{name}-v1-sandbox.json" for name in ("one", "bad-two")]
    assert eventually(lambda: all(file.exists() for file in kept))
    site.has_started("gpu-three")
    other = site.release("--resume")
    assert other.returncode == 4
    assert f"a release is at work in it ({os.uname().nodename}, process" in other.stdout
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=120)
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert "mlcheck release --resume --to release judges the rest" in output
        assert "Traceback" not in output
    (pid,) = site.pids("gpu-three")
    assert eventually(lambda: ended(pid))
    site.let_go("gpu-three")
    resumed = site.release("--resume")
    assert resumed.returncode == 1, resumed.stdout
    assert site.started() == {"one": 1, "bad-two": 1, "gpu-three": 2}
    assert len(site.verdicts()) == 3
    assert eventually(lambda: not [*site.tmp.iterdir()]), [*site.tmp.iterdir()]


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    """The address of a scheduler that is there already, with workers in this process: one has a
    GPU, as it says."""
    how = {"nthreads": 1, "dashboard": False, "memory_limit": 0, "host": "127.0.0.1"}
    specs = {
        "plain": {"cls": Worker, "options": how},
        "with-gpu": {"cls": Worker, "options": {**how, "resources": {"GPU": 1}}},
    }
    here = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False}}
    with (
        dask.config.set({"temporary-directory": str(tmp_path / "dask")}),
        SpecCluster(workers=specs, scheduler=here) as cluster,
    ):
        yield str(cluster.scheduler_address)


def until(process: subprocess.Popen[str], words: str) -> str:
    """What a release says, up to a line with these words."""
    late = threading.Timer(LIMIT_S, process.kill)
    late.start()
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            break
    late.cancel()
    assert words in said, said
    return said


@pytest.mark.slow
def test_the_workers_of_a_scheduler_that_is_there(site: Site, scheduler: str) -> None:
    site.hold("one")
    process = site.begin(*site.all_images(), "--engine=sandbox", f"--on={scheduler}")
    said = until(process, "gpu-three:v1 sandbox: DOES NOT CONFORM")
    site.has_started("one")
    os.kill(process.pid, signal.SIGINT)
    output = said + process.communicate(timeout=120)[0]
    assert process.returncode == 130, output
    assert eventually(lambda: ended(site.pids("one")[0]))
    site.let_go("one")
    resumed = site.release("--resume")
    assert resumed.returncode == 1, resumed.stdout
    assert "on with-gpu (127.0.0.1))" in output
    assert site.started()["one"] == 2
    assert site.started()["gpu-three"] == 1


# The rest needs no process


def release(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.main(["release", *words])
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no image was given"),
        (["./none:v1"], "there is no directory"),
        (["ml-pyrot*"], "names no published image"),
        (["me/x:v1", "--on", "slurmm"], "neither a batch system nor the address of a scheduler"),
        (["--resume"], "no release in it to go on with"),
        (["--resume", "me/x:v1"], "the images and the options of the suite are those of"),
        (["--resume", "-k", "x"], "the images and the options of the suite are those of"),
        (["me/x:v1", "--profiles", "none"], "none"),
        (["me/x:v1", "--waivers", "none"], "there is no such file"),
        (["me/x:v1", "--profile", "none"], "there is no profile 'none'"),
    ],
)
def test_mistakes(
    words: Sequence[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, told = release(*words, capsys=capsys)
    assert code == 4, told
    assert says in told
    assert not (tmp_path / "release/release.json").exists()


@pytest.mark.parametrize(
    "words",
    [["--job-limit", "2"], ["--job-limit", "0h"], ["--retries", "-1"], ["--workers", "0"]],
)
def test_numbers_that_are_none(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["release", "all", *words])
    assert stopped.value.code == 4
    assert "is no" in capsys.readouterr().err


def test_without_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] in ("dask", "distributed", "dask_jobqueue"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mlcheck.release.where")
    monkeypatch.delattr("mlcheck.release.where")
    monkeypatch.setattr(builtins, "__import__", without)
    code, _, told = release("me/x:v1", "--on", "slurm", capsys=capsys)
    assert code == 4
    assert f"pip install '{DISTRIBUTION}[cluster]'" in told


SETTINGS: Mapping[str, Any] = {"cores": 1, "memory": "4GB", "walltime": "01:00:00"}

EXPECTED = {
    "slurm": ["#SBATCH -n 1", "#SBATCH --mem=4G", "#SBATCH -t 01:00:00", "#SBATCH --gres=gpu:1"],
    "htcondor": ["RequestCpus = MY.DaskWorkerCores", "request_gpus = 1", "Executable = /bin/sh"],
    "pbs": ["#PBS -l select=1:ncpus=1:mem=3815MB", "#PBS -l walltime=01:00:00", "#PBS -l ngpus=1"],
    "sge": ["#$ -l h_rt=01:00:00", "#$ -l gpu=1"],
    "lsf": ["#BSUB -n 1", "#BSUB -W 01:00", "#BSUB -gpu num=1"],
    "oar": ["#OAR -l /nodes=1/core=1,walltime=01:00:00", "#OAR -p gpu=1"],
}
"""Lines of what is submitted. Only Slurm is tried for real (test_slurm.py): the others are in no
package that the self-tests could have."""

GPU_LINES = {"pbs": "-l ngpus=1", "oar": "-p gpu=1"}


@pytest.mark.parametrize("system", EXPECTED)
def test_what_is_submitted(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    more = {"disk": "10GB"} if system == "htcondor" else {}
    line = GPU_LINES.get(system)
    words = ["ml-base:alma9-*", "ml-torch-gpu:alma9-*", "--on", system, "--dry-run"]
    with dask.config.set({f"jobqueue.{system}": section(system, **more)}):
        if line is not None:
            code, _, told = release(*words, capsys=capsys)
            assert code == 4
            assert "--gpu-directive" in told
            words.append(f"--gpu-directive={line}")
        code, shown, told = release(*words, capsys=capsys)
    assert code == 0, told
    first, *scripts = shown.split("\n\n", 1)
    assert first.splitlines()[0].startswith("ml-")
    for expected in EXPECTED[system]:
        assert expected in scripts[0], scripts[0]
    assert f"--tls-ca-file {tmp_path}/release/workers/" in scripts[0]
    assert not [*tmp_path.iterdir()]


def section(system: str, **more: Any) -> dict[str, Any]:
    """The settings of a batch system, with dask-jobqueue's defaults for the rest."""
    settings = dict(SETTINGS)
    if system == "htcondor":
        del settings["walltime"]
    return {**dask.config.get(f"jobqueue.{system}"), **settings, **more}


def test_settings_that_do_not_suffice_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, told = release("me/x:v1", "--on", "slurm", "--dry-run", capsys=capsys)
    assert code == 4
    assert "~/.config/dask/jobqueue.yaml" in told


def test_where_nobody_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(where, "_ANSWER_LIMIT_S", 1)
    code, _, told = release("me/x:v1", "--on", "tcp://127.0.0.1:9", capsys=capsys)
    assert code == 3
    assert "no scheduler of Dask answers there" in told


def test_the_settings_of_the_directory_count(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (site.path / "mlcheck.toml").write_text(
        'profiles = ["profiles"]\nengine = ["sandbox"]\noutput = ["html=x.html"]\nnv = "auto"\n'
    )
    monkeypatch.chdir(site.path)
    code, shown, told = release("./gpu-three:v1", "./one:v1", "--dry-run", capsys=capsys)
    assert code == 0, told
    assert "gpu-three:v1  sandbox  GPU" in shown
    assert json.dumps("options of mlcheck.toml")[1:-1] in told
