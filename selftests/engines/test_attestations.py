"""A verdict that travels with the image: `mlcheck report attest` and `mlcheck verify`, with a real
registry, and with stand-ins that have the referrers API or misbehave."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mlcheck.cli import main as cli
from mlcheck.report import attestation, signatures
from mlcheck.report.model import ImageModel
from selftests import registry, reports
from selftests.engines.test_registry import CONFIG, Reply, layer, sha256, stand_in
from selftests.registry import Registry

STATEMENT_SCHEMA = {
    "type": "object",
    "required": ["_type", "subject", "predicateType", "predicate"],
    "properties": {
        "_type": {"const": "https://in-toto.io/Statement/v1"},
        "subject": {
            "type": "array",
            "minItems": 1,
            "items": {
                "required": ["digest"],
                "properties": {
                    "digest": {
                        "additionalProperties": {"pattern": "^[0-9a-f]{64}$"},
                        "minProperties": 1,
                    }
                },
            },
        },
        "predicateType": {"const": "https://in-toto.io/attestation/test-result/v0.1"},
        "predicate": {
            "required": ["result", "configuration"],
            "properties": {
                "result": {"enum": ["PASSED", "WARNED", "FAILED"]},
                "configuration": {
                    "type": "array",
                    "items": {
                        "anyOf": [
                            {"required": ["uri"]},
                            {"required": ["digest"]},
                            {"required": ["content"]},
                        ]
                    },
                },
                "passedTests": {"items": {"type": "string"}},
                "warnedTests": {"items": {"type": "string"}},
                "failedTests": {"items": {"type": "string"}},
            },
        },
    },
}
"""What in-toto's specification says in words."""


@pytest.fixture(autouse=True)
def no_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name in ("XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE", signatures.PASSWORD):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def shelf() -> Iterator[Registry]:
    with registry.running() as running:
        yield running


def image_at(address: str, name: str, digest: str, **more: Any) -> ImageModel:
    return reports.image(f"{address}/{name}:v1", "docker", digest=digest, **more)


def report_of(image: ImageModel, outcome: Any = "passed", day: int = 1, **more: Any) -> Path:
    """The file of a report with one result."""
    made = reports.report(
        reports.result(image, "files", outcome, **more),
        images=(image,),
        started=f"2026-11-{day:02}T19:00:00+00:00",
    )
    file = Path(f"report-{outcome}-{day}.json")
    file.write_text(made.model_dump_json(), encoding="utf-8")
    return file


def keys(kind: str, name: str = "key") -> tuple[str, str]:
    """A new pair of keys, made by openssl."""
    private, public = f"{name}.pem", f"{name}.pub"
    options = {"ed25519": [], "EC": ["-pkeyopt", "ec_paramgen_curve:P-256"], "RSA": []}[kind]
    for words in (
        ["genpkey", "-algorithm", kind, *options, "-out", private],
        ["pkey", "-in", private, "-pubout", "-out", public],
    ):
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    return private, public


def mlcheck(*words: object) -> int:
    return cli.main([str(word) for word in words])


# A real registry, which has no referrers API: the list is under a tag


@pytest.mark.parametrize("kind", ["ed25519", "EC", "RSA"])
def test_a_signed_verdict_lies_beside_the_image(
    shelf: Registry, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"me/{kind.lower()}"
    digest = registry.push(shelf, name, "v1", [layer()], CONFIG)
    image = image_at(shelf.address, name, digest)
    private, public = keys(kind)
    other = keys("ed25519", "other")[1]
    assert mlcheck("verify", image.reference) == 5
    assert mlcheck("report", "attest", report_of(image), "--push", "--key", private) == 0
    assert "signed, sha256:" in capsys.readouterr().err
    assert mlcheck("verify", image.reference, "--key", public) == 0
    assert "PASSED  CONFORMS" in (said := capsys.readouterr().out)
    assert "signed by the key" in said
    assert digest in said
    assert mlcheck("verify", image.reference, "--key", other) == 5
    assert "no verdict signed by this key" in capsys.readouterr().out
    assert mlcheck("verify", image.reference) == 0
    assert "not verified" in capsys.readouterr().out


def test_the_latest_run_counts(shelf: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    digest = registry.push(shelf, "me/latest", "v1", [layer()], CONFIG)
    image = image_at(shelf.address, "me/latest", digest)
    private, public = keys("ed25519")
    # In no order, as several machines push them.
    assert mlcheck("report", "attest", report_of(image, "failed", 7), "--push") == 0
    assert mlcheck("report", "attest", report_of(image, day=3), "--push", "--key", private) == 0
    assert mlcheck("verify", image.reference) == 1
    assert "the latest of 2 verdicts" in capsys.readouterr().out
    assert mlcheck("verify", image.reference, "--key", public) == 0
    assert (
        mlcheck("report", "attest", report_of(image, "failed", 8), "--push", "--key", private) == 0
    )
    capsys.readouterr()
    assert mlcheck("verify", image.reference, "--key", public, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["result"], told["signed"], told["failed"]) == ("FAILED", True, ["files"])
    assert told["digest"] == digest
    assert "is not signed by this key" in told["left_out"][0]


def test_what_was_judged_before_it_was_pushed(shelf: Registry) -> None:
    digest = registry.push(shelf, "me/built", "v1", [layer(3000)], CONFIG)
    _, _, manifest = shelf.request(
        "GET", "/v2/me/built/manifests/v1", headers={"Accept": registry.MANIFEST}
    )
    config = json.loads(manifest)["config"]["digest"]
    archive = reports.image("docker-archive:built.tar", "archive", config_digest=config)
    at = f"{shelf.address}/me/built:v1"
    assert mlcheck("report", "attest", report_of(archive), "--push", "--at", at, "-o", "s") == 0
    (subject,) = json.loads(Path("s").read_text())["subject"]
    assert f"sha256:{subject['digest']['sha256']}" == digest
    assert mlcheck("verify", at) == 0


def test_another_image_of_that_name(shelf: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    registry.push(shelf, "me/moved", "v1", [layer(4000)], CONFIG)
    image = image_at(shelf.address, "me/moved", f"sha256:{'a' * 64}")
    assert mlcheck("report", "attest", report_of(image), "--push") == 4
    assert "another image in its registry now" in capsys.readouterr().err
    assert mlcheck("verify", image.reference) == 5


def test_a_login_may_be_needed_to_write(tmp_path: Path) -> None:
    with registry.running(login=True) as closed:
        digest = registry.push(closed, "me/private", "v1", [layer()], CONFIG)
        image = image_at(closed.address, "me/private", digest)
        assert mlcheck("report", "attest", report_of(image), "--push") == 3
        basic = base64.b64encode(f"{registry.USER}:{registry.PASSWORD}".encode()).decode()
        login = {"auths": {closed.address: {"auth": basic}}}
        (tmp_path / "config.json").write_text(json.dumps(login))
        assert mlcheck("report", "attest", report_of(image), "--push") == 0
        assert mlcheck("verify", image.reference) == 0


# Without a registry


def test_a_statement_is_one_of_in_toto(capsys: pytest.CaptureFixture[str]) -> None:
    digest = f"sha256:{'1' * 64}"
    image = image_at("127.0.0.1:9", "me/x", digest, config_digest=f"sha256:{'2' * 64}")
    file = report_of(image, "failed")
    assert mlcheck("report", "attest", file) == 0
    said = capsys.readouterr()
    assert said.err == ""
    made = json.loads(said.out)
    jsonschema.validate(made, STATEMENT_SCHEMA)
    assert made["subject"] == [{"name": image.reference, "digest": {"sha256": "1" * 64}}]
    assert made["predicate"]["result"] == "FAILED"
    assert made["predicate"]["failedTests"] == ["files"]
    of_report = made["predicate"]["configuration"][0]["digest"]["sha256"]
    assert f"sha256:{of_report}" == sha256(file.read_bytes())


def test_why_not_all_was_judged(capsys: pytest.CaptureFixture[str]) -> None:
    image = image_at("127.0.0.1:9", "me/x", f"sha256:{'1' * 64}", without_profile=True)
    assert mlcheck("report", "attest", report_of(image, untried="no GPU")) == 0
    (how,) = json.loads(capsys.readouterr().out)["predicate"]["configuration"]
    assert how["annotations"]["not_judged"] == (
        "no GPU: files; no profile says what is expected of this image"
    )


@pytest.mark.parametrize(
    ("outcome", "more", "result"),
    [
        ("passed", {}, "PASSED"),
        ("waived", {}, "PASSED"),
        ("waived", {"severity": "warning", "findings": (reports.finding(),)}, "WARNED"),
        ("passed", {"untried": "no GPU"}, "WARNED"),
        ("failed", {}, "FAILED"),
    ],
)
def test_results(
    outcome: str, more: Mapping[str, Any], result: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image = image_at("127.0.0.1:9", "me/x", f"sha256:{'1' * 64}")
    assert mlcheck("report", "attest", report_of(image, outcome, **more)) == 0
    assert json.loads(capsys.readouterr().out)["predicate"]["result"] == result


@pytest.mark.parametrize("outcome", ["error", "skipped"])
def test_what_was_not_judged_is_not_attested(
    outcome: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image = image_at("127.0.0.1:9", "me/x", f"sha256:{'1' * 64}")
    assert mlcheck("report", "attest", report_of(image, outcome)) == 5
    said = capsys.readouterr()
    assert said.out == ""
    assert "was not judged" in said.err


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({}, 4, "an image without a digest"),
        ({"config_digest": f"sha256:{'2' * 64}"}, 0, "the digest of its configuration"),
        ({"digest": f"sha256:{'2' * 64}"}, 0, "the digest of its file"),
    ],
)
def test_digests(
    fields: Mapping[str, str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image = reports.image("./image", **fields)
    assert mlcheck("report", "attest", report_of(image)) == code
    assert words in capsys.readouterr().err


def test_of_several_images_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    both = tuple(
        image_at("127.0.0.1:9", name, f"sha256:{number * 64}")
        for name, number in (("me/a", "1"), ("me/b", "2"))
    )
    made = reports.report(*(reports.result(one) for one in both), images=both)
    Path("r.json").write_text(made.model_dump_json())
    assert mlcheck("report", "attest", "r.json") == 4
    assert both[1].id in capsys.readouterr().err
    assert mlcheck("report", "attest", "r.json", "--image", "nothing") == 4
    capsys.readouterr()
    for name in (both[1].id, both[1].reference):
        assert mlcheck("report", "attest", "r.json", "--image", name) == 0
        assert json.loads(capsys.readouterr().out)["subject"][0]["digest"]["sha256"] == "2" * 64


def test_mistakes_with_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = report_of(image_at("127.0.0.1:9", "me/x", f"sha256:{'1' * 64}"))
    private, public = keys("ed25519")
    words = ["pkey", "-in", private, "-aes256", "-passout", "pass:secret", "-out", "locked.pem"]
    subprocess.run(["openssl", *words], check=True, capture_output=True)
    Path("large.pem").write_bytes(bytes(100_000))

    def said(*more: str) -> str:
        assert mlcheck("report", "attest", file, "--key", *more) == 4
        return capsys.readouterr().err

    assert "No such file" in said("none.pem")
    assert "no private key" in said(public)
    assert "no private key" in said(str(file))
    assert "larger than any key" in said("large.pem")
    assert f"{signatures.PASSWORD} is not set" in said("locked.pem")
    monkeypatch.setenv(signatures.PASSWORD, "wrong")
    assert "another password" in said("locked.pem")
    monkeypatch.setenv(signatures.PASSWORD, "secret")
    assert mlcheck("report", "attest", file, "--key", "locked.pem") == 0
    assert "is set" in said(private)
    assert mlcheck("verify", "127.0.0.1:9/me/x:v1", "--key", private) == 4
    assert "the public one" in capsys.readouterr().err
    assert mlcheck("verify", "./directory") == 4
    assert "no image of a registry" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    assert "pip install 'securesystemslib[crypto]'" in said("locked.pem")


# Stand-ins


class Memory:
    """A registry in memory with the referrers API, in which everything can be changed."""

    def __init__(self) -> None:
        config = json.dumps({"os": "linux", "architecture": "amd64", **CONFIG}).encode()
        self.blobs = {sha256(config): config}
        manifest = {
            "schemaVersion": 2,
            "mediaType": registry.MANIFEST,
            "config": {"mediaType": "x", "digest": sha256(config), "size": len(config)},
            "layers": [],
        }
        content = json.dumps(manifest).encode()
        self.image = sha256(content)
        self.manifests = {self.image: content, "v1": content}
        self.pages = 1
        self.listed: Callable[[list[dict[str, Any]]], bytes] = lambda entries: json.dumps(
            {"schemaVersion": 2, "manifests": entries}
        ).encode()
        self.asked: list[str] = []

    def __call__(self, method: str, path: str, __: Mapping[str, str], body: bytes) -> Reply:
        self.asked.append(f"{method} {path}")
        url = urllib.parse.urlsplit(path)
        kind, _, name = url.path.removeprefix("/v2/me/x/").partition("/")
        if method == "POST":
            return 202, {"Location": "/v2/me/x/uploads/1?state=a"}, b""
        if method == "PUT" and kind == "uploads":
            (digest,) = urllib.parse.parse_qs(url.query)["digest"]
            self.blobs[digest] = body
            return 201, {}, b""
        if method == "PUT":
            self.manifests[name] = body
            return 201, {"OCI-Subject": json.loads(body)["subject"]["digest"]}, b""
        if kind == "referrers":
            return self._referrers(url.query)
        found = {"blobs": self.blobs, "manifests": self.manifests}[kind].get(name)
        return (404, {}, b"") if found is None else (200, {}, found)

    def _referrers(self, query: str) -> Reply:
        """One page after the other; only the last has entries."""
        page = int(dict(urllib.parse.parse_qsl(query)).get("page", "1"))
        if page < self.pages:
            path = f"/v2/me/x/referrers/{self.image}?page={page + 1}"
            return 200, {"Link": f'<{path}>; rel="next"'}, self.listed([])
        entries = [
            {"digest": digest, "artifactType": json.loads(content).get("artifactType")}
            for digest, content in self.manifests.items()
            if b'"subject"' in content
        ]
        return 200, {}, self.listed(entries)

    def attached(self) -> tuple[str, dict[str, Any]]:
        """The manifest of what was pushed."""
        ((digest, content),) = [pair for pair in self.manifests.items() if b"subject" in pair[1]]
        manifest: dict[str, Any] = json.loads(content)
        return digest, manifest

    def put(self, document: bytes, **changed: Any) -> None:
        """Replace what was pushed by another document, with the digests that fit to it."""
        digest, manifest = self.attached()
        del self.manifests[digest]
        (one,) = manifest["layers"]
        one |= {"digest": sha256(document), "size": len(document)}
        self.blobs[sha256(document)] = document
        content = json.dumps({**manifest, **changed}).encode()
        self.manifests[sha256(content)] = content


@pytest.mark.parametrize("pages", [1, 3])
def test_a_registry_with_the_referrers_api(pages: int) -> None:
    memory = Memory()
    memory.pages = pages
    with stand_in(memory) as address:
        image = image_at(address, "me/x", memory.image)
        assert mlcheck("report", "attest", report_of(image, "failed"), "--push") == 0
        assert mlcheck("verify", image.reference) == 1
    assert not [one for one in memory.asked if "manifests/sha256-" in one], "no list under a tag"
    _, manifest = memory.attached()
    assert manifest["subject"] == {
        "mediaType": registry.MANIFEST,
        "digest": memory.image,
        "size": len(memory.manifests["v1"]),
    }
    assert manifest["artifactType"] == attestation.MEDIA_TYPE


def test_a_token_to_read_is_changed_for_one_to_write(tmp_path: Path) -> None:
    """As Docker Hub and others have it: each token is for what was asked when it was fetched."""
    memory = Memory()
    scopes: list[str] = []

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        if path.startswith("/token"):
            (scope,) = urllib.parse.parse_qs(urllib.parse.urlsplit(path).query)["scope"]
            scopes.append(scope.rpartition(":")[2])
            return 200, {}, json.dumps({"token": scopes[-1]}).encode()
        needed = "pull" if method in ("GET", "HEAD") else "pull,push"
        if not headers.get("Authorization", "").startswith(f"Bearer {needed}"):
            realm = f'Bearer realm="http://{address}/token",service="s",scope="r:me/x:{needed}"'
            return 401, {"WWW-Authenticate": realm}, b""
        return memory(method, path, headers, body)

    with stand_in(answer) as address:
        image = image_at(address, "me/x", memory.image)
        assert mlcheck("report", "attest", report_of(image), "--push") == 0
        assert scopes == ["pull", "pull", "pull,push"]  # describing it is a conversation of its own
        assert mlcheck("verify", image.reference) == 0


def _statement(**changed: Any) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps({**json.loads(content), **changed}).encode()


_PASSED = {"result": "PASSED", "configuration": []}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_statement(subject=[{"digest": {"sha256": "a" * 64}}]), "is about another image"),
        (_statement(subject=[]), "no statement"),
        (_statement(subject=5), "no statement"),
        (_statement(_type="https://in-toto.io/Statement/v0.1"), "no statement"),
        (_statement(predicateType="https://slsa.dev/provenance/v1"), "no statement"),
        (_statement(predicate=_PASSED), "no statement"),
        (_statement(predicate={"result": "PERFECT"}), "no statement"),
        (lambda _: b"<html>", "is no JSON"),
        (lambda _: b"[" * 100_000, "is no JSON"),
        (lambda _: b"[]", "no statement"),
        (lambda _: b" " * 5_000_000, "more than 4 MiB"),
        (lambda _: b"\xff\xfe", "is no JSON"),
    ],
)
def test_a_document_that_is_no_verdict_about_the_image(
    change: Callable[[bytes], bytes], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = Memory()
    with stand_in(memory) as address:
        image = image_at(address, "me/x", memory.image)
        assert mlcheck("report", "attest", report_of(image), "--push") == 0
        assert mlcheck("verify", image.reference) == 0
        _, manifest = memory.attached()
        memory.put(change(memory.blobs[manifest["layers"][0]["digest"]]))
        capsys.readouterr()
        assert mlcheck("verify", image.reference) == 5
        assert words in capsys.readouterr().err


def _subject(memory: Memory) -> None:
    memory.put(b"{}", subject={"digest": f"sha256:{'b' * 64}"})


def _no_subject(memory: Memory) -> None:
    memory.put(b"{}", layers={"subject": 1})


def _path(memory: Memory) -> None:
    _, manifest = memory.attached()
    memory.put(b"{}", layers=[{**manifest["layers"][0], "digest": "sha256:../../../../etc"}])


def _other_blob(memory: Memory) -> None:
    _, manifest = memory.attached()
    memory.blobs[manifest["layers"][0]["digest"]] += b" "


def _gone(memory: Memory) -> None:
    _, manifest = memory.attached()
    del memory.blobs[manifest["layers"][0]["digest"]]


def _other_manifest(memory: Memory) -> None:
    digest, _ = memory.attached()
    memory.manifests[digest] += b" "


def _size(memory: Memory) -> None:
    _, manifest = memory.attached()
    memory.put(b"{}", layers=[{**manifest["layers"][0], "size": "many"}])


def _path_in_list(memory: Memory) -> None:
    kind = attestation.MEDIA_TYPE
    memory.listed = lambda _: json.dumps(
        {"manifests": [{"digest": "../../v2/other/blobs/x", "artifactType": kind}]}
    ).encode()


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (_subject, "belongs to another image"),
        (_no_subject, "no subject, or no documents"),
        (_path, "no valid digest"),
        (_path_in_list, "no valid digest"),
        (_other_blob, "does not match its digest"),
        (_other_manifest, "does not match its digest"),
        (_gone, "not in the registry"),
        (_size, "no valid size"),
    ],
)
def test_a_registry_that_does_not_hold_what_it_says(
    tamper: Callable[[Memory], None], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = Memory()
    with stand_in(memory) as address:
        image = image_at(address, "me/x", memory.image)
        assert mlcheck("report", "attest", report_of(image), "--push") == 0
        tamper(memory)
        asked = len(memory.asked)
        capsys.readouterr()
        assert mlcheck("verify", image.reference) == 5
        assert words in capsys.readouterr().err
        assert not [one for one in memory.asked[asked:] if ".." in one]


@pytest.mark.parametrize(
    "content", [b"<html>", b"5", b'{"manifests": 5}', b'{"manifests": [5]}', b"[" * 100_000]
)
def test_a_list_that_is_none(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    memory = Memory()
    memory.listed = lambda _: content
    with stand_in(memory) as address:
        assert mlcheck("verify", f"{address}/me/x:v1") == 3
    assert "is no index" in capsys.readouterr().err


def test_a_signature_of_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    memory = Memory()
    private, public = keys("EC")
    with stand_in(memory) as address:
        image = image_at(address, "me/x", memory.image)
        file = report_of(image, "failed")
        assert mlcheck("report", "attest", file, "--push", "--key", private) == 0
        assert mlcheck("verify", image.reference, "--key", public) == 1
        _, manifest = memory.attached()
        signed = json.loads(memory.blobs[manifest["layers"][0]["digest"]])
        better = base64.b64decode(signed["payload"]).replace(b'"FAILED"', b'"PASSED"')
        tampered: tuple[dict[str, Any], ...] = (
            {"payload": base64.b64encode(better).decode()},
            {"signatures": []},
            {"signatures": [{"sig": "AAAA"}]},
            {"signatures": [{"sig": 5}]},
            {"payloadType": "application/vnd.in-toto+jsonx"},
            {"payload": "%%%"},
        )
        for changed in tampered:
            memory.put(json.dumps({**signed, **changed}).encode())
            assert mlcheck("verify", image.reference, "--key", public) == 5, changed
        # The id of a key is only a hint.
        signed["signatures"][0]["keyid"] = "another"
        memory.put(json.dumps(signed).encode())
        assert mlcheck("verify", image.reference, "--key", public) == 1


def test_what_a_stranger_writes_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    memory = Memory()
    with stand_in(memory) as address:
        image = image_at(address, "me/x", memory.image)
        file = report_of(image.model_copy(update={"profile": f"x{reports.HOSTILE}"}))
        assert mlcheck("report", "attest", file, "--push") == 0
        assert mlcheck("verify", image.reference) == 0
    said = capsys.readouterr().out
    assert not [char for char in said if ord(char) < 32 and char != "\n"]


def test_an_upload_goes_nowhere_else_on_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    reached: list[str] = []

    def other(_: str, path: str, *__: object) -> Reply:
        reached.append(path)
        return 201, {}, b""

    with stand_in(other) as inside:
        memory = Memory()

        def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
            if method == "POST":
                return 202, {"Location": f"http://{inside}/here"}, b""
            return memory(method, path, headers, body)

        with stand_in(answer) as address:
            image = image_at(address, "me/x", memory.image)
            assert mlcheck("report", "attest", report_of(image), "--push") == 3
    assert reached == []
    assert f"sends us to 'http://{inside}/here'" in capsys.readouterr().err
