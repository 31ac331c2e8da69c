"""The engine "sandbox": runs commands in an image directory, with no container engine.

The kernel's namespaces do the work, made by util-linux' unshare(1) or by bubblewrap, as root or as
an ordinary user. A command sees the image read-only, a `/proc`, `/dev` and `/tmp` of its own, no
process and no file of the host, and no network unless requested. When the caller ends, even by kill
-9, everything that it started ends too.

Differences from a container: only one user is mapped, so that other users' files appear to belong
to `nobody` and `su` cannot work; `/sys` is the image's own (empty) directory; a command cannot
leave anything running in its process group. With the network of the host, commands reach the host's
own servers too, on localhost and on abstract sockets.
"""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from mlcheck.engines import binds, file_commands, installed
from mlcheck.engines.base import (
    Abilities,
    Command,
    Completed,
    Engine,
    OpenImage,
    Prepared,
    Progress,
    PullPolicy,
    Start,
    silent,
)
from mlcheck.engines.directories import check_directory
from mlcheck.engines.sandbox.process import SandboxProcess, launcher
from mlcheck.engines.sandbox.server import DEFAULT_PATH
from mlcheck.image.api import Unreadable
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.image.singularity_d import read_environment
from mlcheck.model.architecture import ARCHITECTURES
from mlcheck.model.environment import Environment
from mlcheck.model.errors import EngineError, ProbeError, Trouble
from mlcheck.model.image_ref import ImageRef


class Sandbox(Engine):
    """See `mlcheck.engines.base.Engine`."""

    def __init__(self, name: str = "sandbox") -> None:
        super().__init__(name)

    def unusable(self) -> Trouble | None:
        """Return the reason why commands cannot run on this machine, or None if they can.

        Starts a sandbox once to find out.
        """
        found = launcher()
        return found if isinstance(found, Trouble) else None

    def describe(self) -> str:
        """Return the program that makes the namespaces."""
        found = launcher()
        if isinstance(found, Trouble):
            raise found.error()
        return f"namespaces of the kernel, by {found[0]}"

    def abilities(self) -> Abilities:
        """See `Engine.abilities`."""
        return Abilities(
            version=f"Linux {platform.release().partition('-')[0]}",
            store="none",
            files="where they lie",
            gpus="no",
            users="this user, as root inside",
            limits="memory, processes (watched)",
        )

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
            EngineError: GPUs are requested, which this engine does not provide.
        """
        if start.gpu:
            raise EngineError(
                f"The engine {self.name} gives no GPU to an image.",
                "Use --engine apptainer for a directory, or run without --nv=always.",
            )
        with closing(OpenDirectory(self.name, prepared, start)) as image:
            yield image


class OpenDirectory(OpenImage):
    """An open image; see `mlcheck.engines.base.OpenImage`.

    Commands get the variables of the image's configuration, a PATH if it sets none, and HOME=/tmp;
    with `network`, the host's proxy variables too. They get nothing else of the host's.
    """

    def __init__(self, engine: str, prepared: Prepared, start: Start) -> None:
        super().__init__(engine, prepared, start)
        self.directory: Path = Path(prepared.location)
        self._rootfs = DirectoryRootFS(self.directory)
        self._process: SandboxProcess | None = None

    @property
    def rootfs(self) -> DirectoryRootFS:
        """The files of the image."""
        return self._rootfs

    @functools.cached_property
    def environment(self) -> Environment:
        """The image's configuration, from its `/.singularity.d`."""
        return read_environment(self.rootfs)

    def _run(self, command: Command) -> Completed:
        """Run a command in the sandbox.

        When the command's first process has ended, the rest of its process group gets one second to
        finish its output and is then killed.
        """
        own = {"PATH": DEFAULT_PATH, **self.environment.env, **self._of_container}
        done = self._started().run(command.over(own))
        if done.exit_code == _CANNOT_EXECUTE and b"Exec format error" in done.stderr:
            self._check_machine()
        return done

    def _run_anew(self, command: Command) -> Completed:
        return self._run(self._behind_entrypoint(command))

    def _check_machine(self) -> None:
        """Distinguish an image for another kind of machine from one in which a program
        is damaged."""
        try:
            with self.rootfs.open("/bin/sh") as file:
                theirs = _elf_machine(file.read(20))
        except (Unreadable, ProbeError):
            return
        with Path("/proc/self/exe").open("rb") as file:
            ours = _elf_machine(file.read(20))
        if theirs not in (None, ours):
            names = (one.machine for one in ARCHITECTURES if one.elf == theirs)
            kind = next(names, f"of ELF's number {theirs}")
            raise EngineError(
                f"{self.ref.text} is an image for {kind} (its /bin/sh is), and this machine is "
                f"{platform.machine()}: nothing in it can run here.",
                "Judge it on such a machine, or register qemu-user for it (binfmt_misc).",
            )

    def _run_words(self, argv: Sequence[str]) -> Sequence[str]:
        bound = binds.words("--bind", self._start.binds)
        named = [] if installed.declaration(self.engine).obvious else ["--engine", self.engine]
        return ["mlcheck", "exec", *named, *bound, self.ref.text, "--", *argv]

    def _show_file(self, words: Sequence[str], files: Sequence[str]) -> str:
        """Return a command with this machine's tool."""
        return file_commands.in_directory(self.directory, words, files)

    def _end(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def _started(self) -> SandboxProcess:
        with self._lock:
            self._check_in_use()
            if self._process is not None and not self._process.alive:
                self._end()
            if self._process is None:
                found = launcher()
                if isinstance(found, Trouble):
                    raise found.error()
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
                    limits=self._start.limits,
                )
            return self._process


_CANNOT_EXECUTE = 126


def _elf_machine(head: bytes) -> int | None:
    """Return the machine that an ELF file is for (e_machine), or None if it is not an ELF file."""
    if len(head) < 20 or not head.startswith(b"\x7fELF"):
        return None
    return int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
