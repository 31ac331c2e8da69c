"""The engines "docker" and "podman", through docker's API; `oci_dialect` knows the differences.

Commands get the variables of the image's configuration as a container has them, HOME=/tmp as in
the other engines, and, with the network of the host, the host's proxy variables. The user is the
image's own. The image is read-only, `/tmp` and `/dev/shm` are writable and the container's own.
The image's entrypoint, command, working directory and health check are not used.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mlcheck import shell_words
from mlcheck.engines import binds, janitor, oci_abandoned, oci_images, showing
from mlcheck.engines.base import (
    DEFAULT_LIMIT_S,
    DEFAULT_OUTPUT_LIMIT,
    PLAINLY,
    Ask,
    Completed,
    ImageLayers,
    Prepared,
    Progress,
    PullPolicy,
    RootFS,
    Start,
    closed,
    silent,
)
from mlcheck.engines.channel import Channels, NoShell, StreamEnded
from mlcheck.engines.oci_archive import write_empty
from mlcheck.engines.oci_client import Client, connect
from mlcheck.engines.oci_container import (
    Container,
    Created,
    new_name,
)
from mlcheck.engines.oci_dialect import Dialect
from mlcheck.engines.oci_direct import run_directly
from mlcheck.engines.oci_errors import engine_errors
from mlcheck.engines.oci_files import WAYS, Way, local_files, streamed_files
from mlcheck.engines.oci_layers import OciLayers
from mlcheck.engines.proxies import proxies
from mlcheck.errors import EngineError, MlcheckError
from mlcheck.facts import Environment
from mlcheck.image import ImageRef
from mlcheck.rootfs import DirectoryRootFS

_ROOT = (None, "", "0", "root", "0:0", "root:root")


class Inspected(NamedTuple):
    """What an engine says of an image, in docker's form, and the digest of its manifest."""

    image: Mapping[str, Any]
    manifest: str | None


class Oci:
    """Docker or podman; see `mlcheck.engines.base.Engine`.

    Args:
        ways: in which ways the image's files may be read, best first; for tests.
    """

    def __init__(self, dialect: Dialect, *, ways: Sequence[Way] = WAYS) -> None:
        self.dialect = dialect
        self._ways = ways

    @property
    def name(self) -> str:
        return self.dialect.name

    def unusable(self) -> str | None:
        """Why this engine cannot be used on this machine and what helps; None: it can."""
        try:
            with connect(self.dialect):
                return None
        except EngineError as error:
            return str(error)

    def tried(self) -> str | None:
        """See `mlcheck.engines.base.Engine.tried`: a run on an image in which there is nothing."""
        try:
            with janitor.temporary_directory() as directory:
                ref = ImageRef.parse(f"docker-archive:{write_empty(directory / 'empty.tar')}")
                with self.prepare(ref) as prepared, self.open(prepared) as image:
                    image.run(["/none"])
                    image.rootfs.listdir("/")
        except MlcheckError as error:
            return str(error)
        return None

    def describe(self) -> str:
        """Which version, and where it listens; then a line for each container that is broken."""
        with connect(self.dialect) as client:
            version = ".".join(map(str, client.engine_version))
            what = f"{self.dialect.label} {version} at {client.host}"
            return "\n".join([what, *oci_abandoned.broken(client)])

    def has(self, ref: ImageRef) -> bool:
        """Whether an image of a registry is in the engine's store.

        Raises:
            EngineError: the engine did not answer.
        """
        with connect(self.dialect) as client:
            return oci_images.inspect(client, oci_images.name_of(ref)) is not None

    def names(self) -> frozenset[str]:
        """See `mlcheck.engines.oci_images.names`.

        Raises:
            EngineError: the engine did not answer.
        """
        with connect(self.dialect) as client:
            return oci_images.names(client)

    def inspect(self, ref: ImageRef) -> Inspected | None:
        """What the engine says of an image of a registry that it has; None: it has none.

        Raises:
            EngineError: the engine did not answer.
        """
        with connect(self.dialect) as client:
            found = oci_images.inspect(client, oci_images.name_of(ref))
            return None if found is None else Inspected(found, oci_images.digest(ref, found))

    @contextmanager
    def prepare(
        self, ref: ImageRef, *, pull: PullPolicy = "missing", progress: Progress = silent
    ) -> Iterator[Prepared]:
        """See `mlcheck.engines.oci_images.prepare`."""
        with (
            connect(self.dialect) as client,
            oci_images.prepare(client, ref, pull=pull, progress=progress) as prepared,
        ):
            yield prepared

    def keep(self, archive: Path, name: str) -> None:
        """Load the image of an archive under a name, and leave it there.

        Raises:
            EngineError: the engine could not.
        """
        with connect(self.dialect) as client:
            oci_images.load(client, archive, name)

    @contextmanager
    def open(self, prepared: Prepared, *, start: Start = Start()) -> Iterator[OpenOci]:
        """Open an image. Nothing is started before the first command or look at a file.

        Containers that an earlier run on this machine left behind are removed.
        """
        image = OpenOci(self.dialect, prepared, start, self._ways)
        try:
            with image.lock:
                oci_abandoned.clear(image.client())
            yield image
        finally:
            image.close()


class OpenOci:
    """An open image; see `mlcheck.engines.base.OpenImage`.

    Attributes:
        notes: what a person should know of how commands are run.
    """

    def __init__(
        self, dialect: Dialect, prepared: Prepared, start: Start, ways: Sequence[Way]
    ) -> None:
        self.engine = dialect.name
        self.ref: ImageRef = prepared.ref
        self.digest = prepared.digest
        self.notes: tuple[str, ...] = ()
        self.lock = threading.RLock()
        self._dialect = dialect
        self._image = prepared.location
        self._start = start
        self._ways = ways
        self._resources = ExitStack()
        self._client: Client | None = None
        self._running: tuple[Container, Channels] | None = None
        self._has_shell = True
        self._closed = False

    @functools.cached_property
    def _inspected(self) -> Mapping[str, Any]:
        with self.lock, engine_errors(self._dialect, f"inspect {self.ref.text}"):
            found: Mapping[str, Any] = self.client().inspect_image(self._image)
            return found

    @property
    def _config(self) -> Mapping[str, Any]:
        return self._inspected.get("Config") or {}

    @functools.cached_property
    def environment(self) -> Environment:
        """The image's configuration, as the engine tells it."""
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
        # podman's answer to docker's API leaves it out.
        with self.lock:
            found = oci_images.inspect(self.client(), self._image)
        return (found or {}).get("Healthcheck") or {}

    @functools.cached_property
    def rootfs(self) -> RootFS:
        """The image's files, in the first of the ways that this machine allows."""
        with self.lock:
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
        """The image's layers, from the engine's own store where this machine and user can read it.

        That a directory which the engine names is this machine's is known where the container's
        files are.
        """

        def connected() -> Client:
            with self.lock:
                return self.client()

        def local() -> bool:
            return isinstance(self.rootfs, DirectoryRootFS)

        return OciLayers(connected, self._image, self.ref.text, local)

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
            EngineError: no container can be started, or it ended in mid-run.
        """
        variables = {"HOME": "/tmp"} | (proxies() if self._start.network else {})  # noqa: S108
        variables |= env or {}
        channels = self._channels()
        if channels is not None:
            try:
                return channels.run(argv, variables, cwd, stdin, limit_s, output_limit)
            except NoShell:
                if self._alive():
                    self._give_up_shell()
                else:
                    raise self._ended(argv) from None
            except StreamEnded:
                raise self._ended(argv) from None
        with self.lock:
            client = self.client()
        return run_directly(
            client, self._image, argv, variables, cwd, stdin, limit_s, output_limit, self._bound
        )

    def start(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        limit_s: float = DEFAULT_LIMIT_S,
        output_limit: int = DEFAULT_OUTPUT_LIMIT,
    ) -> Completed:
        """A container of its own, in which the entrypoint is the first process.

        As with `run IMAGE ARGV`, it starts in the image's working directory, and its files can be
        written; that changes nothing for other commands.

        Raises:
            EngineError: the engine failed.
        """
        whole = [*(self.environment.entrypoint or ()), *argv]
        cwd = self.environment.workdir or "/"
        with self.lock:
            client = self.client()
        return run_directly(
            *(client, self._image, whole, {}, cwd, b"", limit_s, output_limit, self._bound),
            read_only=False,
            user=user,
        )

    def show_run(self, argv: Sequence[str]) -> str:
        """The shell command by which a person runs `argv` in this image by hand."""
        gpu = self._dialect.gpu_option if self._start.gpu else ()
        bound = binds.words("--volume", self._start.binds, ":ro")
        return self._run_by_hand(argv, *gpu, *bound)

    def _run_by_hand(self, argv: Sequence[str], *options: str) -> str:
        network = [] if self._start.network else ["--network", "none"]
        run = [self.engine, "run", "--rm", *network, *options, "--entrypoint", argv[0]]
        return shell_words.joined([*run, self._shown, *argv[1:]])

    def show_file(self, tool: str, *paths: str, static: Ask = PLAINLY) -> str:
        """The shell command by which a person looks at the image's files with `tool`.

        It is the image's own, run by root, who sees what was read. Where the image lacks it, this
        machine's gets a copy of the files.
        """
        words = showing.words_for(self.rootfs, tool, paths)
        files = showing.places(self.rootfs, words, paths)
        root = [] if self.environment.user in _ROOT else ["--user", "0"]
        look = shell_words.joined(words)
        if self._has(words[0]):
            return self._run_by_hand([*words, *files], *root)
        if self._has("cat") and words[0] != "ls":
            copies = (self._run_by_hand(["cat", file], *root) for file in files)
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
        return any(self.rootfs.resolve(f"{place}{tool}").final for place in showing.TOOLS)

    @property
    def _shown(self) -> str:
        return self.ref.text if self.ref.kind == "registry" else self._image

    def client(self) -> Client:
        """The connection to the engine, made when there is none. Call it with `lock` held."""
        if self._closed:
            raise closed(self.ref)
        if self._client is None:
            self._client = self._resources.enter_context(connect(self._dialect))
        return self._client

    def close(self) -> None:
        """End the container with everything in it, and the connection."""
        with self.lock:
            self._closed = True
            self._end_container()
            self._client = None
            self._resources.close()

    def _own_variables(self) -> dict[str, str]:
        pairs = (text.partition("=") for text in self._config.get("Env") or ())
        return {name: value for name, _, value in pairs}

    def _channels(self) -> Channels | None:
        """None: there is no usable shell in the image."""
        with self.lock:
            if self._running is not None and not self._running[0].alive:
                self._end_container()
            if self._running is None and self._has_shell:
                own = frozenset(self._own_variables())
                try:
                    container = Container(self.client(), self._image, self._bound, own)
                except NoShell:
                    self._give_up_shell()
                    return None
                self._running = container, Channels(container.connect, container.kill)
            return self._running[1] if self._running else None

    @functools.cached_property
    def _bound(self) -> Start:
        """How commands are started: with the directories that can be bound."""
        if not self._start.binds:
            return self._start
        bound = binds.usable(self.rootfs, self._start.binds)
        return dataclasses.replace(self._start, binds=bound)

    def _as_it_is(self) -> Container | None:
        """A running container in which nothing is bound over the image's files; None: there is
        no usable shell in the image."""
        if not self._start.binds:
            self._channels()
            return self._running[0] if self._running else None
        own = frozenset(self._own_variables())
        try:
            container = Container(self.client(), self._image, Start(), own)
        except NoShell:
            return None
        self._resources.callback(container.close)
        return container

    def _alive(self) -> bool:
        with self.lock:
            return self._running is not None and self._running[0].alive

    def _give_up_shell(self) -> None:
        with self.lock:
            self._has_shell = False
            self._end_container()
            self.notes = (
                f"{self.ref.text} has no usable /bin/sh: each command gets a container of its own, "
                "which takes longer.",
            )

    def _end_container(self) -> None:
        if self._running is not None:
            container, channels = self._running
            self._running = None
            channels.close()
            container.close()

    def _ended(self, argv: Sequence[str]) -> EngineError:
        """Why a command's stream ended: the container or the engine is gone."""
        with self.lock:
            self._end_container()
            try:
                with engine_errors(self._dialect, "answer"):
                    self.client().ping()
            except EngineError as error:
                # A later command tries to connect again.
                self._client = None
                self._resources.close()
                return EngineError(
                    f"{self._dialect.label} stopped while {self.ref.text} ran {argv[0]!r}.",
                    error.remedy or self._dialect.stopped,
                )
        return EngineError(
            f"The container of {self.ref.text} ended while it ran {argv[0]!r}: somebody or "
            "something killed it.",
            "If it was not you, see whether this machine ran out of memory (dmesg).",
        )

    def _streamed(self) -> RootFS:
        """Files from a container that is never started, in which nothing is mounted."""
        client = self.client()
        container = Created(client, self._image, new_name(), ["/bin/sh"], Start())
        self._resources.callback(container.close)
        files = streamed_files(client, container.name)
        self._resources.callback(files.close)
        return files
