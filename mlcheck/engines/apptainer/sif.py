"""SIF files: their headers, and their files read without copying.

The format: https://github.com/apptainer/sif/blob/main/pkg/sif/sif.go
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mlcheck.engines.apptainer.process import started
from mlcheck.engines.base import Progress
from mlcheck.engines.oci.documents import DOCUMENT_LIMIT, ImageConfig, config_of
from mlcheck.machine import janitor
from mlcheck.model.architecture import ARCHITECTURES, Architecture
from mlcheck.model.errors import EngineError, UsageError

MAGIC = b"SIF_MAGIC\0"
_HEADER = struct.Struct("<32s10s3s3s16sqqqqqqqq")
_DESCRIPTOR = struct.Struct("<i?III qqqqqqq 128s ii3s373s".replace(" ", ""))
_PARTITION = 0x4004
_JSON = 0x4006
_SQUASHFS = 1
_SYSTEM = 2
"""The primary system partition: the root file system."""

_MOST_DESCRIPTORS = 4096
_MOUNT_LIMIT_S = 30.0
_CHUNK = 4 * 1024 * 1024

_ARCHITECTURES = {one.sif: one for one in ARCHITECTURES}


@dataclass(frozen=True, slots=True)
class Sif:
    """The header of a SIF file.

    Args:
        architecture: as uname(2) names it, or None if the header does not record it.
        offset: offset of the root file system in bytes; None if it is not squashfs (an encrypted or
            a writable one).
    """

    architecture: str | None
    offset: int | None


def read_sif(text: str, path: Path) -> Sif:
    """Read the header of a SIF file.

    Args:
        text: the user's name for it.

    Raises:
        UsageError: there is no such file, or it is not a SIF file.
    """
    with _opened(text, path) as (file, header):
        return _parse(file, header)


def read_config(text: str, path: Path) -> tuple[ImageConfig, int]:
    """Read the parts of an image's configuration that a SIF file stores beside the file system.

    apptainer and singularity store the configuration of an image from a registry or an archive
    unchanged, and for every image the labels, including their own.

    Returns:
        The configuration, without what is not stored, and the creation time of the file, in seconds
        since 1970.

    Raises:
        UsageError: there is no such file, or it is not a SIF file.
    """
    documents: dict[str, Any] = {}
    with _opened(text, path) as (file, header):
        made = int(_HEADER.unpack(header)[5])
        for entry in _entries(file, header):
            if entry.kind == _JSON and entry.start >= 0 and 0 <= entry.size <= DOCUMENT_LIMIT:
                file.seek(entry.start)
                with contextlib.suppress(ValueError, RecursionError):
                    documents.setdefault(entry.name, json.loads(file.read(entry.size)))
    kind = _architecture(header)
    architecture = kind and kind.oci
    inner = documents.get("oci-config.json")
    if isinstance(inner, dict):
        whole = {"config": inner, "architecture": architecture, "os": "linux"}
        return config_of(whole), made
    labels = documents.get("inspect-metadata.json")
    for key in ("data", "attributes", "labels"):
        labels = labels.get(key) if isinstance(labels, dict) else None
    if isinstance(labels, dict):
        labels = config_of({"config": {"Labels": labels}}).labels
    return ImageConfig(labels=labels, architecture=architecture, os="linux"), made


@contextmanager
def _opened(text: str, path: Path) -> Iterator[tuple[BinaryIO, bytes]]:
    """Open a SIF file; give the file, positioned behind its header, and that header."""
    try:
        # Opening a FIFO would block.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            header = file.read(_HEADER.size)
            if header[32 : 32 + len(MAGIC)] != MAGIC or len(header) < _HEADER.size:
                raise UsageError(
                    f"{text}: {path} is no SIF file: it does not begin as one.",
                    "Make one with `apptainer build FILE.sif IMAGE`; a directory is written DIR/.",
                )
            yield file, header
    except FileNotFoundError:
        raise UsageError(
            f"{text}: there is no file {path}.", "Give the path of a SIF file."
        ) from None
    except IsADirectoryError:
        raise UsageError(
            f"{text}: {path} is a directory, not a SIF file.",
            f"For the directory, write {text}/ with a slash at its end.",
        ) from None
    except OSError as error:
        raise UsageError(
            f"{text}: {path} cannot be read: {error.strerror}.",
            "Run mlcheck as a user who may read it.",
        ) from None


def _parse(file: BinaryIO, header: bytes) -> Sif:
    partitions = (
        entry.start
        for entry in _entries(file, header)
        if (entry.kind, entry.filesystem, entry.part) == (_PARTITION, _SQUASHFS, _SYSTEM)
    )
    architecture = _architecture(header)
    return Sif(architecture and architecture.machine, next(partitions, None))


def _architecture(header: bytes) -> Architecture | None:
    return _ARCHITECTURES.get(_HEADER.unpack(header)[3].rstrip(b"\0"))


class _Entry(NamedTuple):
    """The entry of one object in the file: its offset and size in bytes, and its type."""

    kind: int
    start: int
    size: int
    name: str
    filesystem: int
    part: int


def _entries(file: BinaryIO, header: bytes) -> list[_Entry]:
    total, at = _HEADER.unpack(header)[8:10]
    found: list[_Entry] = []
    if not 0 <= at < 2**62:
        return found
    file.seek(at)
    for _ in range(min(total, _MOST_DESCRIPTORS)):
        data = file.read(_DESCRIPTOR.size)
        if len(data) < _DESCRIPTOR.size:
            break
        kind, used, _, _, _, start, size, *rest = _DESCRIPTOR.unpack(data)
        name, filesystem, part = rest[-5:-2]
        if used:
            text = name.partition(b"\0")[0].decode("utf-8", "replace")
            found.append(_Entry(kind, start, size, text, filesystem, part))
    return found


def digest(path: Path, progress: Progress) -> str:
    """Return the sha256 of the file, which identifies it: a SIF file has no digest of its content.

    Takes about a second for each 1 GB if the processor has instructions for it.
    """
    progress("computing the digest of the file")
    try:
        with path.open("rb", buffering=0) as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}.") from None


@contextmanager
def mounted(path: Path) -> Iterator[Path]:
    """Give the root file system of a SIF file as a directory: nothing is copied.

    As root it is mounted where no other program sees it. An ordinary user needs access to
    `/dev/fuse` and fusermount, which is installed set-uid root.

    Raises:
        EngineError: there is no squashfs in the file, or this machine cannot mount it.
    """
    sif = read_sif(str(path), path)
    if sif.offset is None:
        raise EngineError(
            f"{path}: its root file system is encrypted or writable, no plain squashfs.",
            "Unpack it with `apptainer build --sandbox DIR FILE.sif` and judge the directory.",
        )
    program = _squashfuse()
    if program is None:
        raise EngineError(
            f"The files of {path} cannot be read: squashfuse is not installed.",
            "Install squashfuse (`apt install squashfuse`, `dnf install squashfuse`).",
        )
    with ExitStack() as stack:
        point = janitor.labelled("mlcheck-sif-")
        stack.enter_context(janitor.undone(janitor.run(["rmdir", str(point)])))
        point.mkdir(mode=0o700)
        argv = [program, "-f", "-o", f"ro,nosuid,nodev,offset={sif.offset}", str(path), str(point)]
        if os.geteuid() == 0:
            argv = ["unshare", "--mount", *argv]
        elif unmount := shutil.which("fusermount3") or shutil.which("fusermount"):
            stack.enter_context(janitor.undone(janitor.run([unmount, "-u", "-z", str(point)])))
        with tempfile.TemporaryFile() as said:
            process = stack.enter_context(started(argv, os.environ, stderr=said.fileno()))
            there = _wait(process, point)
            said.seek(0)
            words = said.read(2000).decode("utf-8", "replace").strip()
        if not there:
            last = words.splitlines()[-1] if words else "it did not say why"
            raise EngineError(f"{path} cannot be mounted by {program}: {last}.", _remedy(words))
        yield Path(f"/proc/{process.pid}/root{point}")


def _remedy(words: str) -> str:
    if "/dev/fuse" in words:
        return (
            "An ordinary user needs access to /dev/fuse: `chmod 666 /dev/fuse` as root, in a "
            "container `--device /dev/fuse`; or judge an unpacked directory."
        )
    if "fusermount" in words:
        return "Install fuse3, whose fusermount3 lets an ordinary user mount."
    if "squashfs" in words:
        return "The file is damaged: fetch or build it again."
    return "Unpack it with `apptainer build --sandbox DIR FILE.sif` and judge the directory."


def _wait(process: subprocess.Popen[bytes], point: Path) -> bool:
    """Return whether the mount appears; False if squashfuse ends or hangs."""
    mounts = Path(f"/proc/{process.pid}/mountinfo")
    deadline = time.monotonic() + _MOUNT_LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if f" {point} " in mounts.read_text(errors="replace"):
                return True
        except OSError:
            return False
        # poll(2) reports changes in one mount namespace, and squashfuse may still enter another.
        time.sleep(0.002)
    return False


@functools.cache
def _squashfuse() -> str | None:
    """Return the path of squashfuse; apptainer's own packages bring one that is not on any PATH."""
    places = [os.environ.get("PATH", os.defpath)]
    places += [f"{prefix}/libexec/apptainer/bin" for prefix in ("/usr", "/usr/local")]
    return next(
        (
            found
            for name in ("squashfuse_ll", "squashfuse")
            if (found := shutil.which(name, path=os.pathsep.join(places)))
        ),
        None,
    )
