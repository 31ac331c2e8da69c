"""This machine as seen by a user of an unpacked image, for scripts that are meant for the host.

Such a script comes from an image, which is untrusted: it must not run on the machine itself. It
gets a sandbox whose root is composed of this machine's programs and libraries, read-only, and the
image at a path of its own. No home, no configuration but the loader's, nothing of /run, /var and
/tmp, no process and no network of the machine can be seen.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlcheck.engines.base import DEFAULT_LIMIT_S, DEFAULT_OUTPUT_LIMIT, Command, Completed
from mlcheck.engines.sandbox.process import Binds, SandboxProcess, launcher
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.model.errors import EngineError, Trouble

IMAGE = "/image"
"""Path of the image: without a colon, which PATH cannot hold."""

_SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
# Configuration of the loader and of commands that are links (Debian's awk).
_CONFIGURATION = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime")

_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108 - of the sandbox
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}


class HostSandbox:
    """See `mlcheck.engines.base.HostView`."""

    image = IMAGE

    def __init__(self, process: SandboxProcess) -> None:
        self._process = process

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        limit_s: float = DEFAULT_LIMIT_S,
        output_limit: int = DEFAULT_OUTPUT_LIMIT,
    ) -> Completed:
        """Run `argv`; see `mlcheck.engines.base.HostView.run`."""
        command = Command(tuple(argv), dict(env or {}), "/tmp", b"", limit_s, output_limit)  # noqa: S108
        return self._process.run(command.over(_ENVIRONMENT))


def unusable() -> Trouble | None:
    """Return the reason why no such sandbox can be made on this machine, or None if it can."""
    found = launcher()
    return found if isinstance(found, Trouble) else None


@contextlib.contextmanager
def opened(directory: Path, prefix: str) -> Iterator[HostSandbox]:
    """Start a host that has the unpacked image in `directory`, and libraries of its own
    in `prefix`/lib.

    Those are the image's, visible a second time: a program that requests a library by that path
    gets a working one, and the path shows its origin. (A file that was loaded already, from the
    image, is not loaded a second time: the loader compares device and inode.) The host's `prefix`
    has nothing else, so that a program that needs `prefix`/bin fails.

    Args:
        prefix: the image's own ("/opt/conda").

    Raises:
        EngineError: no sandbox can be started, or `prefix` is a place of the system.
    """
    found = launcher()
    if isinstance(found, Trouble):
        raise found.error()
    binds = _binds(directory, prefix)
    with contextlib.closing(SandboxProcess(found, binds, network=False)) as process:
        yield HostSandbox(process)


def _binds(directory: Path, prefix: str) -> Binds:
    top = prefix.strip("/").split("/")[0]
    if top in ("", *_SYSTEM, "etc", "dev", "proc", "tmp", IMAGE.strip("/")):
        raise EngineError(f"No host can be tried that has a directory {prefix} of its own.")
    binds = [(f"/{name}", f"/{name}") for name in _SYSTEM if os.path.lexists(f"/{name}")]
    binds += [(f"/etc/{n}", f"/etc/{n}") for n in _CONFIGURATION if os.path.lexists(f"/etc/{n}")]
    # The user's path to the image may contain a link, as every tag of CVMFS is one.
    root = directory.resolve()
    binds.append((str(root), IMAGE))
    # Links in the image are followed inside it.
    libraries = DirectoryRootFS(root).resolve(f"{prefix}/lib")
    if libraries.final is not None and libraries.final.type == "directory":
        binds.append((f"{root}{libraries.final_path}", f"{prefix.rstrip('/')}/lib"))
    return binds
