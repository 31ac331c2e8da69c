"""A real registry on 127.0.0.1 for tests, and images pushed into it by plain HTTP."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import http.client
import io
import json
import os
import shutil
import socket
import subprocess
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from mlcheck.machine import janitor
from selftests.waiting import eventually

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_CHUNK = 1024 * 1024

USER, PASSWORD = "tester", "secret"
# bcrypt of PASSWORD, the only form that the registry knows; cost 4, since it is no secret.
_HTPASSWD = f"{USER}:$2b$04$mlcheckmlcheckmlcheckOzicUrKKywPGpY6z8v0p42I90h0/hT1O\n"


@dataclass
class Registry:
    """A running registry.

    Args:
        address: "127.0.0.1:PORT", the first part of the names of its images.
        storage: where it keeps its blobs.
    """

    address: str
    process: subprocess.Popen[bytes]
    storage: Path
    headers: Mapping[str, str] = field(default_factory=dict)

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and content of the answer."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, {**self.headers, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()

    def stop(self) -> None:
        """End it; connections to it are then refused."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running(*, login: bool = False) -> Iterator[Registry]:
    """A registry of one's own on a free port; with `login`, only for USER with PASSWORD."""
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed")
    storage = Path(tempfile.mkdtemp(prefix="mlcheck-registry-"))
    # Two sockets may not listen on one port, so the number is given back before it is used.
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage / "data")}},
        "http": {"addr": address},
    }
    headers = {}
    if login:
        (storage / "htpasswd").write_text(_HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(storage / "htpasswd")}}
        headers["Authorization"] = "Basic dGVzdGVyOnNlY3JldA=="
    (storage / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    with (storage / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(storage / "config.yml")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
        )
    registry = Registry(address, process, storage, headers)
    try:
        # A test run may be killed too.
        with (
            janitor.promised(janitor.remove(storage)),
            janitor.promised(janitor.kill(process.pid)),
        ):
            _wait(registry)
            yield registry
    finally:
        registry.stop()
        shutil.rmtree(storage)


def push(
    registry: Registry,
    repository: str,
    tag: str,
    layers: Sequence[bytes | Path],
    config: Mapping[str, Any],
) -> str:
    """Push an image; what the registry has already is not sent again.

    Args:
        layers: tar archives, plain or gzipped, the lowest first.
        config: the image's configuration; `rootfs` is filled in.

    Returns:
        The digest of its manifest.
    """
    blobs = [_of_file(e) if isinstance(e, Path) else _Blob.of(e) for e in layers]
    full = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        **config,
        "rootfs": {"type": "layers", "diff_ids": [blob.diff_id for blob in blobs]},
    }
    config_blob = _Blob.of(json.dumps(full).encode())
    for blob in (*blobs, config_blob):
        _upload(registry, repository, blob)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config_blob.descriptor(_CONFIG),
        "layers": [blob.descriptor(_LAYER + ".gzip" * blob.gzipped) for blob in blobs],
    }
    return push_manifest(registry, repository, tag, json.dumps(manifest).encode())


def push_blob(registry: Registry, repository: str, content: bytes) -> str:
    """Push a layer or a document as it is; returns its digest."""
    blob = _Blob.of(content)
    _upload(registry, repository, blob)
    return blob.digest


def push_manifest(
    registry: Registry, repository: str, tag: str, manifest: bytes, kind: str = MANIFEST
) -> str:
    """Put a manifest under a tag; returns its digest."""
    path = f"/v2/{repository}/manifests/{tag}"
    _expect(201, registry.request("PUT", path, manifest, {"Content-Type": kind}))
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


@dataclass(frozen=True)
class _Blob:
    content: bytes | Path
    digest: str
    size: int
    diff_id: str
    gzipped: bool

    @classmethod
    def of(cls, content: bytes | Path) -> _Blob:
        with _opened(content) as file:
            gzipped = file.read(2) == b"\x1f\x8b"
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            digest = _sha256(file)
            file.seek(0)
            diff_id = digest
            if gzipped:
                with gzip.GzipFile(fileobj=file) as plain:
                    diff_id = _sha256(plain)
        return cls(content, digest, size, diff_id, gzipped)

    def descriptor(self, kind: str) -> dict[str, Any]:
        return {"mediaType": kind, "digest": self.digest, "size": self.size}


@functools.cache
def _of_file(path: Path) -> _Blob:
    """Files do not change; hashing a large layer once for all images that share it is enough."""
    return _Blob.of(path)


@contextlib.contextmanager
def _opened(content: bytes | Path) -> Iterator[BinaryIO]:
    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as file:
        yield file


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _upload(registry: Registry, repository: str, blob: _Blob) -> None:
    status, _, _ = registry.request("HEAD", f"/v2/{repository}/blobs/{blob.digest}")
    if status == 200:
        return
    answer = registry.request("POST", f"/v2/{repository}/blobs/uploads/")
    _expect(202, answer)
    url = urllib.parse.urlsplit(answer[1]["Location"])
    path = f"{url.path}?{url.query}&digest={urllib.parse.quote(blob.digest)}"
    with _opened(blob.content) as file:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(blob.size),
        }
        _expect(201, registry.request("PUT", path, file, headers))


def _expect(status: int, answer: tuple[int, Mapping[str, str], bytes]) -> None:
    if answer[0] != status:
        raise RuntimeError(f"the registry answered {answer[0]}: {answer[2].decode()}")


def _wait(registry: Registry) -> None:
    def answers() -> bool:
        with contextlib.suppress(OSError):
            registry.request("GET", "/v2/")
            return True
        return False

    eventually(lambda: registry.process.poll() is not None or answers())
    if registry.process.poll() is not None or not answers():
        raise RuntimeError(f"no registry: {(registry.storage / 'log').read_text()}")
