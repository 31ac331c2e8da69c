"""Archives that are damaged, or made to do harm: a message for people each time."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mlcheck.engines import select
from mlcheck.engines.oci.archive import renamed
from mlcheck.image import budget, byte_sources
from mlcheck.image.byte_sources import _zstd
from mlcheck.model.errors import EngineError, MlcheckError, UsageError
from mlcheck.model.image_ref import ImageRef
from selftests.archives import digest, docker_archive, layer, layout, member, packed, write

DIR = None
APPTAINER = pytest.mark.engine("apptainer")
LAYER = layer(member("a", DIR), member("a/x", os.urandom(100_000)))


def look(text: str) -> None:
    """Open an image and read all of it."""
    with select.open_image(ImageRef.parse(text), "archive") as image:
        for file in image.rootfs.walk("/"):
            if file.type == "file":
                with image.rootfs.open(file.path) as content:
                    while content.read(1024 * 1024):
                        pass


def refused(kind: type[MlcheckError], text: str) -> str:
    with pytest.raises(kind) as caught:
        look(text)
    assert caught.type is kind
    assert caught.value.remedy
    return caught.value.what


# The archive


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:count])


@pytest.mark.parametrize("how", ["", "gzip", "zstd"])
def test_truncated(how: str, tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "x.tar", [LAYER], how=how)
    cut(path, 60_000)
    assert "broke off" in refused(UsageError, f"docker-archive:{path}")


@pytest.mark.parametrize("how", ["", "gzip", "zstd"])
def test_an_archive_on_its_way_to_an_engine(how: str, tmp_path: Path) -> None:
    """It is decompressed and gets the name that is given; a truncated one is refused."""
    path = docker_archive(tmp_path / "x.tar", [LAYER], tag="other:tag")
    path.write_bytes(packed(path.read_bytes(), how))
    sent = b"".join(renamed(path, "given:name"))
    with tarfile.open(fileobj=io.BytesIO(sent)) as tar:
        table = tar.extractfile("manifest.json")
        assert table is not None
        (image,) = json.load(table)
        stored = tar.extractfile(image["Layers"][0])
        assert stored is not None
        assert (image["RepoTags"], stored.read()) == (["given:name"], LAYER)
    cut(path, 60_000)
    with pytest.raises(UsageError, match="is no image archive: it broke off"):
        list(renamed(path, "given:name"))


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_truncated_layer(how: str, tmp_path: Path) -> None:
    name = next(iter(names_of_layers([LAYER])))
    part = packed(LAYER, how)[:50_000]
    path = docker_archive(tmp_path / "x.tar", [LAYER], changed={name: part})
    assert "broke off" in refused(EngineError, f"docker-archive:{path}")


def names_of_layers(layers: list[bytes]) -> list[str]:
    return [f"{digest(one)[7:]}-{n}/layer.tar" for n, one in enumerate(layers)]


def test_a_layer_that_is_cut_where_a_file_is(tmp_path: Path) -> None:
    (name,) = names_of_layers([LAYER])
    path = docker_archive(tmp_path / "x.tar", [LAYER], changed={name: LAYER[:50_000]})
    assert "broke off" in refused(EngineError, f"docker-archive:{path}")


@pytest.mark.parametrize("how", ["gzip", "zstd"])
@pytest.mark.parametrize("at", [20, 50_000, -3])
def test_a_corrupt_layer(how: str, at: int, tmp_path: Path) -> None:
    (name,) = names_of_layers([LAYER])
    stored = bytearray(gzip.compress(LAYER, mtime=0))
    if how == "zstd":
        checked = {_zstd().CompressionParameter.checksum_flag: 1}
        stored = bytearray(_zstd().compress(LAYER, options=checked))
    stored[at] ^= 0x55
    path = docker_archive(tmp_path / "x.tar", [LAYER], changed={name: bytes(stored)})
    with pytest.raises(EngineError, match=r"the archive of the layer sha256:.* (is damaged|has a)"):
        look(f"docker-archive:{path}")


@pytest.mark.slow
def test_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "INFLATED_FREE", 50_000_000)
    bomb = layer(member("a", bytes(60_000_000)))
    for how in ("gzip", "zstd"):
        path = docker_archive(tmp_path / "x.tar", [bomb], how=how)
        assert "when decompressed" in refused(EngineError, f"docker-archive:{path}")
    path.write_bytes(gzip.compress(docker_archive(tmp_path / "y.tar", [bomb]).read_bytes()))
    assert "when decompressed" in refused(UsageError, f"docker-archive:{path}")


def test_a_window_that_no_layer_needs(tmp_path: Path) -> None:
    (name,) = names_of_layers([LAYER])
    options = {_zstd().CompressionParameter.window_log: byte_sources.WINDOW_LIMIT + 1}
    compressor = _zstd().ZstdCompressor(options=options)
    stored = compressor.compress(LAYER) + compressor.flush()
    path = docker_archive(tmp_path / "x.tar", [LAYER], changed={name: stored})
    assert "is damaged" in refused(EngineError, f"docker-archive:{path}")


@pytest.mark.parametrize(
    ("limit", "value"), [("ENTRY_LIMIT", 20), ("NAMES_LIMIT", 1000)], ids=["files", "names"]
)
def test_more_than_can_be_kept(
    limit: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = layer(*(member(f"{n:050}") for n in range(40)))
    path = docker_archive(tmp_path / "x.tar", [many])
    monkeypatch.setattr(budget, limit, value)
    assert "has more than" in refused(EngineError, f"docker-archive:{path}")


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([member("../x")], "leads out of its directory"),
        ([member("a/../../x")], "leads out of its directory"),
        ([member("x"), member("l", link="../x")], "leads out of its directory"),
        ([member("f"), member("f/x")], "which is no directory"),
        ([member("l", to="l"), member("l/x")], "which is no directory"),
        ([member("l", link="none")], "which is no file"),
        ([member("d", DIR), member("l", link="d")], "to a directory"),
        ([member("/", "root")], "in place of the root directory"),
        ([member("d/.wh...")], "a whiteout of '..'"),
        ([member("d/.wh.")], "a whiteout of ''"),
        ([member("d/" * 2100 + "x")], "no program can open"),
        ([member("x")[:-300] + b"garbage" * 100], "has a broken header"),
    ],
)
def test_layers_that_are_refused(members: list[bytes], why: str, tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "x.tar", [layer(*members)])
    assert why in refused(EngineError, f"docker-archive:{path}")


def test_links_stay_inside_the_image(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    members = [
        member("up", to="../" * 30 + str(secret)[1:]),
        member("absolute", to=str(secret)),
        member("into", to=str(tmp_path)),
        member("into/written", "x"),
    ]
    path = docker_archive(tmp_path / "x.tar", [layer(*members)])
    with select.open_image(ImageRef.parse(f"docker-archive:{path}"), "archive") as image:
        for name in ("/up", "/absolute", "/into/secret"):
            assert image.rootfs.resolve(name).final is None
        assert image.rootfs.read(f"{tmp_path}/written", 9) == b"x"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["secret", "x.tar"]


# Documents


def of_docker(change: Callable[[dict[str, bytes]], None], path: Path) -> str:
    """A docker archive whose files were changed."""
    files: dict[str, bytes] = {}
    docker_archive(path, [LAYER])
    with tarfile.open(path) as tar:
        for one in tar:
            content = tar.extractfile(one)
            files[one.name] = content.read() if content else b""
    change(files)
    path.write_bytes(layer(*(member(name, data) for name, data in files.items())))
    return f"docker-archive:{path}"


def config_name(files: dict[str, bytes]) -> str:
    return next(name for name in files if name.endswith(".json") and name != "manifest.json")


def drop(ending: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        for name in [name for name in files if name.endswith(ending)]:
            del files[name]

    return change


def two_images(files: dict[str, bytes]) -> None:
    (image,) = json.loads(files["manifest.json"])
    files["manifest.json"] = json.dumps([image, {**image, "Layers": []}]).encode()


def other_config(files: dict[str, bytes]) -> None:
    name = config_name(files)
    files[name] = files[name].replace(b"amd64", b"arm64")


def less_layers(files: dict[str, bytes]) -> None:
    table = json.loads(files["manifest.json"])
    table[0]["Layers"] = []
    files["manifest.json"] = json.dumps(table).encode()


def no_json(files: dict[str, bytes]) -> None:
    files["manifest.json"] = b"[{"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (drop("layer.tar"), "is damaged"),
        (drop("manifest.json"), "is damaged, or no image of kind docker-archive"),
        (two_images, "holds 2 images; which one is meant is not known"),
        (other_config, "does not pin what is stored under it"),
        (less_layers, "has 0 layers, and its configuration tells of 1"),
        (no_json, ""),
    ],
)
def test_docker_archives_that_are_refused(
    change: Callable[[dict[str, bytes]], None], why: str, tmp_path: Path
) -> None:
    assert why in refused(UsageError, of_docker(change, tmp_path / "x.tar"))


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
@pytest.mark.parametrize(("which", "why"), [(0, "damaged"), (1, "damaged"), (2, "damaged")])
def test_a_missing_blob(kind: str, which: int, why: str, tmp_path: Path) -> None:
    files = layout([LAYER])
    blobs = [name for name in files if name.startswith("blobs")]
    del files[blobs[which]]
    found = refused(UsageError, f"{kind}:{write(files, tmp_path / 'x', kind)}")
    assert why in found or "cannot be read" in found


@pytest.mark.parametrize("which", [0, 2])
def test_a_wrong_digest(which: int, tmp_path: Path) -> None:
    """Of the configuration and of the manifest."""
    files = layout([LAYER])
    blobs = [name for name in files if name.startswith("blobs")]
    files[blobs[which]] += b" "
    found = refused(UsageError, f"oci:{write(files, tmp_path / 'x', 'oci')}")
    assert "does not pin what is stored under it" in found


def test_a_blob_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    files = layout([LAYER])
    place = write(files, tmp_path / "x", "oci")
    blob = place / next(name for name in files if name.startswith("blobs"))
    blob.rename(tmp_path / "elsewhere")
    blob.symlink_to(tmp_path / "elsewhere")
    assert "cannot be read" in refused(UsageError, f"oci:{place}")


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256", "index.json"])
@pytest.mark.parametrize("engine", ["archive", pytest.param("apptainer", marks=APPTAINER)])
def test_no_link_leads_out_of_a_layout(engine: str, name: str, tmp_path: Path) -> None:
    place = write(layout([LAYER]), tmp_path / "x", "oci")
    (place / name).rename(tmp_path / "elsewhere")
    (place / name).symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(MlcheckError) as caught,
        select.open_image(ImageRef.parse(f"oci:{place}"), engine),
    ):
        pass
    assert caught.type is UsageError
    said = "cannot be read" if engine == "archive" else f"{place / name} is a link"
    assert said in str(caught.value)


@pytest.mark.parametrize("size", [2**63 - 1, 2**63, 2**70, 2**80])
@pytest.mark.parametrize("name", ["manifest.json", "layer"])
def test_sizes_beyond_any_file(name: str, size: int, tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "x.tar", [LAYER])
    data = bytearray(path.read_bytes())
    at = data.index(b"manifest.json" if name == "manifest.json" else b"/layer.tar") // 512 * 512
    data[at + 124 : at + 136] = b"\x80" + size.to_bytes(11, "big")
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    path.write_bytes(data)
    refused(UsageError, f"docker-archive:{path}")


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "no regular file" in refused(UsageError, f"docker-archive:{tmp_path / 'fifo'}")
    (tmp_path / "empty").touch()
    assert "is no tar archive" in refused(UsageError, f"docker-archive:{tmp_path / 'empty'}")
    (tmp_path / "text").write_text("no archive" * 1000)
    assert "is no tar archive" in refused(UsageError, f"docker-archive:{tmp_path / 'text'}")


def test_an_archive_that_changed_since_it_was_made_ready(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "x.tar", [LAYER])
    engine = select.engine("archive")
    with engine.prepare(ImageRef.parse(f"docker-archive:{path}")) as prepared:
        docker_archive(path, [LAYER, LAYER])
        with pytest.raises(EngineError, match="has changed"), engine.open(prepared):
            pass


def test_other_kinds(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not open this kind"):
        look(f"{tmp_path}/")
