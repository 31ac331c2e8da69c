"""The cache of reference images, in which a layer is complete or absent.

The cache holds `KEY/LABEL` directories. A layer is made in `.partial-KEY-RANDOM/`, beside them on
the same file system, and renamed into place when it is complete, under a lock on its key. The
leftovers of a killed build can thus be recognised by name; the next build removes them once nobody
holds their lock.
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

from mlcheck.machine import cache_dir, janitor
from mlcheck.model.errors import EngineError

Progress = Callable[[str], None]

_KEY = re.compile(r"[0-9a-f]{20}")
_PARTIAL = re.compile(r"\.partial-([0-9a-f]{20})-\w+")
_UNUSED_DAYS = 14
_COMPLETE = "entries"


@dataclass(frozen=True, slots=True)
class Job:
    """One layer under construction: reports progress and starts the programs that it needs.

    Args:
        progress: receives a line for each finished step.
        lock: descriptor of the lock, if one is held. Programs inherit it, so that an orphan of a
            killed build still counts as the owner while it writes.
    """

    progress: Progress = lambda line: None
    lock: int | None = None

    def run(
        self, argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str] | None = None
    ) -> str:
        """Run a program of this machine to its end, or to that of this process if that comes first.

        Returns: what it printed on stdout.

        Raises:
            EngineError: it cannot be started or failed; the message ends with its last words.
        """
        words = [str(word) for word in argv]
        try:
            # The program begins when the janitor knows of it: the shell waits for a line.
            process = subprocess.Popen(
                ["/bin/sh", "-c", 'read -r _ && exec "$0" "$@" </dev/null', *words],
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=() if self.lock is None else (self.lock,),
            )
        except OSError as error:
            raise EngineError(f"Cannot start {words[0]}: {error.strerror}.") from error
        with process, janitor.promised(janitor.kill(process.pid)):
            try:
                stdout, stderr = process.communicate(b"\n")
            except BaseException:  # as subprocess.run does
                process.kill()
                raise
        if process.returncode:
            last = (stderr or stdout).decode(errors="replace").strip().splitlines()
            raise EngineError(
                f"{' '.join(words[:3])} ... ended with {process.returncode}:\n"
                + "\n".join(f"  {line}" for line in last[-8:])
            )
        return stdout.decode(errors="replace")


def cache_root() -> Path:
    """Return `reference` in mlcheck's cache directory."""
    return cache_dir.cache() / "reference"


@dataclass(frozen=True, slots=True)
class Layer:
    """A built image, or a part that several images share.

    Args:
        label: its name.
        path: its directory.
        used: its last use.
        key: key of the build.
        finished: False while it is built, and after its build was killed.
    """

    label: str
    path: Path
    used: datetime.datetime
    key: str
    finished: bool


def layers() -> list[Layer]:
    """List the layers in the cache, the last used first. Their many files are not counted."""
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in cache_root().iterdir():
            unfinished = _PARTIAL.fullmatch(entry.name)
            if unfinished or _KEY.fullmatch(entry.name):
                key = unfinished[1] if unfinished else entry.name
                used = datetime.datetime.fromtimestamp(entry.stat().st_mtime, datetime.UTC)
                for below in entry.iterdir():
                    if below.name != _COMPLETE:
                        found.append(Layer(below.name, below, used, key, unfinished is None))
    return sorted(found, key=lambda layer: layer.used, reverse=True)


def clear() -> tuple[int, int]:
    """Remove all layers that no build holds; returns how many were removed and how many held."""
    found = {layer.path.parent: layer.key for layer in layers()}
    for directory, key in found.items():
        _discard_unless_owned(directory, key)
    left = sum(directory.exists() for directory in found)
    return len(found) - left, left


def layer(key: str, label: str, make: Callable[[Path, Job], None], progress: Progress) -> Path:
    """Return the directory `KEY/LABEL` of the cache; `make(directory, job)` makes it if missing.

    Raises:
        EngineError: it could not be made; no half-made layer is left.
    """
    finished = cache_root() / key / label
    if _is_whole(finished):
        _mark_used(finished.parent)
        return finished
    with _errors_explained(), _locked(key, label, progress) as lock:
        if _is_whole(finished):  # another build was faster
            return finished
        _clear_left_over(key)
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
    """Copy a tree, sharing its files by hard links if the file system can."""
    shutil.copytree(source, destination, symlinks=True, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, destination: str) -> None:
    try:
        os.link(source, destination)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP):
            raise
        shutil.copy2(source, destination)


def _entries(directory: Path) -> int:
    """Count the files and directories below `directory`."""
    return sum(len(names) + len(files) for _, names, files in os.walk(directory))


def _is_whole(finished: Path) -> bool:
    """Return whether nothing is missing. There may be more: byte code, after use on the host."""
    try:
        expected = int((finished.parent / _COMPLETE).read_text())
    except (OSError, ValueError):
        return False
    return _entries(finished) >= expected


def _mark_used(directory: Path) -> None:
    with contextlib.suppress(OSError):  # the cache may be read-only
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


def _clear_left_over(owned: str) -> None:
    """Remove leftovers of killed builds, and images that nobody used for two weeks.

    Args:
        owned: key whose lock the caller holds: what other builds of it left is dead.
    """
    root = cache_root()
    oldest = time.time() - _UNUSED_DAYS * 86400
    for entry in sorted(root.iterdir()):
        # Its build may have ended since it was listed: a finished one has renamed it.
        with contextlib.suppress(FileNotFoundError):
            left = _PARTIAL.fullmatch(entry.name)
            if left and left[1] == owned:
                _discard(entry)
            elif left:
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
    """Remove a directory of the cache, which cannot be mistaken for a complete one meanwhile."""
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
                "Free some, or set MLCHECK_CACHE_DIR to a directory on another file system.",
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
    """Return the Python behind `sys.executable`, outside any virtual environment."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
