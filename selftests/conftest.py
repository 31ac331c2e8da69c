"""Fixtures that several self-tests share."""

from __future__ import annotations

import functools
import os
import shutil
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from mlcheck import cache
from mlcheck.engines import select
from selftests import images

# The same examples in each run, whatever the load of the machine.
hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("repeatable")

_PROGRAMS = ["sh", "bash", "true", "cat", "echo", "sleep", "ls", "id", "env", "head", "yes"]
_PROGRAMS += ["mkdir", "touch", "mount", "unshare", "setsid", "seq", "readlink"]


@pytest.fixture(scope="session")
def tiny_rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small root file system whose commands run, copied from this machine. Do not change it."""
    root = tmp_path_factory.mktemp("rootfs") / "tiny"
    for name in ("usr/bin", "usr/lib", "usr/lib64", "etc", "opt", "proc", "dev", "tmp", "sys"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/os-release").write_text('NAME="Tiny"\n')
    images.copy_programs(root, _PROGRAMS)
    return root


@pytest.fixture
def root(tiny_rootfs: Path, tmp_path: Path) -> Path:
    """A small image of the test's own, which it may change."""
    return Path(shutil.copytree(tiny_rootfs, tmp_path / "image", symlinks=True))


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of this run for all workers of pytest-xdist."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(autouse=True, scope="session")
def _nothing_kept() -> Iterator[None]:
    """Self-tests judge fresh images, and leave nothing in the user's cache; also the processes
    that they start. Those of the cache itself give it a directory (`store`)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cache.OFF, "1")
        yield


@pytest.fixture(autouse=True, scope="session")
def _without_hypothesis() -> Iterator[None]:
    """The suites that self-tests start: where hypothesis is installed, pytest imports it at the
    end of each run, which takes as long as all of pytest's own start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest")
        yield


@pytest.fixture(autouse=True, scope="session")
def _not_on_github() -> Iterator[None]:
    """The suites that self-tests start annotate nothing, also where GitHub runs the self-tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
            patch.delenv(name, raising=False)
        yield


LONGEST = ("verdicts_on_engines", "serving_on_engines", "atlas_jupyter", "nothing_left", "defects")
"""The files that take minutes, by how long one of their tests takes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: begun last, one of them would keep one worker busy alone."""
    place = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@functools.cache
def _unusable(engine: str) -> str | None:
    trouble = select.engine(engine).unusable()
    return None if trouble is None else str(trouble)


ROOT_ONLY = "only root can do this; this run is an ordinary user's"
USER_ONLY = "nothing is forbidden to root; an ordinary user tries this"


def pytest_configure(config: pytest.Config) -> None:
    for line in (
        "root_only: a self-test of what only root can do",
        "user_only: a self-test of what an ordinary user may not do, and root may",
    ):
        config.addinivalue_line("markers", line)
    # A script that begins the self-tests in the background has them ignored, and so has all that
    # they start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    config.pluginmanager.register(_FailuresAtOnce(config.pluginmanager))


class _FailuresAtOnce:
    """Names what failed when it fails: pytest does so at the end, minutes later."""

    def __init__(self, plugins: pytest.PytestPluginManager) -> None:
        self._plugins = plugins

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._plugins.get_plugin("terminalreporter")
        if report.failed and terminal is not None:  # workers of pytest-xdist have none
            terminal.write("\n")  # pytest's own ensure_newline() knows no letters of workers
            terminal.write_line(f"{'FAILED' if report.when == 'call' else 'ERROR'} {report.nodeid}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test runs for whom it is marked, and where the engines work with which it is marked.

    In CI they all must (see below), and both root and an ordinary user run these tests.
    """
    if item.get_closest_marker("root_only") and os.geteuid() != 0:
        pytest.skip(ROOT_ONLY)
    if item.get_closest_marker("user_only") and os.geteuid() == 0:
        pytest.skip(USER_ONLY)
    for mark in item.iter_markers("engine"):
        for name in mark.args:
            if (reason := _unusable(name)) is not None:
                pytest.skip(reason)


_RIGHT_IN_CI = (ROOT_ONLY, USER_ONLY)
"""Reasons for a skip that hold in CI too: what root skips an ordinary user runs, and vice versa."""


def _no_skip_in_ci(report: pytest.CollectReport | pytest.TestReport) -> None:
    """In CI everything that the tests compare with is installed: a skip there hides a fault."""
    if not os.environ.get("CI") or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith(_RIGHT_IN_CI):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where nothing may be missing: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _no_skip_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _no_skip_in_ci(report)
    return report
