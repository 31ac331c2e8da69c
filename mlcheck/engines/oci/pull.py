"""Pull an image with docker or podman: report progress, and the reason for a failure in
plain words."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import docker

from mlcheck.engines.base import Progress
from mlcheck.engines.oci.client import Client
from mlcheck.engines.oci.errors import despite_removals, engine_errors
from mlcheck.model.errors import EngineError, MlcheckError, UsageError
from mlcheck.model.image_ref import is_loopback

SILENCE_LIMIT_S = 3600.0
"""Seconds of silence from an engine in a pull: podman is silent while it copies a layer."""

_BETWEEN_LINES_S = 0.5
_MB = 1_000_000


def pull(client: Client, name: str, progress: Progress) -> str | None:
    """Fetch `name` ("HOST/NAME:TAG" or "HOST/NAME@sha256:...").

    Returns:
        The fetched image, in a form that the engine can inspect; None if the engine does not
        report it.

    Raises:
        UsageError: the registry has no such image, or none for this machine.
        EngineError: the engine, the network or the registry failed.
    """
    return despite_removals(lambda: _pull(client, name, progress))


def _pull(client: Client, name: str, progress: Progress) -> str | None:
    said = _Said(name, progress)
    with engine_errors(client.dialect, f"pull {name}"):
        answer = _REQUESTS[client.dialect.name](client, name)
        with answer:
            if answer.status_code != 200:
                raise refusal(client, name, _message(answer.text))
            for line in _lines(answer):
                if "error" in line:
                    raise refusal(client, name, str(line["error"]))
                said.hear(line)
    return said.result


def _docker(client: Client, name: str) -> Any:
    repository, separator, tag = name.partition("@")
    if not separator:
        repository, _, tag = name.rpartition(":")
    host, _ = docker.auth.resolve_repository_name(repository)
    header = docker.auth.get_config_header(client, host)
    return client.post(
        f"{client.base_url}/v{client.api_version}/images/create",
        params={"fromImage": repository, "tag": tag},
        headers={"X-Registry-Auth": header} if header else {},
        stream=True,
        timeout=SILENCE_LIMIT_S,
    )


def _podman(client: Client, name: str) -> Any:
    # podman's own API supports its short names and can omit TLS; the server reads the user's logins
    # itself. TLS is omitted only where docker does so too: on this machine.
    params = {"reference": name, "policy": "always"}
    if is_loopback(name):
        params["tlsVerify"] = "false"
    return client.post(
        f"{client.base_url}/v4.0.0/libpod/images/pull",
        params=params,
        stream=True,
        timeout=SILENCE_LIMIT_S,
    )


_REQUESTS: dict[str, Callable[[Client, str], Any]] = {"docker": _docker, "podman": _podman}


@dataclass
class _Said:
    """The state of a pull, from the engine's messages so far."""

    name: str
    progress: Progress
    result: str | None = None
    layers: dict[str, tuple[int, int]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    shown_at: float = 0.0

    def hear(self, line: dict[str, Any]) -> None:
        status, layer = str(line.get("status", "")), str(line.get("id", ""))
        detail = line.get("progressDetail")
        if podman := re.match(r"Copying blob (\S+)", str(line.get("stream", ""))):
            self.layers.setdefault(podman[1], (0, 0))
        elif line.get("images") and layer:
            self.result = f"sha256:{layer.removeprefix('sha256:')}"
        elif digest := re.fullmatch(r"Digest: (sha256:[0-9a-f]{64})", status):
            self.result = f"{re.sub(r'(:[^/:@]+)?(@.*)?$', '', self.name)}@{digest[1]}"
        elif status in ("Pulling fs layer", "Waiting"):
            self.layers.setdefault(layer, (0, 0))
        elif status in ("Already exists", "Pull complete"):
            self.layers.setdefault(layer, (0, 0))
            self.done.add(layer)
        elif status == "Downloading" and isinstance(detail, dict):
            self.layers[layer] = (int(detail.get("current", 0)), int(detail.get("total", 0)))
        elif status in ("Download complete", "Verifying Checksum"):
            total = self.layers.get(layer, (0, 0))[1]
            self.layers[layer] = (total, total)
        now = time.monotonic()
        if self.layers and now - self.shown_at >= _BETWEEN_LINES_S:
            self.shown_at = now
            self.progress(self.text())

    def text(self) -> str:
        total = sum(total for _, total in self.layers.values())
        if not total and not self.done:
            return f"pulling {self.name}: {len(self.layers)} layers"
        here = sum(count for count, _ in self.layers.values())
        layers = f"{len(self.done)} of {len(self.layers)} layers"
        size = f", {here // _MB} of {total // _MB} MB" if total else ""
        return f"pulling {self.name}: {layers}{size}"


def _lines(answer: Any) -> Iterator[dict[str, Any]]:
    for line in answer.iter_lines():
        try:
            found = json.loads(line) if line else None
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


def _message(text: str) -> str:
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return str(found.get("message", text)) if isinstance(found, dict) else text


_REFUSALS: tuple[tuple[str, type[MlcheckError], str, str], ...] = (
    (
        "no space left on device|disk quota exceeded",
        EngineError,
        "the disk of {engine}'s images is full",
        "Free space there: {engine} system prune.",
    ),
    (
        "toomanyrequests|too many requests|rate limit",
        EngineError,
        "{host} takes no more requests from here for now (rate limit)",
        "Wait, or log in: {engine} login {host}.",
    ),
    (
        "no basic auth",  # docker with containerd's store says it after what follows here
        EngineError,
        "{host} refused the login",
        "Log in: {engine} login {host}.",
    ),
    (
        "does not exist or may require|requested access to the resource is denied",
        EngineError,
        "{host} has no image {name}, or does not show it without a login",
        "Check the name, or log in: {engine} login {host}.",
    ),
    (
        "unauthorized|authentication required|denied|forbidden|incorrect username",
        EngineError,
        "{host} refused the login",
        "Log in: {engine} login {host}.",
    ),
    (
        "no matching manifest|no image found in (manifest list|image index)",
        UsageError,
        "{host} has {name} only for other architectures than this machine's",
        "Give a tag for this machine, or use a machine that fits the image.",
    ),
    (
        "name unknown|repository name not known",
        UsageError,
        "{host} has no image of this name",
        "Check the name.",
    ),
    (
        "manifest unknown|manifest for .* not found|failed to resolve reference .*: not found",
        UsageError,
        "{host} has no image of this name, or not with this tag or digest",
        "Check name and tag.",
    ),
    (
        "short-name .* did not resolve",
        UsageError,
        "podman does not know which registry it is in, and it is not on this machine",
        "Write it with its registry: docker.io/library/NAME, quay.io/ORGANISATION/NAME.",
    ),
    (
        "connection refused",
        EngineError,
        "{host} does not answer: connection refused",
        "Check that the registry runs, and its port.",
    ),
    (
        "no such host|server misbehaving|name resolution|name or service not known",
        EngineError,
        "the name of {host} cannot be resolved",
        "Check the name of the registry, and this machine's network.",
    ),
    (
        "server gave HTTP response to HTTPS client",
        EngineError,
        "{host} speaks plain HTTP, and {engine} expects HTTPS",
        "Allow it for this registry: {insecure}.",
    ),
    (
        "x509|certificate|tls: ",
        EngineError,
        "the certificate of {host} is not trusted",
        "Install its authority's certificate in {certificates}/{host}/ca.crt.",
    ),
    (
        "timeout|deadline exceeded|network is unreachable|no route to host",
        EngineError,
        "{host} cannot be reached",
        "Check this machine's network and proxy.",
    ),
    (
        r"unexpected http status:? 5\d\d|received unexpected http status|status:? 5\d\d"
        r"|unexpected status from .*: 5\d\d",
        EngineError,
        "{host} answers with an error of its own",
        "Try again; when it stays, see the registry's log.",
    ),
    (
        "unexpected EOF|connection reset|broken pipe|EOF$",
        EngineError,
        "{host} broke off in the middle",
        "Try again.",
    ),
    (
        "(invalid|unsupported|unrecognized|unknown|parsing) (image )?manifest"
        "|manifest (is )?invalid|manifest schema|unmarshal|invalid character"
        "|unexpected end of JSON|media ?type"
        "|verification failed|did(n't| not) match|invalid checksum|invalid tar header",
        EngineError,
        "what {host} sent is no intact image",
        "Push the image again.",
    ),
)


def refusal(client: Client, name: str, message: str) -> MlcheckError:
    """Convert the engine's message about a failed pull of `name` to an error for people."""
    engine = client.dialect.name
    host, _ = docker.auth.resolve_repository_name(re.sub("@.*", "", name))
    words = {
        "engine": engine,
        "name": name,
        "host": host,
        "insecure": client.dialect.insecure,
        "certificates": client.dialect.certificates,
    }
    # podman puts name and digest before the reason; they must not match a pattern by chance.
    reason = message.strip().replace(name, "NAME")
    for pattern, kind, what, remedy in _REFUSALS:
        if re.search(pattern, reason, re.IGNORECASE):
            said = f"{engine} could not pull {name}: {what.format(**words)}."
            return kind(f"{said}\n{engine} says: {_short(message)}", remedy.format(**words))
    return EngineError(f"{engine} could not pull {name}: {_short(message)}.")


def _short(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= 1000 else f"{line[:1000]}..."
