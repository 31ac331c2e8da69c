"""`mlcheck images`, `info` and `packages`, on real engines and a real registry."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlcheck.cli import main as cli
from mlcheck.cli.images import Row, table
from mlcheck.engines import image_info, select
from mlcheck.engines.oci import images as oci_images
from mlcheck.engines.oci.client import Client, connect
from mlcheck.engines.oci.dialect import DOCKER, PODMAN
from mlcheck.model.image_ref import ImageRef
from selftests import images, registry
from selftests.registry import Registry

MINE = f"mlcheck-test-{os.urandom(4).hex()}"
CONFIG = {
    "created": "2025-04-01T12:00:00Z",
    "config": {
        "Env": ["A=b"],
        "Labels": {"imageVersion": "v1", "odd": "\x1b[31mred\nline"},
        "Entrypoint": ["/entrypoint.sh"],
        "Cmd": ["/bin/bash"],
    },
}


def layer(text: str = "hello") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("etc/greeting")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Said:
    """Runs the command and keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.errors = ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        self._capsys.readouterr()
        found = cli.main(arguments)
        said = self._capsys.readouterr()
        self.errors = said.err
        assert found == code, said
        assert "Traceback" not in said.err
        return said.out

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code))


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


@pytest.fixture(scope="module")
def shelf() -> Iterator[Registry]:
    with registry.running() as running:
        yield running


@pytest.fixture(scope="module", params=[DOCKER, PODMAN], ids=["docker", "podman"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    with connect(request.param) as client:
        yield client
        for image in oci_images.listed(client):
            names = [*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())]
            if any(MINE in name for name in names):
                client.remove_image(image["Id"], force=True)


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    """Profiles of an image whose name is this process' own."""
    (tmp_path / "profiles" / MINE).mkdir(parents=True)
    (tmp_path / "profiles" / MINE / "image.toml").write_text(
        "[tags]\npattern = 'v.'\nexamples = ['v1', 'v2']\n"
        "[published]\nregistry = '127.0.0.1:9/me/{name}:{tag}'\n"
        f"cvmfs = ['{tmp_path}/cvmfs/{{name}}:{{tag}}']\n"
    )
    return tmp_path / "profiles"


def archive(path: Path, *, docker: bool) -> tuple[str, str | None]:
    """Write an archive of one image; gives the digests of its configuration and manifest."""
    content = layer()
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", **CONFIG}
        | {"rootfs": {"type": "layers", "diff_ids": [sha256(content)]}}
    ).encode()
    manifest = None
    if docker:
        table = [{"Config": "config.json", "RepoTags": None, "Layers": ["layer.tar"]}]
        files = {"config.json": config, "layer.tar": content}
        files["manifest.json"] = json.dumps(table).encode()
    else:
        entries = [
            {"mediaType": kind, "digest": sha256(blob), "size": len(blob)}
            for kind, blob in (
                ("application/vnd.oci.image.config.v1+json", config),
                ("application/vnd.oci.image.layer.v1.tar", content),
            )
        ]
        document = {"schemaVersion": 2, "config": entries[0], "layers": entries[1:]}
        blob = json.dumps(document).encode()
        manifest = sha256(blob)
        kind = "application/vnd.oci.image.manifest.v1+json"
        index = {"manifests": [{"mediaType": kind, "digest": manifest, "size": len(blob)}]}
        files = {f"blobs/sha256/{sha256(part)[7:]}": part for part in (config, content, blob)} | {
            "index.json": json.dumps({"schemaVersion": 2, **index}).encode(),
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        }
    with tarfile.open(path, "w") as tar:
        for name, part in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(part)
            tar.addfile(entry, io.BytesIO(part))
    return sha256(config), manifest


# images


def test_images_of_the_suite_without_network(said: Said) -> None:
    found = {row["image"]: row for row in said.json("images")["images"]}
    assert found["ml-pyroot:alma9-python311"]["reference"] == (
        "docker.io/yesw2000/ml-pyroot:alma9-python311"
    )
    assert any(name.startswith("reference:ml-base") for name in found)
    text = said("images")
    assert re.search(r"^ml-base:centos7-python38 +docker.io/yesw2000/ml-base:centos7", text, re.M)


@pytest.mark.engine("docker", "podman")
def test_images_says_where_they_are(
    said: Said, client: Client, profiles: Path, tmp_path: Path
) -> None:
    imported(client, f"127.0.0.1:9/me/{MINE}")
    (tmp_path / f"cvmfs/{MINE}:v1").mkdir(parents=True)
    rows = said.json("images", "--profiles", str(profiles))["images"]
    here = {row["image"]: row["here"] for row in rows}
    assert client.dialect.name in here[f"{MINE}:v1"]
    assert f"{tmp_path}/cvmfs/{MINE}:v1" in here[f"{MINE}:v1"]
    assert here[f"{MINE}:v2"] == []
    imported(client, MINE)
    rows = said.json("images", "--profiles", str(profiles))["images"]
    here = {row["image"]: row["here"] for row in rows}
    assert f"{client.dialect.name}: {MINE}:v1" in here[f"{MINE}:v1"]


def imported(client: Client, name: str) -> None:
    # podman takes a short name for any image whose name ends like it.
    if "/" not in name and client.dialect is PODMAN:
        name = f"localhost/{name}"
    if oci_images.inspect(client, f"{name}:v1") is not None:
        return  # a second one would leave the first without a name
    answer = client.import_image_from_data(layer(name))
    client.tag(json.loads(answer.splitlines()[0])["status"], name, "v1")


def test_images_on_a_narrow_terminal() -> None:
    rows = [
        Row("a:v1", "docker.io/me/a:v1", ("b:v1",), ("docker", "/cvmfs/x/a:v1")),
        Row("reference:a:v1", None, (), ()),
    ]
    assert table(rows, 70).splitlines()[1:] == [
        "a:v1, b:v1      docker.io/me/a:v1  docker, /cvmfs/x/a:v1",
        "reference:a:v1  built on the spot  -",
    ]
    assert table(rows, None) == table(rows, 70)
    assert table(rows, 40) == (
        "a:v1\n    also b:v1\n    docker.io/me/a:v1\n    here: docker\n    here: /cvmfs/x/a:v1\n"
        "reference:a:v1\n    built on the spot"
    )


# info


def test_info_of_a_registry(said: Said, shelf: Registry) -> None:
    text = f"{shelf.address}/{MINE}/info:v1"
    digest = registry.push(shelf, f"{MINE}/info", "v1", [layer()], CONFIG)
    (found,) = said.json("info", text)["images"]
    assert found["manifest_digest"] == digest
    assert found["compressed_size"] == len(layer())
    assert (found["created"], found["architecture"]) == ("2025-04-01T12:00:00Z", "amd64")
    assert found["labels"] == CONFIG["config"]["Labels"]  # type: ignore[index]
    assert (found["source"], found["here"]) == (f"registry {shelf.address}", {})
    plain = said("info", text)
    assert f"  manifest digest  {digest}\n" in plain
    assert f"({len(layer())} bytes)" in plain
    assert "imageVersion=v1" in plain
    assert "odd=\\x1b[31mred line" in plain
    assert "not told         unpacked size\n" in plain


@pytest.mark.engine("docker", "podman")
def test_info_of_a_store_and_whether_it_is_the_registrys(
    said: Said, shelf: Registry, client: Client
) -> None:
    name = f"{MINE}/{client.dialect.name}"
    text = f"{shelf.address}/{name}:v1"
    digest = registry.push(shelf, name, "v1", [layer()], CONFIG)
    with select.prepare(ImageRef.parse(text), client.dialect.name):
        pass
    (found,) = said.json("info", text, "--engine", client.dialect.name)["images"]
    (there,) = said.json("info", text)["images"]
    for key in ("manifest_digest", "config_digest", "labels", "created", "env", "entrypoint"):
        assert found[key] == there[key], key
    assert (found["source"], found["compressed_size"]) == (client.dialect.name, None)
    assert (found["layers"], found["architecture"]) == (1, "amd64")
    assert there["here"] == {client.dialect.name: "same"}
    assert registry.push(shelf, name, "v1", [layer("new")], CONFIG) != digest
    assert said.json("info", text)["images"][0]["here"] == {client.dialect.name: "another"}
    assert f"in {client.dialect.name}" in said("info", text)


@pytest.mark.engine("docker", "podman")
def test_info_of_what_was_built_here(said: Said, client: Client, profiles: Path) -> None:
    imported(client, MINE)
    (found,) = said.json("info", f"{MINE}:v1", "--profiles", str(profiles))["images"]
    assert found["source"] == client.dialect.name
    if client.dialect is DOCKER:  # podman makes a manifest for every image
        assert found["manifest_digest"] is None
        assert "never was in a registry" in found["notes"][0]
    said("info", f"{MINE}-none:v1", "--engine", client.dialect.name, code=4)
    assert f"{client.dialect.name} has no image {MINE}-none:v1" in said.errors


@pytest.mark.engine("docker", "podman")
def test_info_of_what_is_here_and_in_no_registry(said: Said, client: Client) -> None:
    name = f"127.0.0.1:9/me/{MINE}"
    imported(client, name)
    (found,) = said.json("info", f"{name}:v1")["images"]
    assert found["source"] == client.dialect.name
    assert f"The registry does not tell of it: {name}:v1: 127.0.0.1:9" in found["notes"][-1]
    client.remove_image(f"{name}:v1", force=True)
    said("info", f"{name}:v1", code=3)


def test_info_of_archives(said: Said, tmp_path: Path) -> None:
    config, none = archive(tmp_path / "d.tar", docker=True)
    other, manifest = archive(tmp_path / "o.tar", docker=False)
    (tmp_path / "layout").mkdir()
    with tarfile.open(tmp_path / "o.tar") as tar:
        tar.extractall(tmp_path / "layout")
    found = said.json(
        *("info", f"docker-archive:{tmp_path}/d.tar", f"oci-archive:{tmp_path}/o.tar"),
        f"oci:{tmp_path}/layout",
    )["images"]
    assert [one["manifest_digest"] for one in found] == [none, manifest, manifest]
    assert [one["config_digest"] for one in found] == [config, other, other]
    for one in found:
        assert (one["compressed_size"], one["unpacked_size"]) == (None, len(layer()))
        assert (one["layers"], one["created"]) == (1, "2025-04-01T12:00:00Z")
        assert one["labels"]["imageVersion"] == "v1"


def test_info_of_broken_archives(said: Said, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"x" * 2000)
    archive(tmp_path / "d.tar", docker=True)
    archive(tmp_path / "o.tar", docker=False)
    layout = tmp_path / "layout"
    layout.mkdir()
    with tarfile.open(tmp_path / "o.tar") as tar:
        tar.extractall(layout)
    texts = [
        *(f"docker-archive:{tmp_path}/x.tar", f"oci-archive:{tmp_path}/d.tar", f"oci:{layout}"),
        *(f"oci:{layout}", f"oci:{layout}"),
    ]
    said("info", *texts[:2], code=4)
    assert said.errors.count("no image of kind") == 2
    for blob in (layout / "blobs/sha256").iterdir():
        blob.write_bytes(blob.read_bytes() + b" ")
    said("info", texts[2], code=4)
    assert "does not pin what is stored under it" in said.errors
    (layout / "index.json").unlink()
    os.mkfifo(layout / "index.json")
    said("info", texts[2], code=4)
    assert "no regular file" in said.errors
    (layout / "index.json").unlink()
    (layout / "index.json").symlink_to("/etc/passwd")
    said("info", texts[2], code=4)
    assert "cannot be read" in said.errors


@pytest.mark.engine("apptainer")
def test_info_of_a_sif(said: Said, tmp_path: Path) -> None:
    archive(tmp_path / "d.tar", docker=True)
    sif = tmp_path / "x.sif"
    subprocess.run(
        ["apptainer", "-q", "build", sif, f"docker-archive:{tmp_path}/d.tar"],
        check=True,
        capture_output=True,
        timeout=120,
    )
    (found,) = said.json("info", str(sif))["images"]
    assert found["file_digest"] == sha256(sif.read_bytes())
    assert found["labels"] == CONFIG["config"]["Labels"]  # type: ignore[index]
    assert (found["entrypoint"], found["env"]) == (["/entrypoint.sh"], ["A=b"])
    assert (found["architecture"], found["created"]) == ("amd64", None)
    assert time.strftime("%Y") in found["notes"][0]
    # The descriptors of a hostile one lead anywhere.
    data = bytearray(sif.read_bytes())
    at = data.index(b"oci-config.json") - 80
    data[at : at + 16] = b"\xff" * 16
    sif.write_bytes(data)
    said("info", str(sif))


@pytest.mark.parametrize("seconds", [-(2**63), -1, 0, 253402300800, 2**40, 2**63 - 1])
def test_a_sif_of_no_time(seconds: int) -> None:
    assert image_info._made_at(seconds) == ()
    assert "1970-01-01T00:00:01Z" in image_info._made_at(1)[0]


def test_info_of_a_directory(said: Said, tmp_path: Path) -> None:
    root = tmp_path / "image:v1"
    images.write(root, "usr/lib/os-release", "ID=x\n")
    images.write(root, ".singularity.d/labels.json", '{"imageVersion": "v1"}')
    (found,) = said.json("info", str(root))["images"]
    assert found["labels"] == {"imageVersion": "v1"}
    assert (found["manifest_digest"], found["source"]) == (None, "directory")
    assert "not told         manifest digest, config digest," in said("info", str(root))


def test_an_image_that_is_not_there_does_not_stop_the_others(said: Said, tmp_path: Path) -> None:
    archive(tmp_path / "d.tar", docker=True)
    good = f"docker-archive:{tmp_path}/d.tar"
    assert len(said.json("info", "127.0.0.1:9/a/b:v1", good, code=3)["images"]) == 1
    assert "cannot be reached" in said.errors
    assert len(said.json("info", good, "./none", code=4)["images"]) == 1


# packages


@pytest.fixture
def with_packages(root: Path) -> Path:
    """An image with a package of conda, which pip sees too, one of pip and one of dpkg."""
    site = "opt/conda/lib/python3.11/site-packages"
    record = {
        "name": "numpy",
        "version": "1.26.4",
        "build": "0",
        "files": [f"{site[10:]}/numpy-1.26.4.dist-info/METADATA"],
    }
    images.write(root, "opt/conda/conda-meta/numpy-1.26.4-0.json", json.dumps(record))
    for name, version in (("numpy", "1.26.4"), ("attrs", "25.1")):
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        images.write(root, f"{site}/{name}-{version}.dist-info/METADATA", text)
    images.write(
        root,
        "var/lib/dpkg/status",
        "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2-1\n\n",
    )
    images.write(root, "list-of-pkgs-inside.txt", "numpy 1.26.4\nattrs 25.1\n")
    return root


def test_packages_by_who_installed_them(said: Said, with_packages: Path) -> None:
    assert said("packages", f"{with_packages}/") == (
        "attrs  25.1    pip    /opt/conda\nbash   5.2-1   dpkg\nnumpy  1.26.4  conda  /opt/conda\n"
    )
    assert "differs" not in said.errors
    found = said.json("packages", f"{with_packages}/")
    assert found["packages"][1] == {
        "name": "bash",
        "version": "5.2-1",
        "source": "dpkg",
        "arch": "amd64",
        "environment": None,
    }
    images.write(with_packages, "list-of-pkgs-inside.txt", "numpy 1.26.5\nattrs 25.1\n")
    found = said.json("packages", f"{with_packages}/")
    assert any("differs from what is installed in 1 package:" in note for note in found["notes"])
    (with_packages / "list-of-pkgs-inside.txt").unlink()
    assert said("packages", f"{with_packages}/")
    assert "/list-of-pkgs-inside.txt" not in said.errors  # which nobody has promised


@pytest.mark.parametrize("engine", images.each_engine("docker", "podman", "apptainer"))
def test_packages_by_every_engine(
    said: Said, with_packages: Path, tmp_path: Path, engine: str
) -> None:
    expected = said("packages", f"{with_packages}/")
    if engine == "apptainer":
        assert said("packages", f"{with_packages}/", "--engine", engine) == expected
        return
    with connect(DOCKER if engine == "docker" else PODMAN) as client:
        with io.BytesIO() as buffer:
            with tarfile.open(fileobj=buffer, mode="w") as tar:
                tar.add(with_packages, ".")
            answer = client.import_image_from_data(buffer.getvalue())
        identity = json.loads(answer.splitlines()[0])["status"]
        client.tag(identity, MINE, "packages")
        try:
            assert said("packages", f"{MINE}:packages", "--engine", engine) == expected
        finally:
            client.remove_image(identity, force=True)
