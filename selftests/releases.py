"""Small images and profiles for a release, whose jobs can be held up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftests.waiting import eventually

_CONFTEST = '''\
"""Each run of the suite says that it has begun, and waits as long as it is held up."""

import os
import time
from pathlib import Path

HERE = Path(__file__).parent


def pytest_collection_finish(session):
    name = Path(session.config.getoption("--image")[0]).name.partition(":")[0]
    with (HERE / "started").open("a") as file:
        file.write(f"{name} {os.getpid()} {os.environ.get('SLURMD_NODENAME', '-')}\\n")
    while (HERE / f"hold-{name}").exists():
        time.sleep(0.05)
'''


class Site:
    """A directory with images NAME:v1 and profiles for them.

    Args:
        rootfs: the files of each image.
        names: of the images; one that begins with "bad" does not conform, nor does one that
            begins with "gpu", which is made for a GPU and has no torch.
    """

    def __init__(self, directory: Path, rootfs: Path, *names: str) -> None:
        self.path, self.names = directory, names
        self.profiles = directory / "profiles"
        for name in names:
            image = directory / f"{name}:v1"
            shutil.copytree(rootfs, image, symlinks=True)
            (image / "etc/os-release").write_text(f'ID="mini"\nVERSION_ID="{len(name)}"\n')
            version = 0 if name.startswith("bad") else len(name)
            framework = "[framework]\nmodule = 'torch'\ncuda = '12'\n" if "gpu" in name else ""
            profile = self.profiles / name / "image.toml"
            profile.parent.mkdir(parents=True)
            profile.write_text(f'[os]\nid = "mini"\nversion = "{version}"\n{framework}')
        (self.profiles / "conftest.py").write_text(_CONFTEST)
        self._begun: list[subprocess.Popen[str]] = []

    def close(self) -> None:
        """End every release that has not ended, as a failed test leaves it."""
        for process in self._begun:
            if process.poll() is None:
                process.kill()
                process.communicate()
        for file in self.profiles.glob("hold-*"):
            file.unlink()

    @property
    def images(self) -> list[str]:
        return [f"./{name}:v1" for name in self.names]

    def hold(self, name: str) -> None:
        """Hold the jobs of an image up."""
        (self.profiles / f"hold-{name}").touch()

    def let_go(self, name: str) -> None:
        """Let the jobs of an image go on."""
        (self.profiles / f"hold-{name}").unlink()

    def started(self) -> Counter[str]:
        """How often a job of each image has begun."""
        return Counter(line.split()[0] for line in self._lines())

    def pids(self, name: str) -> list[int]:
        """The processes in which jobs of an image have begun."""
        return [int(line.split()[1]) for line in self._lines() if line.split()[0] == name]

    def nodes(self, name: str) -> list[str]:
        """The nodes of Slurm on which jobs of an image have begun."""
        return [line.split()[2] for line in self._lines() if line.split()[0] == name]

    def has_started(self, name: str, times: int = 1) -> None:
        """Wait until jobs of an image have begun so often."""
        assert eventually(lambda: self.started()[name] >= times), self.started()

    def _lines(self) -> list[str]:
        file = self.profiles / "started"
        return file.read_text().splitlines() if file.exists() else []

    def command(self, *words: str) -> list[str]:
        """`mlcheck release` with these words."""
        return [sys.executable, "-m", "mlcheck.cli", "release", *words]

    def environment(self, **more: str) -> dict[str, str]:
        cache = {"MLCHECK_CACHE_DIR": str(self.path / "cache"), "TMPDIR": str(self.tmp)}
        return {**os.environ, **cache, **more}

    @property
    def tmp(self) -> Path:
        """The directory for temporary files of everything that runs here."""
        directory = self.path / "tmp"
        directory.mkdir(exist_ok=True)
        return directory

    def begin(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Begin a release in a session of its own."""
        process = subprocess.Popen(
            self.command(*words),
            cwd=self.path,
            env=self.environment(**(env or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._begun.append(process)
        return process

    def release(
        self, *words: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A whole release."""
        process = self.begin(*words, env=env)
        output, _ = process.communicate(timeout=300)
        return subprocess.CompletedProcess(words, process.returncode, output, "")

    def all_images(self) -> list[str]:
        """The words for a release of all images."""
        return [*self.images, "--profiles=profiles"]

    def journal(self) -> list[dict[str, Any]]:
        """The attempts that ended."""
        file = self.path / "release/journal.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()]

    def verdicts(self, file: str = "release/report.json") -> dict[str, str]:
        """The verdict on each image in a report."""
        images = json.loads((self.path / file).read_text())["images"]
        return {image["profile"]: image["verdict"] for image in images}

    def outcomes(self, file: str) -> dict[tuple[str, str], str]:
        """The outcome of each test on each image in a report."""
        report = json.loads((self.path / file).read_text())
        found = {(one["test"], one["image"]): one["outcome"] for one in report["results"]}
        assert len(found) == len(report["results"])
        return found
