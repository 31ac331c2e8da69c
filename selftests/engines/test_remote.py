"""Servers elsewhere: over TLS and over ssh. Both lead to docker here, through a relay."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from mlcheck.engines import select
from mlcheck.engines.base import Start
from mlcheck.engines.oci.archive import write_empty
from mlcheck.engines.oci.client import connect
from mlcheck.engines.oci.container import Created, new_name
from mlcheck.engines.oci.dialect import DOCKER, PODMAN
from mlcheck.engines.oci.server import forwarding
from mlcheck.machine import janitor_process
from mlcheck.model.errors import EngineError
from mlcheck.model.image_ref import ImageRef

SOCKET = "/var/run/docker.sock"

RELAY = """\
import socket, sys, threading

def pump(one, other):
    try:
        while data := one.recv(65536):
            other.sendall(data)
    except OSError:
        pass
    for end, how in ((other, socket.SHUT_WR), (one, socket.SHUT_RD)):
        try:
            end.shutdown(how)
        except OSError:
            pass

def serve(connection, path):
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)
    for pair in ((connection, server), (server, connection)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""

SSH = """\
#!{python}
import json
{relay}
json.dump(sys.argv[1:], open({log!r}, "w"))
if sys.argv[-1] != "node":
    sys.exit("ssh: Could not resolve hostname " + sys.argv[-1])
local, _, remote = sys.argv[sys.argv.index("-L") + 1].partition(":")
listener = socket.socket(socket.AF_UNIX)
listener.bind(local)
listener.listen()
while True:
    serve(listener.accept()[0], remote)
"""


def judged() -> None:
    """An image is loaded, a container of it is made, its files are listed, all is removed."""
    trouble = select.engine("docker").tried()
    assert trouble is None, trouble


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in place of ssh, which connects only to "node"; the file has its arguments."""
    log = tmp_path / "arguments"
    program = tmp_path / "bin/ssh"
    program.parent.mkdir()
    program.write_text(SSH.format(python=sys.executable, relay=RELAY, log=str(log)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return log


@pytest.mark.engine("docker")
def test_over_ssh(ssh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@node:2222")
    judged()
    with connect(DOCKER) as client:
        assert client.address == "ssh://me@node:2222"
        assert not client.is_local
        local = Path(client.host.removeprefix("unix://"))
        assert local.is_socket()
        arguments = json.loads(ssh.read_text())
        assert arguments[-5:] == ["-l", "me", "-L", f"{local}:{SOCKET}", "node"]
        assert arguments[arguments.index("-p") + 1] == "2222"
    assert not local.parent.exists()
    assert "at ssh://me@node:2222" in select.engine("docker").describe()
    assert select.engine("docker").abilities().files == "streamed by the engine"


def test_no_connection_over_ssh(ssh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://other")
    why = select.engine("docker").unusable()
    assert why is not None
    assert why.what == (
        "docker: no connection to ssh://other: ssh: Could not resolve hostname other."
    )
    assert "without a question" in why.remedy
    monkeypatch.setenv("PATH", "/none")
    assert "ssh, which is not installed" in str(select.engine("docker").unusable())


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ssh://node", ["-L", f"/l:{SOCKET}", "node"]),
        ("ssh://node/", ["-L", f"/l:{SOCKET}", "node"]),
        ("ssh://me@node/run/user/1/s", ["-l", "me", "-L", "/l:/run/user/1/s", "node"]),
        ("ssh://[::1]:22", ["-p", "22", "-L", f"/l:{SOCKET}", "::1"]),
        *((f"ssh://{bad}", None) for bad in ("", "/x", "-oProxyCommand=x", "-l@x", "me:pw@node")),
        *((f"ssh://{bad}", None) for bad in ("node:x", "a b", "node/a:b", "$(x)")),
    ],
)
def test_addresses_over_ssh(ssh: Path, address: str, expected: list[str] | None) -> None:
    if expected is None:
        with pytest.raises(EngineError, match=r"is no address of a server over ssh"):
            forwarding(DOCKER, address, Path("/l"))
        return
    found = forwarding(DOCKER, address, Path("/l"))
    assert found[-len(expected) :] == expected
    assert "BatchMode=yes" in found


def test_podmans_socket_over_ssh(ssh: Path) -> None:
    assert "/l:/run/podman/podman.sock" in forwarding(PODMAN, "ssh://node", Path("/l"))


# TLS


def certificates(directory: Path) -> None:
    """An authority, and the certificates of a server on 127.0.0.1 and of a client."""

    def openssl(*argv: str) -> None:
        subprocess.run(["openssl", *argv], cwd=directory, check=True, capture_output=True)

    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(*new, "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=ca")
    for name, more in (
        ("server", ("-addext", "subjectAltName=IP:127.0.0.1")),
        ("client", ("-addext", "extendedKeyUsage=clientAuth")),
    ):
        files = ("-keyout", f"{name}-key.pem", "-out", f"{name}.pem", "-subj", f"/CN={name}")
        openssl(*new, *files, "-CA", "ca.pem", "-CAkey", "ca-key.pem", *more)
    (directory / "client.pem").rename(directory / "cert.pem")
    (directory / "client-key.pem").rename(directory / "key.pem")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address of a relay that demands a certificate of its clients."""
    certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server-key.pem")
    relay: dict[str, Callable[..., None]] = {}
    exec(RELAY, relay)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError):
                relay["serve"](context.wrap_socket(plain, server_side=True), SOCKET)

    threading.Thread(target=serve, daemon=True).start()
    with closing(listener):
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.engine("docker")
def test_over_tls(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    certificates(other)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other / "ca.pem"))
    judged()
    ref = ImageRef.parse(f"docker-archive:{write_empty(tmp_path / 'empty.tar')}")
    with select.engine("docker").prepare(ref) as prepared, connect(DOCKER) as client:
        container = Created(client, prepared.location, new_name(), ["/none"], Start())
        with closing(container):
            # As the janitor does for a run that was killed.
            janitor_process.undo(client.deletion(f"/containers/{container.name}?force=1"))
            names = [name for one in client.containers(all=True) for name in one["Names"]]
            assert f"/{container.name}" not in names


@pytest.mark.engine("docker")
def test_no_connection_over_tls(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path / "none"))
    assert "use TLS as DOCKER_TLS_VERIFY" in str(select.engine("docker").unusable())
    other = tmp_path / "other"
    other.mkdir()
    certificates(other)
    monkeypatch.setenv("DOCKER_CERT_PATH", str(other))
    assert "docker could not answer at" in str(select.engine("docker").unusable())
