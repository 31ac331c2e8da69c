"""The engines "docker" and "podman", through docker's API; `dialect` has the differences.

Commands get the variables of the image's configuration as in a container, HOME=/tmp as in the other
engines, and, with the network of the host, the host's proxy variables. The user is the image's own.
The image is read-only, `/tmp` and `/dev/shm` are writable and the container's own. The image's
entrypoint, command, working directory and health check are not used.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from mlcheck.engines import binds, file_commands
from mlcheck.engines.base import (
    Abilities,
    Command,
    Completed,
    Engine,
    Inspected,
    Prepared,
    Progress,
    PullPolicy,
    Start,
    silent,
)
from mlcheck.engines.container import ContainerImage
from mlcheck.engines.oci import abandoned
from mlcheck.engines.oci import images as oci_images
from mlcheck.engines.oci.archive import write_empty
from mlcheck.engines.oci.client import Client, connect
from mlcheck.engines.oci.container import Container, Created, new_name
from mlcheck.engines.oci.dialect import Dialect
from mlcheck.engines.oci.errors import engine_errors
from mlcheck.engines.oci.files import (
    WAYS,
    Way,
    expected_files,
    is_rootless,
    local_files,
    streamed_files,
)
from mlcheck.engines.oci.layers import OciLayers
from mlcheck.engines.oci.one_shot import run_alone
from mlcheck.engines.shell import Channels, NoShell
from mlcheck.image.api import ImageLayers, RootFS
from mlcheck.machine import janitor
from mlcheck.model import shell_words
from mlcheck.model.environment import Environment
from mlcheck.model.errors import EngineError, MlcheckError, Trouble
from mlcheck.model.image_ref import ImageRef

_OUT_OF_MEMORY = (
    "cd /sys/fs/cgroup; for f in memory.events memory/memory.oom_control; do "
    '[ ! -r $f ] || while read -r name count; do [ "$name" != oom_kill ] || echo "$count"; '
    "done <$f; done"
)
"""Prints how often the kernel has killed a process for lack of memory, in cgroups of both kinds."""

_ROOT = (None, "", "0", "root", "0:0", "root:root")


class OciStore:
    """The images of docker or podman; see `mlcheck.engines.base.Store`."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def names(self) -> frozenset[str]:
        """See `Store.names`."""
        with connect(self._dialect) as client:
            return oci_images.names(client)

    def inspect(self, ref: ImageRef) -> Inspected | None:
        """See `Store.inspect`."""
        with connect(self._dialect) as client:
            found = oci_images.inspect(client, oci_images.name_of(ref))
            return None if found is None else oci_images.inspected(client, ref, found)

    def keep(self, archive: Path, name: str) -> None:
        """See `Store.keep`."""
        with connect(self._dialect) as client:
            oci_images.load(client, archive, name)


class Oci(Engine):
    """Docker or podman; see `mlcheck.engines.base.Engine`.

    Args:
        ways: the permitted ways of reading the image's files, best first; for tests.
    """

    def __init__(self, dialect: Dialect, *, ways: Sequence[Way] = WAYS) -> None:
        super().__init__(dialect.name)
        self.dialect = dialect
        self.store = OciStore(dialect)
        self._ways = ways

    def unusable(self) -> Trouble | None:
        """Return the reason why this engine cannot be used on this machine, or None if it can."""
        try:
            with connect(self.dialect):
                return None
        except EngineError as error:
            return Trouble.of(error)

    def tried(self) -> Trouble | None:
        """See `mlcheck.engines.base.Engine.tried`: a run on an empty image."""
        try:
            with janitor.temporary_directory() as directory:
                ref = ImageRef.parse(f"docker-archive:{write_empty(directory / 'empty.tar')}")
                with self.prepare(ref) as prepared, self.open(prepared) as image:
                    image.run(["/none"])
                    image.rootfs.listdir("/")
        except MlcheckError as error:
            return Trouble.of(error)
        return None

    def describe(self) -> str:
        """Describe its version and address; then, on a line each, the containers that
        are broken."""
        with connect(self.dialect) as client:
            version = ".".join(map(str, client.engine_version))
            what = f"{self.dialect.label} {version} at {client.address}"
            return "\n".join([what, *abandoned.broken(client)])

    def abilities(self) -> Abilities:
        """See `Engine.abilities`."""
        dialect = self.dialect
        with connect(dialect) as client:
            with engine_errors(dialect, "say what it can do"):
                told = client.info()
            containers = expected_files(client, told)
            since, version = dialect.gpu_since, client.engine_version
            too_old = since is not None and version < since
            needed = ".".join(map(str, since or ()))
            rootless = is_rootless(told)
            limits = [
                word
                for key, word in (("MemoryLimit", "memory"), ("PidsLimit", "processes"))
                if told.get(key)
            ]
            return Abilities(
                version=".".join(map(str, version)),
                store=f"{oci_images.store_of(told)} in {told.get('DockerRootDir')}",
                files=containers,
                gpus=f"no: {needed} or newer" if too_old else " ".join(dialect.gpu_option),
                users="this user's subordinate ones" if rootless else "the image's, root too",
                limits=f"{', '.join(limits) or 'none'} (cgroup v{told.get('CgroupVersion')})",
            )

    @contextmanager
    def prepare(
        self, ref: ImageRef, *, pull: PullPolicy = "missing", progress: Progress = silent
    ) -> Iterator[Prepared]:
        """See `mlcheck.engines.oci.images.prepare`."""
        with (
            connect(self.dialect) as client,
            oci_images.prepare(client, ref, pull=pull, progress=progress) as prepared,
        ):
            yield prepared

    @contextmanager
    def open(self, prepared: Prepared, *, start: Start = Start()) -> Iterator[OpenOci]:
        """Open an image. Nothing is started before the first command or look at a file.

        Containers that an earlier run on this machine left behind are removed.
        """
        with closing(OpenOci(self.dialect, prepared, start, self._ways)) as image:
            abandoned.clear(image.client())
            yield image


class OpenOci(ContainerImage[Container]):
    """An open image; see `mlcheck.engines.base.OpenImage`."""

    def __init__(
        self, dialect: Dialect, prepared: Prepared, start: Start, ways: Sequence[Way]
    ) -> None:
        super().__init__(dialect.name, prepared, start)
        self._dialect = dialect
        self._image = prepared.location
        self._ways = ways
        self._resources = ExitStack()
        self._client: Client | None = None
        self._kills: tuple[Channels | None, bytes] = None, b"0"

    @property
    def notes(self) -> tuple[str, ...]:
        """Return notes for readers of a report on how commands are run."""
        if self._has_shell:
            return ()
        return (
            f"{self.ref.text} has no usable /bin/sh: each command gets a container of its own, "
            "which takes longer.",
        )

    @functools.cached_property
    def _inspected(self) -> Mapping[str, Any]:
        with engine_errors(self._dialect, f"inspect {self.ref.text}"):
            found: Mapping[str, Any] = self.client().inspect_image(self._image)
            return found

    @property
    def _config(self) -> Mapping[str, Any]:
        return self._inspected.get("Config") or {}

    @functools.cached_property
    def environment(self) -> Environment:
        """The image's configuration, as the engine reports it."""
        config = self._config
        return Environment(
            env=self._own_variables(),
            entrypoint=tuple(config.get("Entrypoint") or ()),
            cmd=tuple(config.get("Cmd") or ()),
            user=config.get("User") or "",
            workdir=config.get("WorkingDir") or "",
            exposed=tuple(sorted(config.get("ExposedPorts") or ())),
            labels=dict(config.get("Labels") or {}),
            source=f"{self.engine} image inspect {self._shown}",
            healthcheck=tuple(self._healthcheck.get("Test") or ()),
        )

    @property
    def _healthcheck(self) -> Mapping[str, Any]:
        if not self._dialect.own_api:
            return self._config.get("Healthcheck") or {}
        # podman's answer to docker's API omits it.
        found = oci_images.inspect(self.client(), self._image)
        return (found or {}).get("Healthcheck") or {}

    @functools.cached_property
    def rootfs(self) -> RootFS:
        """The image's files, read in the first of the ways that this machine allows."""
        with self._lock:
            container = self._as_it_is()
            for way in self._ways:
                if way == "streamed":
                    return self._streamed()
                if container and (found := local_files(container, self._inspected)) is not None:
                    return found
        raise EngineError(
            f"{self.ref.text}: its files cannot be read as {self._ways} on this machine."
        )

    @functools.cached_property
    def layers(self) -> ImageLayers:
        """The image's layers, from the engine's own store if this machine and user can read it.

        Whether a directory that the engine names is on this machine is known once the container's
        files have been found.
        """
        return OciLayers(self.client, self._image, self.ref.text, lambda: self.rootfs)

    def _run_alone(self, command: Command) -> Completed:
        command = self._in_shell(command)
        return run_alone(self.client(), self._image, command, self._bound)

    def _run_anew(self, command: Command) -> Completed:
        """Run a command in a container of its own, in which the entrypoint is the first process.

        As with `run IMAGE ARGV`, it starts in the image's working directory, and its files are
        writable; that changes nothing for other commands.
        """
        cwd = self.environment.workdir or "/"
        whole = dataclasses.replace(self._behind_entrypoint(command), cwd=cwd)
        return run_alone(self.client(), self._image, whole, self._bound, read_only=False)

    def _run_words(self, argv: Sequence[str]) -> Sequence[str]:
        gpu = self._dialect.gpu_option if self._start.gpu else ()
        return self._by_hand(argv, *gpu, *binds.words("--volume", self._start.binds, ":ro"))

    def _by_hand(self, argv: Sequence[str], *options: str) -> Sequence[str]:
        network = [] if self._start.network else ["--network", "none"]
        run = [self.engine, "run", "--rm", *network, *options, "--entrypoint", argv[0]]
        return [*run, self._shown, *argv[1:]]

    def _show_file(self, words: Sequence[str], files: Sequence[str]) -> str:
        """Return a command with the image's own tool, run by root, who sees the same files. If the
        image lacks the tool, this machine's is run on a copy of the files."""
        root = [] if self.environment.user in _ROOT else ["--user", "0"]
        look = shell_words.joined(words)
        if self._has(words[0]):
            return shell_words.joined(self._by_hand([*words, *files], *root))
        if self._has("cat") and words[0] != "ls":
            cats = (self._by_hand(["cat", file], *root) for file in files)
            copies = map(shell_words.joined, cats)
            return "; ".join(f'file=$(mktemp) && {c} >"$file"; {look} "$file"' for c in copies)
        create = shell_words.joined([self.engine, "create", self._shown, "sh"])
        steps = []
        for file in files:
            copy = f'{self.engine} cp "$id":{shell_words.quoted(file)} -'
            if words[0] == "ls":
                steps.append(f"{copy} | tar -tvf - | head -n 1")
            else:
                steps.append(f'file=$(mktemp) && {copy} | tar -xOf - >"$file"; {look} "$file"')
        end = f'{self.engine} rm "$id" >/dev/null'
        return "; ".join([f"id=$({create})", *steps, end])

    def _has(self, tool: str) -> bool:
        return any(self.rootfs.resolve(f"{place}{tool}").final for place in file_commands.TOOLS)

    @property
    def _shown(self) -> str:
        return self.ref.text if self.ref.kind == "registry" else self._image

    def client(self) -> Client:
        """Return the connection to the engine, made if there is none."""
        with self._lock:
            self._check_in_use()
            if self._client is None:
                self._client = self._resources.enter_context(connect(self._dialect))
            return self._client

    def _end(self) -> None:
        self._end_container()
        self._client = None
        self._resources.close()

    def _own_variables(self) -> dict[str, str]:
        pairs = (text.partition("=") for text in self._config.get("Env") or ())
        return {name: value for name, _, value in pairs}

    def _new_container(self) -> Container:
        own = frozenset(self._own_variables())
        return Container(self.client(), self._image, self._bound, own)

    @functools.cached_property
    def _bound(self) -> Start:
        """Options for starting commands: with the directories that can be bound."""
        if not self._start.binds:
            return self._start
        bound = binds.usable(self.rootfs, self._start.binds)
        return dataclasses.replace(self._start, binds=bound)

    def _as_it_is(self) -> Container | None:
        """Return a running container in which nothing is bound over the image's files, or None if
        the image has no usable shell."""
        if not self._start.binds:
            running = self._in_container()
            return running[0] if running else None
        own = frozenset(self._own_variables())
        try:
            container = Container(self.client(), self._image, Start(), own)
        except NoShell:
            return None
        self._resources.callback(container.close)
        return container

    def _exceeded(self, channels: Channels) -> str:
        told = channels.run(Command(("/bin/sh", "-c", _OUT_OF_MEMORY), limit_s=10))
        count = told.stdout.strip() or b"0"
        with self._lock:
            before = self._kills[1] if self._kills[0] is channels else b"0"
            self._kills = channels, count
        return self._start.limits.exceeded("memory") if count != before else ""

    def _lost(self, command: Command, *, container_ended: bool) -> EngineError:
        """Make the error for a container or an engine that has disappeared."""
        program = command.argv[0]
        try:
            with engine_errors(self._dialect, "answer"):
                self.client().ping()
        except EngineError as error:
            with self._lock:
                # A later command tries to connect again.
                self._end_container()
                self._client = None
                self._resources.close()
            return EngineError(
                f"{self._dialect.label} stopped while {self.ref.text} ran {program!r}.",
                error.remedy or self._dialect.stopped,
            )
        return EngineError(
            f"The container of {self.ref.text} ended while it ran {program!r}: somebody or "
            "something killed it.",
            "If it was not you, check whether this machine ran out of memory (dmesg), or the "
            "image's commands out of theirs (--limit-memory): files in /tmp and /dev/shm count.",
        )

    def _streamed(self) -> RootFS:
        """Return the files from a container that is never started, in which nothing is mounted."""
        client = self.client()
        container = Created(client, self._image, new_name(), ["/bin/sh"], Start(), user="0")
        self._resources.callback(container.close)
        files = streamed_files(client, container.name)
        self._resources.callback(files.close)
        return files
