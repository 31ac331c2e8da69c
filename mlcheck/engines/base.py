"""The interface of engines: a root file system to read and a way to run commands.

No code outside this package depends on a particular engine.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, ParamSpec, Protocol

from mlcheck.engines import file_commands
from mlcheck.engines.limits import DEFAULT, Limits
from mlcheck.image.api import ImageLayers, RootFS, T
from mlcheck.machine.proxies import proxies
from mlcheck.model import shell_words
from mlcheck.model.environment import Environment
from mlcheck.model.errors import EngineError, Trouble
from mlcheck.model.image_ref import ImageRef, Kind

P = ParamSpec("P")


DEFAULT_LIMIT_S = 120.0
"""Default limit of a command in seconds of wall-clock time."""

DEFAULT_OUTPUT_LIMIT = 64 * 1024 * 1024
"""Default limit of bytes that a command may print on each stream."""


class Later(Generic[T]):
    """An answer that is computed when a probe first needs it (`Ask.later`).

    Args:
        question: represents the answer in the key of a kept answer that depends on it.
    """

    def __init__(self, make: Callable[[], T], question: str = "") -> None:
        self.question = question
        self._make = make
        self._lock = threading.Lock()

    @property
    def answer(self) -> T:
        """Return the answer; raise whatever the probe raises."""
        with self._lock:
            return self._once

    @functools.cached_property
    def _once(self) -> T:
        return self._make()


class Ask(Protocol):
    """Calls a probe that only reads; the answer may be a kept one.

    Attributes:
        notes: notes about the answers for readers of a report.
    """

    @property
    def notes(self) -> tuple[str, ...]: ...

    def __call__(self, probe: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    def later(self, probe: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Later[T]:
        """Return an answer to pass on to other probes, which is not kept, and computed when one
        needs it.

        So an answer of many megabytes (every file of every conda package) is neither kept nor
        computed if the answers that depend on it are kept.
        """


class Plainly:
    """Calls the probe directly, without a cache."""

    notes: tuple[str, ...] = ()

    def __call__(self, probe: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return probe(*args, **kwargs)

    def later(self, probe: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Later[T]:
        """See `Ask.later`."""
        return Later(functools.partial(probe, *args, **kwargs))


PLAINLY = Plainly()


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended.

    Args:
        exit_code: as a shell reports it, 128+n for signal n; None if a limit ended the command.
            127: the program does not exist; 126: it cannot be executed.
        stdout, stderr: exactly the bytes printed, up to the output limit.
        ended: "exited"; "timeout" or "output-limit" if its whole process group was killed.
        seconds: wall time.
    """

    argv: tuple[str, ...]
    exit_code: int | None
    stdout: bytes
    stderr: bytes
    ended: Literal["exited", "timeout", "output-limit"]
    seconds: float

    def because(self, why: str) -> Completed:
        """Return the same result with its reason as the last line on stderr."""
        line = f"mlcheck: {why}\n".encode()
        separator = b"" if self.stderr.endswith(b"\n") or not self.stderr else b"\n"
        return dataclasses.replace(self, stderr=self.stderr + separator + line)


@dataclass(frozen=True, slots=True)
class Command:
    """A command to run in an image, and its limits.

    Args:
        argv: the program, searched on the PATH that the command gets, and its arguments.
        env: variables to set.
        cwd: the directory to start in.
        stdin: bytes for its standard input.
        limit_s: wall-clock seconds after which it is ended with its process group.
        output_limit: bytes on each stream after which it is ended.
        user: "UID:GID" instead of the image's own; None for the image's.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cwd: str = "/"
    stdin: bytes = b""
    limit_s: float = DEFAULT_LIMIT_S
    output_limit: int = DEFAULT_OUTPUT_LIMIT
    user: str | None = None

    def over(self, variables: Mapping[str, str]) -> Command:
        """Return the same command with more variables; its own take precedence."""
        return dataclasses.replace(self, env={**variables, **self.env})

    def not_run(self, exit_code: int, why: str, seconds: float = 0.0) -> Completed:
        """Return the result of a command that was never started, as a shell would report it."""
        message = f"mlcheck: {self.argv[0]}: {why}\n".encode("utf-8", "surrogateescape")
        return Completed(self.argv, exit_code, b"", message, "exited", seconds)


class OpenImage(ABC):
    """An image that an engine opened; it can be read and, if the engine can do so, run.

    An engine defines how a command is run (`_run`, `_run_anew`), what is ended (`_end`) and the
    commands for people (`_run_words`, `_show_file`); the rest is the same for all of them.

    Attributes:
        ref: the requested image.
        engine: name of the engine ("sandbox").
        digest: identifies the content of this image in reports; None if nothing does.
        directory: directory in which this machine's user has the image unpacked; None if the engine
            opened something else.
    """

    directory: Path | None = None

    def __init__(self, engine: str, prepared: Prepared, start: Start) -> None:
        self.engine = engine
        self.ref = prepared.ref
        self.digest = prepared.digest
        self._start = start
        self._lock = threading.RLock()
        self._closed = False

    @property
    @abstractmethod
    def rootfs(self) -> RootFS:
        """The files of the image."""

    @property
    @abstractmethod
    def environment(self) -> Environment:
        """The configuration of the image."""

    @property
    def layers(self) -> ImageLayers | None:
        """The layers that its files consist of; None if this engine sees only the merged
        file system."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """Return notes for readers of a report on how commands were run here."""
        return ()

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
        """Run `argv` inside with the image's environment, changed by `env`.

        argv[0] is searched on the PATH of that environment. May be called from several threads; the
        commands then run side by side.

        Raises:
            EngineError: the engine failed. A command that fails is no error.
        """
        command = Command(tuple(argv), dict(env or {}), cwd, stdin, limit_s, output_limit)
        return self._asked(self._run, command)

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        user: str | None = None,
        limit_s: float = DEFAULT_LIMIT_S,
        output_limit: int = DEFAULT_OUTPUT_LIMIT,
    ) -> Completed:
        """Start the image anew as its users do, with `argv` behind its entrypoint.

        `docker run IMAGE ARGV`, `apptainer run IMAGE ARGV`. The result's argv has both.

        Args:
            env: variables that the user sets (`docker run --env`).
            stdin: bytes for the standard input (`docker run --interactive`).
            user: "UID:GID" instead of the image's USER; ignored by an engine that starts every
                image as the user who runs it (its `environment.user` is None).

        Raises:
            EngineError: the engine failed.
        """
        command = Command(
            tuple(argv), dict(env or {}), "/", stdin, limit_s, output_limit, user=user
        )
        done = self._asked(self._run_anew, command)
        return dataclasses.replace(done, argv=self._behind_entrypoint(command).argv)

    def _asked(self, run: Callable[[Command], Completed], command: Command) -> Completed:
        env = command.env
        if any("\0" in text for text in (*command.argv, *env, *env.values(), command.cwd)):
            return command.not_run(126, "embedded null byte")
        return run(command)

    def show_run(self, argv: Sequence[str]) -> str:
        """Return the shell command by which a person runs `argv` in this image."""
        return shell_words.joined(self._run_words(argv))

    def show_file(self, tool: str, *paths: str, static: Ask = PLAINLY) -> str:
        """Return the shell command by which a person looks at files of this image with `tool`.

        The command runs nothing of the image on this machine. `ls` shows a symlink and its target;
        it also shows anything that is not a regular file, or that is too large for `cat`.
        """
        words = file_commands.words_for(self.rootfs, tool, paths)
        return self._show_file(words, file_commands.places(self.rootfs, words, paths))

    def close(self) -> None:
        """End all processes that were started for this image."""
        with self._lock:
            self._closed = True
            self._end()

    def _behind_entrypoint(self, command: Command) -> Command:
        whole = (*(self.environment.entrypoint or ()), *command.argv)
        return dataclasses.replace(command, argv=whole)

    @property
    def _of_container(self) -> dict[str, str]:
        """Return the variables that a command has with every engine."""
        return {"HOME": "/tmp"} | (proxies() if self._start.network else {})  # noqa: S108

    def _check_in_use(self) -> None:
        """Raise an EngineError in a thread that still uses the image after it was closed.

        Call it with the lock held, before anything is started.
        """
        if self._closed:
            raise EngineError(f"{self.ref.text} is no longer in use: the run has ended.")

    @abstractmethod
    def _run(self, command: Command) -> Completed:
        """Run a command; see `run`. Its variables are added to the image's own."""

    @abstractmethod
    def _run_anew(self, command: Command) -> Completed:
        """Start the image; see `start`."""

    @abstractmethod
    def _run_words(self, argv: Sequence[str]) -> Sequence[str]:
        """Return the words of a command for people; see `show_run`."""

    @abstractmethod
    def _show_file(self, words: Sequence[str], files: Sequence[str]) -> str:
        """Return the command by which a person looks at files with the tool and options `words`.

        Args:
            files: absolute in the image, and not reached through a link.
        """

    @abstractmethod
    def _end(self) -> None:
        """End the processes that were started for this image; called with the lock held."""


class HostView(Protocol):
    """This machine's system as seen by a user of an unpacked image without a container.

    Attributes:
        image: path of the image there.
    """

    @property
    def image(self) -> str: ...

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        limit_s: float = DEFAULT_LIMIT_S,
        output_limit: int = DEFAULT_OUTPUT_LIMIT,
    ) -> Completed:
        """Run `argv` there, with a user's plain environment changed by `env`.

        Raises:
            EngineError: it could not be run.
        """


PullPolicy = Literal["missing", "always", "never"]
"""When an image is fetched from its registry: if it is not on this machine, in every run,
or never."""

Progress = Callable[[str], None]
"""Called with a line for each step while an image is made ready."""


def silent(_: str) -> None:
    """Discard the progress."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image that is on this machine, identified exactly.

    Plain data, so that one process makes an image ready for all workers.

    Args:
        ref: the requested image.
        location: the path or image ID that the engine opens; paths are absolute.
        digest: identifies the content in reports, "sha256:..."; None for a directory, which has
            no digest.
        config_digest: digest of its configuration, which is the same in every engine and registry;
            None if it is not known here.
    """

    ref: ImageRef
    location: str
    digest: str | None = None
    config_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Bind:
    """A directory of this machine that commands in the image see, read-only.

    Args:
        source: absolute path on this machine.
        target: absolute path in the image.
    """

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Start:
    """Options for starting an image.

    Args:
        network: True if commands reach the network of the host.
        gpu: True if the host's NVIDIA GPUs are requested.
        binds: no target is on or below another one. A bind whose target is not a directory of the
            image is left out; `rootfs` never shows bound files.
        limits: of all commands together.
    """

    network: bool = False
    gpu: bool = False
    binds: tuple[Bind, ...] = ()
    limits: Limits = DEFAULT


@dataclass(frozen=True, slots=True)
class Inspected:
    """An engine's description of an image in its store.

    Args:
        image: in docker's form.
        index: digest of the index, if it is known that the image belongs to one.
        manifest: digest of its manifest, or, where engines do not tell them apart, of its index;
            None if it is not known here.
        config: digest of its configuration; None if it is not known here.
        compressed_size, unpacked_size: bytes of its layers as they are stored and sent, and of
            what is in them; None if the engine does not tell.
    """

    image: Mapping[str, Any]
    index: str | None
    manifest: str | None
    config: str | None
    compressed_size: int | None = None
    unpacked_size: int | None = None


@dataclass(frozen=True, slots=True)
class Abilities:
    """Abilities of an engine on this machine, in a few words for people; "" if it is not known.

    Args:
        version: of the engine's program or server.
        store: where and how it keeps images.
        files: how an image's files are read.
        gpus: how GPUs are asked for.
        users: whose processes those in an image are.
        limits: what is limited of what commands take.
    """

    version: str = ""
    store: str = ""
    files: str = ""
    gpus: str = ""
    users: str = ""
    limits: str = ""


class Store(Protocol):
    """The images that an engine keeps by their names.

    Raises:
        EngineError: the engine did not answer.
    """

    def names(self) -> frozenset[str]:
        """Return the names of its images, in the form in which docker shows names: `NAME:TAG` for
        local builds, `USER/NAME:TAG` of docker.io, `HOST/PATH:TAG`."""

    def inspect(self, ref: ImageRef) -> Inspected | None:
        """Return the engine's description of an image of a registry, or None if it does not
        have it."""

    def keep(self, archive: Path, name: str) -> None:
        """Load the image of a docker-archive under a name, and leave it there."""


class Engine(ABC):
    """One way of opening images.

    Args:
        name: its name for `--engine` ("docker"), which is that of its entry point.

    Attributes:
        store: its images, if the engine keeps any.
    """

    store: Store

    def __init__(self, name: str) -> None:
        self.name = name

    def unusable(self) -> Trouble | None:
        """Return the reason why this engine cannot run commands on this machine, or None if
        it can."""
        return None

    def tried(self) -> Trouble | None:
        """Do the same, after performing once all that a run does; that may take seconds."""
        return self.unusable()

    @abstractmethod
    def describe(self) -> str:
        """Describe the engine and its location for people. Only for an engine that is usable.

        Things that are wrong with it follow, one on each line.
        """

    def abilities(self) -> Abilities:
        """Return what it can do here. Only for an engine that is usable.

        Raises:
            EngineError: it did not answer.
        """
        return Abilities()

    @abstractmethod
    def prepare(
        self, ref: ImageRef, *, pull: PullPolicy = "missing", progress: Progress = silent
    ) -> AbstractContextManager[Prepared]:
        """Make an image ready: fetched or converted if need be, and identified by its digest.

        Anything that was made only for this purpose (a converted file, an image loaded from an
        archive) is removed on leaving the context. Pulled images stay, as after `docker pull`.

        Raises:
            UsageError: there is no such image, or this engine cannot open it.
            EngineError: the engine, the machine, the network or the registry failed.
        """

    @abstractmethod
    def open(
        self, prepared: Prepared, *, start: Start = Start()
    ) -> AbstractContextManager[OpenImage]:
        """Open an image; on leaving the context nothing of it is left behind.

        Raises:
            EngineError: the engine or the machine failed.
        """


@dataclass(frozen=True, slots=True)
class Declaration:
    """The abilities of an engine, in a module that imports nothing that only the engine needs.

    Args:
        engine: makes the engine, from its name.
        opens: the kinds of images that it opens, each with its rank in the order in which `--engine
            auto` tries engines, the lowest first; None if it is used only when named.
        only_reads: True if it starts nothing.
        reads_anyway: True if it reads an image's files even if it cannot run commands.
        gives_gpus: True if it can give GPUs to an image.
        keeps_images: True if it has a store of images (`Engine.store`).
        keeps_owners: True if files belong to the owners that the image records, not to the user who
            unpacked them.
        pins_layers: True if it compares every layer with the digests of the image's configuration.
        obvious: True if commands for people need not name it: no other engine would be chosen, or
            another one shows the same.
    """

    engine: Callable[[str], Engine]
    opens: Mapping[Kind, int | None]
    only_reads: bool = False
    reads_anyway: bool = False
    gives_gpus: bool = False
    keeps_images: bool = False
    keeps_owners: bool = True
    pins_layers: bool = False
    obvious: bool = False
