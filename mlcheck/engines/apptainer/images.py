"""Make an image ready for apptainer: found, or unpacked into a private directory.

An image of a registry or an archive is unpacked into a sandbox directory. A SIF file would take
more than twice the time, most of it for compression, and be slower to read.

apptainer keeps no image by its name. What it needs to build a directory it fetches each time,
whatever is in its cache: the pull policies "missing" and "always" do the same, and "never" is
impossible. Users who judge one image often fetch it once into a SIF file (`apptainer pull`).
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlcheck.engines.apptainer import sif as apptainer_sif
from mlcheck.engines.apptainer.process import started
from mlcheck.engines.apptainer.program import usable_program
from mlcheck.engines.archive.contents import has_several_names, look_into
from mlcheck.engines.base import Prepared, Progress, PullPolicy
from mlcheck.engines.directories import check_directory
from mlcheck.engines.oci.archive import renamed
from mlcheck.engines.shell import PipeStream, StreamEnded
from mlcheck.machine import janitor
from mlcheck.model.architecture import MACHINE_NAMES
from mlcheck.model.errors import EngineError, MlcheckError, UsageError
from mlcheck.model.image_ref import ImageRef, is_loopback

_LIMIT_S = 3600.0
"""Seconds to fetch and unpack an image."""

_KEPT = 64 * 1024
_KEEP_VARIABLES = ("CONFIGDIR", "DOCKER_USERNAME", "DOCKER_PASSWORD", "NOHTTPS")
# The program's message, its meaning in our words, the remedy.
_FULL = (
    r"no space left on device",
    "the disk is full",
    "Make room there, or set TMPDIR to another disk.",
)
_FILE_FAILURES = (
    _FULL,
    (
        r"tar header|archive/tar|index\.json|manifest\.json|oci-layout|EOF|gzip|invalid character"
        r"|blobs/",
        "it is damaged, or no image of this kind",
        "`docker save` writes a docker-archive, `skopeo copy` an OCI layout or oci-archive.",
    ),
)
_REGISTRY_FAILURES = (
    _FULL,
    (
        r"UNAUTHORIZED|unauthorized|DENIED|denied: |\b401\b|403 Forbidden",
        "the registry refuses access, or has no such image that may be seen",
        "Log in with `{program} registry login docker://HOST`, or correct the name.",
    ),
    (
        r"MANIFEST_UNKNOWN|NAME_UNKNOWN|NAME_INVALID|manifest unknown|404 Not Found",
        "the registry has no such image",
        "Correct the name, the tag or the digest.",
    ),
    (
        r"no child with platform|no image found .* for architecture|no matching manifest",
        "the registry has it for other architectures only",
        "Run on a machine of one of these architectures.",
    ),
    (
        r"connection refused|no such host|i/o timeout|network is unreachable|no route to host"
        r"|TLS handshake|certificate|server gave HTTP response|connection reset|EOF"
        r"|\b50[0-9] [A-Z]|deadline exceeded|server misbehaving",
        "the registry cannot be reached",
        "Check that the registry is up, and whether this machine needs a proxy.",
    ),
    (r"could not parse reference", "that is no name of an image", "Correct the name."),
)
_USERS = ("no such image", "no image of this kind", "no name of an image", "architectures only")


@contextmanager
def prepare(ref: ImageRef, name: str, pull: PullPolicy, progress: Progress) -> Iterator[Prepared]:
    """Make an image ready; see `mlcheck.engines.base.Engine.prepare`.

    Digests: for a SIF file the sha256 of the file; for an archive of docker that of the image's
    configuration (the image ID); otherwise that of the manifest.

    Args:
        name: name of the engine.

    Raises:
        UsageError: there is no such image, or this engine cannot open it.
        EngineError: the engine, the machine, the network or the registry failed.
    """
    if ref.kind == "directory":
        yield Prepared(ref, str(check_directory(ref)))
    elif ref.kind == "sif":
        path = Path(ref.location).expanduser().absolute()
        sif = apptainer_sif.read_sif(ref.text, path)
        _check_architecture(ref, sif.architecture)
        yield Prepared(ref, str(path), apptainer_sif.digest(path, progress))
    elif ref.kind == "reference":
        raise UsageError(f"{ref.text}: a reference image is built into a directory first.")
    else:
        with _unpacked(ref, name, pull, progress) as prepared:
            yield prepared


@contextmanager
def _unpacked(ref: ImageRef, name: str, pull: PullPolicy, progress: Progress) -> Iterator[Prepared]:
    found = usable_program(name)
    if ref.kind == "registry" and pull == "never":
        raise UsageError(
            f"{ref.text}: {name} keeps no image by its name, so that --pull never finds none.",
            f"Fetch it with `{name} pull FILE.sif docker://{ref.text}` and give FILE.sif.",
        )
    temporary = Path(tempfile.gettempdir())
    path = Path(ref.location).expanduser().absolute()
    digest, config = ref.digest, None
    if ref.kind != "registry":
        _check_file(ref, path, temporary)
        digest, config = _checked_digests(ref, ref.kind, path)
    with janitor.temporary_directory("mlcheck-image-") as directory:
        (directory / "tmp").mkdir()
        env = _variables(found.prefix) | {f"{found.prefix}_TMPDIR": str(directory / "tmp")}
        argv = [found.path, "build", "--sandbox"]
        if ref.kind == "registry":
            env[f"{found.prefix}_CACHEDIR"] = str(directory / "cache")
            argv += ["--no-https"] if is_loopback(ref.location) else []
            source = f"docker://{ref.text}"
        else:
            argv.append("--disable-cache")
            source = f"{ref.kind}:{path}"
            if has_several_names(ref.kind, path):
                # Of several names of one image, the program does not choose one.
                progress("writing the archive with one name")
                _write_renamed(ref, path, directory / "one.tar")
                kind = "docker-archive" if ref.kind == "docker-archive" else "oci-archive"
                source = f"{kind}:{directory / 'one.tar'}"
        _build(ref, name, [*argv, str(directory / "image"), source], env, progress)
        if ref.kind == "registry":
            # An OCI layout that contains nothing but the image that was just fetched.
            seen, config = _checked_digests(ref, "oci", directory / "cache/cache/blob")
            digest = digest or seen
            shutil.rmtree(directory / "cache", ignore_errors=True)
        yield Prepared(ref, str(directory / "image"), digest, config)


def _write_renamed(ref: ImageRef, path: Path, target: Path) -> None:
    try:
        with target.open("wb") as file:
            file.writelines(renamed(path, "mlcheck:image"))
    except OSError as error:
        raise EngineError(f"{ref.text}: {target} cannot be written: {error.strerror}.") from None


def _variables(prefix: str) -> dict[str, str]:
    """Return the user's variables, without those that change how an image is built."""
    kept = {f"{prefix}_{name}" for name in _KEEP_VARIABLES}
    return {
        name: value
        for name, value in os.environ.items()
        if name in kept or not name.startswith(("APPTAINER", "SINGULARITY"))
    }


def _build(
    ref: ImageRef, name: str, argv: list[str], env: Mapping[str, str], progress: Progress
) -> None:
    said = ""
    deadline = time.monotonic() + _LIMIT_S
    with started(argv, env) as process:
        stream = PipeStream(process)
        try:
            while (left := deadline - time.monotonic()) > 0:
                for _, data in stream.receive(left):
                    said += data.decode("utf-8", "replace")
                    *lines, rest = said.split("\n")
                    for line in lines:
                        level, _, text = line.partition(":")
                        # The last one names a directory that is of no interest.
                        if level == "INFO" and text.strip() and "complete" not in text:
                            progress(text.strip())
                    said = (said[-_KEPT:] if "FATAL" in said else rest)[-_KEPT:]
        except StreamEnded:
            pass
        else:
            raise EngineError(f"{ref.text}: {name} was not done with it within an hour.")
        code = process.wait()
        stream.close()
    if code:
        raise _failure(ref, name, said)


def _failure(ref: ImageRef, name: str, said: str) -> MlcheckError:
    last = said.rpartition("FATAL:")[2].strip() or f"{name} ended without a word"
    detail = re.sub(r"^While performing build: (conveyor failed to get: )?", "", last)[:500]
    failures = _REGISTRY_FAILURES if ref.kind == "registry" else _FILE_FAILURES
    for pattern, what, remedy in failures:
        if re.search(pattern, said):
            kind = UsageError if what.endswith(_USERS) else EngineError
            return kind(f"{ref.text}: {what}: {detail}", remedy.format(program=name))
    return EngineError(f"{ref.text}: {name} cannot unpack it: {detail}")


def _check_file(ref: ImageRef, path: Path, temporary: Path) -> None:
    try:
        if ref.kind == "oci":
            if not path.is_dir():
                raise UsageError(
                    f"{ref.text}: there is no directory {path}.", "Give an OCI layout's directory."
                )
            size = _size_without_links(ref, path)
        elif not path.is_file():
            raise UsageError(f"{ref.text}: there is no file {path}.", "Give the archive's path.")
        else:
            size = path.stat().st_size
    except OSError as error:
        raise UsageError(
            f"{ref.text}: {path} cannot be read: {error.strerror}.",
            "Run mlcheck as a user who may read it.",
        ) from None
    free = shutil.disk_usage(temporary).free
    if free < size:  # it never takes less
        raise EngineError(
            f"{ref.text}: there is no room to unpack it: {size // 2**20} MiB at least, and "
            f"{temporary} has {free // 2**20} MiB.",
            "Make room there, or set TMPDIR to another disk.",
        )


def _size_without_links(ref: ImageRef, layout: Path) -> int:
    """Return the size of a layout in which nothing leads out: the program would follow any link.

    Raises:
        UsageError: something in it is neither a directory nor a regular file.
    """
    size = 0
    above = [layout]
    while above:
        with os.scandir(above.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    above.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    size += entry.stat(follow_symlinks=False).st_size
                else:
                    raise UsageError(
                        f"{ref.text}: {entry.path} is a link or a special file, which could lead "
                        "out of the layout.",
                        "Give a layout of plain files, as `skopeo copy` writes it.",
                    )
    return size


def _checked_digests(ref: ImageRef, kind: str, path: Path) -> tuple[str | None, str | None]:
    """Return the digest of an image in an archive or layout that is for this machine, and that of
    its configuration.

    None if its documents cannot be read: the engine that unpacks the image reports that.
    """
    try:
        contents, _ = look_into(kind, path)
    except ValueError:
        return None, None
    _check_architecture(ref, contents.config.architecture)
    return contents.digest, contents.config_digest


def _check_architecture(ref: ImageRef, architecture: str | None) -> None:
    here = platform.machine()
    if architecture and MACHINE_NAMES.get(architecture, architecture) != here:
        raise UsageError(
            f"{ref.text} is an image for {architecture}; this machine is {here}.",
            "Run on a machine of that architecture, or give the image for this one.",
        )
