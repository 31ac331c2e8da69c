"""The engine "sandbox": runs commands in an image directory, with no container engine.

The kernel's namespaces do the work, made by util-linux' unshare(1) or by bubblewrap, as root or
as an ordinary user. A command sees the image read-only, a `/proc`, `/dev` and `/tmp` of its own,
no process and no file of the host, and no network unless asked. When the caller ends, even by
kill -9, everything that it started ends too.

Differences from a container: only one user is mapped, so that files of other users appear as
`nobody`'s and `su` cannot work; `/sys` is the image's own (empty) directory; a command cannot
leave anything running in its process group. With the network of the host, commands reach the
host's own servers too, on localhost and on abstract sockets.
"""

from __future__ import annotations

import functools
import os
import platform
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlcheck import shell_words
from mlcheck.engines import binds, showing
from mlcheck.engines.base import (
    DEFAULT_LIMIT_S,
    DEFAULT_OUTPUT_LIMIT,
    PLAINLY,
    Ask,
    Completed,
    Prepared,
    Progress,
    PullPolicy,
    Start,
    Unreadable,
    closed,
    silent,
)
from mlcheck.engines.proxies import proxies
from mlcheck.engines.sandbox_process import SandboxProcess, launcher
from mlcheck.engines.sandbox_server import DEFAULT_PATH
from mlcheck.engines.singularity_d import DIRECTORY as SINGULARITY_D
from mlcheck.engines.singularity_d import read_environment
from mlcheck.errors import EngineError, ProbeError, UsageError
from mlcheck.facts import Environment
from mlcheck.image import ImageRef
from mlcheck.rootfs import DirectoryRootFS

_MARKS = ("bin", "usr", "etc", "opt", SINGULARITY_D.strip("/"))


class Sandbox:
    """See `mlcheck.engines.base.Engine`."""

    name = "sandbox"

    def unusable(self) -> str | None:
        """Why commands cannot run on this machine and what helps; None: they can.

        Starts a sandbox once to find out.
        """
        found = launcher()
        return found if isinstance(found, str) else None

    tried = unusable

    def describe(self) -> str:
        """What makes the namespaces."""
        return f"namespaces of the kernel, by {launcher()[0]}"

    @contextmanager
    def prepare(
        self, ref: ImageRef, *, pull: PullPolicy = "missing", progress: Progress = silent
    ) -> Iterator[Prepared]:
        """Find an image directory.

        Raises:
            UsageError: there is no such directory, or it holds no image.
        """
        yield Prepared(ref, str(check_directory(ref)))

    @contextmanager
    def open(self, prepared: Prepared, *, start: Start = Start()) -> Iterator[OpenDirectory]:
        """Open an image directory. Nothing is started before the first command.

        Raises:
            EngineError: GPUs are asked for, which this engine does not give.
        """
        if start.gpu:
            raise EngineError(
                "The engine sandbox gives no GPU to an image.",
                "Use --engine apptainer for a directory, or run without --nv=always.",
            )
        image = OpenDirectory(prepared.ref, Path(prepared.location), start)
        try:
            yield image
        finally:
            image.close()


class OpenDirectory:
    """An open image; see `mlcheck.engines.base.OpenImage`.

    Commands get the variables of the image's configuration, a PATH when it sets none, and
    HOME=/tmp; with `network`, the host's proxy variables too. Nothing else of the host's.
    """

    engine = Sandbox.name
    digest = None
    notes = ()
    layers = None

    def __init__(self, ref: ImageRef, directory: Path, start: Start) -> None:
        self.ref = ref
        self.directory = directory
        self.rootfs = DirectoryRootFS(directory)
        self._start = start
        self._process: SandboxProcess | None = None
        self._closed = False
        self._lock = threading.Lock()

    @functools.cached_property
    def environment(self) -> Environment:
        """The image's configuration, from its `/.singularity.d`."""
        return read_environment(self.rootfs)

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        stdin: bytes = b"",
        limit_s: float = DEFAULT_LIMIT_S,
        output_limit: int = DEFAULT_OUTPUT_LIMIT,
    ) -> Completed:
        """Run `argv` in the sandbox; see `mlcheck.engines.base.OpenImage.run`.

        When the command's first process has ended, what is left of its process group gets one
        second to finish its output and is then killed.

        Raises:
            EngineError: no sandbox can be started here, or it ended in mid-run.
        """
        variables = {"PATH": DEFAULT_PATH} | dict(self.environment.env) | {"HOME": "/tmp"}  # noqa: S108
        if self._start.network:
            variables |= proxies()
        variables |= env or {}
        done = self._started().run(argv, variables, cwd, stdin, limit_s, output_limit)
        if done.exit_code == _CANNOT_EXECUTE and b"Exec format error" in done.stderr:
            self._check_machine()
        return done

    def _check_machine(self) -> None:
        """Tell an image for another kind of machine from one in which a program is damaged."""
        try:
            with self.rootfs.open("/bin/sh") as file:
                theirs = _elf_machine(file.read(20))
        except (Unreadable, ProbeError):
            return
        with Path("/proc/self/exe").open("rb") as file:
            ours = _elf_machine(file.read(20))
        if theirs not in (None, ours):
            kind = _MACHINES.get(theirs or 0, f"of ELF's number {theirs}")
            raise EngineError(
                f"{self.ref.text} is an image for {kind} (its /bin/sh is), and this machine is "
                f"{platform.machine()}: nothing in it can run here.",
                "Judge it on such a machine, or register qemu-user for it (binfmt_misc).",
            )

    def start(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        limit_s: float = DEFAULT_LIMIT_S,
        output_limit: int = DEFAULT_OUTPUT_LIMIT,
    ) -> Completed:
        """The entrypoint of the image's configuration, run in the sandbox with `argv` behind it.

        Raises:
            EngineError: no sandbox can be started here, or it ended in mid-run.
        """
        whole = [*(self.environment.entrypoint or ()), *argv]
        return self.run(whole, limit_s=limit_s, output_limit=output_limit)

    def show_run(self, argv: Sequence[str]) -> str:
        """The shell command by which a person runs `argv` in this image by hand."""
        bound = binds.words("--bind", self._start.binds)
        return shell_words.joined(["mlcheck", "exec", *bound, self.ref.text, "--", *argv])

    def show_file(self, tool: str, *paths: str, static: Ask = PLAINLY) -> str:
        """The shell command by which a person looks at the image's files with `tool`, one of this
        machine's."""
        words = showing.words_for(self.rootfs, tool, paths)
        files = showing.places(self.rootfs, words, paths)
        return shell_words.joined([*words, *(f"{self.directory}{file}" for file in files)])

    def close(self) -> None:
        """End the sandbox with everything in it."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.close()
                self._process = None

    def _started(self) -> SandboxProcess:
        with self._lock:
            if self._closed:
                raise closed(self.ref)
            if self._process is not None and not self._process.alive:
                self._process.close()
                self._process = None
            if self._process is None:
                found = launcher()
                if isinstance(found, str):
                    what, _, remedy = found.partition("\n")
                    raise EngineError(what, remedy)
                if os.statvfs(self.directory).f_flag & os.ST_NOEXEC:
                    raise EngineError(
                        f"Nothing in {self.directory} can run: its file system is mounted noexec.",
                        "Copy the image to another file system.",
                    )
                bound = binds.usable(self.rootfs, self._start.binds)
                self._process = SandboxProcess(
                    found,
                    self.directory,
                    network=self._start.network,
                    binds=[(bind.source, bind.target) for bind in bound],
                )
            return self._process


_CANNOT_EXECUTE = 126
_MACHINES = {3: "i386", 21: "ppc64le", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64"}
_MACHINES |= {243: "riscv64"}
"""By ELF's e_machine: https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html"""


def _elf_machine(head: bytes) -> int | None:
    """For which kind of machine an ELF file is; None: it is none."""
    if len(head) < 20 or not head.startswith(b"\x7fELF"):
        return None
    return int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")


def check_directory(ref: ImageRef) -> Path:
    """The directory that is meant, as an absolute path: the working directory may change later.

    Raises:
        UsageError: there is none, or it does not look like an image.
    """
    directory = Path(ref.location).expanduser().absolute()
    try:
        names = {entry.name for entry in os.scandir(directory)}
    except FileNotFoundError:
        if directory.is_symlink():
            # As CVMFS has it when the image was removed, or is not yet on this machine.
            raise UsageError(
                f"{ref.text}: {directory} is a symlink to {directory.readlink()}, which leads to "
                "no directory.",
                "On CVMFS, see that the repository is mounted and the image is published; "
                "elsewhere, correct the link.",
            ) from None
        raise UsageError(
            f"{ref.text}: there is no directory {directory}.",
            "Give the directory that holds the image's root file system.",
        ) from None
    except NotADirectoryError:
        raise UsageError(
            f"{ref.text}: {directory} is a file, not a directory.",
            "An archive is written docker-archive:FILE or oci-archive:FILE, a SIF file FILE.sif.",
        ) from None
    except OSError as error:
        raise UsageError(
            f"{ref.text}: {directory} cannot be read: {error.strerror}.",
            "Run mlcheck as a user who may read the whole image.",
        ) from None
    if not names.intersection(_MARKS):
        raise UsageError(
            f"{ref.text}: {directory} holds no image: it has none of {', '.join(_MARKS)}.",
            "Give the directory that holds the image's root file system.",
        )
    return directory
