"""Export a reference image as a file that engines load, or as a directory that may be changed.

All three kinds are written under a temporary name beside the target and renamed when complete.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import re
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from mlcheck.model.errors import EngineError, UsageError
from mlcheck.reference import config, tree
from mlcheck.reference.condameta import INSTALLED
from mlcheck.reference.defects.base import AddedLayer, Defect

_BUFFER = 1024 * 1024
_MTIME = int(INSTALLED.timestamp())
_EXPORT = re.compile(r'export (\w+)="(?:\$\{\w+:-"(.*)"\}|(.*))"')


def export_tar(directory: Path, file: Path) -> None:
    """Write the root file system as a tar for `docker import`.

    apptainer's links are left out, since images in registries have none. All files belong to root,
    except those of the image's user; all have the same time, names are sorted, hard links are kept:
    equal images give equal files.

    Raises:
        EngineError: it could not be written; nothing is left.
        EngineError: it could not be written; nothing is left.
    """
    with _replacing(file) as out, tarfile.open(fileobj=out, mode="w|", bufsize=_BUFFER) as archive:
        _add_all(archive, directory)


def export_docker_archive(directory: Path, file: Path, layered: Sequence[Defect] = ()) -> None:
    """Write an image with its configuration like `docker save`, named after the directory
    (`NAME:TAG`). docker, podman and apptainer load it.

    It has one layer, and above it those of faults that are planted in layers.

    Raises:
        EngineError: it could not be written; nothing is left.
        EngineError: it could not be written; nothing is left.
    """
    added = [layer for defect in layered if defect.layers for layer in defect.layers(directory)]
    with _replacing(file) as out:
        digests = [_write_layer(out, lambda archive: _add_all(archive, directory))]
        digests += [_write_layer(out, functools.partial(_add_layer, layer)) for layer in added]
        history = ["mlcheck reference build", *(layer.created_by for layer in added)]
        image = json.dumps(_configuration(directory, digests, history), sort_keys=True).encode()
        image_name = f"{hashlib.sha256(image).hexdigest()}.json"
        layers = [f"{digest}.tar" for digest in digests]
        manifest = [{"Config": image_name, "RepoTags": [directory.name], "Layers": layers}]
        with tarfile.TarFile(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as outer:
            for name, content in (
                (image_name, image),
                ("manifest.json", json.dumps(manifest).encode()),
            ):
                outer.addfile(_entry(name, len(content)), io.BytesIO(content))


def _write_layer(out: BinaryIO, fill: Callable[[tarfile.TarFile], None]) -> str:
    """Write a layer at the file's position; returns its digest, which is its name."""
    start = out.tell()
    out.write(bytes(tarfile.BLOCKSIZE))  # placeholder for the layer's header, which has its size
    layer = _Hashing(out)
    with tarfile.open(fileobj=layer, mode="w|", bufsize=_BUFFER) as archive:
        fill(archive)
    out.write(bytes(-layer.size % tarfile.BLOCKSIZE))
    digest = layer.digest.hexdigest()
    end = out.tell()
    out.seek(start)
    out.write(_entry(f"{digest}.tar", layer.size).tobuf(tarfile.USTAR_FORMAT))
    out.seek(end)
    return digest


def _add_layer(layer: AddedLayer, archive: tarfile.TarFile) -> None:
    for file in layer.files:
        with contextlib.ExitStack() as stack:
            content: BinaryIO
            if isinstance(file.content, bytes):
                content, size = io.BytesIO(file.content), len(file.content)
            else:
                content = stack.enter_context(file.content.open("rb"))
                size = os.fstat(content.fileno()).st_size
            entry = _entry(file.path[1:], size)
            entry.mode, entry.uname, entry.gname = file.mode, "root", "root"
            archive.addfile(entry, content)


def check_new(target: Path) -> None:
    """Make sure that a directory can be made at `target`.

    Raises:
        UsageError: it exists already.
    """
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already.", "Name a directory that does not.")


def export_directory(directory: Path, target: Path) -> None:
    """Write a copy that shares no file with the cache, and may be changed.

    Raises:
        UsageError: `target` exists.
        EngineError: it could not be written; nothing is left.
    """
    check_new(target)
    with _failure_explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            shutil.copytree(
                directory, partial, symlinks=True, copy_function=_copy, dirs_exist_ok=True
            )
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _copy(source: str, destination: str) -> None:
    mode = os.lstat(source).st_mode
    if stat.S_ISFIFO(mode):
        os.mkfifo(destination, stat.S_IMODE(mode))
    else:
        shutil.copy2(source, destination)


def _configuration(
    directory: Path, layers: Sequence[str], history: Sequence[str]
) -> dict[str, object]:
    """Return the image's configuration, with the variables that it sets for apptainer."""
    created = INSTALLED.isoformat().replace("+00:00", "Z")
    image, _, tag = directory.name.rpartition(":")
    told = tree.at(directory, "/.singularity.d/env/10-docker2singularity.sh").read_text()
    variables = {name: first or second for name, first, second in _EXPORT.findall(told)}
    own = config.of(image)
    more: dict[str, object] = {}
    if own.user:
        more |= {"User": own.user, "WorkingDir": own.workdir}
    if own.exposed:
        more["ExposedPorts"] = {port: {} for port in own.exposed}
    if own.healthcheck:
        more["Healthcheck"] = {"Test": list(own.healthcheck)}
    return {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": {
            "Env": [f"{name}={value}" for name, value in variables.items()],
            "Entrypoint": list(own.entrypoint),
            "Cmd": list(own.cmd),
            "Labels": config.labels(tag, image),
            **more,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}" for layer in layers]},
        "history": [{"created": created, "created_by": line} for line in history],
    }


def _add_all(archive: tarfile.TarFile, directory: Path) -> None:
    own = config.of(directory.name.rpartition(":")[0])
    for top, directories, files in os.walk(directory):
        directories.sort()
        inside = os.path.relpath(top, directory)
        if inside != ".":
            _add(archive, top, inside, own)
        # os.walk lists links to directories among the directories, and does not follow them.
        names = files + [name for name in directories if Path(top, name).is_symlink()]
        if inside == ".":
            names = [name for name in names if name not in config.APPTAINER_LINKS]
        for name in sorted(names):
            _add(archive, f"{top}/{name}", os.path.normpath(f"{inside}/{name}"), own)


def _add(archive: tarfile.TarFile, path: str, name: str, own: config.Config) -> None:
    entry = archive.gettarinfo(path, name)
    owned = f"/{name}/".startswith(tuple(f"{top}/" for top in own.owned))
    entry.uid, entry.gid = own.owner if owned else (0, 0)
    entry.uname = entry.gname = "" if owned else "root"
    entry.mtime = _MTIME
    if entry.isreg():
        with Path(path).open("rb") as file:
            archive.addfile(entry, file)
    else:
        archive.addfile(entry)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = size, _MTIME, 0o644
    return entry


class _Hashing(io.RawIOBase):
    """Writes through to a file, and keeps size and SHA-256 of what was written."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.size = 0
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # tarfile gives bytes
        self.size += len(data)
        self.digest.update(data)
        return self._out.write(data)


@contextlib.contextmanager
def _replacing(file: Path) -> Iterator[BinaryIO]:
    """Yield a new file that replaces `file` if nothing fails."""
    with _failure_explained(file):
        descriptor, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.absolute().parent)
        partial = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as out:
                yield out
            partial.chmod(0o644)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _failure_explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EngineError(f"Cannot write {target}: {error.strerror or error}.") from error
