"""docker with containerd's store, as far as no server is needed."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest

from mlcheck.engines.oci import containerd
from mlcheck.engines.oci import images as oci_images
from mlcheck.engines.oci.client import Client
from mlcheck.engines.oci.container import Created
from mlcheck.engines.oci.dialect import DOCKER
from mlcheck.engines.oci.files import expected_files
from mlcheck.engines.oci.mounts import Mount, mounts, overlaid
from mlcheck.engines.oci.pull import refusal
from mlcheck.model.errors import EngineError, MlcheckError, UsageError
from mlcheck.model.image_ref import ImageRef
from selftests.archives import layer, layout, member

IN_CONTAINERD = "io.containerd.snapshotter.v1"
REF = ImageRef.parse("registry.example/group/image:v1")
SNAPSHOTS = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"


def overlay(*options: str) -> Mount:
    return Mount(1, "/", "/", "overlay", options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["rw", "lowerdir=/a/2/fs:/a/1/fs", "upperdir=/a/3/fs"], ["/a/2/fs", "/a/1/fs"]),
        (["lowerdir+=/a/2/fs", "lowerdir+=/a/1/fs", "upperdir=/a/3/fs"], ["/a/2/fs", "/a/1/fs"]),
        (
            ["lowerdir=2/fs:1/fs", f"upperdir={SNAPSHOTS}/3/fs"],
            [f"{SNAPSHOTS}/{n}/fs" for n in "21"],
        ),
        (["lowerdir=/with\\040space/fs", "upperdir=/a/3/fs"], ["/with space/fs"]),
        (["lowerdir=/a\\134:b/fs:/a/1/fs", "upperdir=/a/3/fs"], []),
        (["lowerdir=2/fs:1/fs"], []),
        ([], []),
    ],
)
def test_directories_of_an_overlay(options: list[str], expected: list[str]) -> None:
    assert overlaid(overlay(*options)) == expected


def test_mounts_of_this_process() -> None:
    found = {mount.point: mount for mount in mounts()}
    assert found["/proc"].type == "proc"
    assert found["/proc"].device == Path("/proc").stat().st_dev


def client(root: Path) -> Client:
    given = SimpleNamespace(dialect=DOCKER, info=lambda: {"DockerRootDir": str(root)})
    return cast("Client", given)


def described(digest: str, kind: str) -> dict[str, Any]:
    return {"Id": digest, "Descriptor": {"digest": digest, "mediaType": kind}, "RepoDigests": []}


def test_an_image_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containerd, "_SYSTEM", Path("/none"))
    files = layout([layer(member("x", "content"))])
    place = tmp_path / "containerd/daemon/io.containerd.content.v1.content"
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    manifest = json.loads(files["index.json"])["manifests"][0]["digest"]
    config = json.loads(files[f"blobs/sha256/{manifest[7:]}"])["config"]["digest"]
    image = described(manifest, "application/vnd.oci.image.manifest.v1+json")
    told = oci_images.inspected(client(tmp_path), REF, image)
    assert (told.index, told.manifest, told.config) == (None, manifest, config)
    assert told.compressed_size is not None
    assert told.unpacked_size is None
    # What has not its digest is not the image's.
    (place / "blobs/sha256" / config[7:]).write_text("{}")
    told = oci_images.inspected(client(tmp_path), REF, image)
    assert (told.index, told.manifest, told.config) == (None, manifest, None)


def test_an_image_in_a_store_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containerd, "_SYSTEM", Path("/none"))
    image = described("sha256:" + "1" * 64, "application/vnd.oci.image.index.v1+json")
    told = oci_images.inspected(client(tmp_path), REF, image)
    assert (told.index, told.manifest, told.config) == (image["Id"], None, None)


@pytest.mark.parametrize(
    ("kind", "what", "message"),
    [
        (
            UsageError,
            "has no image of this name, or not with this tag or digest",
            'failed to resolve reference "{name}": {name}: not found',
        ),
        (
            EngineError,
            "refused the login",
            'Head "https://registry.example/v2/group/image/manifests/v1": pull access denied, '
            "repository does not exist or may require authorization: authorization failed: "
            "no basic auth credentials",
        ),
        (
            EngineError,
            "or does not show it without a login",
            "pull access denied, repository does not exist or may require authorization: server "
            "message: insufficient_scope: authorization failed",
        ),
        (
            EngineError,
            "answers with an error of its own",
            'unknown: failed to resolve reference "{name}": unexpected status from HEAD request to '
            "https://registry.example/v2/group/image/manifests/v1: 500 Internal Server Error",
        ),
    ],
)
def test_why_docker_with_this_store_could_not_pull(
    kind: type[MlcheckError], what: str, message: str
) -> None:
    error = refusal(client(Path("/none")), REF.text, message.format(name=REF.text))
    assert type(error) is kind
    assert what in error.what


@pytest.mark.parametrize(("failures", "gone"), [(0, True), (2, True), (3, True), (1, False)])
def test_a_layer_that_goes_while_a_container_is_created(failures: int, gone: bool) -> None:
    """Answers as of docker 28.5.2 while images with a layer in common are loaded and removed."""
    word = "parent snapshot" if gone else "image"
    asked = []

    def create_container(image: str, **options: object) -> None:
        asked.append((image, options))
        if len(asked) <= failures:
            why = f"NotFound: {word} sha256:5f70 does not exist: not found"
            raise docker.errors.NotFound("404", explanation=why)

    created = cast("Created", SimpleNamespace(client=SimpleNamespace(**locals())))
    fails = failures == 3 or not gone
    with pytest.raises(docker.errors.NotFound) if fails else contextlib.nullcontext():
        Created._create(created, "sha256:1", name="x")
    assert asked == [("sha256:1", {"name": "x"})] * (min(failures + 1, 3) if gone else 1)


@pytest.mark.parametrize(
    ("told", "host", "files", "store"),
    [
        ({"Driver": "overlay2"}, "unix", "where they lie", "overlay2"),
        (
            {"Driver": "overlayfs", "DriverStatus": [["driver-type", IN_CONTAINERD]]},
            "unix",
            "where they lie",
            "containerd (overlayfs)",
        ),
        ({"Driver": "vfs"}, "unix", "streamed by the engine", "vfs"),
        ({"Driver": "overlay2"}, "tcp://127.0.0.1:2375", "streamed by the engine", "overlay2"),
    ],
)
@pytest.mark.parametrize("rootless", [False, True])
def test_what_an_engine_says_of_its_files(
    told: dict[str, Any],
    host: str,
    files: str,
    store: str,
    rootless: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        address = f"unix://{path}" if host == "unix" else host
        given = SimpleNamespace(host=address, is_local=host == "unix")
        told = told | {"SecurityOptions": ["name=seccomp", *["name=rootless"] * rootless]}
        assert oci_images.store_of(told) == store
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert expected_files(cast("Client", given), told) == files
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        assert expected_files(cast("Client", given), told) == "streamed by the engine"
        if rootless and files == "where they lie":
            owner = Path("/proc/self").stat().st_uid or 12345
            monkeypatch.setattr(Path, "stat", lambda _: SimpleNamespace(st_uid=owner))
            monkeypatch.setattr(os, "geteuid", lambda: owner)
            expected = "where they lie; streamed where this user may not read all"
            assert expected_files(cast("Client", given), told) == expected
