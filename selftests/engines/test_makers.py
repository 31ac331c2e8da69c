"""Archives and layouts as skopeo, buildah and umoci write them: what they hold is what went in."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mlcheck.engines import select
from mlcheck.engines.archive.engine import OpenArchive
from mlcheck.image.api import RootFS
from mlcheck.model.image_ref import ImageRef
from selftests.archives import layer, layout, member, write

LAYERS = [
    layer(
        member("etc", None),
        member("etc/hidden", "below"),
        member("etc/kept", "kept", mode=0o600),
        member("etc/hard", link="etc/kept"),
        member("etc/link", to="kept"),
        member("caf\u00e9", "a name"),
        member("opt", None),
        member("opt/below", "below an opaque directory"),
    ),
    layer(
        member("etc/.wh.hidden"),
        member("etc/kept2", "kept too" * 50_000),
        member("opt", None),
        member("opt/.wh..wh..opq"),
        member("opt/new", "new"),
    ),
]
ADDED = "added by the maker"


def made(*argv: str | Path, cwd: Path) -> str:
    """Run a program that must succeed."""
    if shutil.which(str(argv[0])) is None:
        pytest.skip(f"{argv[0]} is not installed")
    own = {"HOME": str(cwd), "XDG_DATA_HOME": str(cwd), "XDG_RUNTIME_DIR": str(cwd)}
    done = subprocess.run(argv, cwd=cwd, env=os.environ | own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def skopeo(cwd: Path, target: str, *options: str) -> None:
    made("skopeo", "--insecure-policy", "copy", "-q", *options, "oci:source", target, cwd=cwd)


def umoci(cwd: Path, target: str) -> None:
    directory = target.partition(":")[2]
    made("skopeo", "--insecure-policy", "copy", "-q", "oci:source", f"{target}:v1", cwd=cwd)
    made("umoci", "insert", "--rootless", "--image", f"{directory}:v1", "added", "/added", cwd=cwd)
    made("umoci", "gc", "--layout", directory, cwd=cwd)


def buildah(cwd: Path, target: str, *options: str) -> None:
    store: list[str] = ["--root", f"{cwd}/root", "--runroot", f"{cwd}/run"]
    store += ["--storage-driver", "vfs"]
    container = made("buildah", *store, "from", "oci:source", cwd=cwd)
    made("buildah", *store, "copy", container, "added", "/added", cwd=cwd)
    image = made("buildah", *store, "commit", "-q", container, cwd=cwd)
    made("buildah", *store, "push", "-q", *options, image, target, cwd=cwd)
    made("buildah", *store, "rm", container, cwd=cwd)


Make = Callable[..., None]
BY_ROOT = [pytest.mark.root_only, pytest.mark.slow]


@pytest.mark.parametrize(
    ("make", "target", "options"),
    [
        (skopeo, "docker-archive:image.tar", ()),
        (skopeo, "oci-archive:image.tar", ()),
        (skopeo, "oci:image", ("--dest-compress-format", "zstd")),
        (skopeo, "oci:image", ("--dest-compress-format", "zstd:chunked")),
        (umoci, "oci:image", ()),
        pytest.param(buildah, "docker-archive:image.tar", (), marks=BY_ROOT),
        pytest.param(buildah, "oci:image", ("--compression-format", "zstd"), marks=BY_ROOT),
    ],
)
def test_what_a_maker_wrote_is_what_went_in(
    tmp_path: Path, make: Make, target: str, options: tuple[str, ...]
) -> None:
    write(layout(LAYERS), tmp_path / "source", "oci")
    (tmp_path / "added").write_text(ADDED)
    make(tmp_path, target, *options)
    kind, _, name = target.partition(":")
    found = read(f"{kind}:{tmp_path / name}")
    expected = read(f"oci:{tmp_path / 'source'}")
    if make is not skopeo:
        assert found.pop("/added")[-1] == ADDED.encode()
    assert found == expected
    assert expected["/etc/kept"] == ("file", 0o600, 0, 0, None, b"kept")
    assert "/etc/hidden" not in expected
    assert "/opt/below" not in expected


def read(text: str) -> dict[str, tuple[object, ...]]:
    with select.open_image(ImageRef.parse(text), "archive") as image:
        assert isinstance(image, OpenArchive)
        return files(image.rootfs)


def files(rootfs: RootFS) -> dict[str, tuple[object, ...]]:
    """Every file but the root with what is in it."""
    return {
        file.path: (
            *(file.type, file.mode & 0o7777, file.uid, file.gid, file.target),
            rootfs.read(file.path, 1_000_000) if file.type == "file" else None,
        )
        for file in rootfs.walk("/")
    }
