"""Where reference images are kept, and how a layer gets there whole or not at all.

The cache holds `KEY/LABEL` directories. A layer is made in `.partial-KEY-RANDOM/`, beside them on
the same file system, and renamed into place when it is complete, under a lock of its key. What a
killed build leaves is therefore recognisable by its name, and is cleared by the next build as
soon as nobody holds its lock any more.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlcheck import places
from mlcheck.errors import EngineError

Progress = Callable[[str], None]

_KEY = re.compile(r"[0-9a-f]{20}")
_PARTIAL = re.compile(r"\.partial-([0-9a-f]{20})-\w+")
_UNUSED_DAYS = 14
_COMPLETE = "entries"


@dataclass(frozen=True, slots=True)
class Job:
    """One layer being made: tells how far it is and starts the programs that it needs.

    Args:
        progress: is told each finished step, one line.
        lock: descriptor of the held lock, if there is one. Programs inherit it, so that an orphan
            of a killed build still counts as its owner while it writes.
    """

    progress: Progress = lambda line: None
    lock: int | None = None

    def run(
        self, argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str] | None = None
    ) -> str:
        """Run a program of this machine to its end.

        Returns: what it printed on stdout.

        Raises:
            EngineError: it cannot be started or failed; the message ends with its last words.
        """
        words = [str(word) for word in argv]
        try:
            done = subprocess.run(
                words,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                pass_fds=() if self.lock is None else (self.lock,),
                check=False,
            )
        except OSError as error:
            raise EngineError(f"Cannot start {words[0]}: {error.strerror}.") from error
        if done.returncode:
            last = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
            raise EngineError(
                f"{' '.join(words[:3])} ... ended with {done.returncode}:\n"
                + "\n".join(f"  {line}" for line in last[-8:])
            )
        return done.stdout.decode(errors="replace")


def cache_root() -> Path:
    """`reference` in mlcheck's cache directory."""
    return places.cache() / "reference"


@dataclass(frozen=True, slots=True)
class Layer:
    """A built image, or a part that several share: its name, directory, and last use."""

    label: str
    path: Path
    used: datetime.datetime


def layers() -> list[Layer]:
    """What the cache has, the last used first. Nothing is counted: it has very many files."""
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in cache_root().iterdir():
            if _KEY.fullmatch(entry.name):
                used = datetime.datetime.fromtimestamp(entry.stat().st_mtime, datetime.UTC)
                names = (below for below in entry.iterdir() if below.name != _COMPLETE)
                found += [Layer(below.name, below, used) for below in names]
    return sorted(found, key=lambda layer: layer.used, reverse=True)


def clear() -> tuple[int, int]:
    """Remove what no build holds; how many were removed, and how many were held."""
    found = {layer.path.parent for layer in layers()}
    for directory in found:
        _discard_unless_owned(directory, directory.name)
    left = sum(directory.exists() for directory in found)
    return len(found) - left, left


def layer(key: str, label: str, make: Callable[[Path, Job], None], progress: Progress) -> Path:
    """The directory `KEY/LABEL` of the cache, made by `make(directory, job)` unless it is there.

    Raises:
        EngineError: it could not be made; nothing half-made is left.
    """
    finished = cache_root() / key / label
    if _is_whole(finished):
        _mark_used(finished.parent)
        return finished
    with _errors_explained(), _locked(key, label, progress) as lock:
        if _is_whole(finished):  # another build was faster
            return finished
        _clear_left_over()
        if finished.parent.exists():
            progress(f"{label}: the copy in the cache is damaged, building it anew")
            _discard(finished.parent)
        partial = Path(tempfile.mkdtemp(prefix=f".partial-{key}-", dir=cache_root()))
        try:
            partial.chmod(0o755)
            (partial / label).mkdir()
            make(partial / label, Job(progress, lock))
            (partial / _COMPLETE).write_text(f"{_entries(partial / label)}\n")
            partial.rename(finished.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return finished


def clone(source: Path, destination: Path) -> None:
    """A second tree with the same files, shared by hard links where the file system can."""
    shutil.copytree(source, destination, symlinks=True, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, destination: str) -> None:
    try:
        os.link(source, destination)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP):
            raise
        shutil.copy2(source, destination)


def _entries(directory: Path) -> int:
    """Number of files and directories below `directory`."""
    return sum(len(names) + len(files) for _, names, files in os.walk(directory))


def _is_whole(finished: Path) -> bool:
    """Whether nothing is missing. More may be there: byte code, after a use on the host."""
    try:
        expected = int((finished.parent / _COMPLETE).read_text())
    except (OSError, ValueError):
        return False
    return _entries(finished) >= expected


def _mark_used(directory: Path) -> None:
    with contextlib.suppress(OSError):  # a cache that is only read is fine
        os.utime(directory)


@contextlib.contextmanager
def _locked(key: str, label: str, progress: Progress) -> Iterator[int]:
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / f".lock-{key}", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"{label}: waiting for another build of the same image")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _clear_left_over() -> None:
    """Remove what killed builds left, and images that nobody used for two weeks."""
    root = cache_root()
    oldest = time.time() - _UNUSED_DAYS * 86400
    for entry in sorted(root.iterdir()):
        left = _PARTIAL.fullmatch(entry.name)
        if left:
            _discard_unless_owned(entry, left[1])
        elif _KEY.fullmatch(entry.name) and entry.stat().st_mtime < oldest:
            _discard_unless_owned(entry, entry.name)


def _discard_unless_owned(entry: Path, key: str) -> None:
    descriptor = os.open(cache_root() / f".lock-{key}", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        _discard(entry)
    finally:
        os.close(descriptor)


def _discard(directory: Path) -> None:
    """Remove a directory of the cache; while that lasts it cannot be taken for a whole one."""
    (directory / _COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(directory)


@contextlib.contextmanager
def _errors_explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        root = cache_root()
        where = error.filename or root
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EngineError(
                f"No space left for the reference image below {root}.",
                "Free about 1.5 GB there, or set MLCHECK_CACHE_DIR to a directory on a file "
                "system that has it.",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise EngineError(
                f"Cannot build the reference image: {where}: {error.strerror}.",
                "Set MLCHECK_CACHE_DIR to a directory that you may write.",
            ) from error
        raise EngineError(
            f"Cannot build the reference image: {where}: {error.strerror or error}."
        ) from error


def base_interpreter() -> Path:
    """The Python behind `sys.executable`, outside of any virtual environment."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
