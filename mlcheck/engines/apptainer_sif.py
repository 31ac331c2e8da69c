"""SIF files: what their header says, and their files read without copying.

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

from mlcheck.engines import janitor
from mlcheck.engines.apptainer_process import started
from mlcheck.engines.base import Progress
from mlcheck.engines.oci_documents import ARCHITECTURES, DOCUMENT_LIMIT, ImageConfig, config_of
from mlcheck.errors import EngineError, UsageError

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

# Codes of the format, and what uname(2) calls them.
_ARCHITECTURES = {
    b"01": "i686", b"02": "x86_64", b"03": "armv7l", b"04": "aarch64", b"05": "ppc64",
    b"06": "ppc64le", b"07": "mips", b"12": "s390x", b"13": "riscv64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sif:
    """What the header of a SIF file says.

    Args:
        architecture: as uname(2) names it, or None when the header does not tell.
        offset: where the root file system begins, in bytes; None when it is no squashfs (an
            encrypted or a writable one).
    """

    architecture: str | None
    offset: int | None


def read_sif(text: str, path: Path) -> Sif:
    """Read the header of a SIF file.

    Args:
        text: how the user named it.

    Raises:
        UsageError: there is no such file, or it is no SIF file.
    """
    with _opened(text, path) as (file, header):
        return _parse(file, header)


def read_config(text: str, path: Path) -> tuple[ImageConfig, int]:
    """What a SIF file keeps of its image's configuration beside the file system.

    apptainer and singularity write the configuration of an image that came from a registry or an
    archive as it was, and for every image the labels, with their own among them.

    Returns:
        The configuration, without what is not kept, and when the file was made, in seconds since
        1970.

    Raises:
        UsageError: there is no such file, or it is no SIF file.
    """
    documents: dict[str, Any] = {}
    with _opened(text, path) as (file, header):
        fields = _HEADER.unpack(header)
        for entry in _entries(file, header):
            if entry.kind == _JSON and entry.start >= 0 and 0 <= entry.size <= DOCUMENT_LIMIT:
                file.seek(entry.start)
                with contextlib.suppress(ValueError, RecursionError):
                    documents.setdefault(entry.name, json.loads(file.read(entry.size)))
    machine = _ARCHITECTURES.get(fields[3].rstrip(b"\0"))
    architecture = ARCHITECTURES.get(machine or "", machine)
    inner = documents.get("oci-config.json")
    if isinstance(inner, dict):
        whole = {"config": inner, "architecture": architecture, "os": "linux"}
        return config_of(whole), fields[5]
    labels = documents.get("inspect-metadata.json")
    for key in ("data", "attributes", "labels"):
        labels = labels.get(key) if isinstance(labels, dict) else None
    if isinstance(labels, dict):
        labels = config_of({"config": {"Labels": labels}}).labels
    return ImageConfig(labels=labels, architecture=architecture, os="linux"), fields[5]


@contextmanager
def _opened(text: str, path: Path) -> Iterator[tuple[BinaryIO, bytes]]:
    """A SIF file behind its header, and that header."""
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
    architecture = _ARCHITECTURES.get(_HEADER.unpack(header)[3].rstrip(b"\0"))
    return Sif(architecture, next(partitions, None))


class _Entry(NamedTuple):
    """What is said of one object in the file: where it is, in bytes, and what."""

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
    """sha256 of the file, which is what pins it: a SIF file records none of its content.

    Takes about a second for each 1 GB, where the processor has instructions for it.
    """
    progress("computing the digest of the file")
    try:
        with path.open("rb", buffering=0) as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}.") from None


@contextmanager
def mounted(path: Path) -> Iterator[Path]:
    """The root file system of a SIF file as a directory: nothing is copied.

    As root it is mounted out of the sight of all other programs. An ordinary user needs access to
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
        point = Path(tempfile.gettempdir(), f"mlcheck-sif-{os.urandom(8).hex()}")
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
    """Whether the mount appears; False when squashfuse ends or hangs."""
    mounts = Path(f"/proc/{process.pid}/mountinfo")
    deadline = time.monotonic() + _MOUNT_LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if f" {point} " in mounts.read_text(errors="replace"):
                return True
        except OSError:
            return False
        # poll(2) tells of changes in one mount namespace, and squashfuse may yet enter another.
        time.sleep(0.002)
    return False


@functools.cache
def _squashfuse() -> str | None:
    """apptainer's own packages bring one, which is on no PATH."""
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
