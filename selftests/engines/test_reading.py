"""Every way of reading an image gives the same bytes, from a file's first one on.

The images are archives of literal members, so that an ordinary user can make them too, with any
owner.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from mlcheck.engines.apptainer.engine import Apptainer
from mlcheck.engines.archive.engine import Archive
from mlcheck.engines.base import Engine, OpenImage
from mlcheck.engines.oci import streamed
from mlcheck.engines.oci.dialect import DOCKER, PODMAN
from mlcheck.engines.oci.engine import Oci
from mlcheck.engines.sandbox.engine import Sandbox
from mlcheck.image.api import HEAD, LAYER_START
from mlcheck.model.files import File
from mlcheck.model.image_ref import ImageRef
from selftests import archives
from selftests.archives import member
from selftests.checkout import CHECKOUT
from selftests.images import each_engine

MIB = 1024 * 1024


def noise(size: int, seed: str) -> bytes:
    """Bytes that are not repeated, and the same in each run."""
    return hashlib.shake_256(seed.encode()).digest(size)


SHORT = HEAD - 1
CONTENTS = {
    "/etc/os-release": b'NAME="Tiny"\n',
    "/opt/empty": b"",
    "/opt/one": b"1",
    "/opt/short": noise(SHORT, "short"),
    "/opt/head": noise(HEAD, "head"),
    "/opt/longer": noise(HEAD + 1, "longer"),
    "/opt/elf": b"\x7fELF" + noise(5000, "elf"),
    "/opt/whole": noise(streamed.KEPT_WHOLE, "whole"),
    "/opt/large": noise(streamed.KEPT_WHOLE + 1, "large"),
    "/opt/larger": noise(3 * MIB + 7, "larger"),
    "/opt/holes": bytes(2 * MIB) + b"data" + bytes(MIB),
    "/opt/of-both": noise(200, "upper"),
    # Where engines mount something of their own over what the image has.
    "/data/volume": noise(2 * streamed.KEPT_WHOLE, "volume"),
    "/dev/shm/shared": noise(2 * streamed.KEPT_WHOLE, "shm"),
    "/tmp/temporary": noise(2 * streamed.KEPT_WHOLE, "tmp"),
}
LINKED = {"/opt/hard": "/opt/larger", "/opt/hard-short": "/opt/short"}
PRIVATE = {
    "/opt/private/inside": noise(2 * streamed.KEPT_WHOLE, "private"),
    "/opt/unreadable": noise(2 * streamed.KEPT_WHOLE, "unreadable"),
}
"""Closed to all but others' users; read where the engine does it."""


def layers(contents: dict[str, bytes], private: dict[str, bytes]) -> list[bytes]:
    """Two, the upper of which replaces a file of the lower one."""
    tops = ("etc", "opt", "opt/private", "data", "dev", "dev/shm", "tmp", "proc", "sys", "run")
    closed = {"opt/private": {"mode": 0o700, "uid": 1234, "gid": 1234}}
    lower = [member(top, None, **closed.get(top, {})) for top in tops]
    lower.append(member("opt/of-both", noise(200, "lower")))
    for path, content in {**contents, **private}.items():
        if path != "/opt/of-both":
            mode = 0 if path in private else 0o644
            lower.append(member(path[1:], content, mode=mode))
    lower += [member(path[1:], link=target[1:]) for path, target in LINKED.items()]
    lower.append(member("opt/link", to="larger"))
    upper = [member("opt", None), member("opt/of-both", contents["/opt/of-both"])]
    return [archives.layer(*lower), archives.layer(*upper)]


def directory(root: Path, contents: dict[str, bytes]) -> Path:
    """The same as a directory, without what is private."""
    for path, content in contents.items():
        file = root / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        if path == "/opt/holes":
            with file.open("wb") as sparse:
                sparse.seek(2 * MIB)
                sparse.write(b"data")
                sparse.truncate(len(content))
        else:
            file.write_bytes(content)
    for path, target in LINKED.items():
        os.link(root / target[1:], root / path[1:])
    (root / "opt/link").symlink_to("larger")
    for name in ("proc", "sys", "run"):
        (root / name).mkdir(exist_ok=True)
    return root


WAYS: dict[str, tuple[Callable[[], Engine], str]] = {
    "sandbox": (Sandbox, "directory"),
    "docker": (lambda: Oci(DOCKER), "docker-archive"),
    "docker-streamed": (lambda: Oci(DOCKER, ways=("streamed",)), "docker-archive"),
    "podman": (lambda: Oci(PODMAN), "docker-archive"),
    "podman-streamed": (lambda: Oci(PODMAN, ways=("streamed",)), "oci-archive"),
    "archive": (Archive, "docker-archive"),
    "archive-gzip": (Archive, "oci-archive"),
    "archive-zstd": (Archive, "oci-archive-zstd"),
    "archive-directory": (Archive, "oci"),
    "apptainer": (Apptainer, "directory"),
    "apptainer-unpacked": (Apptainer, "docker-archive"),
    "apptainer-sif": (Apptainer, "sif"),
}

LAYERED = [way for way in WAYS if way.partition("-")[0] in ("docker", "podman", "archive")]


def made(kind: str, place: Path, contents: dict[str, bytes], private: dict[str, bytes]) -> str:
    """An image in that form, as a person names it."""
    place.mkdir()
    config: dict[str, dict[str, Any]] = {"Volumes": {"/data": {}}}
    if kind == "docker-archive":
        found = archives.docker_archive(
            place / "image.tar", layers(contents, private), config=config
        )
        return f"docker-archive:{found}"
    if kind.startswith("oci"):
        how = "zstd" if kind.endswith("zstd") else "gzip"
        media = f"application/vnd.oci.image.layer.v1.tar+{how}"
        files = archives.layout(layers(contents, private), how=how, config=config, media_type=media)
        kind = kind.removesuffix("-zstd")
        return f"{kind}:{archives.write(files, place / 'image', kind)}"
    root = directory(place / "root", contents)
    if kind == "directory":
        return f"{root}/"
    build = ["apptainer", "build", str(place / "image.sif"), str(root)]
    subprocess.run(build, check=True, capture_output=True)
    return str(place / "image.sif")


@contextmanager
def opened(way: str, place: Path, contents: dict[str, bytes]) -> Iterator[OpenImage]:
    make, kind = WAYS[way]
    engine = make()
    name = made(kind, place, contents, PRIVATE if way in LAYERED else {})
    with ExitStack() as stack:
        prepared = stack.enter_context(engine.prepare(ImageRef.parse(name)))
        yield stack.enter_context(engine.open(prepared))


@pytest.mark.slow
@pytest.mark.parametrize("way", each_engine(*WAYS))
def test_the_same_bytes_in_every_way(way: str, tmp_path: Path) -> None:
    expected = {**CONTENTS, **{path: CONTENTS[target] for path, target in LINKED.items()}}
    if way in LAYERED:
        expected |= PRIVATE
    with opened(way, tmp_path / "image", CONTENTS) as image:
        rootfs = image.rootfs
        # Before anything is listed, and after.
        for path, content in expected.items():
            assert rootfs.read(path, 4 * MIB) == content, path
        sizes = {file.path: file.size for file in rootfs.walk("/") if file.type == "file"}
        assert {path: sizes[path] for path in expected} == {p: len(c) for p, c in expected.items()}
        for path, content in expected.items():
            with rootfs.open(path) as file:
                assert file.tell() == 0
                assert whole(file) == content, path
                file.seek(max(len(content) - 10, 0))
                assert whole(file) == content[-10:], path
        assert rootfs.read("/opt/link", 4 * MIB) == CONTENTS["/opt/larger"]


@pytest.mark.slow
@pytest.mark.parametrize("way", each_engine(*WAYS))
def test_each_looks_at_files_from_their_first_byte(way: str, tmp_path: Path) -> None:
    expected = {**CONTENTS, **{path: CONTENTS[target] for path, target in LINKED.items()}}
    heads: dict[str, bytes] = {}

    def wanted(path: str, head: bytes) -> bool:
        heads[path] = head
        return True

    def look(_: File, content: BinaryIO) -> tuple[int, bytes]:
        return content.tell(), whole(content)

    with opened(way, tmp_path / "image", CONTENTS) as image:
        found = {file.path: seen for file, seen in image.rootfs.each("/", wanted, look)}
    for names in (set(CONTENTS) - set(LINKED.values()), *({a, b} for a, b in LINKED.items())):
        seen = names & set(found)
        # Of hard links one is looked at.
        assert len(seen) == (1 if names & set(LINKED) else len(names))
        for path in seen:
            assert found[path] == (0, expected[path]), path
            assert heads[path] == expected[path][:HEAD], path


@pytest.mark.parametrize("way", each_engine(*LAYERED))
def test_the_same_bytes_in_layers(way: str, tmp_path: Path) -> None:
    expected = [{**CONTENTS, **PRIVATE, "/opt/of-both": noise(200, "lower")}]
    expected.append({"/opt/of-both": CONTENTS["/opt/of-both"]})
    with opened(way, tmp_path / "image", CONTENTS) as image:
        assert image.layers is not None
        lower, upper = image.layers.read(lambda path: True, lambda path, start, at: start.hex())
        for layer, files in zip((lower, upper), expected, strict=True):
            members = {one.path: one for one in layer.members if one.type == "file"}
            assert set(members) - set(LINKED) == set(files)
            for path, content in files.items():
                if content:
                    assert layer.sha256(members[path]) == hashlib.sha256(content).digest(), path
                    assert layer.look(members[path]) == content[:LAYER_START].hex(), path


def whole(file: BinaryIO) -> bytes:
    """What is left of a file, which may come in pieces."""
    return b"".join(iter(lambda: file.read(MIB), b""))


CHANGED = {
    "short": ("/opt/short", 3),
    "first byte": ("/opt/larger", 0),
    "byte 63": ("/opt/large", HEAD - 1),
    "byte 64": ("/opt/longer", HEAD),
    "of a volume": ("/data/volume", 5),
}


def changed(contents: dict[str, bytes]) -> dict[str, bytes]:
    """Of each of these files another byte is another one."""
    contents = dict(contents)
    for path, at in CHANGED.values():
        old = contents[path]
        contents[path] = old[:at] + bytes([old[at] ^ 1]) + old[at + 1 :]
    return contents


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        pytest.param(engine, kind, marks=pytest.mark.engine(engine), id=f"{engine}-{kind}")
        for engine, kind in (
            ("sandbox", "directory"),
            ("docker", "docker-archive"),
            ("podman", "docker-archive"),
            ("archive", "docker-archive"),
            ("archive", "oci-archive"),
            ("archive", "oci-archive-zstd"),
            ("apptainer", "sif"),
        )
    ],
)
def test_diff_finds_what_differs_in_the_first_bytes(engine: str, kind: str, tmp_path: Path) -> None:
    one = made(kind, tmp_path / "one", CONTENTS, {})
    other = made(kind, tmp_path / "other", changed(CONTENTS), {})
    same = diff(engine, one, one)
    assert same.returncode == 0, (same.stdout, same.stderr)
    told = diff(engine, one, other)
    assert told.returncode == 1, told.stderr
    assert {path for path in CONTENTS if path in told.stdout} == {p for p, _ in CHANGED.values()}


def diff(engine: str, one: str, other: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlcheck.cli", "diff", f"--engine={engine}", one, other],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
