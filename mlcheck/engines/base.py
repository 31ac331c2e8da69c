"""What every engine gives: a root file system to read and a channel for commands.

Nothing outside this package knows which engine is at work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Literal, NamedTuple, ParamSpec, Protocol, TypeVar

from mlcheck.errors import EngineError
from mlcheck.facts import Environment, File, FileType, ResolvedFile
from mlcheck.image import ImageRef

P = ParamSpec("P")
T = TypeVar("T")

HEAD = 64
"""Bytes of a file's beginning that tell its format: the largest ELF header."""

DEFAULT_LIMIT_S = 120.0
"""Wall-clock seconds that a command may take when the caller says nothing."""

DEFAULT_OUTPUT_LIMIT = 64 * 1024 * 1024
"""Bytes that a command may print on each stream when the caller says nothing."""


class Ask(Protocol):
    """Calls a probe that only reads; the answer may be one that was kept."""

    def __call__(self, probe: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    def later(self, probe: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """An answer to hand on to other probes alone; made when one of them needs it."""


class Plainly:
    """Just calls it."""

    def __call__(self, probe: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return probe(*args, **kwargs)

    later = __call__


PLAINLY = Plainly()


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended.

    Args:
        exit_code: 128+n when signal n ended it, as a shell says; None when a limit ended it.
            127: the program does not exist; 126: it cannot be executed.
        stdout, stderr: exactly the bytes printed, up to the output limit.
        ended: "exited"; "timeout" or "output-limit" when its whole process group was killed.
        seconds: wall time.
    """

    argv: tuple[str, ...]
    exit_code: int | None
    stdout: bytes
    stderr: bytes
    ended: Literal["exited", "timeout", "output-limit"]
    seconds: float


class RootFS(Protocol):
    """The files of an image. Every link resolves inside the image, never on the host.

    Paths are absolute inside the image. Nothing here writes, and nothing but regular files is
    ever opened for reading.
    """

    def lstat(self, path: str) -> File | None:
        """What is at `path`, a final symlink not followed; None when nothing is."""

    def resolve(self, path: str) -> ResolvedFile:
        """Follow all symlinks from `path`, inside the image."""

    def read(self, path: str, limit: int) -> bytes:
        """Content of the regular file that `path` leads to.

        Raises:
            Unreadable: there is no such file, it is no regular file, or it is larger than
                `limit` bytes. Nothing of it was kept.
            ProbeError: this machine's permissions forbid it.
        """

    def open(self, path: str) -> BinaryIO:
        """The same, opened for reading (unbuffered by the caller's choice), seekable."""

    def listdir(self, path: str) -> list[str]:
        """Names in the directory that `path` leads to, sorted; [] when there is none."""

    def walk(self, top: str) -> Iterator[File]:
        """Every file below `top` (followed if it is a symlink), in sorted order, depth first.

        Directories reached through symlinks are not entered. Directories that cannot be read
        raise ProbeError.
        """

    def each(
        self,
        top: str,
        wanted: Callable[[str, bytes], bool],
        look: Callable[[File, BinaryIO], T],
    ) -> Iterator[tuple[File, T | Unreadable]]:
        """Look into the regular files below `top`: each is opened once, hard links of one file
        count once, and several files are read at a time.

        They come directory by directory, each before those in it, sorted by name.

        Args:
            wanted: told a path and how the file begins (HEAD bytes, or all of a smaller one):
                whether to look into it. Called from several threads, as `look` is.
            look: told a file, open for reading at its first byte, and seekable. It may raise
                Unreadable.

        Raises:
            ProbeError: this machine's permissions forbid it, or a disk fails.
        """


class Unreadable(Exception):  # noqa: N818 - a finding about the image, not an error
    """A file of the image is not what can be read: `what` follows a path in a sentence."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path} {what}")
        self.path = path
        self.what = what


class LayerMember(NamedTuple):
    """Something that a layer adds, or hides of the layers below it.

    Args:
        path: absolute in the image.
        type: "whiteout": hides what lower layers have at `path`; "opaque": all that they have in
            the directory there.
        size: bytes of a regular file, else 0.
        inode: the layer's own number, equal for hard links of one file.
    """

    path: str
    type: FileType | Literal["whiteout", "opaque"]
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    inode: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of an image.

    Args:
        digest: of its tar archive, as the image's configuration claims it.
        created_by: the line of the image's history that made it; "": the history does not tell.
        members: what hides comes before what is added.
        sha256: of the content of a regular file.
        start: the first bytes of a file of a name that was asked for.
    """

    digest: str
    created_by: str
    members: Sequence[LayerMember]
    sha256: Callable[[LayerMember], bytes]
    start: Callable[[LayerMember], bytes]


LAYER_START = 16 * 1024
"""Bytes that `Layer.start` gives: a private key stands within them, behind its certificate too."""


class ImageLayers(Protocol):
    """The layers of an open image."""

    def read(self, wanted: Callable[[str], bool]) -> Sequence[Layer]:
        """All of them, the lowest first.

        Args:
            wanted: told a path: whether the beginning of such a file will be asked for.

        Raises:
            EngineError: the engine failed, or a layer is damaged.
            ProbeError: this machine cannot read them.
        """


class OpenImage(Protocol):
    """An image that an engine opened; it can be read and, where the engine can, run.

    Attributes:
        ref: what was asked for.
        engine: name of the engine ("sandbox").
        rootfs: its files.
        environment: its configuration.
        digest: what pins the content of this image in reports, or None.
        notes: what a reader of a report should know of how commands were run here.
        layers: of which its files are made; None: this engine sees one file system alone.
    """

    @property
    def ref(self) -> ImageRef: ...
    @property
    def engine(self) -> str: ...
    @property
    def rootfs(self) -> RootFS: ...
    @property
    def environment(self) -> Environment: ...
    @property
    def digest(self) -> str | None: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def layers(self) -> ImageLayers | None: ...

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

        argv[0] is searched on the PATH of that environment. May be called from several threads;
        the commands then run side by side.

        Raises:
            EngineError: the engine could not do its part. A command that fails is no error.
        """

    def start(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        limit_s: float = DEFAULT_LIMIT_S,
        output_limit: int = DEFAULT_OUTPUT_LIMIT,
    ) -> Completed:
        """Start the image anew as its users do, with `argv` behind its entrypoint.

        `docker run IMAGE ARGV`, `apptainer run IMAGE ARGV`. The answer's argv has both.

        Args:
            user: "UID:GID" in place of the image's USER; an engine that starts every image as
                whoever runs it (its `environment.user` is None) takes no notice.

        Raises:
            EngineError: the engine could not do its part.
        """

    def show_run(self, argv: Sequence[str]) -> str:
        """The shell command by which a person runs `argv` in this image by hand."""

    def show_file(self, tool: str, *paths: str, static: Ask = PLAINLY) -> str:
        """The shell command by which a person looks at files of this image with `tool`.

        Nothing of the image is run on this machine by it. `ls` shows a symlink and what it leads
        to; what is no regular file, or too large for `cat`, is shown by `ls` too.
        """


def closed(ref: ImageRef) -> EngineError:
    """What `OpenImage.run` raises in a thread that has not noticed the end of the image's use."""
    return EngineError(f"{ref.text} is no longer in use: the run has ended.")


class HostView(Protocol):
    """This machine's system as somebody sees it who uses an unpacked image without a container.

    Attributes:
        image: where the image lies there.
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
"""When an image is fetched from its registry: when it is not here, in every run, not at all."""

Progress = Callable[[str], None]
"""Told what happens while an image is made ready, a line each time."""


def silent(_: str) -> None:
    """Progress that nobody reads."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image that is on this machine, and which one exactly.

    Plain data, so that one process makes an image ready for all workers.

    Args:
        ref: what was asked for.
        location: what the engine opens: an absolute path or the ID of an image.
        digest: what pins the content in reports, "sha256:..."; None for a directory, which
            nothing pins.
    """

    ref: ImageRef
    location: str
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Bind:
    """A directory of this machine that commands in the image see, read-only.

    Args:
        source: its absolute path here.
        target: an absolute path in the image.
    """

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Start:
    """How an image is started.

    Args:
        network: whether commands reach the network of the host.
        gpu: whether the host's NVIDIA GPUs are asked for.
        binds: no target is on or below another one. Those on what is no directory of the image
            are left out; `rootfs` never shows what is bound.
    """

    network: bool = False
    gpu: bool = False
    binds: tuple[Bind, ...] = ()


class Engine(Protocol):
    """One way of opening images.

    Attributes:
        name: as `--engine` takes it ("docker").
    """

    @property
    def name(self) -> str: ...

    def unusable(self) -> str | None:
        """Why this engine cannot run commands on this machine; None: it can.

        What helps follows after a line break.
        """

    def tried(self) -> str | None:
        """The same, after doing for once all that a run does; that may take seconds."""

    def describe(self) -> str:
        """What it is and where, for people. Only of an engine that is not unusable.

        What is wrong with it follows, a line each.
        """

    def prepare(
        self, ref: ImageRef, *, pull: PullPolicy = "missing", progress: Progress = silent
    ) -> AbstractContextManager[Prepared]:
        """Have an image ready: fetched or converted if need be, and pinned.

        What was made for this alone (a converted file, an image loaded from an archive) is
        removed on leaving the context. What was pulled stays, as after `docker pull`.

        Raises:
            UsageError: there is no such image, or it is none that this engine can open.
            EngineError: the engine, the machine, the network or the registry failed.
        """

    def open(
        self, prepared: Prepared, *, start: Start = Start()
    ) -> AbstractContextManager[OpenImage]:
        """Open an image; on leaving the context nothing of it is left behind.

        Raises:
            EngineError: the engine or the machine failed.
        """
