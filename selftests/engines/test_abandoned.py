"""What runs that were killed left in podman is put right by the next one, or named.

In a store of its own, which is damaged as a `podman rm` damages it that is killed half way.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlcheck.engines.base import Prepared
from mlcheck.engines.oci.client import Client, connect
from mlcheck.engines.oci.container import OWNER_LABEL, new_name
from mlcheck.engines.oci.dialect import PODMAN
from mlcheck.engines.oci.engine import Oci
from mlcheck.machine import janitor
from mlcheck.model.image_ref import ImageRef
from selftests import archives
from selftests.checkout import CHECKOUT
from selftests.waiting import eventually

pytestmark = pytest.mark.engine("podman")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Podman's, with nothing in it; mounted nowhere, since the driver is vfs."""
    # The path of a Unix socket in it has to be short.
    place = Path(tempfile.mkdtemp(prefix="mlc-"))
    settings = place / ".config/containers/storage.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{place}/graph"\nrunroot = "{place}/run"\n'
    )
    monkeypatch.setenv("HOME", str(place))
    if os.geteuid() == 0:  # who is not finds it below HOME, and this would not move all
        monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(settings))
    try:
        assert podman("info", "--format={{.Store.GraphRoot}}") == f"{place}/graph"
        yield place / "graph/vfs-containers/containers.json"
        podman("rm", "--all", "--force")
    finally:
        shutil.rmtree(place)


def podman(*arguments: str) -> str:
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def prepared(store: Path, tmp_path: Path) -> Prepared:
    """An image that holds nothing."""
    (tmp_path / "empty.tar").write_bytes(archives.layer())
    identity = podman("import", "--quiet", str(tmp_path / "empty.tar"), "localhost/empty:1")
    return Prepared(ImageRef.parse("localhost/empty:1"), identity.splitlines()[-1])


def container(client: Client, image: str, name: str, owner: str | None) -> str:
    """A container that is not started: its ID."""
    labels = {} if owner is None else {OWNER_LABEL: owner}
    made = client.create_container(image, command=["/none"], name=name, labels=labels)
    return str(made["Id"])


def of_a_run_that_ended() -> str:
    *here, _, _ = janitor.owner().split("/")
    return "/".join((*here, str(os.getpid()), "1"))


def without_storage(store: Path, *containers: str) -> None:
    """As where podman was killed after it had removed their storage."""
    entries = [one for one in json.loads(store.read_text()) if one["id"] not in containers]
    store.write_text(json.dumps(entries))


def names() -> set[str]:
    found = podman("ps", "--all", "--external", "--format={{.Names}}")
    return set(found.splitlines())


def doctor() -> dict[str, Any]:
    """What `mlcheck doctor` says of podman."""
    argv = [sys.executable, "-m", "mlcheck.cli", "doctor", "--json"]
    done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True)
    found = {one["engine"]: one for one in json.loads(done.stdout)["engines"]}
    return dict(found["podman"])


def test_containers_without_storage(store: Path, prepared: Prepared) -> None:
    ours, elsewhere, other = new_name(), new_name(), "somebody-else"
    with connect(PODMAN) as client:
        identities = [
            container(client, prepared.location, ours, of_a_run_that_ended()),
            container(client, prepared.location, elsewhere, "another/machine's/run/1/1"),
            container(client, prepared.location, other, None),
        ]
    without_storage(store, *identities)
    with Oci(PODMAN).open(prepared) as image:
        assert image.run(["/none"]).exit_code == 127
    assert names() == {elsewhere, other}
    said = doctor()
    assert said["usable"], said
    assert identities[0] not in said["remedy"]
    for identity in identities[1:]:
        assert f"podman rm -f {identity}" in said["remedy"]
    for line in said["remedy"].splitlines():
        subprocess.run(shlex.split(line.split("`")[1]), check=True, capture_output=True)
    assert names() == set()
    assert doctor()["remedy"] == ""


def test_storage_without_a_container(store: Path, prepared: Prepared) -> None:
    """podman was killed before it had noted a container; it has no label then."""
    old, new, other = new_name(), new_name(), "somebody-else"
    with connect(PODMAN) as client:
        for name in (old, new, other):
            container(client, prepared.location, name, of_a_run_that_ended())
    entries = json.loads(store.read_text())
    podman("rm", old, new, other)
    hour_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    for entry in entries:
        if entry["names"] != [new]:
            entry["created"] = hour_ago.isoformat().replace("+00:00", "Z")
    store.write_text(json.dumps(entries))
    assert names() == {old, new, other}
    with Oci(PODMAN).open(prepared):
        # The new one may be of a run that is just making it.
        assert names() == {new, other}
    podman("rm", "--force", new, other)


def test_doctor_starts_a_container(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Path.home() / "runtime"
    runtime.write_text("#!/bin/sh\nexit 1\n")
    runtime.chmod(0o755)
    settings = runtime.with_name("containers.conf")
    settings.write_text(f'[engine]\nruntime = "mine"\n[engine.runtimes]\nmine = ["{runtime}"]\n')
    monkeypatch.setenv("CONTAINERS_CONF", str(settings))
    assert Oci(PODMAN).unusable() is None  # it answers
    said = doctor()
    assert not said["usable"]
    assert "podman could not" in said["what"]
    assert names() == set()
    assert podman("images", "--quiet") == ""


RUN = """
import threading
from mlcheck.engines.oci import server as oci_server
from mlcheck.machine.janitor import _JANITOR
from mlcheck.engines.oci.client import connect
from mlcheck.engines.oci.dialect import PODMAN
oci_server._GRACE_S = 1
with connect(PODMAN) as client:
    print(client.host, _JANITOR._process.pid, flush=True)
    threading.Event().wait()
"""


def test_no_server_stays_when_the_janitor_is_killed_too(store: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        host, pid = run.stdout.readline().split()
        place = Path(host.removeprefix("unix://")).parent
        assert processes(host) != []
        os.kill(int(pid), signal.SIGKILL)
        run.kill()
    ended = eventually(lambda: processes(host) == [])
    # Whichever run of mlcheck begins first removes it.
    shutil.rmtree(place, ignore_errors=True)
    for one in processes(host):
        os.kill(one, signal.SIGKILL)
    assert ended


def processes(argument: str) -> list[int]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if argument.encode() in (directory / "cmdline").read_bytes().split(b"\0"):
                found.append(int(directory.name))
    return found
