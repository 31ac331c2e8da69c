"""The cache of reference images: layers arrive whole or not at all."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlcheck.machine import janitor_process
from mlcheck.model.errors import EngineError
from mlcheck.reference import cache, tree
from selftests.checkout import CHECKOUT
from selftests.waiting import eventually

KEY = "0123456789abcdef0123"
OTHER = "fedcba98765432100123"
NAME = "image:tag"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLCHECK_CACHE_DIR", str(tmp_path))
    return tmp_path / "reference"


def quiet(line: str) -> None:
    pass


def make_small(directory: Path, job: cache.Job) -> None:
    tree.write(directory, "/etc/name", "small\n")


def visible(root: Path) -> set[str]:
    """What is in the cache but for locks."""
    return {entry.name for entry in root.iterdir() if not entry.name.startswith(".lock-")}


def test_a_layer_is_made_once(root: Path) -> None:
    made = []

    def make(directory: Path, job: cache.Job) -> None:
        made.append(directory)
        make_small(directory, job)

    first = cache.layer(KEY, NAME, make, quiet)
    second = cache.layer(KEY, NAME, make, quiet)
    assert first == second == root / KEY / NAME
    assert (second / "etc/name").read_text() == "small\n"
    assert len(made) == 1


def test_a_failing_build_leaves_nothing(root: Path) -> None:
    def make(directory: Path, job: cache.Job) -> None:
        make_small(directory, job)
        raise EngineError("no network")

    with pytest.raises(EngineError, match="no network"):
        cache.layer(KEY, NAME, make, quiet)
    assert visible(root) == set()


def _build_and_log(log: str) -> None:
    def make(directory: Path, job: cache.Job) -> None:
        with Path(log).open("a") as file:
            file.write("made\n")
        time.sleep(0.3)
        make_small(directory, job)

    path = cache.layer(KEY, NAME, make, quiet)
    with Path(log).open("a") as file:
        file.write((path / "etc/name").read_text())


@pytest.mark.slow
def test_two_builds_at_once_make_it_once(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_build_and_log, args=(str(log),)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(30)
    assert [process.exitcode for process in both] == [0, 0]
    assert log.read_text().splitlines() == ["made", "small", "small"]
    assert visible(root) == {KEY}


BLOCKED = f"""
import time
from mlcheck.reference import cache

def make(directory, job):
    (directory / "half").write_text("half made")
    job.run(["true"], cwd=directory)  # which holds the lock of the build as long as it runs
    open({{ready!r}}, "w").close()
    time.sleep(60)

cache.layer({KEY!r}, {NAME!r}, make, print)
"""


def _start_blocked_build(tmp_path: Path) -> subprocess.Popen[bytes]:
    ready = tmp_path / "ready"
    source = str(Path(cache.__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", BLOCKED.format(ready=str(ready))],
        env={**os.environ, "PYTHONPATH": source},
    )
    assert eventually(lambda: ready.exists() or process.poll() is not None)
    assert ready.exists()
    return process


def test_what_a_killed_build_leaves_is_cleared_by_the_next(root: Path, tmp_path: Path) -> None:
    process = _start_blocked_build(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (root / KEY).exists()
    assert any(name.startswith(".partial-") for name in visible(root))
    cache.layer(OTHER, NAME, make_small, quiet)
    assert visible(root) == {OTHER}


def test_what_a_killed_build_leaves_is_cleared_by_the_next_of_the_same(
    root: Path, tmp_path: Path
) -> None:
    process = _start_blocked_build(tmp_path)
    process.kill()
    process.wait()
    assert [layer.finished for layer in cache.layers()] == [False]
    cache.layer(KEY, NAME, make_small, quiet)
    assert visible(root) == {KEY}
    assert [layer.finished for layer in cache.layers()] == [True]


def test_what_a_killed_build_leaves_is_cleared_by_hand(root: Path, tmp_path: Path) -> None:
    process = _start_blocked_build(tmp_path)
    try:
        assert cache.clear() == (0, 1)
    finally:
        process.kill()
        process.wait()
    assert cache.clear() == (1, 0)
    assert visible(root) == set()


def test_a_build_under_way_is_not_cleared(root: Path, tmp_path: Path) -> None:
    process = _start_blocked_build(tmp_path)
    try:
        cache.layer(OTHER, NAME, make_small, quiet)
        left = [entry for entry in root.iterdir() if entry.name.startswith(".partial-")]
        assert [(entry / NAME / "half").read_text() for entry in left] == ["half made"]
    finally:
        process.kill()
        process.wait()


def test_a_build_that_ends_while_left_overs_are_cleared_is_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has renamed its directory after this build listed it, and holds its lock no more."""
    partial = root / f".partial-{KEY}-abcdefgh"
    (partial / NAME).mkdir(parents=True)
    flock = fcntl.flock

    def after_the_other_ended(descriptor: int, operation: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == f".lock-{KEY}":
            partial.rename(root / KEY)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", after_the_other_ended)
    cache.layer(OTHER, NAME, make_small, quiet)
    assert visible(root) == {KEY, OTHER}


def test_a_damaged_layer_is_made_anew(root: Path) -> None:
    told: list[str] = []
    path = cache.layer(KEY, NAME, make_small, told.append)
    (path / "etc/name").unlink()
    again = cache.layer(KEY, NAME, make_small, told.append)
    assert (again / "etc/name").read_text() == "small\n"
    assert "damaged" in " ".join(told)


def test_a_layer_whose_mark_is_missing_does_not_count(root: Path) -> None:
    path = cache.layer(KEY, NAME, make_small, quiet)
    (path.parent / "entries").unlink()
    (path / "etc/name").write_text("left by somebody\n")
    assert (cache.layer(KEY, NAME, make_small, quiet) / "etc/name").read_text() == "small\n"


def test_layers_that_nobody_used_are_removed(root: Path) -> None:
    unused = cache.layer(KEY, NAME, make_small, quiet)
    os.utime(unused.parent, (0, 0))
    cache.layer(OTHER, NAME, make_small, quiet)
    assert visible(root) == {OTHER}


def test_a_layer_in_use_stays(root: Path) -> None:
    used = cache.layer(KEY, NAME, make_small, quiet)
    os.utime(used.parent, (0, 0))
    cache.layer(KEY, NAME, make_small, quiet)
    cache.layer(OTHER, NAME, make_small, quiet)
    assert visible(root) == {KEY, OTHER}


def test_a_cache_that_cannot_be_made_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLCHECK_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(EngineError, match=str(tmp_path / "file")):
        cache.layer(KEY, NAME, make_small, quiet)


def test_a_program_that_fails_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"sh -c .* ended with 3:\n  out of luck"):
        cache.Job().run(["sh", "-c", "echo out of luck >&2; exit 3"], cwd=tmp_path)


def test_a_program_ends_with_a_build_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom mlcheck.reference import cache\n"
        "cache.Job().run(['sh', '-c', 'echo $$ >pid.new; mv pid.new pid; exec sleep 300'], "
        "cwd=Path(sys.argv[1]))"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(argv, cwd=CHECKOUT) as build:
        assert eventually((tmp_path / "pid").exists)
        pid = int((tmp_path / "pid").read_text())
        build.send_signal(signal.SIGKILL)
    assert eventually(lambda: janitor_process.start_time(pid) is None)


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no-such-program"):
        cache.Job().run(["no-such-program"], cwd=tmp_path)


def test_the_cache_is_in_the_xdg_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLCHECK_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_root() == tmp_path / "xdg/mlcheck/reference"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.cache_root() == tmp_path / "home/.cache/mlcheck/reference"


def test_changes_in_a_clone_leave_the_original_alone(tmp_path: Path) -> None:
    good, changed = tmp_path / "good", tmp_path / "changed"
    for name in ("written", "replaced", "mode", "own", "removed", "linked"):
        tree.write(good, f"/etc/{name}", "good text\n", 0o644)
    cache.clone(good, changed)
    tree.write(changed, "/etc/written", "other")
    tree.replace(changed, "/etc/replaced", "good", "bad")
    tree.chmod(changed, "/etc/mode", 0o600)
    with tree.own(changed, "/etc/own").open("a") as file:
        file.write("more")
    tree.remove(changed, "/etc/removed")
    tree.symlink(changed, "/etc/linked", "nowhere")
    assert sorted(entry.name for entry in (good / "etc").iterdir()) == sorted(
        ("written", "replaced", "mode", "own", "removed", "linked")
    )
    for entry in (good / "etc").iterdir():
        assert entry.read_text() == "good text\n"
        assert entry.stat().st_mode & 0o777 == 0o644
    assert (changed / "etc/replaced").read_text() == "bad text\n"
