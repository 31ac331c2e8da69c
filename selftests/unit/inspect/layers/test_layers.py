"""What layers hold in vain and should not hold: by literal layers, and the same on every engine."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcheck import reference
from mlcheck.cli.main import main
from mlcheck.engines.archive.engine import Archive
from mlcheck.engines.base import PLAINLY
from mlcheck.engines.oci import layers as oci_layers
from mlcheck.engines.oci.dialect import DOCKER, PODMAN, Dialect
from mlcheck.engines.oci.engine import Oci
from mlcheck.engines.oci.files import WAYS, Way
from mlcheck.engines.oci.layers import from_stream
from mlcheck.image.api import Layer, Look
from mlcheck.image.byte_sources import FileBytes, plain
from mlcheck.image.layers import LayerNode, index_layer, merged
from mlcheck.image.tar_headers import BrokenArchive
from mlcheck.image.tar_reader import TarStream
from mlcheck.inspect.layers import names as layer_names
from mlcheck.inspect.layers import probe
from mlcheck.inspect.layers.facts import Layers, Secret
from mlcheck.inspect.layers.words import title
from mlcheck.model.errors import EngineError, NotApplicable
from mlcheck.model.image_ref import ImageRef
from mlcheck.model.layer_history import instruction
from mlcheck.reference import DEFECTS
from mlcheck.reference.python import SITE
from selftests import archives
from selftests.archives import docker_archive, layer, member
from selftests.images import each_engine
from selftests.judging import Report, by_outcome, judge
from selftests.verdicts import LAYERS

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nnothing\n-----END OPENSSH PRIVATE KEY-----\n"
ENCRYPTED = "Bag Attributes\n  x: y\n-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n"
PUBLIC = "-----BEGIN PUBLIC KEY-----\nnothing\n-----END PUBLIC KEY-----\n"


class Given(NamedTuple):
    """Layers that an engine might have read."""

    layers: Sequence[Layer]

    def read(self, wanted: Callable[[str], bool], look: Look) -> Sequence[Layer]:
        return self.layers


def in_archive(path: Path) -> Layers:
    """What is in the layers of an archive of `docker save`."""
    ref = ImageRef.parse(f"docker-archive:{path}")
    with Archive().prepare(ref) as prepared, Archive().open(prepared) as image:
        return probe.probe(image.layers)


def passing_by(path: Path, piece: int = 1000) -> Layers:
    """The same of one that passes by."""
    with path.open("rb") as file, TarStream(iter(lambda: file.read(piece), b"")) as stream:
        return probe.probe(
            Given(from_stream(stream, layer_names.may_be_secret, layer_names.secret))
        )


def found(tmp_path: Path, *layers: bytes, how: str = "", **more: Any) -> Layers:
    """What is in an image of these layers; read in both ways."""
    path = docker_archive(tmp_path / "image.tar", layers, how=how, **more)
    there = in_archive(path)
    assert passing_by(path) == there
    return there


def waste(there: Layers) -> list[tuple[int, str, int, int, int]]:
    """Layer, kind, by which layer, bytes, files."""
    return [(one.number, w.kind, w.by, w.size, w.files) for one in there.layers for w in one.waste]


A, B = "a" * 1000, "b" * 1000

STORED: dict[str, tuple[list[bytes], list[tuple[int, str, int, int, int]]]] = {
    "mode": (
        [layer(member("opt/x", A)), layer(member("opt/x", A, mode=0o755))],
        [(2, "metadata", 2, 1000, 1)],
    ),
    "owner": (
        [layer(member("x", A)), layer(member("x", A, uid=1000))],
        [(2, "metadata", 2, 1000, 1)],
    ),
    "written again": (
        [layer(member("x", A)), layer(member("x", A, mtime=5))],
        [(2, "same", 2, 1000, 1)],
    ),
    "other content of the same size": (
        [layer(member("x", A)), layer(member("x", B))],
        [(1, "overwritten", 2, 1000, 1)],
    ),
    "a symlink in its place": (
        [layer(member("x", A)), layer(member("x", to="y"))],
        [(1, "overwritten", 2, 1000, 1)],
    ),
    "deleted": (
        [layer(member("d/x", A)), layer(), layer(member("d/.wh.x"))],
        [(1, "deleted", 3, 1000, 1)],
    ),
    "a directory deleted": (
        [layer(member("d/e/x", A), member("d/y", B), member("z", B)), layer(member(".wh.d"))],
        [(1, "deleted", 2, 2000, 2)],
    ),
    "an opaque directory": (
        [layer(member("d/x", A), member("e", A)), layer(member("d/.wh..wh..opq"))],
        [(1, "deleted", 2, 1000, 1)],
    ),
    "opaque, with the same again": (
        [layer(member("d/x", A)), layer(member("d/.wh..wh..opq"), member("d/x", A, mode=0o600))],
        [(2, "metadata", 2, 1000, 1)],
    ),
    "opaque, with another of its name": (
        [layer(member("d/x", A)), layer(member("d/", None), member("d/.wh..wh..opq"),
                                        member("d/x", B))],
        [(1, "overwritten", 2, 1000, 1)],
    ),
    "a file in place of a directory": (
        [layer(member("d/x", A), member("d/y", A)), layer(member("d", B))],
        [(1, "deleted", 2, 2000, 2)],
    ),
    "a directory in place of a file": (
        [layer(member("d", A)), layer(member("d/", None), member("d/x", B))],
        [(1, "deleted", 2, 1000, 1)],
    ),
    "three times the mode, then deleted": (
        [
            layer(member("x", A)),
            *(layer(member("x", A, mode=mode)) for mode in (0o600, 0o640)),
            layer(member(".wh.x")),
        ],
        [(1, "deleted", 4, 1000, 1), (2, "metadata", 2, 1000, 1), (3, "metadata", 3, 1000, 1)],
    ),
    "one of two hard links": (
        [layer(member("x", A), member("y", link="x")), layer(member(".wh.x"))],
        [],
    ),
    "both hard links": (
        [
            layer(member("x", A), member("y", link="x")),
            layer(member(".wh.x")),
            layer(member(".wh.y")),
        ],
        [(1, "deleted", 3, 1000, 1)],
    ),
    "the mode of a file with hard links": (
        [
            layer(member("x", A), member("y", link="x")),
            layer(member("x", A, mode=0o600), member("y", link="x")),
        ],
        [(2, "metadata", 2, 1000, 1)],
    ),
    "a whiteout of nothing, and below a file": (
        [layer(member("x", A)), layer(member(".wh.y"), member("x", B, mode=0o600))],
        [(1, "overwritten", 2, 1000, 1)],
    ),
    "a directory's mode": ([layer(member("d/x", A)), layer(member("d/", None, mode=0o700))], []),
    "empty files": ([layer(member("x", "")), layer(member("x", "", mode=0o600))], []),
    "no layer at all": ([], []),
}  # fmt: skip


@pytest.mark.parametrize("how", ["", "gzip", "zstd"])
@pytest.mark.parametrize(("layers", "expected"), STORED.values(), ids=STORED.keys())
def test_what_is_stored_in_vain(
    layers: list[bytes], expected: list[tuple[int, str, int, int, int]], how: str, tmp_path: Path
) -> None:
    there = found(tmp_path, *layers, how=how)
    assert waste(there) == expected
    assert there.wasted == sum(row[3] for row in expected)


def test_sizes_and_names(tmp_path: Path) -> None:
    there = found(
        tmp_path,
        layer(member("big", A + A), member("small", B), member("link", link="big")),
        layer(member(".wh.small"), member(".wh.big"), member(".wh.link")),
    )
    assert [(one.size, one.files) for one in there.layers] == [(3000, 2), (0, 0)]
    ((one,),) = [layer.waste for layer in there.layers if layer.waste]
    assert (one.largest[0][1], one.largest[1]) == (2000, ("/small", 1000))


_NAMES = st.sampled_from(["a", "d", "d/a", "d/b", "d/e/a", "e"])
_FILE = st.builds(
    lambda name, text, mode: member(name, text, mode=mode),
    _NAMES,
    st.sampled_from(["", "x", "y", "xx"]),
    st.sampled_from([0o600, 0o644]),
)
_HIDDEN = st.sampled_from([".wh.a", ".wh.d", "d/.wh.a", "d/.wh..wh..opq", ".wh.e"]).map(member)
_LAYER = st.lists(_FILE | _HIDDEN, max_size=5).map(lambda members: layer(*members))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(layers=st.lists(_LAYER, max_size=4))
def test_what_is_not_in_vain_is_what_the_image_shows(
    layers: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = docker_archive(tmp_path_factory.getbasetemp() / "any.tar", layers)
    try:
        there = in_archive(path)
    except EngineError:
        return  # something below a file: no layer that could be unpacked
    assert there == passing_by(path)
    indices = []
    for number, data in enumerate(layers):
        file = tmp_path_factory.getbasetemp() / f"any-{number}"
        file.write_bytes(data)
        indices.append(index_layer(plain(FileBytes(file)), ""))
    assert there.size - there.wasted == shown_by(merged(indices))


def shown_by(node: LayerNode) -> int:
    """Bytes of all files below a directory."""
    below = (node.children or {}).values()
    return sum(child.size if child.type == "file" else shown_by(child) for child in below)


# History


def test_history_with_entries_that_made_no_layer(tmp_path: Path) -> None:
    history = [
        {"created_by": "/bin/sh -c #(nop) ADD file:0 in / "},
        {"created_by": "ENV A=1", "empty_layer": True},
        {"created_by": "RUN |1 X=y /bin/sh -c true # buildkit"},
        {"created_by": "CMD x", "empty_layer": True},
    ]
    layers = [layer(member("x", A)), layer(member("y", A))]
    there = found(tmp_path, *layers, history=history)
    assert [instruction(one.created_by, 100) for one in there.layers] == [
        "ADD file:0 in /",
        "RUN true",
    ]
    assert [one.digest for one in there.layers] == [archives.digest(one) for one in layers]


@pytest.mark.parametrize(
    "history",
    [
        None,
        [],
        [{"created_by": "x"}],
        [{"created_by": "x"}] * 3,
        ["x", "y"],
        [{}, {"created_by": 5}],
    ],
)
def test_a_history_that_does_not_fit(history: Any, tmp_path: Path) -> None:
    layers = [layer(member("x", A)), layer(member("y", A))]
    there = found(tmp_path, *layers, history=history)
    assert [one.created_by for one in there.layers] == ["", ""]
    assert "layer 1 (no build history)" in title(there.layers[0])


def test_an_image_without_layers(tmp_path: Path) -> None:
    ref = ImageRef.parse(f"docker-archive:{docker_archive(tmp_path / 'image.tar', ())}")
    with (
        Archive().prepare(ref) as prepared,
        Archive().open(prepared) as image,
        pytest.raises(NotApplicable, match="the image has no layers"),
    ):
        probe.image_layers(image, PLAINLY)


# Secrets and caches

SECRET: dict[str, tuple[str, str]] = {
    "root/.ssh/id_rsa": (KEY, "private key"),
    "opt/server.pem": (CERTIFICATE + KEY, "private key"),
    "opt/encrypted.key": (ENCRYPTED, "private key"),
    "etc/ssh/ssh_host_ed25519_key": (KEY, "private key"),
    "opt/putty.ppk": ("PuTTY-User-Key-File-3: ssh-rsa\n", "private key"),
    "root/.netrc": ("machine x login y password z\n", "logins"),
    "root/.pgpass": ("host:5432:db:me:word\n", "logins"),
    "home/me/.aws/credentials": ("[default]\n", "credentials of AWS"),
    "root/.git-credentials": ("https://x:y@z\n", "credentials of git"),
    "root/.config/gcloud/credentials.db": ("x", "credentials of Google Cloud"),
    "root/.azure/msal_token_cache.json": ("{}", "credentials of Azure"),
    "root/.docker/config.json": ('{"auths": {"x": {"auth": "eA=="}}}', "credentials of a registry"),
    "root/.kube/config": ("apiVersion: v1\n", "credentials of Kubernetes"),
    "root/.pypirc": ("[pypi]\npassword = x\n", "credentials of a package index"),
    "root/.npmrc": ("//registry/:_authToken=x\n", "token of npm"),
    "etc/pip.conf": ("index-url = https://me:word@host/simple\n", "login of a package index"),
    "tmp/x509up_u1000": ("x", "credentials of the grid"),
    "root/.cache/huggingface/token": ("hf_x", "token of a service"),
}
NO_SECRET: dict[str, str] = {
    "etc/ssl/certs/ca-bundle.pem": CERTIFICATE * 300,
    "opt/public.pem": PUBLIC,
    "root/.ssh/id_rsa.pub": KEY,
    "root/.ssh/id_rsa": "",
    "root/.ssh/authorized_keys": "ssh-rsa AAAA",
    "opt/some_key": "no key at all",
    "root/.docker/config.json": '{"credsStore": "pass", "auths": {"x": {}}}',
    "root/.npmrc": "registry=https://x/\n//x/:_authToken=${TOKEN}\n",
    "etc/pip.conf": "index-url = https://host/simple\n",
    "etc/pip/pip.conf": "index-url = https://${USER}:${WORD}@host/simple\n",
    "opt/xaws/credentials": "x",
    "opt/credentials": "x",
    "opt/.netrc/x": "machine x login y password z\n",
}


@pytest.mark.parametrize(("path", "content", "what"), [(k, *v) for k, v in SECRET.items()])
def test_secrets(path: str, content: str, what: str, tmp_path: Path) -> None:
    parent, _, name = path.rpartition("/")
    there = found(
        tmp_path,
        layer(member(path, content)),
        layer(member(path, content, mode=0o600)),
        layer(member(f"{parent}/.wh.{name}")),
    )
    digest = hashlib.sha256(content.encode()).hexdigest()
    expected = [(Secret(f"/{path}", what, by, digest),) for by in (2, 3)]
    assert [one.secrets for one in there.layers] == [*expected, ()]


@pytest.mark.parametrize(("path", "content"), NO_SECRET.items())
def test_no_secrets(path: str, content: str, tmp_path: Path) -> None:
    there = found(tmp_path, layer(member(path, content)))
    assert there.layers[0].secrets == ()


@pytest.mark.parametrize(
    ("path", "cache"),
    [
        ("var/lib/apt/lists/x_Packages", "apt"),
        ("var/cache/apt/archives/x.deb", "apt"),
        ("var/cache/dnf/x.solv", "dnf"),
        ("var/cache/libdnf5/x.solv", "dnf"),
        ("var/cache/yum/x", "yum"),
        ("opt/conda/pkgs/x.conda", "conda"),
        ("root/micromamba/pkgs/x.tar.bz2", "conda"),
        ("opt/miniforge3/pkgs/x.conda", "conda"),
        ("home/me/.conda/pkgs/x.conda", "conda"),
        ("root/.cache/pip/http/x", "pip"),
        ("root/.npm/_cacache/x", "npm"),
        ("var/cache/fontconfig/x", None),
        ("opt/lib/pkgs/x", None),
        ("opt/conda/lib/pkgs/x", None),
    ],
)
def test_caches(path: str, cache: str | None, tmp_path: Path) -> None:
    parent, _, name = path.rpartition("/")
    there = found(tmp_path, layer(member(path, A)), layer(member(f"{parent}/.wh.{name}")))
    left = [(one.cache, one.size, one.deleted_by) for one in there.layers[0].leftovers]
    assert left == ([(cache, 1000, 2)] if cache else [])


def test_what_conda_has_linked_from_its_cache_is_in_use(tmp_path: Path) -> None:
    there = found(
        tmp_path,
        layer(
            member("opt/conda/pkgs/x/lib/a", A),
            member("opt/conda/lib/a", link="opt/conda/pkgs/x/lib/a"),
            member("opt/conda/pkgs/x.conda", B),
        ),
    )
    (left,) = there.layers[0].leftovers
    assert (left.size, left.largest) == (1000, (("/opt/conda/pkgs/x.conda", 1000),))
    assert left.deleted_by is None


def test_condas_cache_is_known_wherever_conda_is(tmp_path: Path) -> None:
    there = found(
        tmp_path,
        layer(member("srv/lab/pkgs/x.conda", A), member("srv/other/pkgs/x.conda", B)),
        layer(member("srv/lab/pkgs/urls.txt", "https://conda.anaconda.org/x")),
    )
    (left,) = there.layers[0].leftovers
    assert (left.cache, left.largest) == ("conda", (("/srv/lab/pkgs/x.conda", 1000),))


def test_a_published_key_is_no_secret_in_the_table_either(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = "opt/venv/lib/python3.12/site-packages"
    key = "-----BEGIN PRIVATE KEY-----"
    own = layer(member(f"{site}/tornado/test/test.key", key), member("root/mine.key", key))
    path = docker_archive(tmp_path / "image.tar", [own])
    assert main(["layers", f"docker-archive:{path}", "--engine", "archive", "--no-cache"]) == 0
    out = capsys.readouterr().out
    assert "private key: /root/mine.key" in out
    assert "tornado" not in out
    assert "1 that look like secrets are none: a key of a package's own tests" in out


def test_more_secrets_than_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "SECRETS_LIMIT", 2)
    there = found(tmp_path, layer(*(member(f"{n}/.git-credentials", A) for n in range(5))))
    assert len(there.layers[0].secrets) == 2
    assert there.untold == 3


# Archives that cannot be trusted


def test_an_archive_that_breaks_off(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "image.tar", [layer(member("x", A * 50))], how="gzip")
    whole = path.read_bytes()
    (tmp_path / "cut").write_bytes(whole[:1000])
    with pytest.raises(BrokenArchive):
        passing_by(tmp_path / "cut")


@pytest.mark.parametrize(
    "changed",
    [
        {"manifest.json": b"[]"},
        {"manifest.json": b"{"},
        {"manifest.json": b'[{"Config": "none.json", "Layers": []}]'},
    ],
)
def test_an_archive_without_an_image(changed: dict[str, bytes], tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "image.tar", [layer(member("x", A))], changed=changed)
    with pytest.raises(ValueError, match=r"holds|damaged"):
        passing_by(path)


def test_names_that_lead_out_or_have_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = docker_archive(tmp_path / "image.tar", [layer(member("../x", A))])
    with pytest.raises(EngineError, match="leads out"):
        passing_by(path)
    # Short as they are written, and long when each directory above is spelled out.
    path = docker_archive(tmp_path / "image.tar", [layer(member("d/" * 2000 + "x", A))])
    assert passing_by(path).size == 1000
    monkeypatch.setattr("mlcheck.image.budget.NAMES_LIMIT", 1_000_000)
    with pytest.raises(EngineError, match="characters of names"):
        passing_by(path)


def test_names_do_not_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "x\x1b[2J\nlayer 9: fake\udcff"
    layers = [layer(member(odd, A)), layer(member(f".wh.{odd}"))]
    history = [{"created_by": "RUN \x1b[2J\nfake"}, {"created_by": "y"}]
    path = docker_archive(tmp_path / "image.tar", layers, history=history)
    assert main(["layers", f"docker-archive:{path}", "--engine", "archive", "--no-cache"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert not any(line.startswith(("layer 9", "fake")) for line in out.splitlines())
    arguments = ["--engine", "archive", "--no-cache", "--json"]
    assert main(["layers", f"docker-archive:{path}", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["layers"][0]["waste"][0]["files"] == 1


# On the engines


@functools.cache
def programs(root: Path) -> bytes:
    """A layer in which commands run."""
    done = subprocess.run(
        ["tar", "-C", root, "--owner=0", "--group=0", "-cf", "-", "."],
        check=True,
        capture_output=True,
    )
    return done.stdout


ON_ENGINES = [
    layer(member("opt/big", A * 50), member("opt/gone", B), member("root/.netrc", "password x")),
    layer(member("opt/", None), member("opt/big", A * 50, mode=0o600), member("opt/.wh.gone")),
    layer(member("root/", None), member("root/.wh..wh..opq"), member("root/new", A)),
    layer(member("var/cache/apt/pkgcache.bin", A)),
]
HISTORY: list[dict[str, Any]] = [
    {"created_by": "ADD rootfs"},
    {"created_by": "COPY opt"},
    {"created_by": "ENV A=1", "empty_layer": True},
    {"created_by": "RUN chmod 600 /opt/big; rm /opt/gone"},
    {"created_by": "RUN rm -r /root"},
    {"created_by": "RUN apt-get update"},
]


@pytest.mark.slow
@pytest.mark.parametrize("ways", [WAYS, ("streamed",)], ids=["store", "saved"])
@pytest.mark.parametrize("engine", each_engine("docker", "podman"))
def test_docker_and_podman_tell_the_same_as_the_archive(
    engine: str,
    ways: tuple[Way, ...],
    tiny_rootfs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dialect: Dialect = {"docker": DOCKER, "podman": PODMAN}[engine]
    layers = [programs(tiny_rootfs), *ON_ENGINES]
    path = docker_archive(tmp_path / "image.tar", layers, history=HISTORY)
    expected = in_archive(path)
    assert [kind for _, kind, *_ in waste(expected)] == ["deleted", "deleted", "metadata"]
    opener = Oci(dialect, ways=ways)
    if ways != WAYS or os.geteuid() == 0:
        monkeypatch.delattr(oci_layers, "saved" if ways == WAYS else "stored")
    with (
        opener.prepare(ImageRef.parse(f"docker-archive:{path}")) as prepared,
        opener.open(prepared) as image,
    ):
        assert probe.probe(image.layers) == expected


@pytest.mark.root_only
def test_a_layer_of_which_overlayfs_copied_the_mode_alone(tmp_path: Path) -> None:
    """`metacopy`: https://docs.kernel.org/filesystems/overlayfs.html."""
    for name, content in (("lower", A), ("upper", "\0" * 1000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(content)
    (tmp_path / "upper/x").chmod(0o600)
    os.setxattr(tmp_path / "upper/x", "trusted.overlay.metacopy", b"")
    image = {
        "GraphDriver": {
            "Name": "overlay",
            "Data": {"LowerDir": f"{tmp_path}/lower", "UpperDir": f"{tmp_path}/upper"},
        },
        "RootFS": {"Layers": ["sha256:1", "sha256:2"]},
        "History": [{"created_by": "COPY x /"}, {"created_by": "RUN chmod 600 /x"}],
    }
    layers = oci_layers.stored(image, layer_names.secret)
    assert layers is not None
    there = probe.probe(Given(layers))
    assert waste(there) == [(2, "metadata", 2, 1000, 1)]
    image["RootFS"] = {"Layers": ["sha256:1"]}
    assert oci_layers.stored(image, layer_names.secret) is None
    shutil.rmtree(tmp_path / "upper")
    image["RootFS"] = {"Layers": ["sha256:1", "sha256:2"]}
    assert oci_layers.stored(image, layer_names.secret) is None


def test_an_engine_without_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "image/usr").mkdir(parents=True)
    assert main(["layers", f"{tmp_path}/image", "--no-cache"]) == 4
    said = capsys.readouterr().err
    assert "without layers" in said
    assert "docker save" in said


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = docker_archive(tmp_path / "image.tar", ON_ENGINES, history=HISTORY[1:])
    image = f"docker-archive:{path}"
    assert main(["layers", image, "--engine", "archive", "--no-cache"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "size", "wasted", "made", "by"]
    assert lines[2].split() == [
        *("2", "50.0", "kB", "50.0", "kB", "RUN", "chmod", "600", "/opt/big;", "rm", "/opt/gone")
    ]
    assert lines[5].split() == ["total", "103.0", "kB", "51.0", "kB"]
    assert "layer 1: logins, deleted by layer 3: /root/.netrc" in lines
    assert "layer 4: 1.0 kB of apt's cache: /var/cache/apt/pkgcache.bin (1.0 kB)" in lines
    assert main(["layers", image, "--engine", "archive", "--no-cache", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["size"] for one in told["layers"]] == [51_010, 50_000, 1000, 1000]


# The suite: every planted fault is caught by its check alone

TAG = reference.default_tag()
LAYERED = [name for name, defect in DEFECTS.items() if defect.layers]


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As much of the good image as the planted layers touch, and its private key that is none."""
    good = reference.build("ml-base")
    root = tmp_path_factory.mktemp("part") / f"ml-base:{TAG}"
    site = SITE.removeprefix("/")
    for name in (".singularity.d", f"{site}/numpy", f"{site}/tornado/test"):
        shutil.copytree(good / name, root / name, symlinks=True, copy_function=os.link)
    return root


PROFILE = """\
[layers]
max_size = "{:.1f} MB"
max_waste = "10 MB"
"""


@pytest.fixture(scope="module")
def judged(part: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report on archives of the good image and of each planted fault, in one run; budgets are
    what the good image needs, and a little more."""
    directory = tmp_path_factory.mktemp("archives")
    needed = sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
    (directory / "profiles/lean").mkdir(parents=True)
    (directory / "profiles/lean/image.toml").write_text(PROFILE.format(needed / 1e6 + 100))
    images = []
    for name in ("good", *LAYERED):
        archive = directory / f"{name}.tar"
        reference.export_docker_archive(part, archive, [DEFECTS[name]] if name in DEFECTS else [])
        images.append(f"--image=docker-archive:{archive}")
    report = judge(
        directory / "report.json",
        "--engine=archive",
        *(f"--profiles={directory}/profiles", "--profile=lean", *images),
        "tests/general/test_layers.py",
    )
    for name in ("good", *LAYERED):
        (directory / f"{name}.tar").unlink()
    return report


@pytest.mark.slow
@pytest.mark.parametrize("name", ["good", *LAYERED])
def test_a_defect_of_layers_is_caught_by_its_check_alone(name: str, judged: Report) -> None:
    results = [one for one in judged["results"] if one["image"] == f"{name}@archive"]
    caught = set(DEFECTS[name].caught_by) if name in DEFECTS else set()
    outcomes = by_outcome({"results": results})
    assert outcomes.pop("failed", set()) == caught
    assert outcomes == {"passed": LAYERS - caught}
    for result in results:
        for finding in result["findings"]:
            budget = {"layer-large": ":2", "layer-secret": None, "layer-secret-text": None}.get(
                name, ":3"
            )
            assert (finding["source"] or "").endswith(budget or "")
            assert bool(finding["source"]) == bool(budget)


@pytest.mark.slow
def test_the_report_has_the_layers(judged: Report) -> None:
    rows = {one["id"].partition("@")[0]: one["layers"] for one in judged["images"]}
    assert [row["created_by"] for row in rows["good"]] == ["mlcheck reference build"]
    first, second, third = rows["layer-deleted"]
    assert first == rows["good"][0]
    assert second["hidden"] == second["size"] == 20_000_000
    assert (third["size"], third["hidden"], third["repeated"]) == (0, 0, 0)
    assert rows["layer-permissions"][1]["repeated"] == rows["layer-permissions"][1]["size"]
    assert rows["layer-cache"][1]["caches"] == 20_000_000


def test_the_limits_are_those_of_an_image_in_a_stream_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `docker save` sends it: files of all layers together, and each mention of a layer."""
    layers = [layer(*(member(f"{number}/{n}", A) for n in range(10))) for number in range(3)]
    monkeypatch.setattr("mlcheck.image.budget.ENTRY_LIMIT", 25)
    assert passing_by(docker_archive(tmp_path / "image.tar", layers[:2])).size > 0
    with pytest.raises(BrokenArchive, match="more than 25 files"):
        passing_by(docker_archive(tmp_path / "image.tar", layers))
