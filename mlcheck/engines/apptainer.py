"""The engines "apptainer" and "singularity", through their command line.

Directories (sandboxes, CVMFS) and SIF files are run as they are; images of a registry and
archives are unpacked first (`apptainer_images`).

A command sees the image read-only; processes, `/tmp`, `/dev` and network of its own; nothing of
the host's home, working directory and variables, and no path that the host's administrator binds
into containers. What cannot be turned off: apptainer puts a `/etc/resolv.conf` of its own into
the container, and a line for the user who runs it into `/etc/passwd` and `/etc/group`. The
image's own `/.singularity.d/env` scripts set the environment, once, when the container starts;
what they print is thrown away. HOME is `/tmp`, as in the other engines.

User namespaces are used wherever the machine has them, even as root and where apptainer is
installed set-uid root: everything is then ours to look at and to end. The one user who is mapped
is the one who runs mlcheck; files of others appear as `nobody`'s. As root the commands keep the
capabilities that a container of docker has.

All commands run in one container. In an image without /bin/sh or setsid(1), each command gets a
container of its own: what the image's scripts print then stands before its output, HOME is the
host user's name for it, and no file in `/tmp` lasts from one command to the next.

apptainer gives an ordinary user's container a `/tmp` of 64 MB (`sessiondir max size`), in which no
environment can be made; root's is half of the memory. That of an ordinary user is therefore a
directory on this machine's disk, which goes with the container.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from mlcheck import shell_words
from mlcheck.engines import apptainer_images, binds, showing
from mlcheck.engines.apptainer_container import NO_NV, Container, last_words
from mlcheck.engines.apptainer_direct import run_directly
from mlcheck.engines.apptainer_program import PASSED, Program, find_program
from mlcheck.engines.apptainer_sif import mounted, read_sif
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
    closed,
    silent,
)
from mlcheck.engines.channel import Channels, NoShell, StreamEnded
from mlcheck.engines.proxies import proxies
from mlcheck.engines.singularity_d import read_environment
from mlcheck.errors import EngineError
from mlcheck.facts import Environment
from mlcheck.image import ImageRef
from mlcheck.rootfs import DirectoryRootFS

Name = Literal["apptainer", "singularity"]


# capabilities(7). docker's default set lacks these.
_DROPPED = ",".join(
    f"CAP_{name}"
    for name in (
        *("SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "SYS_RAWIO", "SYS_BOOT", "SYS_TIME", "SYSLOG"),
        *("SYS_RESOURCE", "SYS_NICE", "NET_ADMIN", "MAC_ADMIN", "MAC_OVERRIDE", "LINUX_IMMUTABLE"),
        *("DAC_READ_SEARCH", "IPC_OWNER", "BPF", "PERFMON", "CHECKPOINT_RESTORE"),
    )
)


class Apptainer:
    """See `mlcheck.engines.base.Engine`."""

    def __init__(self, name: Name = "apptainer") -> None:
        self.name: str = name

    def unusable(self) -> str | None:
        """Why commands cannot run on this machine and what helps; None: they can.

        Starts a container once to find out.
        """
        found = find_program(self.name)
        return found if isinstance(found, str) else None

    tried = unusable

    def describe(self) -> str:
        """Which program, and whether it uses user namespaces."""
        found = find_program(self.name)
        if isinstance(found, str):
            raise EngineError(*found.split("\n", 1))
        return f"{found.version} ({found.path}{' --userns' if found.userns else ''})"

    def prepare(
        self, ref: ImageRef, *, pull: PullPolicy = "missing", progress: Progress = silent
    ) -> AbstractContextManager[Prepared]:
        """See `mlcheck.engines.apptainer_images.prepare`."""
        return apptainer_images.prepare(ref, self.name, pull, progress)

    @contextmanager
    def open(self, prepared: Prepared, *, start: Start = Start()) -> Iterator[OpenApptainer]:
        """Open an image. Nothing is started before the first command.

        A SIF file is mounted when its files are first read.
        """
        image = OpenApptainer(self.name, prepared, start)
        try:
            yield image
        finally:
            image.close()


class OpenApptainer:
    """An open image; see `mlcheck.engines.base.OpenImage`."""

    layers = None

    def __init__(self, engine: str, prepared: Prepared, start: Start) -> None:
        self.engine = engine
        self.ref = prepared.ref
        self.digest = prepared.digest
        self.location = Path(prepared.location)
        self._start = start
        self._resources = ExitStack()
        self._lock = threading.RLock()
        self._container: tuple[Container, Channels] | None = None
        self._without_shell = False
        self._closed = False

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of how commands are run."""
        if not self._without_shell:
            return ()
        return (f"no /bin/sh with setsid in the image: each command is a {self.engine} exec",)

    @functools.cached_property
    def rootfs(self) -> DirectoryRootFS:
        """The files of the image, without what apptainer adds."""
        with self._lock:
            if self.location.is_dir():
                return DirectoryRootFS(self.location)
            return DirectoryRootFS(self._resources.enter_context(mounted(self.location)))

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
        """Run `argv` in the container; see `mlcheck.engines.base.OpenImage.run`.

        Raises:
            EngineError: no container can be started here, or it ended in mid-run.
        """
        variables = {"HOME": "/tmp"} | dict(env or {})  # noqa: S108
        if channels := self._channels():
            try:
                return channels.run(argv, variables, cwd, stdin, limit_s, output_limit)
            except (NoShell, StreamEnded):
                raise EngineError(
                    f"The container of {self.ref.text} ended while it ran {argv[0]!r}."
                    if self._has_ended()
                    else f"The shell in the container of {self.ref.text} ended while it ran "
                    f"{argv[0]!r}."
                ) from None
        return self._directly("exec", argv, env or {}, cwd, stdin, limit_s, output_limit)

    def start(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        limit_s: float = DEFAULT_LIMIT_S,
        output_limit: int = DEFAULT_OUTPUT_LIMIT,
    ) -> Completed:
        """`apptainer run`: the image's runscript, which has its entrypoint.

        Raises:
            EngineError: no container can be started here.
        """
        done = self._directly("run", argv, {}, "/", b"", limit_s, output_limit)
        whole = (*(self.environment.entrypoint or ()), *argv)
        return dataclasses.replace(done, argv=whole)

    def _directly(
        self,
        action: str,
        argv: Sequence[str],
        variables: Mapping[str, str],
        cwd: str,
        stdin: bytes,
        limit_s: float,
        output_limit: int,
    ) -> Completed:
        program, options = self._command()
        return run_directly(
            [program.path, action, *options],
            str(self.location),
            argv,
            self._outside(program),
            variables=dict(variables),
            variable_prefix=f"{program.prefix}ENV_",
            cwd=cwd,
            stdin=stdin,
            limit_s=limit_s,
            output_limit=output_limit,
            explain=self._explain,
        )

    def show_run(self, argv: Sequence[str]) -> str:
        """The shell command by which a person runs `argv` in this image by hand."""
        found = find_program(self.engine)
        options = [] if isinstance(found, str) else [*found.userns]
        options += ["--containall", "--no-home", "--no-mount", "bind-paths"]
        options += ["--nv"] if self._start.gpu else []
        options += binds.words("--bind", self._start.binds, ":ro")
        return shell_words.joined([self.engine, "exec", *options, self._shown, *argv])

    def show_file(self, tool: str, *paths: str, static: Ask = PLAINLY) -> str:
        """The shell command by which a person looks at the image's files with `tool`: this
        machine's for a directory, and where the image lacks it, on an unpacked copy."""
        words = showing.words_for(self.rootfs, tool, paths)
        files = showing.places(self.rootfs, words, paths)
        if self.location.is_dir():
            return shell_words.joined([*words, *(f"{self.location}{file}" for file in files)])
        if any(self.rootfs.resolve(f"{place}{words[0]}").final for place in showing.TOOLS):
            return self.show_run([*words, *files])
        copies = " ".join(f'"$copy"{shell_words.quoted(f"/image{file}")}' for file in files)
        look = f"{shell_words.joined(words)} {copies}"
        shown = shell_words.quoted(self._shown)
        offset = read_sif(self.ref.text, self.location).offset if self.ref.kind == "sif" else None
        if offset is None:
            unpack = f'{self.engine} build --sandbox "$copy"/image {shown}'
        else:
            parts = shell_words.joined(file.lstrip("/") for file in files)
            options = f"-quiet -no-progress -no-wildcards -offset {offset}"
            unpack = f'unsquashfs {options} -dest "$copy"/image {shown} {parts}'
        return f"copy=$(mktemp -d) && {unpack} >/dev/null; {look}"

    @property
    def _shown(self) -> str:
        """What a person types: what was converted is gone afterwards."""
        if self.ref.kind in ("directory", "reference", "sif"):
            return str(self.location)
        return f"docker://{self.ref.text}" if self.ref.kind == "registry" else self.ref.text

    def close(self) -> None:
        """End the container with everything in it."""
        with self._lock:
            self._closed = True
            if self._container is not None:
                self._container[1].close()
                self._container[0].close()
                self._container = None
        self._resources.close()

    def _channels(self) -> Channels | None:
        """None: there is no usable shell in the image."""
        with self._lock:
            if self._closed:
                raise closed(self.ref)
            if self._container is not None and self._container[0].has_ended(0):
                self._container[1].close()
                self._container[0].close()
                self._container = None
            if self._container is None and not self._without_shell:
                program, options = self._command()
                argv = [program.path, "exec", *options, *self._roomy_tmp, str(self.location)]
                try:
                    container = Container(
                        argv, self._outside(program), gpu=self._start.gpu, explain=self._explain
                    )
                except NoShell:
                    self._without_shell = True
                    return None
                self._container = container, Channels(container.connect, container.kill)
            return self._container[1] if self._container else None

    def _has_ended(self) -> bool:
        """Whether the container has; its end may be seen a moment after that of its shells."""
        with self._lock:
            return self._container is None or self._container[0].has_ended(1.0)

    def _command(self) -> tuple[Program, list[str]]:
        found = find_program(self.engine)
        if isinstance(found, str):
            what, _, remedy = found.partition("\n")
            raise EngineError(what, remedy)
        options = [*found.userns, "--containall", "--no-home", "--no-eval"]
        # A name that the image's own /etc/hosts knows: servers write their addresses with it.
        options += ["--hostname", "localhost"]
        hidden = "bind-paths"
        if os.geteuid() == 0:
            # Root of this machine is root in its files, whatever namespace it is in.
            options += ["--drop-caps", _DROPPED, "--bind", "/proc/sys:/proc/sys:ro"]
            hidden += "" if self._start.gpu else ",sys"
        options += ["--no-mount", hidden]
        options += [] if self._start.network else ["--net", "--network", "none"]
        options += ["--nv"] if self._start.gpu else []
        if self._start.binds:
            options += binds.words("--bind", binds.usable(self.rootfs, self._start.binds), ":ro")
        return found, options

    @functools.cached_property
    def _roomy_tmp(self) -> list[str]:
        """The option for a `/tmp` with room in it; none for root, who has it."""
        if os.geteuid() == 0:
            return []
        directory = Path(tempfile.gettempdir(), f"mlcheck-tmp-{os.urandom(8).hex()}")
        self._resources.enter_context(apptainer_images.removed_at_the_end(directory))
        directory.mkdir(mode=0o700)
        return ["--workdir", str(directory)]

    def _outside(self, program: Program) -> dict[str, str]:
        """The variables that apptainer itself gets."""
        env = {name: os.environ[name] for name in PASSED if name in os.environ}
        if self._start.network:
            env |= proxies()
        return env

    def _explain(self, said: str) -> EngineError:
        """What apptainer said when it failed, as an error with a remedy."""
        if NO_NV in said:
            return EngineError(
                f"{self.engine} finds no NVIDIA driver libraries on this machine, so that no GPU "
                "can be given to the image.",
                "Install NVIDIA's driver on this machine, or run without --nv.",
            )
        words = last_words(said)
        remedy = next((remedy for mark, remedy in _REMEDIES if mark in said), "")
        return EngineError(f"{self.engine} cannot start {self.location}: {words[:500]}", remedy)


_REMEDIES = (
    ("user namespace", "Allow user namespaces: `sysctl user.max_user_namespaces=15000` as root."),
    (
        "/dev/fuse",
        "An ordinary user needs access to /dev/fuse for a SIF file: `chmod 666 /dev/fuse` as "
        "root, in a container `--device /dev/fuse`; or judge an unpacked directory.",
    ),
    ("image format not recognized", "The file is no image: fetch or build it again."),
    ("trying to read the squashfs", "The file is damaged: fetch or build it again."),
    ("no space left", "Make room on the disk that the message names, or set TMPDIR."),
    ("network namespace", "Allow network namespaces, or run with the network of the host."),
    ("the image's architecture", "Run on a machine of that architecture."),
    ("exec format error", "Run on a machine of the image's architecture."),
    ("doesn't exist in container", "The image lacks a directory that apptainer needs: add it."),
)
