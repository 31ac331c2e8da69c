"""Requests to a registry about one image.

The protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, tokens:
https://distribution.github.io/distribution/spec/auth/token/. Nothing that comes from the network is
trusted: answers are bounded in size and time, and a redirect, a place for uploads or a server of
tokens elsewhere is asked only if it could be anybody's: over TLS, on no private network that the
registry itself is not on.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import requests
import requests.auth
import urllib3

from mlcheck.engines.oci.documents import DOCUMENT_LIMIT, INDEX_TYPES, MANIFEST_TYPES
from mlcheck.engines.oci.logins import login_of
from mlcheck.model.errors import EngineError, MlcheckError, UsageError
from mlcheck.model.image_ref import ImageRef, is_loopback
from mlcheck.model.units import binary

LIMIT_S = 60.0
"""Seconds for all requests to a registry about one image."""

_SILENCE_S = 20.0
_REDIRECTS = 5
_CHUNK = 64 * 1024
_HUB = "docker.io"
_HUB_SERVER = "registry-1.docker.io"
_NEAR = 5
_TOKEN_WORDS = ("service", "scope")

T = TypeVar("T")


def converse(ref: ImageRef, talk: Callable[[Conversation], T], limit_s: float = LIMIT_S) -> T:
    """Return the result of `talk`, which asks a registry about an image.

    The user's logins (`docker login`, `podman login`) are used if the registry demands one, and the
    proxy and certificate settings of the environment (HTTPS_PROXY, REQUESTS_CA_BUNDLE).

    Args:
        ref: of kind "registry".
        limit_s: seconds for the whole.

    Raises:
        EngineError: the registry takes longer; and whatever `talk` raises.
    """
    session = requests.Session()
    asking = Conversation(ref, session, time.monotonic() + limit_s)
    found: Future[T] = Future()

    def ask() -> None:
        with session:
            try:
                found.set_result(talk(asking))
            except BaseException as error:
                found.set_exception(error)

    # In a thread that is given up at the deadline: each read has a time limit, but headers that
    # arrive byte by byte are many reads.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return found.result(limit_s)
    except TimeoutError:
        raise asking.late() from None


def host_of(ref: ImageRef) -> tuple[str, str]:
    """Return the registry of an image and its name there: ("docker.io", "library/NAME")."""
    first, slash, rest = ref.location.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        host, name = first, rest
    else:
        host, name = _HUB, ref.location
    if host in (_HUB, "index.docker.io", "registry.hub.docker.com", _HUB_SERVER):
        return _HUB, name if "/" in name else f"library/{name}"
    return host, name


class Conversation:
    """The requests to a registry about one image, made until a deadline."""

    def __init__(self, ref: ImageRef, session: requests.Session, deadline: float) -> None:
        self.text = ref.text
        self.host, self.name = host_of(ref)
        self.wanted = ref.digest or ref.tag or "latest"
        self.pinned = ref.digest
        separator = "@" if ref.digest else ":"
        self.reference = f"{self.host}/{self.name}{separator}{self.wanted}"
        self._session = session
        self._deadline = deadline
        self._scheme = "https"
        self._here = is_loopback(f"{self.host}/")
        self._authorization = ""

    def manifest(self, wanted: str) -> Answer:
        """Return the manifest or index of a tag or digest, as the registry sends it.

        Raises:
            UsageError: there is none.
            EngineError: the registry cannot be reached, or refuses.
        """
        accepted = {"Accept": ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))}
        return self.ask("GET", f"manifests/{wanted}", accepted)

    def blob(self, digest: str) -> Answer:
        """Return a blob.

        Raises:
            EngineError: the registry cannot be reached, refuses, or has no such blob.
        """
        return self.ask("GET", f"blobs/{digest}")

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        accepted: Collection[int] = (200,),
    ) -> Answer:
        """Return the answer to a request.

        Args:
            path: below the image's name in the registry; or a URL, of an upload.
            accepted: statuses that are no refusal.

        Raises:
            UsageError: there is no such manifest.
            EngineError: the registry cannot be reached, or refuses.
        """
        answer = self._ask(path, headers, method, content)
        if answer.status == 401:
            self._authorization = self._log_in(answer)
            answer = self._ask(path, headers, method, content)
        if answer.status not in accepted:
            raise self._refusal(answer, path)
        return answer

    def elsewhere(self, location: str) -> str:
        """Return the URL of a place that the registry names.

        Raises:
            EngineError: the place is not for us.
        """
        here = self._url("")
        try:
            target = urllib.parse.urljoin(here, location)
            self._check_elsewhere(here, target)
        except ValueError:
            raise self.broken("it sends us to what is no URL") from None
        return target

    def _url(self, path: str) -> str:
        server = _HUB_SERVER if self.host == _HUB else self.host
        return f"{self._scheme}://{server}/v2/{urllib.parse.quote(self.name)}/{path}"

    def _ask(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        content: bytes | None = None,
    ) -> Answer:
        while True:
            url = path if "://" in path else self._url(path)
            own = _service(url) == _service(self._url(""))
            authorization = self._authorization if own else ""
            try:
                return self._request(method, url, authorization, headers, content)
            except (requests.ConnectionError, requests.ReadTimeout) as error:
                # As docker does: without TLS only on this machine. No secret has been sent yet.
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
        data: Mapping[str, str] | bytes | None = None,
    ) -> Answer:
        """Return the answer to a request, or to the one to which it is redirected."""
        for _ in range(_REDIRECTS):
            try:
                answer = self._answer(method, url, authorization, headers, data)
                to = answer.headers.get("Location")
                if to is None or not 300 < answer.status < 400:
                    return answer
                target = urllib.parse.urljoin(url, to)
                self._check_elsewhere(url, target)
                if isinstance(data, bytes):
                    raise self.broken("it does not take what is put there, but sends us on")
            except requests.RequestException:
                raise
            except ValueError:
                raise self.broken("it sends us to what is no URL") from None
            if _service(target) != _service(url):
                authorization = ""
            method, url, data = "GET", target, None
        raise self.broken("it redirects without an end")

    def _answer(
        self,
        method: str,
        url: str,
        authorization: str,
        headers: Mapping[str, str] | None,
        data: Mapping[str, str] | bytes | None,
    ) -> Answer:
        with self._session.request(
            method,
            url,
            # No compression: the size of decompressed content has no bound.
            headers={"Accept-Encoding": "identity", "User-Agent": "mlcheck", **(headers or {})},
            data=data,
            auth=_Authorization(authorization),
            timeout=_SILENCE_S,
            # Never use a proxy for this machine, even if the environment does not exclude it.
            proxies=dict.fromkeys(("http", "https", "all"), "") if self._here else None,
            stream=True,
            allow_redirects=False,
        ) as answer:
            content = b""
            # read1, since iter_content waits until a chunk is full.
            while chunk := answer.raw.read1(_CHUNK):
                content += chunk
                if len(content) > DOCUMENT_LIMIT:
                    raise self.broken(f"its answer is larger than {binary(DOCUMENT_LIMIT)}")
                if time.monotonic() > self._deadline:
                    raise self.late()
            return Answer(answer.status_code, answer.headers, content)

    def _check_elsewhere(self, url: str, target: str) -> None:
        """See that an answer may send us there.

        Raises:
            EngineError: it is another service without TLS, or on a private network.
        """
        if _service(target) == _service(url):
            return
        scheme, host, _ = _service(target)
        server = _HUB_SERVER if self.host == _HUB else self.host
        own = urllib.parse.urlsplit(f"//{server}").hostname or ""
        if scheme != "https" or (_is_private(host) and not _is_private(own)):
            raise self.broken(f"it sends us to {target[:200]!r}")

    def _log_in(self, answer: Answer) -> str:
        """Return the header that the registry demands, using the user's login if there is one."""
        scheme, _, rest = answer.headers.get("WWW-Authenticate", "").partition(" ")
        login = login_of(self.host)
        if scheme.lower() == "basic" and login is not None:
            return _basic(login.username, login.password)
        if scheme.lower() != "bearer":
            raise self._refusal(answer, "")
        asked: dict[str, str | None] = requests.utils.parse_dict_header(rest)
        realm = asked.pop("realm", None) or ""
        server = _HUB_SERVER if self.host == _HUB else self.host
        try:
            self._check_elsewhere(f"{self._scheme}://{server}", realm)
        except ValueError:  # it is no URL
            raise self.broken(f"its tokens are to be had at {realm[:200]!r}") from None
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
            raise self.broken("its token is none") from None
        # A header cannot contain every character.
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise self.broken("its token is none")
        return f"Bearer {token}"

    def late(self) -> EngineError:
        """Return the error for an answer that takes too long."""
        return EngineError(
            f"{self.text}: {self.host} was not done with its answer in time.", "Try again."
        )

    def _refusal(self, answer: Answer, path: str) -> MlcheckError:
        """Return the reason for the registry's refusal, as an error for people."""
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
            return self.broken(f"it has no {path[:100]}")
        return EngineError(
            f"{self.text}: {self.host} answers with an error of its own ({answer.status}): "
            f"{answer.said()}",
            "Try again; when it stays, see the registry's log.",
        )

    def _near(self) -> str:
        """Return a remedy with tags similar to the requested one; "" if they cannot be listed."""
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

    def broken(self, what: str) -> EngineError:
        """Return the error for an answer that is not what it must be."""
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


def _service(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL.

    Raises:
        ValueError: it is none.
    """
    parts = urllib.parse.urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    return parts.scheme, parts.hostname or "", port


def _is_private(host: str) -> bool:
    """Return whether a host is on this machine or in a network that is not the internet."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:  # a proxy may know it
        return False
    return not all(ipaddress.ip_address(one.partition("%")[0]).is_global for one in found)


@dataclass(frozen=True, slots=True)
class Answer:
    """A registry's answer, with all of its content."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def said(self) -> str:
        """Return the reason in the answer, shortened."""
        try:
            error = json.loads(self.content)["errors"][0]
            said = f"{error.get('code')}: {error.get('message')}"[:300]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            said = self.content[:200].decode("utf-8", "replace")
        return " ".join(said.split())


class _Authorization(requests.auth.AuthBase):
    """Sets that header, and keeps requests from using the entries of ~/.netrc for the host."""

    def __init__(self, value: str) -> None:
        self.value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.value:
            request.headers["Authorization"] = self.value
        return request


def _basic(username: str, password: str) -> str:
    return str(requests.auth._basic_auth_str(username.encode(), password.encode()))
