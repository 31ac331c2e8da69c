"""Running facts of one image: which are found ahead, where what they raise appears, and the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from selftests.images import copy_programs, each_engine

ROOT = Path(__file__).parents[1]

FACTS = """
import os, threading
import pytest
from mlcheck.errors import EngineError
from mlcheck.side_by_side import running_fact

at_work, lock = set(), threading.Lock()

def work(name, image, script):
    with lock:
        at_work.add(name)
        with open({log!r}, "a") as log:
            log.write(name + chr(10))
    try:
        return image.run(["sh", "-c", "mkfifo /tmp/meet 2>/dev/null; " + script]).stdout
    finally:
        with lock:
            at_work.discard(name)

@running_fact()
def left(image):
    return work("left", image, "echo met >/tmp/meet")

@running_fact()
def right(image):
    return work("right", image, "cat /tmp/meet")

@running_fact()
def broken(image):
    work("broken", image, "true")
    raise EngineError("the engine broke")

@running_fact()
def skipped(image):
    work("skipped", image, "true")
    pytest.skip("nothing to find")

@running_fact(apart=True)
def apart(image):
    others = set(at_work)
    return work("apart", image, "true"), others

@running_fact()
def endless(image):
    return image.run(["sh", "-c", "echo $$; setsid sleep {long} & sleep {long}"], limit_s=400)
"""
TESTS = """
import os

def test_met_apart(apart, judge): assert not apart[1]
def test_met_left(left, judge): pass
def test_met_right(right, judge): assert right == b"met\\n"

def test_raise_fine(profile, judge): pass
def test_raise_broken(broken): pass
def test_raise_skipped(skipped): pass
def test_raise_apart(apart): pass

def test_end_fails(judge): assert False
def test_end_endless(endless): pass

def test_hang_begins(judge): os.write(2, b"begun")
def test_hang_endless(endless): pass
"""


class Suite:
    """A suite for the image "small" alone, with facts of its own."""

    def __init__(self, directory: Path, tiny_rootfs: Path) -> None:
        self.image = directory / "images" / "small"
        shutil.copytree(tiny_rootfs, self.image, symlinks=True)
        copy_programs(self.image, ["mkfifo", "cat", "setsid", "sleep"])
        self.log = directory / "log"
        self.long = f"300.{uuid.uuid4().int % 10**9}"
        self.folder = directory / "profiles" / "small"
        self.folder.mkdir(parents=True)
        (self.folder / "image.toml").write_text("")
        facts = FACTS.format(log=str(self.log), long=self.long)
        (self.folder / "conftest.py").write_text(facts)
        (self.folder / "test_small.py").write_text(TESTS)

    def argv(self, *arguments: str) -> list[str]:
        profiles = ["--profiles", str(self.folder.parent)]
        options = ["-q", "-p", "no:cacheprovider", "--engine=sandbox", f"--image={self.image}"]
        return [sys.executable, "-m", "pytest", *profiles, *options, *arguments]

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            self.argv(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        return done.stdout

    def found(self) -> list[str]:
        return sorted(self.log.read_text().split())

    def left_over(self) -> list[int]:
        """Processes of this suite's that are still there."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if self.long in path.read_text():
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found


@pytest.fixture
def suite(tmp_path: Path, tiny_rootfs: Path) -> Suite:
    return Suite(tmp_path, tiny_rootfs)


pytestmark = pytest.mark.parametrize("_engine", each_engine("sandbox"))


def test_two_facts_that_wait_for_each_other(suite: Suite, _engine: str) -> None:
    out = suite.run("-k", "test_met")
    assert "3 passed" in out, out
    assert suite.found() == ["apart", "left", "right"]


def test_only_what_the_chosen_tests_want_is_found(suite: Suite, _engine: str) -> None:
    suite.run("-k", "raise_fine or raise_skipped")
    assert suite.found() == ["skipped"]


def test_what_a_fact_raises_belongs_to_the_tests_that_want_it(suite: Suite, _engine: str) -> None:
    out = suite.run("-k", "test_raise")
    assert "(2 of 13; 1 error, 2 passed, 1 skipped)" in out, out
    assert "test_raise_broken" in out and "the engine broke" in out
    assert "nothing to find" in out
    assert suite.found() == ["apart", "broken", "skipped"]


def test_workers_find_each_fact_once(suite: Suite, _engine: str) -> None:
    out = suite.run("-n2", "-k", "test_raise")
    assert "(2 of 13; 1 error, 2 passed, 1 skipped)" in out, out
    assert suite.found() == ["apart", "broken", "skipped"]


def test_the_first_failure_ends_what_was_begun(suite: Suite, _engine: str) -> None:
    out = suite.run("-x", "-k", "test_end")
    assert "1 failed" in out, out
    assert suite.left_over() == []


def test_an_interrupt_ends_what_was_begun(suite: Suite, _engine: str) -> None:
    argv = suite.argv("-s", "-k", "test_hang")
    with subprocess.Popen(
        argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as run:
        assert run.stderr is not None
        try:
            assert b"begun" in run.stderr.read(5)
            run.send_signal(signal.SIGINT)
            out, _ = run.communicate(timeout=60)
        except BaseException:
            os.killpg(run.pid, signal.SIGKILL)
            raise
    assert b"KeyboardInterrupt" in out
    assert suite.left_over() == []
