"""What a registry says of an image, without fetching its layers.

The protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, tokens:
https://distribution.github.io/distribution/spec/auth/token/. Nothing that comes from the network
is trusted: answers are bounded in size and time, and each document must be the one that its
digest pins.
"""

from __future__ import annotations

import difflib
import json
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

import requests
import requests.auth
import urllib3

from mlcheck.engines.oci_documents import (
    DOCUMENT_LIMIT,
    INDEX_TYPES,
    MANIFEST_TYPES,
    ImageConfig,
    Index,
    Manifest,
    matches,
    parse_config,
    parse_manifest,
    sha256,
)
from mlcheck.engines.oci_logins import login_of
from mlcheck.engines.oci_pull import is_loopback
from mlcheck.errors import EngineError, MlcheckError, UsageError
from mlcheck.image import ImageRef

LIMIT_S = 60.0
"""Seconds for all that is asked of a registry about one image."""

_SILENCE_S = 20.0
_CHUNK = 64 * 1024
_HUB = "docker.io"
_HUB_SERVER = "registry-1.docker.io"
_NEAR = 5
_TOKEN_WORDS = ("service", "scope")


@dataclass(frozen=True, slots=True)
class RegistryImage:
    """An image as its registry describes it.

    Args:
        reference: its full name, "docker.io/library/NAME:TAG".
        index_digest: of the index, where the name stands for images of several platforms; it is
            what docker calls the digest of such an image. None: the name is of one image.
        manifest_digest: of the image's manifest.
        config_digest: of its configuration: the image ID of docker and podman.
        compressed_size: of its layers, in bytes.
        layers: how many.
        platforms: all that the name is for, as "os/architecture"; () for one image.
        config: of the image, chosen for this machine.
    """

    reference: str
    index_digest: str | None
    manifest_digest: str
    config_digest: str
    compressed_size: int
    layers: int
    platforms: tuple[str, ...]
    config: ImageConfig


def describe(ref: ImageRef, *, limit_s: float = LIMIT_S) -> RegistryImage:
    """Ask the registry about an image.

    The user's logins (`docker login`, `podman login`) are used where the registry wants one, and
    the proxy and certificate settings of the environment (HTTPS_PROXY, REQUESTS_CA_BUNDLE).

    Args:
        ref: of kind "registry".

    Raises:
        UsageError: there is no such image.
        EngineError: the registry cannot be reached, refuses, or sends what is no intact image.
    """
    with requests.Session() as session:
        return _Asking(ref, session, time.monotonic() + limit_s).image()


def host_of(ref: ImageRef) -> tuple[str, str]:
    """The registry of an image and its name there: ("docker.io", "library/NAME")."""
    first, slash, rest = ref.location.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        host, name = first, rest
    else:
        host, name = _HUB, ref.location
    if host in (_HUB, "index.docker.io", "registry.hub.docker.com", _HUB_SERVER):
        return _HUB, name if "/" in name else f"library/{name}"
    return host, name


class _Asking:
    """The conversation with a registry about one image."""

    def __init__(self, ref: ImageRef, session: requests.Session, deadline: float) -> None:
        self.text = ref.text
        self.host, self.name = host_of(ref)
        self.wanted = ref.digest or ref.tag or "latest"
        self.pinned = ref.digest
        separator = "@" if ref.digest else ":"
        self.reference = f"{self.host}/{self.name}{separator}{self.wanted}"
        self._session = session
        self._session.max_redirects = 5
        self._deadline = deadline
        self._scheme = "https"
        self._here = is_loopback(f"{self.host}/")
        self._authorization = ""

    def image(self) -> RegistryImage:
        digest, found = self._manifest(self.wanted, self.pinned)
        index_digest: str | None = None
        platforms: tuple[str, ...] = ()
        if isinstance(found, Index):
            index_digest, platforms = digest, found.platforms
            chosen = found.for_machine().digest
            digest, found = self._manifest(chosen, chosen)
            if isinstance(found, Index):
                raise self._broken(f"{chosen} is an index in an index")
        content = self._get(f"blobs/{found.config.digest}").content
        if not matches(content, found.config.digest):
            raise self._broken(f"the configuration is not that of the digest {found.config.digest}")
        try:
            config = parse_config(content)
        except ValueError as error:
            raise self._broken(f"the configuration {error}") from None
        return RegistryImage(
            reference=self.reference,
            index_digest=index_digest,
            manifest_digest=digest,
            config_digest=found.config.digest,
            compressed_size=found.size,
            layers=len(found.layers),
            platforms=platforms,
            config=config,
        )

    def _manifest(self, wanted: str, digest: str | None) -> tuple[str, Manifest | Index]:
        accepted = {"Accept": ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))}
        answer = self._get(f"manifests/{wanted}", accepted)
        said = digest or answer.headers.get("Docker-Content-Digest") or sha256(answer.content)
        if not matches(answer.content, said):
            raise self._broken(f"the manifest is not that of the digest {said[:100]}")
        try:
            return said, parse_manifest(answer.content)
        except ValueError as error:
            raise self._broken(f"the manifest {error}") from None

    def _get(self, path: str, headers: Mapping[str, str] | None = None) -> _Answer:
        """The content of what is at `path` of the image's name in the registry."""
        answer = self._ask(path, headers)
        if answer.status == 401:
            self._authorization = self._log_in(answer)
            answer = self._ask(path, headers)
        if answer.status != 200:
            raise self._refusal(answer, path)
        return answer

    def _ask(self, path: str, headers: Mapping[str, str] | None = None) -> _Answer:
        server = _HUB_SERVER if self.host == _HUB else self.host
        while True:
            url = f"{self._scheme}://{server}/v2/{urllib.parse.quote(self.name)}/{path}"
            try:
                return self._request("GET", url, self._authorization, headers)
            except (requests.ConnectionError, requests.ReadTimeout) as error:
                # As docker does: without TLS only on this machine. What is secret was not sent yet.
                if self._scheme == "http" or not self._here or self._authorization:
                    raise self._unreachable(error) from error
                self._scheme = "http"
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                raise self._unreachable(error) from error

    def _request(
        self,
        method: str,
        url: str,
        authorization: str,
        headers: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
    ) -> _Answer:
        with self._session.request(
            method,
            url,
            # No compression: its content has no bound.
            headers={"Accept-Encoding": "identity", "User-Agent": "mlcheck", **(headers or {})},
            data=data,
            auth=_Authorization(authorization),
            timeout=_SILENCE_S,
            # No proxy leads to this machine, whatever the environment forgets to say.
            proxies=dict.fromkeys(("http", "https", "all"), "") if self._here else None,
            stream=True,
        ) as answer:
            content = b""
            # read1, since iter_content waits until a chunk is full.
            while chunk := answer.raw.read1(_CHUNK):
                content += chunk
                if len(content) > DOCUMENT_LIMIT:
                    raise self._broken(f"its answer is larger than {DOCUMENT_LIMIT >> 20} MiB")
                if time.monotonic() > self._deadline:
                    raise EngineError(
                        f"{self.text}: {self.host} was not done with its answer in time.",
                        "Try again.",
                    )
            return _Answer(answer.status_code, answer.headers, content)

    def _log_in(self, answer: _Answer) -> str:
        """The header that the registry wants, by the user's login if there is one."""
        scheme, _, rest = answer.headers.get("WWW-Authenticate", "").partition(" ")
        login = login_of(self.host)
        if scheme.lower() == "basic" and login is not None:
            return _basic(login.username, login.password)
        if scheme.lower() != "bearer":
            raise self._refusal(answer, "")
        asked: dict[str, str | None] = requests.utils.parse_dict_header(rest)
        realm = asked.pop("realm", None) or ""
        # A password goes over TLS, or to where the registry itself is spoken to without.
        if urllib.parse.urlsplit(realm).scheme not in ("https", self._scheme):
            raise self._broken(f"its tokens are to be had at {realm[:200]!r}")
        words: dict[str, str] = {key: asked[key] or "" for key in _TOKEN_WORDS if key in asked}
        try:
            if login is not None and login.identity_token:
                form = {
                    **words,
                    "grant_type": "refresh_token",
                    "client_id": "mlcheck",
                    "refresh_token": login.identity_token,
                }
                got = self._request("POST", realm, "", data=form)
            else:
                basic = _basic(login.username, login.password) if login is not None else ""
                got = self._request("GET", f"{realm}?{urllib.parse.urlencode(words)}", basic)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise self._unreachable(error) from error
        if got.status != 200:
            raise self._refusal(got, "")
        try:
            document = json.loads(got.content)
            token = document.get("token") or document["access_token"]
        except (ValueError, KeyError, AttributeError, RecursionError):
            raise self._broken("its token is none") from None
        # A header cannot hold everything.
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise self._broken("its token is none")
        return f"Bearer {token}"

    def _refusal(self, answer: _Answer, path: str) -> MlcheckError:
        """Why the registry did not give it, for people."""
        if answer.status == 404 and path.startswith("manifests/"):
            return UsageError(
                f"{self.text}: {self.host} has no image {self.name}, or not with "
                f"{'the digest' if self.pinned else 'the tag'} {self.wanted}.",
                self._near() or "Check name and tag.",
            )
        if answer.status in (401, 403):
            return EngineError(
                f"{self.text}: {self.host} has no image {self.name}, or does not show it without "
                "a login that may see it.",
                f"Check the name, or log in: docker login {self.host} (or podman login).",
            )
        if answer.status == 429:
            wait = answer.headers.get("Retry-After", "")
            return EngineError(
                f"{self.text}: {self.host} takes no more requests from here for now (rate limit).",
                f"Wait{f' {wait} s' if wait.isdecimal() else ''}, or log in: "
                f"docker login {self.host}.",
            )
        if answer.status == 404:
            return self._broken(f"it has no {path[:100]}")
        return EngineError(
            f"{self.text}: {self.host} answers with an error of its own ({answer.status}): "
            f"{answer.said()}",
            "Try again; when it stays, see the registry's log.",
        )

    def _near(self) -> str:
        """Tags like the one that was asked for, as a remedy; "" when none can be had."""
        try:
            answer = self._ask("tags/list?n=1000")
            tags = json.loads(answer.content)["tags"] if answer.status == 200 else []
        except (MlcheckError, ValueError, KeyError, TypeError, RecursionError):
            return ""
        known = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
        near = difflib.get_close_matches(self.wanted, known, _NEAR, 0.5) or known[:_NEAR]
        if not near:
            return ""
        return f"It has, for example: {', '.join(f'{self.name}:{tag}'[:200] for tag in near)}."

    def _broken(self, what: str) -> EngineError:
        return EngineError(
            f"{self.text}: what {self.host} sent is no intact image: {what}.",
            "Try again; if it stays, push the image again.",
        )

    def _unreachable(self, error: Exception) -> EngineError:
        root: BaseException = error
        while (inner := root.__cause__ or root.__context__) is not None:
            root = inner
        said = str(getattr(root, "strerror", None) or root or type(root).__name__)
        remedy = "Check the registry's name and port, this machine's network, and HTTPS_PROXY."
        if isinstance(error, requests.exceptions.SSLError):
            remedy = (
                "If it has a certificate of its own authority, name that with REQUESTS_CA_BUNDLE. "
                "Without TLS only registries on this machine are asked."
            )
        elif isinstance(error, requests.exceptions.ProxyError):
            remedy = "Check HTTPS_PROXY and NO_PROXY."
        return EngineError(f"{self.text}: {self.host} cannot be reached: {said[:300]}.", remedy)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    def said(self) -> str:
        """The reason that it gives, short."""
        try:
            error = json.loads(self.content)["errors"][0]
            return f"{error.get('code')}: {error.get('message')}"[:300]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return self.content[:200].decode("utf-8", "replace").strip()


class _Authorization(requests.auth.AuthBase):
    """Sets that header, and keeps requests from using what ~/.netrc says of the host."""

    def __init__(self, value: str) -> None:
        self.value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.value:
            request.headers["Authorization"] = self.value
        return request


def _basic(username: str, password: str) -> str:
    return str(requests.auth._basic_auth_str(username.encode(), password.encode()))
