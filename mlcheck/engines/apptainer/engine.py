"""The engines "apptainer" and "singularity", through their command line.

Directories (sandboxes, CVMFS) and SIF files are run as they are; images of a registry and archives
are unpacked first (`images`).

A command sees the image read-only; processes, `/tmp`, `/dev` and network of its own; nothing of the
host's home, working directory and variables, and no path that the host's administrator binds into
containers. Some things cannot be turned off: apptainer puts an `/etc/resolv.conf` of its own into
the container, and a line for the user who runs it into `/etc/passwd` and `/etc/group`. The image's
own `/.singularity.d/env` scripts set the environment, once, when the container starts; their output
is discarded. HOME is `/tmp`, as in the other engines.

User namespaces are used wherever the machine has them, even as root and where apptainer is
installed set-uid root: mlcheck may then inspect and end every process. The only mapped user is the
one who runs mlcheck; other users' files appear to belong to `nobody`. As root the commands keep the
capabilities that they have in a docker container. They get no new privileges and a filter of system
calls (`mlcheck.machine.seccomp`), except where apptainer needs its own set-uid program.

All commands run in one container. In an image without /bin/sh or setsid(1), each command gets a
container of its own: the output of the image's scripts then precedes its output, HOME is the home
of the user on the host, and no file in `/tmp` lasts from one command to the next.

apptainer gives an ordinary user's container a `/tmp` of 64 MB (`sessiondir max size`), too small
for an environment; root's is half of the memory. For an ordinary user, `/tmp` is therefore a
directory on this machine's disk, which is removed with the container.
"""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

from mlcheck.engines import binds, capabilities, file_commands
from mlcheck.engines.apptainer import images as apptainer_images
from mlcheck.engines.apptainer.container import NO_NV, Container, last_words
from mlcheck.engines.apptainer.process import started
from mlcheck.engines.apptainer.program import PASSED, Program, find_program, usable_program
from mlcheck.engines.apptainer.sif import mounted, read_sif
from mlcheck.engines.base import (
    Abilities,
    Command,
    Completed,
    Engine,
    Prepared,
    Progress,
    PullPolicy,
    Start,
    silent,
)
from mlcheck.engines.container import ContainerImage
from mlcheck.engines.one_shot import feeding, printed
from mlcheck.engines.shell import PipeStream
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.image.singularity_d import read_environment
from mlcheck.machine import janitor
from mlcheck.machine.proxies import proxies
from mlcheck.model import shell_words
from mlcheck.model.environment import Environment
from mlcheck.model.errors import EngineError, Trouble
from mlcheck.model.image_ref import ImageRef

_MACHINES = tuple(
    f"/proc/{name}"
    for name in ("acpi", "bus", "fs", "irq", "mtrr", "pressure", "scsi", "sys", "sysrq-trigger")
)
"""Parts of /proc that are the machine's, and which root may write whatever its namespace."""

_FAILED = 255
"""apptainer's exit code when it fails itself."""

_NOT_FOUND = re.compile(r"no such file or directory|executable file not found")
_NOT_EXECUTABLE = re.compile(r"permission denied|exec format error|is a directory|argument list")


class Apptainer(Engine):
    """See `mlcheck.engines.base.Engine`."""

    def __init__(self, name: str = "apptainer") -> None:
        super().__init__(name)

    def unusable(self) -> Trouble | None:
        """Return the reason why commands cannot run on this machine, or None if they can.

        Starts a container once to find out.
        """
        found = find_program(self.name)
        return found if isinstance(found, Trouble) else None

    def describe(self) -> str:
        """Return which program it is, and whether it uses user namespaces."""
        found = usable_program(self.name)
        return f"{found.version} ({found.path}{' --userns' if found.userns else ''})"

    def abilities(self) -> Abilities:
        """See `Engine.abilities`."""
        return Abilities(
            version=usable_program(self.name).version.rpartition(" ")[2],
            store="none",
            files="where they lie; of a SIF file, through squashfuse",
            gpus="--nv",
            users="this user",
            limits="memory, processes (watched)",
        )

    def prepare(
        self, ref: ImageRef, *, pull: PullPolicy = "missing", progress: Progress = silent
    ) -> AbstractContextManager[Prepared]:
        """See `mlcheck.engines.apptainer.images.prepare`."""
        return apptainer_images.prepare(ref, self.name, pull, progress)

    @contextmanager
    def open(self, prepared: Prepared, *, start: Start = Start()) -> Iterator[OpenApptainer]:
        """Open an image. Nothing is started before the first command.

        A SIF file is mounted when its files are first read.
        """
        with closing(OpenApptainer(self.name, prepared, start)) as image:
            yield image


class OpenApptainer(ContainerImage[Container]):
    """An open image; see `mlcheck.engines.base.OpenImage`."""

    def __init__(self, engine: str, prepared: Prepared, start: Start) -> None:
        super().__init__(engine, prepared, start)
        self.location = Path(prepared.location)
        self._resources = ExitStack()

    @property
    def notes(self) -> tuple[str, ...]:
        """Return notes for readers of a report on how commands are run."""
        if self._has_shell:
            return ()
        return (f"no /bin/sh with setsid in the image: each command is a {self.engine} exec",)

    @functools.cached_property
    def rootfs(self) -> DirectoryRootFS:
        """The files of the image, without the files that apptainer adds."""
        with self._lock:
            if self.location.is_dir():
                return DirectoryRootFS(self.location)
            return DirectoryRootFS(self._resources.enter_context(mounted(self.location)))

    @functools.cached_property
    def environment(self) -> Environment:
        """The image's configuration, from its `/.singularity.d`."""
        return read_environment(self.rootfs)

    def _in_shell(self, command: Command) -> Command:
        # apptainer passes on the proxy variables itself.
        return command.over({"HOME": "/tmp"})  # noqa: S108

    def _run_alone(self, command: Command) -> Completed:
        return self._directly("exec", command)

    def _run_anew(self, command: Command) -> Completed:
        """Run the image's runscript, which contains its entrypoint."""
        return self._directly("run", command)

    def _directly(self, action: str, command: Command) -> Completed:
        """Run a command in a container of its own."""
        program, options = self._command()
        told = {f"{program.prefix}ENV_{name}": value for name, value in command.env.items()}
        argv = [program.path, action, *options, "--pwd", command.cwd, str(self.location)]
        begun = time.monotonic()
        code = None
        variables = {**self._outside(), **told}
        confined = bool(program.userns)
        with started([*argv, *command.argv], variables, confined=confined) as process:
            stream = PipeStream(process)
            with feeding(stream, command.stdin):
                ended, stdout, stderr = printed(stream, command, begun)
                seconds = time.monotonic() - begun
                if ended == "exited":
                    code = process.wait()
        if code is not None and code < 0:
            code = 128 - code
        said = stderr.decode("utf-8", "replace")
        if NO_NV in said and self._start.gpu:
            raise self._explain(NO_NV)
        words = last_words(said)
        if code != _FAILED or not words:
            return Completed(command.argv, code, stdout, stderr, ended, seconds)
        if command.argv[0] in words and _NOT_FOUND.search(words):
            return command.not_run(127, words, seconds)
        if _NOT_EXECUTABLE.search(words) or (command.cwd in words and _NOT_FOUND.search(words)):
            return command.not_run(126, words, seconds)
        raise self._explain(said)

    def _run_words(self, argv: Sequence[str]) -> Sequence[str]:
        found = find_program(self.engine)
        options = [] if isinstance(found, Trouble) else [*found.userns]
        options += ["--containall", "--no-home", "--no-mount", "bind-paths"]
        options += ["--nv"] if self._start.gpu else []
        options += binds.words("--bind", self._start.binds, ":ro")
        return [self.engine, "exec", *options, self._shown, *argv]

    def _show_file(self, words: Sequence[str], files: Sequence[str]) -> str:
        """Return a command with this machine's tool for a directory, and for an unpacked copy if
        the image lacks the tool; else with the image's own."""
        if self.location.is_dir():
            return file_commands.in_directory(self.location, words, files)
        if any(self.rootfs.resolve(f"{place}{words[0]}").final for place in file_commands.TOOLS):
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
        """The image as a person types it: a converted image is gone after the run."""
        if self.ref.kind in ("directory", "reference", "sif"):
            return str(self.location)
        return f"docker://{self.ref.text}" if self.ref.kind == "registry" else self.ref.text

    def _end(self) -> None:
        self._end_container()
        self._resources.close()

    def _new_container(self) -> Container:
        program, options = self._command()
        argv = [program.path, "exec", *options, *self._roomy_tmp, str(self.location)]
        return Container(
            argv,
            self._outside(),
            gpu=self._start.gpu,
            confined=bool(program.userns),
            limits=self._start.limits,
            explain=self._explain,
        )

    def _lost(self, command: Command, *, container_ended: bool) -> EngineError:
        what = "container" if container_ended else "shell in the container"
        return EngineError(f"The {what} of {self.ref.text} ended while it ran {command.argv[0]!r}.")

    def _command(self) -> tuple[Program, list[str]]:
        found = usable_program(self.engine)
        options = [*found.userns, "--containall", "--no-home", "--no-eval"]
        # A name in the image's own /etc/hosts: servers write their addresses with it.
        options += ["--hostname", "localhost"]
        hidden = "bind-paths"
        if os.geteuid() == 0:
            # Root of this machine is root for its files too, whatever its namespace.
            dropped = (*capabilities.DROPPED, *capabilities.NEWER)
            options += ["--drop-caps", ",".join(f"CAP_{name}" for name in dropped)]
            for path in _MACHINES:
                options += ["--bind", f"{path}:{path}:ro"] if Path(path).exists() else []
            hidden += "" if self._start.gpu else ",sys"
        options += ["--no-mount", hidden]
        if not self._start.network:
            # The addresses of this machine's name servers tell something, and are of no use.
            options += ["--net", "--network", "none", "--dns", "127.0.0.1"]
        options += ["--nv"] if self._start.gpu else []
        if self._start.binds:
            options += binds.words("--bind", binds.usable(self.rootfs, self._start.binds), ":ro")
        return found, options

    @functools.cached_property
    def _roomy_tmp(self) -> list[str]:
        """The option for a large `/tmp`; none for root, whose `/tmp` is large."""
        if os.geteuid() == 0:
            return []
        directory = self._resources.enter_context(janitor.temporary_directory("mlcheck-tmp-"))
        return ["--workdir", str(directory)]

    def _outside(self) -> dict[str, str]:
        """Return the variables for apptainer itself."""
        env = {name: os.environ[name] for name in PASSED if name in os.environ}
        if self._start.network:
            env |= proxies()
        return env

    def _explain(self, said: str) -> EngineError:
        """Convert apptainer's messages about its failure to an error with a remedy."""
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
