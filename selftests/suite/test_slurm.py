"""A release by Slurm, with two nodes on this machine: also with workers, nodes and a client that
end in the middle of it. HTCondor, PBS, SGE, LSF and OAR are not tried: what is submitted to them is
compared in `unit/cli/test_release.py`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from selftests import slurm
from selftests.releases import Site
from selftests.slurm import Slurm
from selftests.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.root_only]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if reason := slurm.missing():
        pytest.skip(reason)
    with slurm.running(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def site_of(tmp_path: Path, tiny_rootfs: Path) -> Iterator[Callable[..., Site]]:
    """Makes a site with images of these names."""
    with contextlib.ExitStack() as stack:

        def make(*names: str) -> Site:
            (tmp_path / "site").mkdir()
            return stack.enter_context(
                contextlib.closing(Site(tmp_path / "site", tiny_rootfs, *names))
            )

        yield make


ON_SLURM = ("--on=slurm", "--engine=sandbox", "--retries=5")


def worker_of(pid: int) -> int:
    """The worker of Dask that has started a process."""
    (parent,) = [
        line.split()[1]
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("PPid:")
    ]
    return int(parent)


def test_a_release_says_what_a_check_says(cluster: Slurm, site_of: Callable[..., Site]) -> None:
    names = ["one", "two", "three", "four", "five", "bad-six", "gpu-seven", "gpu-eight"]
    site = site_of(*names)
    words = [*site.all_images(), "--workers=2"]
    done = site.release(*words, *ON_SLURM, env=cluster.environment)
    assert done.returncode == 1, done.stdout
    assert eventually(lambda: not cluster.jobs()), cluster.jobs()
    assert site.started() == dict.fromkeys(names, 1), done.stdout
    assert set(site.nodes("gpu-seven") + site.nodes("gpu-eight")) == {"n2"}
    checked = [*site.all_images(), "--engine=sandbox", "--nv", "-p", "no:cacheprovider"]
    subprocess.run(
        [sys.executable, "-m", "mlcheck.cli", "check", *checked, "--mlcheck-json=check.json"],
        cwd=site.path,
        env=site.environment(),
        capture_output=True,
        check=False,
    )
    assert site.outcomes("release/report.json") == site.outcomes("check.json")
    assert site.verdicts() == site.verdicts("check.json")
    assert not [*site.path.glob("release/workers/mlcheck-keys-*")]
    assert not [*site.tmp.iterdir()]


def test_jobs_that_slurm_refuses_end_the_release(
    cluster: Slurm, site_of: Callable[..., Site]
) -> None:
    site = site_of("one")
    refused = site.release(*site.all_images(), *ON_SLURM, env=cluster.with_workers(1, "none"))
    assert refused.returncode == 3, refused.stdout
    assert "the batch system takes no job" in refused.stdout
    assert "invalid partition specified: none" in refused.stdout
    assert "Traceback" not in refused.stdout
    resumed = site.release("--resume", env=cluster.environment)
    assert resumed.returncode == 0, resumed.stdout
    assert site.started() == {"one": 1}


def test_a_worker_is_killed_and_a_node_set_down(
    cluster: Slurm, site_of: Callable[..., Site]
) -> None:
    site = site_of("one", "two", "three")
    for name in ("one", "two"):
        site.hold(name)
    process = site.begin(*site.all_images(), *ON_SLURM, "--workers=2", env=cluster.environment)
    site.has_started("one")
    os.kill(worker_of(site.pids("one")[0]), signal.SIGKILL)
    site.has_started("one", 2)
    site.has_started("two")
    node = site.nodes("two")[0]
    cluster.set_state(node, "down")
    try:
        site.let_go("one")
        site.has_started("two", 2)
        assert site.nodes("two")[1] != node
        site.let_go("two")
        output, _ = process.communicate(timeout=120)
    finally:
        cluster.set_state(node, "resume")
    assert process.returncode == 0, output
    assert set(site.verdicts().values()) == {"CONFORMS"}
    judged = [line["job"] for line in site.journal() if not line["why"]]
    assert sorted(judged) == ["one-v1-sandbox", "three-v1-sandbox", "two-v1-sandbox"]
    assert eventually(lambda: not cluster.jobs()), cluster.jobs()


def test_a_node_dies_and_the_client_is_killed_and_resumed(
    tmp_path: Path, site_of: Callable[..., Site]
) -> None:
    if reason := slurm.missing():
        pytest.skip(reason)
    with slurm.running(tmp_path / "slurm") as cluster:
        site = site_of("one", "two")
        site.hold("one")
        words = (*site.all_images(), *ON_SLURM, "--workers=1")
        process = site.begin(*words, env=cluster.with_workers(2))
        site.has_started("one")
        cluster.end_node(site.nodes("one")[0])
        site.has_started("one", 2)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=120)
        assert eventually(cluster.is_done), cluster.jobs()
        site.let_go("one")
        resumed = site.release("--resume", env=cluster.with_workers(2))
        assert resumed.returncode == 0, resumed.stdout
        assert set(site.verdicts().values()) == {"CONFORMS"}
        judged = [line["job"] for line in site.journal() if not line["why"]]
        assert sorted(judged) == ["one-v1-sandbox", "two-v1-sandbox"]
        assert cluster.is_done()
