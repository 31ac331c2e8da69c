"""`newEnv-base.tgz`: the links that become an environment on top of the image when unpacked."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

from mlcheck.reference import tree
from mlcheck.reference.condameta import INSTALLED
from mlcheck.reference.python import PREFIX

_ACTIVATE = """\
# The Python of this environment is found by PATH; a PYTHONHOME of somebody else's would mislead it.
if [ -n "${PYTHONHOME:-}" ]; then
    export _NEWENV_PYTHONHOME="$PYTHONHOME"
    unset PYTHONHOME
fi
"""
_DEACTIVATE = """\
if [ -n "${_NEWENV_PYTHONHOME:-}" ]; then
    export PYTHONHOME="$_NEWENV_PYTHONHOME"
    unset _NEWENV_PYTHONHOME
fi
"""


def write(root: Path) -> None:
    """Pack links to everything directly in bin, lib and share, `../baseEnv_dir/...`."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for directory in ("bin", "lib", "share"):
            _add(archive, directory, tarfile.DIRTYPE)
            for entry in sorted(tree.at(root, f"{PREFIX}/{directory}").iterdir()):
                if directory == "lib" and entry.name.startswith("python"):
                    continue  # it has a site-packages of its own, and pyvenv.cfg names the base's
                to = f"../baseEnv_dir/{directory}/{entry.name}"
                _add(archive, f"{directory}/{entry.name}", tarfile.SYMTYPE, to)
        for name, script in (("activate", _ACTIVATE), ("deactivate", _DEACTIVATE)):
            _add(archive, f"etc/conda/{name}.d/newenv-python.sh", tarfile.REGTYPE, "", script)
    tree.write(root, f"{PREFIX}/newEnv-base.tgz", packed.getvalue())


def _add(archive: tarfile.TarFile, name: str, kind: bytes, to: str = "", content: str = "") -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, to
    entry.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    entry.mtime = int(INSTALLED.timestamp())
    entry.size = len(content.encode())
    archive.addfile(entry, io.BytesIO(content.encode()))
