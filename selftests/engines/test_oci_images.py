"""Images of docker and podman: found, pulled from a real registry, pinned, loaded, refused."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from mlcheck.engines import select
from mlcheck.engines.base import Prepared, PullPolicy, silent
from mlcheck.engines.oci import abandoned
from mlcheck.engines.oci import images as oci_images
from mlcheck.engines.oci.client import Client, connect
from mlcheck.engines.oci.dialect import DOCKER, PODMAN, Dialect
from mlcheck.engines.oci.pull import refusal
from mlcheck.model.errors import EngineError, MlcheckError, UsageError
from mlcheck.model.image_ref import ImageRef
from selftests import registry
from selftests.checkout import CHECKOUT
from selftests.registry import Registry
from selftests.waiting import eventually

pytestmark = pytest.mark.engine("docker", "podman")

NOWHERE = "127.0.0.1:9"  # the discard port: nothing listens


MINE = f"mlcheck-test-{os.urandom(4).hex()}"
"""Begins the name of every image of this process' tests."""


@pytest.fixture(scope="module", params=[DOCKER, PODMAN], ids=["docker", "podman"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    dialect: Dialect = request.param
    with connect(dialect) as client:
        yield client
        for image in oci_images.listed(client):
            names = [*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())]
            if any(MINE in name for name in names):
                client.remove_image(image["Id"], force=True)


@pytest.fixture(scope="module")
def shelf() -> Iterator[Registry]:
    with registry.running() as running:
        yield running


def imported(client: Client, content: bytes, name: str) -> str:
    """ID of a new image NAME:v1 with that layer."""
    # Engines differ in how they read a name here, and agree on the ID.
    answer = client.import_image_from_data(content)
    identity: str = json.loads(answer.splitlines()[0])["status"]
    assert client.tag(identity, name, "v1")
    return identity


def is_here(client: Client, identity: str) -> bool:
    return oci_images.inspect(client, identity) is not None


def layer(text: str = "hello", size: int = 0) -> bytes:
    # An engine has images of one content once: to remove one by force removes the containers of
    # all, so no other worker's may be the same.
    files = (("etc/greeting", text.encode()), ("filler", os.urandom(size)), ("by", MINE.encode()))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def fresh(name: str = "image") -> str:
    """A repository that no other test uses."""
    return f"{MINE}/{name}-{os.urandom(4).hex()}"


def prepared(
    client: Client, text: str, pull: PullPolicy = "missing", lines: list[str] | None = None
) -> Prepared:
    progress = silent if lines is None else lines.append
    ref = ImageRef.parse(text)
    with oci_images.prepare(client, ref, pull=pull, progress=progress) as found:
        assert found.ref == ref
        return found


def refused(
    client: Client, kind: type[MlcheckError], text: str, pull: PullPolicy = "missing"
) -> MlcheckError:
    with pytest.raises(kind) as caught:
        prepared(client, text, pull)
    assert caught.type is kind
    return caught.value


def greeting(client: Client, image: Prepared) -> bytes:
    """What the image holds."""
    container = client.create_container(image.location, command=["/none"])["Id"]
    try:
        chunks, _ = client.get_archive(container, "/etc/greeting")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            file = archive.extractfile("greeting")
            assert file is not None
            return file.read()
    finally:
        client.remove_container(container, force=True)


# Pulled and pinned


def test_pulled_by_tag_and_pinned(client: Client, shelf: Registry) -> None:
    repository = fresh()
    digest = registry.push(shelf, repository, "v1", [layer("one")], {"config": {"Env": ["A=b"]}})
    image = prepared(client, f"{shelf.address}/{repository}:v1")
    assert image.digest == digest
    assert client.inspect_image(image.location)["Config"]["Env"] == ["A=b"]
    assert greeting(client, image) == b"one"


def test_latest_is_the_tag_that_nobody_wrote(client: Client, shelf: Registry) -> None:
    repository = fresh()
    digest = registry.push(shelf, repository, "latest", [layer("newest")], {})
    assert prepared(client, f"{shelf.address}/{repository}").digest == digest


def test_by_digest_gives_just_that(client: Client, shelf: Registry) -> None:
    repository = fresh()
    old = registry.push(shelf, repository, "v1", [layer("old")], {})
    new = registry.push(shelf, repository, "v1", [layer("new")], {})
    name = f"{shelf.address}/{repository}"
    for digest, content in ((old, b"old"), (new, b"new"), (old, b"old")):
        image = prepared(client, f"{name}@{digest}")
        assert (image.digest, greeting(client, image)) == (digest, content)
    error = refused(client, UsageError, f"{name}@sha256:{'a' * 64}")
    assert "no image of this name, or not with this tag or digest" in error.what


def test_a_moved_tag_and_the_pull_policies(client: Client, shelf: Registry) -> None:
    repository = fresh()
    text = f"{shelf.address}/{repository}:v1"
    error = refused(client, UsageError, text, "never")
    assert f"has no image {text}, and --pull=never forbids" in error.what
    old = registry.push(shelf, repository, "v1", [layer("old")], {})
    first = prepared(client, text)
    new = registry.push(shelf, repository, "v1", [layer("new")], {})
    assert prepared(client, text, "missing") == prepared(client, text, "never") == first
    second = prepared(client, text, "always")
    assert (first.digest, second.digest) == (old, new)
    assert (greeting(client, first), greeting(client, second)) == (b"old", b"new")
    shelf_is_not_asked = prepared(client, text, "missing")
    assert shelf_is_not_asked == second


def test_one_image_under_two_names(client: Client, shelf: Registry) -> None:
    one, two = fresh(), fresh()
    content = layer()
    digests = []
    for repository, form in ((one, content), (two, gzip.compress(content, mtime=0))):
        digests.append(registry.push(shelf, repository, "v1", [form], {}))
    images = [prepared(client, f"{shelf.address}/{repository}:v1") for repository in (one, two)]
    # In containerd's store, an image's ID is the digest of its manifest.
    assert images[0].config_digest == images[1].config_digest
    if client.dialect == DOCKER:
        assert [image.digest for image in images] == digests
    else:  # it does not tell which manifest came under which name; both pin the content
        assert {image.digest for image in images} <= set(digests)


def test_progress(client: Client, shelf: Registry) -> None:
    repository = fresh()
    registry.push(shelf, repository, "v1", [layer(size=40_000_000), layer("two")], {})
    name = f"{shelf.address}/{repository}:v1"
    lines: list[str] = []
    prepared(client, name, lines=lines)
    assert lines
    assert all(line.startswith(f"pulling {name}: ") and "layers" in line for line in lines)


def test_a_name_as_the_engine_finds_it(client: Client) -> None:
    name = f"{MINE}-{os.urandom(4).hex()}"
    imported(client, layer(), f"localhost/{name}")
    if client.dialect == DOCKER:
        client.tag(f"localhost/{name}:v1", name, "v1")
    for text in (f"{name}:v1", f"localhost/{name}:v1"):
        image = prepared(client, text, "never")
        assert image.digest is not None
        assert greeting(client, image) == b"hello"
    error = refused(client, UsageError, f"{name}:v2", "never")
    assert f"{name}:v1" in error.remedy


# Refused


def test_not_in_the_registry(client: Client, shelf: Registry) -> None:
    error = refused(client, UsageError, f"{shelf.address}/{fresh()}:v1")
    assert f"{shelf.address} has no image of this name" in error.what
    assert "Check name and tag" in error.remedy


def test_registry_is_down(client: Client) -> None:
    error = refused(client, EngineError, f"{NOWHERE}/group/image:v1")
    assert f"{NOWHERE} does not answer: connection refused" in error.what


def test_a_registry_whose_name_is_unknown(client: Client) -> None:
    error = refused(client, EngineError, "registry.invalid/group/image:v1")
    assert "the name of registry.invalid cannot be resolved" in error.what


def test_login(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = fresh()
    with registry.running(login=True) as locked:
        digest = registry.push(locked, repository, "v1", [layer()], {})
        text = f"{locked.address}/{repository}:v1"
        error = refused(client, EngineError, text)
        assert f"{locked.address} refused the login" in error.what
        assert error.remedy == f"Log in: {client.dialect.name} login {locked.address}."
        for password, right in (("wrong", False), (registry.PASSWORD, True)):
            pair = base64.b64encode(f"{registry.USER}:{password}".encode()).decode()
            config = tmp_path / password
            config.mkdir()
            logins = {"auths": {locked.address: {"auth": pair}}}
            (config / "config.json").write_text(json.dumps(logins))
            monkeypatch.setenv("DOCKER_CONFIG", str(config))
            monkeypatch.setenv("REGISTRY_AUTH_FILE", str(config / "config.json"))
            with connect(client.dialect) as knowing:  # podman's server reads the file
                if right:
                    assert prepared(knowing, text).digest == digest
                else:
                    assert "refused the login" in refused(knowing, EngineError, text).what


def test_for_another_architecture(client: Client, shelf: Registry) -> None:
    repository = fresh()
    registry.push(shelf, repository, "v1", [layer()], {"architecture": "s390x"})
    error = refused(client, UsageError, f"{shelf.address}/{repository}:v1")
    assert "is made for linux/s390x" in error.what
    assert "here runs linux/amd64" in error.what


def test_a_list_without_this_architecture(client: Client, shelf: Registry) -> None:
    repository = fresh()
    digest = registry.push(shelf, repository, "arm", [layer()], {"architecture": "arm64"})
    _, headers, _ = shelf.request("HEAD", f"/v2/{repository}/manifests/{digest}")
    kind = "application/vnd.docker.distribution.manifest.list.v2+json"
    entry = {
        "mediaType": registry.MANIFEST,
        "digest": digest,
        "size": int(headers["Content-Length"]),
        "platform": {"architecture": "arm64", "os": "linux"},
    }
    listed = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [entry]})
    registry.push_manifest(shelf, repository, "v1", listed.encode(), kind)
    error = refused(client, UsageError, f"{shelf.address}/{repository}:v1")
    assert "only for other architectures" in error.what


def answering(
    status: str, body: bytes, kind: str = "application/json"
) -> tuple[socket.socket, str]:
    """A registry that gives every request one answer."""

    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n"
                head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode() + body)

    threading.Thread(target=serve, daemon=True).start()
    return server, f"127.0.0.1:{server.getsockname()[1]}"


def test_a_damaged_manifest(client: Client) -> None:
    server, address = answering("200 OK", b'{"schemaVersion": 2, "config', registry.MANIFEST)
    try:
        error = refused(client, EngineError, f"{address}/group/image:v1")
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
    assert f"what {address} sent is no intact image" in error.what


def test_a_registry_with_a_fault(client: Client) -> None:
    repository = fresh()
    with registry.running() as own:
        digest = registry.push(own, repository, "v1", [layer()], {})
        blob = own.storage / f"data/docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data"
        blob.write_bytes(blob.read_bytes()[:100])
        error = refused(client, EngineError, f"{own.address}/{repository}:v1")
    assert f"{own.address} answers with an error of its own" in error.what


def test_rate_limit(client: Client) -> None:
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your rate limit."}]}'
    server, address = answering("429 Too Many Requests", body)
    name = f"{address}/group/image:v1"
    try:
        if client.dialect == DOCKER:
            error = refused(client, EngineError, name)
        else:  # podman tries again for a minute before it says this
            error = refusal(
                client,
                name,
                f"initializing source docker://{name}: pinging container registry {address}: "
                "too many requests to registry",
            )
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
    assert f"{address} takes no more requests" in error.what


@contextmanager
def on_a_small_disk(dialect: Dialect, directory: Path) -> Iterator[Client]:
    """An engine of its own whose images lie on a disk of 24 MB."""
    disk, socket_path = directory / "disk", directory / "socket"
    disk.mkdir()
    bridge = f"mlcheck{os.getpid() % 100_000}"
    arguments = {
        "docker": [
            *("dockerd", "--data-root", str(disk), "--exec-root", f"{directory}/run"),
            # With --bridge=none it would remove docker0, which belongs to another daemon.
            *("--pidfile", f"{directory}/pid", "-H", f"unix://{socket_path}", "--bridge", bridge),
            *("--iptables=false", "--storage-driver=vfs"),
        ],
        "podman": [
            *(
                "podman",
                "--root",
                str(disk),
                "--runroot",
                f"{directory}/run",
                "--storage-driver=vfs",
            ),
            *("system", "service", "--time=0", f"unix://{socket_path}"),
        ],
    }[dialect.name]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=True)
    subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
    # An address of TEST-NET-3 (RFC 5737), which nobody has.
    subprocess.run(["ip", "address", "add", "203.0.113.1/24", "dev", bridge], check=True)
    try:
        with (directory / "log").open("wb") as log:
            server = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # podman unpacks where this says.
                env={**os.environ, "TMPDIR": str(disk)},
            )
        try:
            deadline = time.monotonic() + 60
            while not socket_path.exists() and server.poll() is None:
                assert time.monotonic() < deadline, (directory / "log").read_text()
                time.sleep(0.05)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(dialect.host_variable, f"unix://{socket_path}")
                with connect(dialect) as client:
                    yield client
        finally:
            server.terminate()
            server.wait()
    finally:
        subprocess.run(["ip", "link", "delete", bridge], check=True)
        subprocess.run(["umount", "-R", disk], check=True)


@pytest.mark.root_only
def test_full_disk(client: Client, shelf: Registry) -> None:
    directory = Path(tempfile.mkdtemp(prefix="mlcheck-disk-"))  # a socket's path must be short
    repository = fresh()
    big = layer(size=40_000_000)
    registry.push(shelf, repository, "v1", [big], {})
    archive = directory / "image.tar"
    imported(client, big, f"localhost/{MINE}-big")
    archive.write_bytes(b"".join(client.get_image(f"localhost/{MINE}-big:v1")))
    client.remove_image(f"localhost/{MINE}-big:v1")
    try:
        with on_a_small_disk(client.dialect, directory) as small:
            error = refused(small, EngineError, f"{shelf.address}/{repository}:v1")
            assert f"the disk of {client.dialect.name}'s images is full" in error.what
            assert f"{client.dialect.name} system prune" in error.remedy
            error = refused(small, EngineError, f"docker-archive:{archive}")
            assert f"{client.dialect.name} system prune" in error.remedy
    finally:
        shutil.rmtree(directory)


def test_a_registry_that_dies_in_mid_pull(client: Client) -> None:
    repository = fresh()
    with registry.running() as own:
        registry.push(own, repository, "v1", [layer(size=300_000_000)], {})

        def stop(_: str) -> None:
            own.stop()

        ref = ImageRef.parse(f"{own.address}/{repository}:v1")
        with (
            pytest.raises(EngineError, match=f"{own.address} (does not answer|broke off)"),
            oci_images.prepare(client, ref, pull="missing", progress=stop),
        ):
            pass


def test_kinds_that_an_engine_cannot_open(client: Client, tmp_path: Path) -> None:
    error = refused(client, UsageError, f"{tmp_path}/")
    assert "--engine sandbox" in error.remedy
    assert "--engine apptainer" in refused(client, UsageError, "x.sif").remedy


# Archives


def saved(client: Client, tmp_path: Path, tag: str, text: str = "") -> tuple[Path, str]:
    """An archive of an image with that tag, and its ID; the engine keeps the image."""
    identity = imported(client, layer(text or tag), f"localhost/{tag}")
    path = tmp_path / "image.tar"
    path.write_bytes(b"".join(client.get_image(f"localhost/{tag}:v1")))
    return path, identity


def unsaved(client: Client, tmp_path: Path, tag: str, text: str = "") -> tuple[Path, str]:
    """The same, without the image."""
    path, identity = saved(client, tmp_path, tag, text)
    client.remove_image(f"localhost/{tag}:v1")
    assert not is_here(client, identity)
    return path, identity


def loaded_names(client: Client, identity: str) -> list[str]:
    return [
        str(name)
        for image in oci_images.listed(client)
        if image["Id"] == identity
        for name in image["RepoTags"] or ()
    ]


@pytest.mark.parametrize("zipped", [False, True])
def test_an_archive_is_loaded_and_gone_afterwards(
    client: Client, tmp_path: Path, zipped: bool
) -> None:
    tag = f"{MINE}-{os.urandom(4).hex()}"
    path, identity = unsaved(client, tmp_path, tag)
    if zipped:
        path.write_bytes(gzip.compress(path.read_bytes(), 1))
    ref = ImageRef.parse(f"docker-archive:{path}")
    with oci_images.prepare(client, ref, pull="never", progress=silent) as image:
        assert image.location == image.digest == identity
        assert greeting(client, image) == tag.encode()
        names = loaded_names(client, identity)
        assert len(names) == 1
        assert names[0].startswith(oci_images.LOADED)
        # Another run with the same archive ends; this one keeps its image.
        assert prepared(client, ref.text) == image
        assert loaded_names(client, identity) == names
        assert greeting(client, image) == tag.encode()
    assert not is_here(client, identity)


def test_an_image_that_was_here_before_stays(client: Client, tmp_path: Path) -> None:
    tag = f"{MINE}-{os.urandom(4).hex()}"
    path, identity = saved(client, tmp_path, tag)
    image = prepared(client, f"docker-archive:{path}")
    assert image.location == identity
    assert greeting(client, image) == tag.encode()
    assert loaded_names(client, identity) == [f"localhost/{tag}:v1"]


def test_a_tag_in_an_archive_is_not_taken_from_another_image(
    client: Client, tmp_path: Path
) -> None:
    tag = f"{MINE}-{os.urandom(4).hex()}"
    path, _ = unsaved(client, tmp_path, tag, "old")
    imported(client, layer("new"), f"localhost/{tag}")
    ref = ImageRef.parse(f"docker-archive:{path}")
    with oci_images.prepare(client, ref, pull="never", progress=silent) as image:
        assert greeting(client, image) == b"old"
        assert greeting(client, prepared(client, f"localhost/{tag}:v1", "never")) == b"new"
    assert greeting(client, prepared(client, f"localhost/{tag}:v1", "never")) == b"new"


class Fails:
    """In place of what a client asks with: `times` answers as podman's when a layer or container
    that it counted on was removed, then the client's own."""

    def __init__(self, own: Callable[..., Any], times: int, what: str = "layer") -> None:
        self.own, self.left, self.what = own, times, what

    def __call__(self, *given: Any, **options: Any) -> Any:
        if not self.left:
            return self.own(*given, **options)
        self.left -= 1
        answer = requests.Response()
        answer.status_code = 500
        answer._content = json.dumps({"message": f"for abc: {self.what} not known"}).encode()
        return answer


@pytest.mark.parametrize("kind", ["load", "pull"])
def test_a_layer_that_another_run_removed_in_between(
    client: Client, shelf: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    tag = f"{MINE}-{os.urandom(4).hex()}"
    if kind == "load":
        given = f"docker-archive:{unsaved(client, tmp_path, tag)[0]}"
    else:
        repository = fresh()
        registry.push(shelf, repository, "v1", [layer(tag)], {})
        given = f"{shelf.address}/{repository}:v1"
    ref = ImageRef.parse(given)
    monkeypatch.setattr(client, "post", Fails(client.post, 2))
    with oci_images.prepare(client, ref, pull="missing", progress=silent) as image:
        assert greeting(client, image) == tag.encode()
    if kind == "pull":
        client.remove_image(image.location)
    monkeypatch.undo()
    monkeypatch.setattr(client, "post", Fails(client.post, 3))
    assert "layer not known" in refused(client, EngineError, given).what


def test_a_container_that_another_run_removed_in_between(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "get", Fails(client.get, 2, "container"))
    abandoned.clear(client)
    monkeypatch.undo()
    monkeypatch.setattr(client, "get", Fails(client.get, 3, "container"))
    with pytest.raises(EngineError, match=r"could not list containers: .*container not known"):
        abandoned.clear(client)


HOLDER = """
import sys, time
from mlcheck.engines.oci import images as oci_images
from mlcheck.engines.base import silent
from mlcheck.engines.oci.client import connect
from mlcheck.engines.oci.dialect import DOCKER, PODMAN
from mlcheck.model.image_ref import ImageRef
dialect = {"docker": DOCKER, "podman": PODMAN}[sys.argv[1]]
with connect(dialect) as client:
    ref = ImageRef.parse(sys.argv[2])
    with oci_images.prepare(client, ref, pull="never", progress=silent) as image:
        print(image.location, flush=True)
        time.sleep(1000)
"""


def test_kill_9_leaves_no_image(client: Client, tmp_path: Path) -> None:
    tag = f"{MINE}-{os.urandom(4).hex()}"
    path, identity = unsaved(client, tmp_path, tag)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, client.dialect.name, f"docker-archive:{path}"],
        stdout=subprocess.PIPE,
        cwd=CHECKOUT,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline().decode().strip() == identity
    assert is_here(client, identity)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert eventually(lambda: not is_here(client, identity))


@pytest.mark.parametrize(("crashes", "found"), [(1, True), (1000, False)])
def test_a_crash_of_the_server_is_asked_again(
    client: Client, monkeypatch: pytest.MonkeyPatch, crashes: int, found: bool
) -> None:
    tag = f"{MINE}-{os.urandom(4).hex()}"
    imported(client, layer(tag), f"localhost/{tag}")
    crash = requests.Response()
    crash.status_code = 500
    crash._content = b'{"cause":"runtime error: invalid memory address or nil pointer dereference"}'
    asked, ask = iter(range(crashes)), client.get
    monkeypatch.setattr(client, "get", lambda url: ask(url) if next(asked, None) is None else crash)
    try:
        if found:
            assert oci_images.inspect(client, f"localhost/{tag}:v1") is not None
        else:
            with pytest.raises(EngineError, match="nil pointer dereference"):
                oci_images.inspect(client, f"localhost/{tag}:v1")
    finally:
        monkeypatch.undo()
        client.remove_image(f"localhost/{tag}:v1")


@pytest.mark.parametrize("scheme", ["oci", "oci-archive"])
def test_an_oci_layout(client: Client, tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "image"
    if client.dialect == DOCKER:
        assert "skopeo copy" in refused(client, UsageError, f"{scheme}:{path}").remedy
        return
    tag = f"{MINE}-{os.urandom(4).hex()}"
    imported(client, layer(tag), f"localhost/{tag}")
    form = {"oci": "oci-dir", "oci-archive": "oci-archive"}[scheme]
    command = ["podman", "save", "-q", "--format", form, "-o", str(path), f"localhost/{tag}:v1"]
    subprocess.run(command, check=True, capture_output=True)
    client.remove_image(f"localhost/{tag}:v1")
    ref = ImageRef.parse(f"{scheme}:{path}")
    with oci_images.prepare(client, ref, pull="never", progress=silent) as image:
        assert greeting(client, image) == tag.encode()
        assert len(loaded_names(client, image.location)) == 1
    assert not is_here(client, image.location)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({}, "neither manifest.json nor index.json"),
        ({"manifest.json": b"{"}, "manifest.json is no JSON"),
        ({"manifest.json": b"[1]"}, "is no list of images"),
        ({"manifest.json": b'[{"Config": "a"}, {"Config": "b"}]'}, "holds 2 images"),
        (None, "broken header"),
    ],
)
def test_archives_that_hold_no_image(
    client: Client, tmp_path: Path, content: Mapping[str, bytes] | None, why: str
) -> None:
    path = tmp_path / "x.tar"
    if content is None:
        path.write_bytes(b"x" * 2000)
    else:
        with tarfile.open(path, "w") as archive:
            for name, data in content.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    assert why in refused(client, UsageError, f"docker-archive:{path}").what
    missing = refused(client, UsageError, f"docker-archive:{tmp_path}/none.tar")
    assert "there is no" in missing.what


def test_auto_takes_the_engine_that_has_the_image(client: Client, shelf: Registry) -> None:
    repository = fresh()
    registry.push(shelf, repository, "v1", [layer()], {})
    text = f"{shelf.address}/{repository}:v1"
    (before,) = select.choose(ImageRef.parse(text))
    assert (before.engine, before.why) == ("docker", "the first that works here")
    prepared(client, text)
    (chosen,) = select.choose(ImageRef.parse(text))
    assert (chosen.engine, chosen.why) == (client.dialect.name, "it has this image")
