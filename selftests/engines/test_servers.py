"""What depends on the store of a server: digests, layers, indexes, archives.

The image is the same for each: in an index for several platforms, with the attestation of its
build beside it, and with layers in gzip and zstd.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mlcheck.engines import doctor, image_info, select
from mlcheck.engines.base import silent
from mlcheck.engines.oci import registry as oci_registry
from mlcheck.engines.oci.documents import INDEX_TYPES, MANIFEST_TYPES, sha256
from mlcheck.engines.oci.engine import Oci
from mlcheck.model.image_ref import ImageRef
from selftests import engine_table, registry, servers
from selftests.archives import layer, member, packed
from selftests.registry import Registry
from selftests.servers import Server

NAME = f"mlcheck-servers-{os.urandom(4).hex()}"
CONTENT = b"of the upper layer"
LAYERS = (
    layer(member("etc/hidden", b"below"), member("etc/kept", b"kept")),
    layer(member("etc/.wh.hidden"), member("etc/greeting", CONTENT)),
)
HISTORY = [{"created_by": f"COPY {name} /"} for name in ("one", "two")]


@pytest.fixture(scope="module", params=servers.each_server())
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    found = servers.installed()[request.param]
    with found.used():
        yield found


@pytest.fixture(scope="module")
def shelf() -> Iterator[Registry]:
    with registry.running() as running:
        yield running


def pushed(shelf: Registry, contents: Sequence[bytes], compressions: tuple[str, ...]) -> str:
    """The name of an index in the registry, of which the second image is for this machine."""

    def descriptor(content: bytes, kind: str, **more: Any) -> dict[str, Any]:
        return {"mediaType": kind, "digest": sha256(content), "size": len(content), **more}

    repository = f"{NAME}/{sha256(contents[-1])[7:19]}-{compressions[-1]}"
    layers = []
    for content, how in zip(contents, compressions, strict=True):
        data = packed(content, how)
        registry.push_blob(shelf, repository, data)
        layers.append(descriptor(data, f"application/vnd.oci.image.layer.v1.tar+{how}"))
    entries = []
    for machine in ("s390x", "amd64", "unknown"):
        config = {
            "architecture": machine,
            "os": "unknown" if machine == "unknown" else "linux",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [sha256(one) for one in contents]},
            "history": HISTORY,
        }
        content = json.dumps(config).encode()
        registry.push_blob(shelf, repository, content)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPES[0],
            "config": descriptor(content, "application/vnd.oci.image.config.v1+json"),
            "layers": layers,
        }
        content = json.dumps(manifest).encode()
        registry.push_manifest(shelf, repository, sha256(content), content, MANIFEST_TYPES[0])
        platform = {"architecture": machine, "os": config["os"]}
        entries.append(descriptor(content, MANIFEST_TYPES[0], platform=platform))
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": entries}
    content = json.dumps(index).encode()
    registry.push_manifest(shelf, repository, "v1", content, INDEX_TYPES[0])
    return f"{shelf.address}/{repository}:v1"


@pytest.fixture(scope="module")
def engine(server: Server) -> Oci:
    found = select.engine(server.engine)
    assert isinstance(found, Oci)
    return found


@pytest.fixture(scope="module")
def ref(server: Server, engine: Oci, shelf: Registry) -> Iterator[ImageRef]:
    """The image, which the server has fetched."""
    # docker 20.10 knows no zstd.
    text = pushed(shelf, LAYERS, ("gzip", "gzip" if server.name == "docker" else "zstd"))
    with engine.prepare(ImageRef.parse(text)) as prepared:
        yield prepared.ref
    subprocess.run([server.engine, "rmi", "-f", text], check=True, capture_output=True)


def test_the_table_of_engines(server: Server) -> None:
    found = engine_table.row(doctor.examined(server.engine))
    # Not the version, since Debian's unstable release goes on, nor the machine's limits.
    assert (found[0], *found[2:-1]) in {(row[0], *row[2:-1]) for row in engine_table.in_page()}


def test_an_image_has_the_digests_of_its_registry(engine: Oci, ref: ImageRef) -> None:
    there = oci_registry.describe(ref)
    assert there.platforms == ("linux/s390x", "linux/amd64")
    with engine.prepare(ref, pull="never") as prepared:
        assert prepared.digest in (there.index_digest, there.manifest_digest)
        assert prepared.config_digest == there.config_digest
    told = image_info.describe(ref, engine.name, silent)
    assert told.config_digest == there.config_digest
    assert told.architecture == "amd64"
    assert image_info.describe(ref, select.AUTO, silent).here[engine.name] == "same"


def test_layers_of_a_server_that_does_not_let_us_read_its_store(engine: Oci, ref: ImageRef) -> None:
    """The image has no shell: no container runs, and all is streamed."""
    with engine.prepare(ref, pull="never") as prepared, engine.open(prepared) as image:
        assert image.rootfs.read("/etc/greeting", 100) == CONTENT
        assert image.rootfs.lstat("/etc/hidden") is None
        layers = image.layers.read(lambda _: False, lambda *_: None)
        assert [one.digest for one in layers] == [sha256(one) for one in LAYERS]
        assert [one.created_by for one in layers] == [one["created_by"] for one in HISTORY]


def test_an_archive_of_two_names_is_loaded_and_gone_afterwards(
    engine: Oci, shelf: Registry, tmp_path: Path
) -> None:
    archive, name = tmp_path / "image.tar", f"localhost/{NAME}:other"
    # docker fetches no layer that it has unpacked already, and saves none that it has not fetched.
    upper = layer(member("etc/greeting", CONTENT + b"2"))
    ref = ImageRef.parse(pushed(shelf, (layer(member("etc/kept", b"2")), upper), ("gzip", "gzip")))
    with engine.prepare(ref) as prepared:
        config = prepared.config_digest
    several = ["--multi-image-archive"] if engine.name == "podman" else []
    for argv in (
        ["tag", ref.text, name],
        ["save", *several, "-o", archive, ref.text, name],
        ["rmi", ref.text, name],
    ):
        subprocess.run([engine.name, *argv], check=True, capture_output=True)
    loaded = ImageRef.parse(f"docker-archive:{archive}")
    for opener in (engine.name, "archive"):
        with select.open_image(loaded, opener) as image, select.prepare(loaded, opener) as prepared:
            assert prepared.config_digest == config
            assert image.rootfs.read("/etc/greeting", 100) == CONTENT + b"2"
            location = prepared.location
        if opener == engine.name:
            argv = [engine.name, "image", "inspect", location]
            assert subprocess.run(argv, capture_output=True, check=False).returncode != 0
