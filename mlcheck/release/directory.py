"""The directory of a release: what was asked for, and each report as it comes.

    release.json     what was asked for: images, engines, options, and the list of jobs
    SLUG.json        the report of one job, which is complete as soon as it has this name
    journal.jsonl    one line for each attempt that ended
    workers/         what the workers of a batch system print
    report.*         all reports in one, at the end

Whatever ends a release, the next one goes on from here.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlcheck
from mlcheck.model.errors import UsageError
from mlcheck.release.jobs import Job
from mlcheck.report import reading
from mlcheck.report.model import Report

_STATE = "release.json"
_JOURNAL = "journal.jsonl"
_LOCK = ".lock"
_ELSEWHERE = "Name another directory with --to DIR."


@dataclass(frozen=True, slots=True)
class Asked:
    """The order that a release carries out.

    Args:
        started: ISO 8601 with time zone.
        options: words for `mlcheck check`, with absolute paths.
        jobs: in the order of the images as they were named.
        settings: where and how it is carried out, as typed; another try may change it.
    """

    started: str
    options: tuple[str, ...]
    jobs: tuple[Job, ...]
    settings: Mapping[str, Any]
    mlcheck_version: str = mlcheck.__version__


class Directory:
    """The files of one release."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def workers(self) -> Path:
        """The directory for what workers print, and for their keys."""
        return self.path / "workers"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other release out while the context lasts, and create the directory.

        Raises:
            UsageError: another release is at work in it, or it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            number = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UsageError(f"{self.path}: {error.strerror}.", _ELSEWHERE) from None
        try:
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                who = os.read(number, 200).decode(errors="replace").strip() or "another process"
                raise UsageError(
                    f"{self.path}: a release is at work in it ({who}).", _ELSEWHERE
                ) from None
            os.ftruncate(number, 0)
            os.pwrite(number, f"{platform.node()}, process {os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(number)

    def begin(self, asked: Asked) -> None:
        """Write down what is asked for.

        Raises:
            UsageError: there is a release in this directory.
        """
        if (self.path / _STATE).exists():
            raise UsageError(
                f"{self.path}: a release is in it already.",
                f"`mlcheck release --resume` judges what it has not judged yet. {_ELSEWHERE}",
            )
        _write(self.path / _STATE, json.dumps(asdict(asked), indent=1) + "\n")

    def asked(self) -> Asked:
        """Read what was asked for.

        Raises:
            UsageError: there is no release in this directory, or its file is damaged.
        """
        file = self.path / _STATE
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            jobs = tuple(Job(**job) for job in data["jobs"])
            return Asked(**{**data, "options": tuple(data["options"]), "jobs": jobs})
        except FileNotFoundError:
            raise UsageError(
                f"{self.path}: there is no release in it to go on with.",
                "`mlcheck release IMAGE ...` begins one; --to DIR names its directory.",
            ) from None
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror}.", _ELSEWHERE) from None
        except (ValueError, KeyError, TypeError):
            raise UsageError(
                f"{file}: not what a release has written.", "Begin it anew with --to DIR."
            ) from None

    def report(self, job: Job) -> Report | None:
        """Return the report of a job; None if there is none that can be read.

        A file that is no report, as a full disk leaves one, counts as missing.
        """
        file = self._file(job)
        if not file.exists():
            return None
        try:
            return reading.read(file)
        except UsageError:
            return None

    def keep(self, job: Job, content: str) -> Report | None:
        """Keep the report of a job if it is one, and return it.

        Args:
            content: the report as JSON.
        """
        part = self._file(job).with_suffix(".part")
        _write(part, content)
        try:
            found = reading.read(part)
        except UsageError:
            part.unlink()
            return None
        part.replace(self._file(job))
        return found

    def note(self, job: Job, **told: object) -> None:
        """Append the end of an attempt to the journal."""
        line = json.dumps({"job": job.slug, **told}, separators=(",", ":"))
        with (self.path / _JOURNAL).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def write(self, contents: Mapping[str, str]) -> Sequence[Path]:
        """Write the reports of the whole release, by name; return their paths."""
        for name, content in contents.items():
            _write(self.path / name, content)
        return [self.path / name for name in contents]

    def _file(self, job: Job) -> Path:
        return self.path / f"{job.slug}.json"


def _write(file: Path, content: str) -> None:
    """Write a file so that it has its name only when it is complete, also after a power cut."""
    new = file.with_name(f".{file.name}.new")
    with new.open("w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)
