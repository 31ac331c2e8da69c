"""What a registry says of an image: against a real registry, and a stand-in that misbehaves."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import socket
import tarfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mlcheck.engines.oci import conversation
from mlcheck.engines.oci import registry as client
from mlcheck.engines.oci.documents import parse_config, parse_manifest
from mlcheck.model.errors import EngineError, MlcheckError, UsageError
from mlcheck.model.image_ref import ImageRef
from selftests import registry
from selftests.registry import Registry

CONFIG = {
    "created": "2025-04-01T12:00:00Z",
    "config": {
        "Env": ["A=b"],
        "Labels": {"imageVersion": "v1"},
        "Entrypoint": ["/entrypoint.sh"],
        "Cmd": ["/bin/bash"],
    },
}


def layer(size: int = 1000) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("filler")
        entry.size = size
        archive.addfile(entry, io.BytesIO(bytes(size)))
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def described(text: str, limit_s: float = 20) -> client.RegistryImage:
    return client.describe(ImageRef.parse(text), limit_s=limit_s)


def refused(kind: type[MlcheckError], text: str, limit_s: float = 20) -> str:
    with pytest.raises(kind) as caught:
        described(text, limit_s)
    assert caught.type is kind
    return str(caught.value)


@pytest.fixture(scope="module")
def shelf() -> Iterator[Registry]:
    with registry.running() as running:
        yield running


@pytest.fixture(autouse=True)
def no_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name in ("XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE"):
        monkeypatch.delenv(name, raising=False)


def log_in(directory: Path, host: str, **entry: str) -> None:
    """As `docker login` writes it."""
    (directory / "config.json").write_text(json.dumps({"auths": {host: entry}}))


# A real registry


def test_an_image_is_described_without_being_fetched(shelf: Registry) -> None:
    layers = [layer(1000), layer(2000)]
    digest = registry.push(shelf, "me/image", "v1", layers, CONFIG)
    found = described(f"{shelf.address}/me/image:v1")
    assert found.reference == f"{shelf.address}/me/image:v1"
    assert (found.index_digest, found.manifest_digest) == (None, digest)
    assert found.compressed_size == sum(map(len, layers))
    assert (found.layers, found.platforms) == (2, ())
    assert found.config.created == "2025-04-01T12:00:00Z"
    assert found.config.labels == {"imageVersion": "v1"}
    assert (found.config.os, found.config.architecture) == ("linux", "amd64")
    assert found.config.entrypoint == ("/entrypoint.sh",)
    _, _, manifest = shelf.request(
        "GET", "/v2/me/image/manifests/v1", headers={"Accept": registry.MANIFEST}
    )
    assert found.config_digest == json.loads(manifest)["config"]["digest"]
    assert described(f"{shelf.address}/me/image@{digest}").manifest_digest == digest


def test_of_several_platforms_that_of_this_machine(
    shelf: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    entries = []
    for architecture in ("arm64", "amd64"):
        digest = registry.push(
            shelf, "me/many", architecture, [layer()], CONFIG | {"architecture": architecture}
        )
        _, _, manifest = shelf.request("GET", f"/v2/me/many/manifests/{digest}")
        entries.append(
            {
                "mediaType": registry.MANIFEST,
                "digest": digest,
                "size": len(manifest),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    kind = "application/vnd.docker.distribution.manifest.list.v2+json"
    index = {"schemaVersion": 2, "mediaType": kind, "manifests": entries}
    pushed = registry.push_manifest(shelf, "me/many", "v1", json.dumps(index).encode(), kind)
    found = described(f"{shelf.address}/me/many:v1")
    assert found.index_digest == pushed
    assert found.manifest_digest == entries[1]["digest"]
    assert found.platforms == ("linux/arm64", "linux/amd64")
    assert found.config.architecture == "amd64"


def test_a_tag_that_is_not_there_names_those_that_are(shelf: Registry) -> None:
    registry.push(shelf, "me/tagged", "alma9-python311", [layer()], CONFIG)
    said = refused(UsageError, f"{shelf.address}/me/tagged:alma9-python31")
    assert "or not with the tag alma9-python31" in said
    assert "me/tagged:alma9-python311" in said
    assert "has no image me/nothing" in refused(UsageError, f"{shelf.address}/me/nothing:v1")
    nowhere = f"{shelf.address}/me/tagged@sha256:{'0' * 64}"
    assert "or not with the digest" in refused(UsageError, nowhere)


def test_a_login_is_used_where_one_is_wanted(tmp_path: Path) -> None:
    with registry.running(login=True) as closed:
        registry.push(closed, "me/private", "v1", [layer()], CONFIG)
        text = f"{closed.address}/me/private:v1"
        said = refused(EngineError, text)
        assert f"docker login {closed.address}" in said
        basic = base64.b64encode(f"{registry.USER}:{registry.PASSWORD}".encode()).decode()
        log_in(tmp_path, closed.address, auth=basic)
        assert described(text).config.labels == {"imageVersion": "v1"}
        wrong = base64.b64encode(f"{registry.USER}:wrong".encode()).decode()
        log_in(tmp_path, closed.address, auth=wrong)
        assert "docker login" in refused(EngineError, text)


def test_nothing_listens() -> None:
    assert "cannot be reached" in refused(EngineError, "127.0.0.1:9/me/image:v1")


# A stand-in for a registry, which answers as it is told to

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_BLOB = json.dumps({"os": "linux", "architecture": "amd64", **CONFIG}).encode()
_MANIFEST_DATA = {
    "schemaVersion": 2,
    "mediaType": MANIFEST_TYPE,
    "config": {"mediaType": "x", "digest": sha256(_CONFIG_BLOB), "size": len(_CONFIG_BLOB)},
    "layers": [{"mediaType": "y", "digest": f"sha256:{'1' * 64}", "size": 42}],
}
_MANIFEST_BLOB = json.dumps(_MANIFEST_DATA).encode()

Reply = tuple[int, Mapping[str, str], bytes]
Answerer = Callable[[str, str, Mapping[str, str], bytes], Reply]


def good(path: str) -> Reply:
    if "/manifests/" in path:
        return 200, {"Content-Type": MANIFEST_TYPE}, _MANIFEST_BLOB
    if path.endswith(sha256(_CONFIG_BLOB)):
        return 200, {}, _CONFIG_BLOB
    return 404, {}, b""


@contextmanager
def stand_in(answer: Answerer) -> Iterator[str]:
    """A server on 127.0.0.1 in place of a registry; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            status, headers, content = answer(self.command, self.path, dict(self.headers), body)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | dict(headers)).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content if self.command != "HEAD" else b"")

        # http.server wants these names.
        do_GET = do_POST = do_PUT = do_HEAD = handle_any  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@pytest.mark.parametrize("login", ["none", "password", "identity token"])
def test_a_token_is_fetched_from_where_the_registry_says(tmp_path: Path, login: str) -> None:
    asked: list[tuple[str, str, str, bytes]] = []

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        authorization = headers.get("Authorization", "")
        if path.startswith("/token"):
            asked.append((method, path, authorization, body))
            return 200, {}, b'{"access_token": "abc"}'
        if authorization != "Bearer abc":
            realm = (
                f'Bearer realm="http://{address}/token",service="s",scope="repository:me/x:pull"'
            )
            return 401, {"WWW-Authenticate": realm}, b""
        return good(path)

    with stand_in(answer) as address:
        if login == "password":
            log_in(tmp_path, address, auth=base64.b64encode(b"me:secret").decode())
        elif login == "identity token":
            log_in(tmp_path, address, identitytoken="long")
        assert described(f"{address}/me/x:v1").compressed_size == 42
    ((method, path, authorization, body),) = asked
    words = {"service": "s", "scope": "repository:me/x:pull"}
    if login == "identity token":
        form = dict(urllib.parse.parse_qsl(body.decode()))
        assert method == "POST"
        assert form.items() >= {**words, "refresh_token": "long"}.items()
    else:
        assert dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query)) == words
        expected = base64.b64encode(b"me:secret").decode()
        assert authorization == (f"Basic {expected}" if login == "password" else "")


def test_what_netrc_says_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("default login me password secret\n")
    sent: list[str] = []

    def answer(_: str, path: str, headers: Mapping[str, str], __: bytes) -> Reply:
        sent.append(headers.get("Authorization", ""))
        return good(path)

    with stand_in(answer) as address:
        described(f"{address}/me/x:v1")
    assert sent == ["", ""]


def _tampered(path: str) -> Reply:
    status, headers, content = good(path)
    return status, headers, content if "manifests" in path else content.replace(b"v1", b"v2")


def _other_digest(path: str) -> Reply:
    status, headers, content = good(path)
    return status, {**headers, "Docker-Content-Digest": f"sha256:{'a' * 64}"}, content


def _manifest(content: bytes) -> Callable[[str], Reply]:
    return lambda path: (200, {}, content) if "/manifests/" in path else good(path)


def _changed(**keys: object) -> Callable[[str], Reply]:
    return _manifest(json.dumps({**_MANIFEST_DATA, **keys}).encode())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (_tampered, "the configuration is not that of the digest"),
        (_other_digest, "the manifest is not that of the digest"),
        (_manifest(b"<html>"), "is no JSON"),
        (_manifest(b"[" * 100_000), "is no JSON"),
        (_manifest(b"[]"), "is no JSON object"),
        (_manifest(b" " * 5_000_000), "larger than 4 MiB"),
        (_changed(layers="none"), "is no manifest of an image"),
        (_changed(layers=[{"digest": f"sha256:{'1' * 64}", "size": -1}]), "no valid size"),
        (_changed(layers=[{"digest": "sha256:../../etc", "size": 1}]), "no valid digest"),
        (_changed(config={"digest": f"sha256:{'1' * 64}", "size": True}), "no valid size"),
        (_changed(manifests=[]), "an index without an image"),
        (lambda _: (429, {"Retry-After": "30"}, b""), "Wait 30 s"),
        (lambda _: (500, {}, b'{"errors": [{"code": "X", "message": "ill"}]}'), "X: ill"),
        (lambda _: (500, {}, b'{"errors": 5}'), "an error of its own"),
        (lambda _: (403, {}, b""), "docker login"),
        (lambda _: (401, {"WWW-Authenticate": "Negotiate"}, b""), "docker login"),
        (lambda _: (401, {"WWW-Authenticate": 'Bearer realm="file:///x"'}, b""), "file:///x"),
        (lambda _: (401, {"WWW-Authenticate": 'Bearer realm="http://[x"'}, b""), "tokens"),
        (lambda _: (302, {"Location": "/v2/again"}, b""), "redirects without an end"),
        (lambda _: (302, {"Location": "file:///etc/passwd"}, b""), "sends us to"),
        (lambda _: (302, {"Location": "http://[x"}, b""), "sends us to"),
    ],
)
def test_what_a_registry_may_send(answer: Callable[[str], Reply], words: str) -> None:
    with stand_in(lambda _, path, *__: answer(path)) as address:
        assert words in refused(EngineError, f"{address}/me/x:v1")


def test_a_registry_reaches_nothing_else_on_this_machine() -> None:
    reached: list[str] = []

    def other(_: str, path: str, *__: object) -> Reply:
        reached.append(path)
        return 500, {}, b"what only this machine may know"

    with stand_in(other) as inside:
        for answer in (
            (302, {"Location": f"http://{inside}/v2/"}, b""),
            (307, {"Location": f"//{inside}/v2/"}, b""),
            (401, {"WWW-Authenticate": f'Bearer realm="http://{inside}/token"'}, b""),
        ):
            with stand_in(lambda *_, said=answer: said) as address:
                assert f"{inside}" in refused(EngineError, f"{address}/me/x:v1")
    assert reached == []


@pytest.mark.parametrize(
    ("host", "private"),
    [
        *[(one, True) for one in ("localhost", "127.0.0.2", "10.1.2.3", "192.168.1.1", "::1")],
        *[(one, True) for one in ("169.254.169.254", "fe80::1", "100.64.0.1", "0.0.0.0", "[::]")],
        *[(one, True) for one in ("2130706433", "0x7f.1", "::ffff:127.0.0.1")],
        *[(one, False) for one in ("8.8.8.8", "2606:4700::1111", "registry.invalid")],
    ],
)
def test_which_hosts_are_of_a_private_network(host: str, private: bool) -> None:
    assert conversation._is_private(host.strip("[]")) == private


def test_a_blob_may_lie_elsewhere_in_the_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As registries have it whose blobs are in a store; the login does not go there."""
    asked: list[tuple[str, str]] = []

    def answer(self: object, method: str, url: str, authorization: str, *_: object) -> object:
        asked.append((url, authorization))
        if "blobs" in url and "store" not in url:
            return conversation.Answer(307, {"Location": "https://8.8.8.8/store/blobs/x"}, b"")
        return conversation.Answer(200, {}, _CONFIG_BLOB if "store" in url else _MANIFEST_BLOB)

    monkeypatch.setattr(conversation.Conversation, "_answer", answer)
    monkeypatch.setattr(conversation.Conversation, "_authorization", "Bearer abc", raising=False)
    assert described("registry.invalid/me/x:v1").compressed_size == 42
    assert asked[-1] == ("https://8.8.8.8/store/blobs/x", "")


def test_headers_that_do_not_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                    while True:
                        connection.sendall(b"x")
                        time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        # TLS is tried first; what drips to that is no TLS.
        assert "127.0.0.1" in refused(EngineError, f"{address}/me/x:v1", limit_s=1)


def test_an_answer_that_does_not_end() -> None:
    def answer(*_: object) -> Reply:
        return 200, {"Content-Length": "1000"}, b"{"

    with stand_in(answer) as address:
        said = refused(EngineError, f"{address}/me/x:v1", limit_s=0.5)
    assert "cannot be reached" in said or "in time" in said


def test_nothing_goes_through_a_proxy_to_this_machine(
    shelf: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    registry.push(shelf, "me/near", "v1", [layer()], CONFIG)
    assert described(f"{shelf.address}/me/near:v1").layers == 1
    assert "HTTPS_PROXY" in refused(EngineError, "registry.invalid/me/x:v1")


@pytest.mark.parametrize(
    ("text", "host", "name"),
    [
        ("ml-base:v1", "docker.io", "library/ml-base"),
        ("yesw2000/ml-base:v1", "docker.io", "yesw2000/ml-base"),
        ("docker.io/yesw2000/ml-base:v1", "docker.io", "yesw2000/ml-base"),
        ("registry.hub.docker.com/a/b", "docker.io", "a/b"),
        ("localhost/a", "localhost", "a"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000", "a/b"),
        ("ghcr.io/a/b/c", "ghcr.io", "a/b/c"),
    ],
)
def test_which_registry_a_name_is_of(text: str, host: str, name: str) -> None:
    assert conversation.host_of(ImageRef.parse(text)) == (host, name)


def test_documents_with_strange_values_for_people() -> None:
    found = parse_config(
        json.dumps({"created": 5, "config": {"Labels": {"a": 1, "b": "c"}, "Env": "x"}}).encode()
    )
    assert (found.created, found.labels, found.env) == (None, {"b": "c"}, ())
    assert parse_config(b'{"config": null}').labels == {}
    with pytest.raises(ValueError, match="no JSON object"):
        parse_manifest(b"5")
