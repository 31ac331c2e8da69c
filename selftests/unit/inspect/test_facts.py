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

from selftests.checkout import CHECKOUT
from selftests.images import copy_programs, each_engine

FACTS = """
import os, threading
from typing import NewType
from mlcheck import Finding, Verdict, fact, judged, rule
from mlcheck.engines.base import OpenImage
from mlcheck.model.errors import EngineError, NotApplicable

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

Left = NewType("Left", bytes)
Right = NewType("Right", bytes)
Broken = NewType("Broken", bytes)
Skipped = NewType("Skipped", bytes)
Apart = NewType("Apart", frozenset)
Endless = NewType("Endless", bytes)

@fact(runs=True)
def left(image: OpenImage) -> Left:
    return work("left", image, "echo met >/tmp/meet")

@fact(runs=True)
def right(image: OpenImage) -> Right:
    return work("right", image, "cat /tmp/meet")

@fact(runs=True)
def broken(image: OpenImage) -> Broken:
    work("broken", image, "true")
    raise EngineError("the engine broke")

@fact(runs=True)
def skipped(image: OpenImage) -> Skipped:
    work("skipped", image, "true")
    raise NotApplicable("nothing to find")

@fact(apart=True)
def apart(image: OpenImage) -> Apart:
    others = frozenset(at_work)
    work("apart", image, "true")
    return others

@fact(runs=True)
def endless(image: OpenImage) -> Endless:
    return image.run(["sh", "-c", "echo $$; setsid sleep {long} & sleep {long}"], limit_s=400)
"""
RULES = {
    "met-apart": ("apart: Apart", "judged(1, [Finding(one, 'runs', '') for one in apart])"),
    "met-left": ("left: Left", "judged(1)"),
    "met-right": ("right: Right", "judged(right == b'met\\n')"),
    "raise-fine": ("image: OpenImage", "judged(1)"),
    "raise-broken": ("broken: Broken", "judged(1)"),
    "raise-skipped": ("skipped: Skipped", "judged(1)"),
    "raise-apart": ("apart: Apart", "judged(1)"),
    "end-fails": ("image: OpenImage", "judged(1, [Finding('x', 'y', 'z')])"),
    "end-endless": ("endless: Endless", "judged(1)"),
    "hang-begins": ("image: OpenImage", "judged(os.write(2, b'begun'))"),
    "hang-endless": ("endless: Endless", "judged(1)"),
}
"""The parameter of each rule, and what it returns."""


def written(name: str, parameter: str, verdict: str) -> str:
    """The code of a rule."""
    return (
        f'@rule("{name}")\n'
        f"def test_{name.replace('-', '_')}({parameter}) -> Verdict:\n"
        f'    """It is so.\n\n    Why: README of it.\n\n    Fix: mend it.\n    """\n'
        f"    return {verdict}\n"
    )


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
        code = [FACTS.format(log=str(self.log), long=self.long)]
        code += [written(name, *how) for name, how in RULES.items()]
        (self.folder / "test_small.py").write_text("\n\n".join(code))

    def argv(self, *arguments: str) -> list[str]:
        profiles = ["--profiles", str(self.folder.parent)]
        options = ["-q", "-p", "no:cacheprovider", "--engine=sandbox", f"--image={self.image}"]
        return [sys.executable, "-m", "pytest", *profiles, *options, *arguments]

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            self.argv(*arguments), cwd=CHECKOUT, capture_output=True, text=True, timeout=120
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


@pytest.mark.slow
def test_two_facts_that_wait_for_each_other(suite: Suite, _engine: str) -> None:
    out = suite.run("-k", "met")
    assert "3 passed" in out, out
    assert suite.found() == ["apart", "left", "right"]


@pytest.mark.slow
def test_only_what_the_chosen_tests_want_is_found(suite: Suite, _engine: str) -> None:
    suite.run("-k", "raise-fine or raise-skipped")
    assert suite.found() == ["skipped"]


@pytest.mark.slow
def test_what_a_fact_raises_belongs_to_the_tests_that_want_it(suite: Suite, _engine: str) -> None:
    out = suite.run("-k", "raise")
    assert "(2 of 13; 1 error, 2 passed, 1 skipped)" in out, out
    assert "raise-broken" in out and "the engine broke" in out
    assert "nothing to find" in out
    assert suite.found() == ["apart", "broken", "skipped"]


@pytest.mark.slow
def test_workers_find_each_fact_once(suite: Suite, _engine: str) -> None:
    out = suite.run("-n2", "-k", "raise")
    assert "(2 of 13; 1 error, 2 passed, 1 skipped)" in out, out
    assert suite.found() == ["apart", "broken", "skipped"]


@pytest.mark.slow
def test_the_first_failure_ends_what_was_begun(suite: Suite, _engine: str) -> None:
    out = suite.run("-x", "-k", "end-")
    assert "1 failed" in out, out
    assert suite.left_over() == []


@pytest.mark.slow
def test_an_interrupt_ends_what_was_begun(suite: Suite, _engine: str) -> None:
    argv = suite.argv("-s", "-k", "hang-")
    with subprocess.Popen(
        argv, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
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
