"""Images in archives: what is in them is what their engines make of them, and a directory has."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from mlcheck import reference
from mlcheck.cli.main import main
from mlcheck.engines import select
from mlcheck.engines.archive.contents import has_several_names
from mlcheck.engines.archive.engine import OpenArchive
from mlcheck.engines.base import OpenImage
from mlcheck.engines.oci.archive import renamed
from mlcheck.image import budget, byte_sources
from mlcheck.image.api import RootFS
from mlcheck.inspect.probe_catalog import PROBES, facts_about, to_json
from mlcheck.model.errors import NothingRuns
from mlcheck.model.files import File
from mlcheck.model.image_ref import ImageRef
from selftests import archives
from selftests.archives import described, docker_archive, layer, layout, member, packed, write
from selftests.checkout import CHECKOUT
from selftests.judging import by_outcome, judge, with_lists

DIR = None
MIB = 1024 * 1024
TAG = reference.default_tag()
LATIN = os.fsdecode(b"caf\xe9")


@contextmanager
def opened(text: str) -> Iterator[OpenArchive]:
    with select.open_image(ImageRef.parse(text), "archive") as image:
        assert isinstance(image, OpenArchive)
        yield image


def contents(rootfs: RootFS) -> dict[str, tuple[object, ...]]:
    """The same of every file as `selftests.archives.described` tells."""
    found: dict[str, tuple[object, ...]] = {}
    for file in rootfs.walk("/"):
        kind = file.type if file.type in ("file", "directory", "symlink") else "other"
        mode = None if kind == "symlink" else file.mode
        data = rootfs.read(file.path, MIB) if kind == "file" else None
        found[file.path] = (kind, mode, file.uid, file.gid, file.target, data)
    return found


# The rules of layers

LAYERS = {
    "whiteout": [
        layer(member("a", DIR), member("a/x", "x"), member("a/y", "y")),
        layer(member("a/.wh.x")),
    ],
    "whiteout-of-a-directory": [
        layer(member("a", DIR), member("a/b", DIR), member("a/b/y", "y")),
        layer(member("a/.wh.b")),
    ],
    "whiteout-then-anew": [
        layer(member("a", DIR), member("a/b", DIR), member("a/b/y", "y")),
        layer(member("a/.wh.b")),
        layer(member("a/b", DIR), member("a/b/z", "z")),
    ],
    "whiteout-and-anew-in-one-layer": [
        layer(member("a", DIR), member("a/x", "old"), member("a/d", DIR), member("a/d/e", "e")),
        layer(member("a/.wh.x"), member("a/x", "new"), member("a/.wh.d"), member("a/new", "n")),
    ],
    "whiteout-of-nothing": [layer(member("a", DIR)), layer(member("a/.wh.x"))],
    "whiteout-in-the-lowest": [layer(member("a", DIR), member("a/.wh.x"))],
    "whiteout-below-a-lower-link": [
        layer(member("b", DIR), member("b/x", "x"), member("a", to="b")),
        layer(member("a/.wh.x")),
    ],
    "opaque": [
        layer(member("a", DIR), member("a/x", "x"), member("a/d", DIR), member("a/d/e", "e")),
        layer(member("a", DIR), member("a/.wh..wh..opq"), member("a/new", "n")),
    ],
    "opaque-after-what-is-new": [
        layer(member("a", DIR), member("a/x", "x")),
        layer(member("a", DIR), member("a/new", "n"), member("a/.wh..wh..opq")),
    ],
    "file-over-directory": [
        layer(member("a", DIR), member("a/x", "x")),
        layer(member("a", "file")),
    ],
    "directory-over-file": [
        layer(member("a", "file")),
        layer(member("a", DIR), member("a/x", "x")),
    ],
    "below-a-lower-file": [layer(member("a", "file")), layer(member("a/x", "x"))],
    "link-over-directory": [
        layer(member("a", DIR), member("a/x", "x")),
        layer(member("a", to="b")),
    ],
    "directory-over-link": [
        layer(member("b", DIR), member("b/x", "x"), member("a", to="b")),
        layer(member("a", DIR), member("a/y", "y")),
    ],
    "below-a-lower-link": [
        layer(member("b", DIR), member("b/x", "x"), member("a", to="b")),
        layer(member("a/y", "y")),
    ],
    "below-an-own-link": [layer(member("b", DIR), member("a", to="b"), member("a/y", "y"))],
    "below-an-own-absolute-link": [
        layer(
            *(member("b", DIR), member("b/c", DIR), member("d", DIR)),
            *(member("d/a", to="/b/c"), member("d/a/y", "y")),
        )
    ],
    "below-an-own-link-that-leads-up": [
        layer(member("b", DIR), member("d", DIR), member("d/a", to="../../../b"), member("d/a/y"))
    ],
    "missing-parents": [layer(member("a/b/c", "c"))],
    "a-parent-that-only-a-lower-layer-has": [
        layer(member("a", DIR, mode=0o700, uid=5, gid=6), member("a/x", "x")),
        layer(member("a/y", "y")),
    ],
    "modes-and-owners": [
        layer(member("a", DIR, mode=0o700, uid=5, gid=6), member("a/x", "x", mode=0o4755, uid=9)),
        layer(member("a", DIR, mode=0o1777, uid=7, gid=8)),
    ],
    "hard-links": [
        layer(
            member("a", "1"), member("b", link="a"), member("c", link="/a"), member("d", link="./a")
        )
    ],
    "hard-link-to-a-link": [layer(member("a", to="nowhere"), member("b", link="a"))],
    "hard-link-then-replaced-above": [
        layer(member("a", "1"), member("b", link="a")),
        layer(member("a", "2")),
    ],
    "prefixes": [layer(member("./", DIR), member("./a", DIR), member("./a/x", "x"), member("/b"))],
    "special-files": [
        layer(
            member("fifo", type=tarfile.FIFOTYPE, mode=0o600),
            member("zero", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        )
    ],
    "names": [layer(member("a b"), member("ü/ß"), member(LATIN), member("n" * 250), member("-x"))],
    "no-end-marks": [member("a", "x")],
}


def exported(engine: str, archive: Path, tag: str) -> dict[str, tuple[object, ...]]:
    """What an engine makes of an archive."""
    subprocess.run([engine, "load", "-i", archive], check=True, capture_output=True)
    try:
        made = subprocess.run([engine, "create", tag, "/x"], check=True, capture_output=True)
        name = made.stdout.strip()
        try:
            done = subprocess.run([engine, "export", name], check=True, capture_output=True)
        finally:
            subprocess.run([engine, "rm", "-f", name], check=True, capture_output=True)
    finally:
        subprocess.run([engine, "rmi", "-f", tag], check=True, capture_output=True)
    found = described(io.BytesIO(done.stdout))
    # What engines put into a container.
    own = ("/etc", "/dev", "/proc", "/sys", "/run", "/tmp", "/.dockerenv")
    return {path: what for path, what in found.items() if path != "/" and not path.startswith(own)}


@pytest.mark.parametrize("engine", [pytest.param("docker", marks=pytest.mark.engine("docker"))])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_what_docker_makes_of_them(engine: str, name: str, tmp_path: Path) -> None:
    tag = f"mlcheck-layers-{os.getpid()}:{name}"
    archive = docker_archive(tmp_path / "image.tar", LAYERS[name], tag=tag)
    with opened(f"docker-archive:{archive}") as image:
        found = contents(image.rootfs)
    assert found
    assert found == exported(engine, archive, tag)


def paths(tmp_path: Path, *layers: bytes) -> dict[str, object]:
    """Path to content (or target) in an image of these layers."""
    archive = docker_archive(tmp_path / "image.tar", layers)
    with opened(f"docker-archive:{archive}") as image:
        found = contents(image.rootfs)
    return {path: what[5] if what[0] == "file" else what[4] for path, what in found.items()}


def test_what_docker_refuses_is_read_all_the_same(tmp_path: Path) -> None:
    twice = layer(member("a", "1"), member("a", "2"), member("b", DIR), member("b/x"), member("b"))
    assert paths(tmp_path, twice) == {"/a": b"2", "/b": b""}
    kept = layer(member("b", DIR), member("b/x", "x"), member("b", DIR, mode=0o700))
    assert paths(tmp_path, kept) == {"/b": None, "/b/x": b"x"}
    lower = layer(member("d", DIR), member("d/a", "1"))
    upper = layer(member("b", link="d/a"), member(".wh.d"))
    assert paths(tmp_path, lower, upper) == {"/b": b"1"}
    before = layer(member("a", "1"), member("b", link="a"), member("a", "2"))
    assert paths(tmp_path, before) == {"/a": b"2", "/b": b"1"}
    behind = layer(member("a/x", "new"), member("a/.wh.x"))
    assert paths(tmp_path, layer(member("a/x", "old")), behind) == {"/a": None, "/a/x": b"new"}
    turned = layer(
        member("b", DIR), member("a", to="b"), member("a/1"), member("a", DIR), member("a/2")
    )
    assert paths(tmp_path, turned) == {"/a": None, "/a/2": b"", "/b": None, "/b/1": b""}


def test_hard_links_have_one_inode_across_layers(tmp_path: Path) -> None:
    layers = [
        layer(member("a", "1"), member("b", link="a"), member("c", "1")),
        layer(member("d", link="b")),
    ]
    with opened(f"docker-archive:{docker_archive(tmp_path / 'x.tar', layers)}") as image:
        inodes = [file.inode for file in image.rootfs.walk("/")]
    assert inodes[0] == inodes[1] == inodes[3] != inodes[2]


# Real archives

FORMATS = {"docker-archive": "docker-archive", "oci": "oci-dir", "oci-archive": "oci-archive"}
"""Kinds of archives, and what podman calls them."""


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference image without large files and most of its Python packages: 100 MB of 700."""

    def ignored(directory: str, names: list[str]) -> set[str]:
        found = {name for name in names if os.lstat(f"{directory}/{name}").st_size > MIB // 4}
        found.discard("micromamba")
        if directory.endswith("/site-packages"):
            found |= set(names) - set(sorted(names)[::16])
        return found

    target = tmp_path_factory.mktemp("part") / f"ml-base:{TAG}"
    shutil.copytree(reference.build("ml-base"), target, symlinks=True, ignore=ignored)
    return target


@pytest.fixture(scope="module")
def saved(part: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """It in all forms in which docker and podman write images."""
    directory = tmp_path_factory.mktemp("saved")
    image = part
    tag = f"localhost/mlcheck-saved-{os.getpid()}:x"
    archive = directory / "made.tar"
    reference.export_docker_archive(image, archive)
    found = {"made": f"docker-archive:{archive}"}
    for engine in ("docker", "podman"):
        if select.engine(engine).unusable() is not None:
            continue
        loaded = subprocess.run([engine, "load", "-i", archive], check=True, capture_output=True)
        name = loaded.stdout.decode().strip().rpartition(" ")[2]
        subprocess.run([engine, "tag", name, tag], check=True, capture_output=True)
        subprocess.run([engine, "rmi", name], check=True, capture_output=True)
        try:
            for form in FORMATS if engine == "podman" else ("docker-archive",):
                path = directory / f"{engine}-{form}"
                kind = ["--format", FORMATS[form]] if engine == "podman" else []
                command = [engine, "save", *kind, "-o", path, tag]
                subprocess.run(command, check=True, capture_output=True)
                found[f"{engine}-{form}"] = f"{form}:{path}"
        finally:
            subprocess.run([engine, "rmi", "-f", tag], check=True, capture_output=True)
    for how in ("gzip", "zstd"):
        path = directory / f"{how}.tar"
        recompressed(archive, path, how)
        found[f"docker-archive-{how}"] = f"docker-archive:{path}"
    yield found
    shutil.rmtree(directory)


def recompressed(archive: Path, target: Path, how: str) -> None:
    """The same image with a layer that is compressed."""
    with tarfile.open(archive) as old, tarfile.open(target, "w") as new:
        for one in old:
            content = old.extractfile(one)
            assert content is not None
            if one.name.endswith(".tar"):
                stored = target.with_suffix(".layer")
                with stored.open("wb") as out:
                    if how == "gzip":
                        with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as file:
                            shutil.copyfileobj(content, file, MIB)
                    else:
                        with byte_sources._zstd().open(out, "wb") as file:
                            shutil.copyfileobj(content, file, MIB)
                new.add(stored, one.name)
                stored.unlink()
            else:
                new.addfile(one, content)


def facts_of(image: OpenImage, probes: Iterable[str] = PROBES) -> dict[str, object]:
    """What each of these probes finds that needs no process."""
    found = {}
    for name in probes:
        try:
            found[name] = to_json(PROBES[name](facts_about(image)))
        except NothingRuns:
            continue
    return found


class ReadOnly:
    """An image of a directory in which nothing can be started."""

    def __init__(self, image: OpenImage) -> None:
        self._image = image

    def __getattr__(self, name: str) -> object:
        return getattr(self._image, name)

    def run(self, *_: object, **__: object) -> None:
        raise NothingRuns("the engine archive only reads, and this needs a process in the image.")

    start = run


OF_ALL_FILES = ("elf", "conda-files", "kernelspecs")
"""Facts that differ if a file's name, type, target or content does."""


@pytest.mark.slow
def test_every_static_fact_is_that_of_the_directory(saved: dict[str, str], part: Path) -> None:
    with select.open_image(ImageRef.parse(f"{part}/"), "sandbox") as image:
        expected = facts_of(ReadOnly(image))  # type: ignore[arg-type]
    told = expected.pop("environment")
    assert expected.pop("layers") is None
    sizes = set()
    assert {"elf", "conda-files", "installed", "libraries", "kernelspecs"} < expected.keys()
    assert isinstance(told, dict)
    for number, (name, text) in enumerate(saved.items()):
        with opened(text) as found:
            facts = facts_of(found, ("environment", "layers", *OF_ALL_FILES) if number else PROBES)
        environment = facts.pop("environment")
        layers = facts.pop("layers")
        assert isinstance(environment, dict)
        assert isinstance(layers, dict)
        sizes.add(sum(layer["size"] for layer in layers["layers"]))
        assert environment["env"] == told["env"], name
        assert environment["labels"] == told["labels"], name
        assert number or facts.keys() == expected.keys(), name
        for probe in facts:
            assert without_owner(facts[probe]) == without_owner(expected[probe]), (name, probe)
    assert len(sizes) == 1


def without_owner(fact: object) -> object:
    """In archives all is root's, inodes are numbers of their own, and directories have no size."""
    if isinstance(fact, dict):
        left = ("uid", "gid", "inode")
        found = {key: without_owner(value) for key, value in fact.items() if key not in left}
        if found.get("type") == "directory":
            found.pop("size", None)
        return found
    return [without_owner(item) for item in fact] if isinstance(fact, list) else fact


@pytest.mark.slow
def test_the_configuration_is_what_docker_tells(saved: dict[str, str]) -> None:
    if "docker-docker-archive" not in saved:
        pytest.skip("docker cannot be used here")
    text = saved["docker-docker-archive"]
    with opened(text) as image, select.open_image(ImageRef.parse(text), "docker") as other:
        found, expected = image.environment, other.environment
        assert image.digest == other.digest
    for name in ("env", "entrypoint", "cmd", "user", "workdir", "exposed", "labels"):
        assert getattr(found, name) == getattr(expected, name), name


def test_user_ports_and_workdir(tmp_path: Path) -> None:
    config = {
        "User": "1000:1000",
        "WorkingDir": "/work",
        "ExposedPorts": {"8888/tcp": {}, "53/udp": {}},
        "Env": ["A=b=c", "EMPTY="],
    }
    archive = docker_archive(tmp_path / "x.tar", [layer(member("a"))], config=config)
    with opened(f"docker-archive:{archive}") as image:
        told = image.environment
    assert (told.user, told.workdir, told.exposed) == ("1000:1000", "/work", ("53/udp", "8888/tcp"))
    assert (told.env, told.entrypoint, told.cmd) == ({"A": "b=c", "EMPTY": ""}, (), ())


def test_layers_that_are_links_as_docker_wrote_them(tmp_path: Path) -> None:
    data = layer(member("a", "x"))
    other = layer(member("b", "y"))
    path = docker_archive(tmp_path / "x.tar", [data, other, data])
    with tarfile.open(path) as tar:
        names = [name for name in tar.getnames() if name.endswith("layer.tar")]
        parts = [tar.extractfile(name) for name in tar.getnames()]
        members = dict(
            zip(tar.getnames(), [part.read() if part else b"" for part in parts], strict=True)
        )
    assert len(names) == 3
    linked = [
        member(name, to=f"../{names[0]}") if name == names[2] else member(name, content)
        for name, content in members.items()
    ]
    path.write_bytes(layer(*linked))
    with opened(f"docker-archive:{path}") as image:
        assert contents(image.rootfs).keys() == {"/a", "/b"}


def test_an_index_of_several_platforms_gives_the_one_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    files: dict[str, bytes] = {}
    entries = []
    for name in ("amd64", "arm64"):
        one = layout([layer(member(name, name))])
        (entry,) = json.loads(one["index.json"])["manifests"]
        entries.append({**entry, "platform": {"os": "linux", "architecture": name}})
        files |= one
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    digest = archives.digest(index)
    files[f"blobs/{digest.replace(':', '/')}"] = index
    outer = [{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": 9}]
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": outer}).encode()
    for kind in ("oci", "oci-archive"):
        with opened(f"{kind}:{write(files, tmp_path / kind, kind)}") as image:
            assert contents(image.rootfs).keys() == {"/arm64"}
            assert image.digest == digest


def test_an_image_with_several_names_is_one_image(tmp_path: Path) -> None:
    """As docker and skopeo save it: an entry in the index for each name."""
    files = layout([layer(member("a", "x"))])
    index = json.loads(files["index.json"])
    (entry,) = index["manifests"]
    names = [{"org.opencontainers.image.ref.name": name} for name in ("v1", "latest")]
    index["manifests"] = [{**entry, "annotations": name} for name in names]
    files["index.json"] = json.dumps(index).encode()
    path = write(files, tmp_path / "two.tar", "oci-archive")
    assert has_several_names("oci-archive", path)
    with opened(f"oci-archive:{path}") as image:
        assert contents(image.rootfs).keys() == {"/a"}
        assert image.digest == entry["digest"]
    # For docker, podman and apptainer the archive is written with one name.
    one = tmp_path / "one.tar"
    one.write_bytes(b"".join(renamed(path, "localhost/mlcheck:x")))
    assert not has_several_names("oci-archive", one)
    with opened(f"oci-archive:{one}") as image:
        assert contents(image.rootfs).keys() == {"/a"}
        assert image.digest == entry["digest"]


def test_one_image_with_an_entry_for_each_tag(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "one.tar", [layer(member("a", "x"))])
    with tarfile.open(path) as archive:
        files = {one.name: (archive.extractfile(one) or io.BytesIO()).read() for one in archive}
    (entry,) = json.loads(files["manifest.json"])
    table = [{**entry, "RepoTags": [tag]} for tag in ("x:v1", "x:latest")]
    files["manifest.json"] = json.dumps(table).encode()
    path.write_bytes(layer(*(member(name, data) for name, data in files.items())))
    with opened(f"docker-archive:{path}") as image:
        assert contents(image.rootfs).keys() == {"/a"}
    b"".join(renamed(path, "localhost/mlcheck:x"))


# Contents


@pytest.mark.parametrize("how", ["", "gzip", "zstd", "gzip-members", "zstd-frames"])
def test_contents_are_read_anywhere(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With so little kept that almost everything is decompressed anew."""
    monkeypatch.setattr(byte_sources, "BLOCK", 1000)
    monkeypatch.setattr(byte_sources, "CHECKPOINT", 10_000)
    monkeypatch.setattr(byte_sources, "CHECKPOINTS", 8)
    monkeypatch.setattr(budget, "BLOCKS", 3)
    files = {f"f{n}": os.urandom(n * 1919) + bytes(5_000) for n in range(12)}
    data = layer(*(member(name, content) for name, content in files.items()))
    kind, _, several = how.partition("-")
    step = 14_000 if several else len(data)
    stored = b"".join(packed(data[n : n + step], kind) for n in range(0, len(data), step))
    path = docker_archive(tmp_path / "x.tar", [data])
    name = f"{archives.digest(data)[7:]}-0/layer.tar"
    docker_archive(path, [data], changed={name: stored})
    with opened(f"docker-archive:{path}") as image:
        for one in (*files, *reversed(files)):
            assert image.rootfs.read(f"/{one}", MIB) == files[one]
        with image.rootfs.open("/f9") as file:
            for start in (17_000, 10, 9_000, 0, len(files["f9"]) - 5):
                file.seek(start)
                assert file.read(100) == files["f9"][start : start + 100]
            assert file.seek(-3, os.SEEK_END) == len(files["f9"]) - 3
            assert (file.read(), file.read(5)) == (files["f9"][-3:], b"")

        def whole(one: str) -> bool:
            return image.rootfs.read(f"/{one}", MIB) == files[one]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(whole, [*files] * 3))
        looked = image.rootfs.each("/", lambda path, head: head == files[path[1:]][:64], read_all)
        assert {file.path[1:]: content for file, content in looked} == files


def read_all(_: File, content: BinaryIO) -> bytes:
    return content.read()


@pytest.mark.slow
def test_nothing_is_written_and_little_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of 150 MB in an archive of 150 kB: no temporary file, and not much memory."""
    large = bytes(150 * MIB)
    path = docker_archive(tmp_path / "x.tar", [layer(member("large", large))], how="gzip")
    del large
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    program = (
        "import resource, sys\n"
        "from mlcheck.engines import select as opening\n"
        "from mlcheck.model.image_ref import ImageRef\n"
        "with opening.open_image(ImageRef.parse(sys.argv[1]), 'archive') as image:\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    with image.rootfs.open('/large') as file:\n"
        "        file.seek(149 * 1024**2)\n"
        "        assert len(file.read(1000)) == 1000\n"
        "    usage = resource.getrusage(resource.RUSAGE_SELF)\n"
        "    print(usage.ru_maxrss - before, usage.ru_oublock)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"docker-archive:{path}"],
        env={**os.environ, "TMPDIR": str(temporary)},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    more, written = map(int, done.stdout.split())
    assert more < 60 * 1024  # kB
    assert written * 512 < MIB
    assert list(temporary.iterdir()) == []


# The suite


@pytest.mark.slow
@pytest.mark.parametrize("defect", ["", "rpath", "list-wrong-version"])
def test_a_static_defect_is_found_in_an_archive(defect: str, tmp_path: Path) -> None:
    """And none in the good image."""
    image = reference.build("ml-pyroot", defects=[defect] if defect else [])
    archive = tmp_path / "image.tar"
    reference.export_docker_archive(image, archive)
    report = judge(
        tmp_path / "report.json",
        *("--engine=archive", *with_lists("ml-pyroot", tmp_path)),
        *(f"--image=docker-archive:{archive}", f"--profile=ml-pyroot:{TAG}"),
    )
    archive.unlink()
    outcomes = by_outcome(report)
    assert "error" not in outcomes
    failed = outcomes.get("failed", set())
    assert bool(failed) == bool(defect)
    assert failed <= (reference.DEFECTS[defect].caught_by if defect else set())
    assert len(outcomes["passed"]) > 15
    results = report["results"]
    assert isinstance(results, list)
    reasons = {result["message"] for result in results if result["outcome"] == "skipped"}
    assert any("--engine docker, podman or apptainer" in str(reason) for reason in reasons)


@pytest.mark.slow
def test_a_run_that_judged_nothing_is_not_green(saved: dict[str, str], tmp_path: Path) -> None:
    arguments = [f"--image={saved['made']}", "--engine=archive", f"--profile=ml-base:{TAG}"]
    report = judge(tmp_path / "r.json", *arguments, "-k", "shells")
    assert by_outcome(report).keys() == {"skipped"}
    assert report["exit_code"] == 5


@pytest.mark.slow
def test_commands(
    saved: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    monkeypatch.setenv("MLCHECK_NO_CACHE", "1")
    arguments = [saved["made"], "--engine", "archive"]
    assert main(["exec", *arguments, "--", "true"]) == 3
    assert "only reads" in capsys.readouterr().err
    assert main(["facts", *arguments, "--probe", "shells"]) == 3
    assert "--engine docker, podman or apptainer" in capsys.readouterr().err
    assert main(["facts", *arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert {"elf", "package-list", "installed"} < json.loads(out).keys()
    assert "left out shells" in err
    assert main(["packages", *arguments]) == 0
    out, err = capsys.readouterr()
    assert "alembic" in out
    assert "version of micromamba is not known" in err


@pytest.mark.slow
def test_by_hand(saved: dict[str, str], tmp_path: Path) -> None:
    """The command that shows a file shows it; the copy that it makes is in TMPDIR."""
    path = "/list-of-pkgs-inside.txt"
    for name in ("made", "docker-archive-gzip", "docker-archive-zstd"):
        with opened(saved[name]) as image:
            shown = image.show_file("cat", path)
            content = image.rootfs.read(path, 64 * MIB)
        env = {**os.environ, "TMPDIR": str(tmp_path)}
        done = subprocess.run(["sh", "-c", shown], env=env, capture_output=True, check=True)
        assert done.stdout == content


def test_chosen_when_nothing_else_works(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def unusable(self) -> str:
            return "is broken"

    real = select.engine
    monkeypatch.setattr(select, "engine", lambda n: real(n) if n == "archive" else Broken())
    (choice,) = select.choose(ImageRef.parse("docker-archive:x.tar"))
    assert choice.engine == "archive"
    assert choice.why.startswith("only the files can be judged")
    assert "not docker, podman, apptainer" in choice.why
