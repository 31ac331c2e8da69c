"""A reference image with a planted fault as layers over the good one, for a registry."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.image.singularity_d import read_environment


def difference(base: Path, image: Path) -> bytes:
    """The layer that turns one directory into the other, as a tar archive.

    Files that are hard links to those of `base` are unchanged. What is gone is told by whiteouts:
    https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
    """
    before, after = _files(base), _files(image)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        gone: set[str] = set()
        for name in sorted(before.keys() - after.keys()):
            parent, _, last = name.rpartition("/")
            if parent not in gone:
                entry = tarfile.TarInfo(f"{parent}/.wh.{last}".lstrip("/"))
                archive.addfile(entry)
            gone.add(name)
        for name in sorted(after):
            if after[name] != before.get(name):
                entry = archive.gettarinfo(image / name, name)
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = "root"
                if entry.isreg():
                    with (image / name).open("rb") as file:
                        archive.addfile(entry, file)
                else:
                    archive.addfile(entry)
    return content.getvalue()


def configuration(image: Path) -> dict[str, Any]:
    """What a registry keeps beside the layers, from what the directory says for apptainer."""
    environment = read_environment(DirectoryRootFS(image))
    found = dataclasses.asdict(environment)
    return {
        "config": {
            "Env": [f"{name}={value}" for name, value in found["env"].items()],
            "Entrypoint": found["entrypoint"] and list(found["entrypoint"]),
            "Cmd": found["cmd"] and list(found["cmd"]),
            "Labels": found["labels"],
        }
    }


@functools.lru_cache(maxsize=2)
def _files(root: Path) -> dict[str, tuple[object, ...]]:
    """By its path: what tells a file from another one at the same place."""
    found: dict[str, tuple[object, ...]] = {}
    for top, directories, files in os.walk(root):
        for name in directories + files:
            path = Path(top, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                identity: tuple[object, ...] = (status.st_dev, status.st_ino)
            elif stat.S_ISLNK(status.st_mode):
                identity = (path.readlink(),)
            else:
                identity = (status.st_mode,)
            found[str(path.relative_to(root))] = identity
    return found
