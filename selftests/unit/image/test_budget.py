"""What an archive can multiply is counted for the image as a whole: bytes and steps, never time."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mlcheck.engines import select
from mlcheck.image import budget, byte_sources
from mlcheck.image.byte_sources import Inflated, _zstd
from mlcheck.image.layers import index_layer
from mlcheck.image.tar_headers import BrokenArchive
from mlcheck.model.errors import EngineError, MlcheckError, UsageError
from mlcheck.model.image_ref import ImageRef
from selftests.archives import configuration, docker_archive, layer, member

EMPTY = {
    "frames": _zstd().compress(b""),
    "skippable frames": b"\x50\x2a\x4d\x18\0\0\0\0",
    "members": gzip.compress(b"", mtime=0),
}


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def pread(self, offset: int, count: int) -> bytes:
        return self.data[offset : offset + count]


def look(path: Path) -> None:
    """Open an image, walk through it, and read its layers."""
    with select.open_image(ImageRef.parse(f"docker-archive:{path}"), "archive") as image:
        for file in image.rootfs.walk("/"):
            image.rootfs.resolve(file.path)
        assert image.layers is not None
        image.layers.read(lambda _: False, lambda *_: None)


def refused(path: Path, kind: type[MlcheckError] = EngineError) -> str:
    with pytest.raises(kind) as caught:
        look(path)
    assert caught.type is kind
    return str(caught.value)


def named(times: int, path: Path, files: int) -> Path:
    """An image that names one layer several times."""
    one = layer(*(member(f"f{number}") for number in range(files)))
    config = configuration([one] * times)
    table = [{"Config": "config.json", "RepoTags": None, "Layers": ["layer.tar"] * times}]
    content = {
        "config.json": config,
        "layer.tar": one,
        "manifest.json": json.dumps(table).encode(),
    }
    path.write_bytes(layer(*(member(name, data) for name, data in content.items())))
    return path


# Compression


@pytest.mark.parametrize("kind", EMPTY)
def test_empty_parts_are_read_in_linear_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a decompressor does not use of its input is copied: it gets little at a time."""
    given: list[int] = []
    real = byte_sources._Input.next

    def counting(self: byte_sources._Input) -> memoryview:
        found = real(self)
        given.append(len(found))
        return found

    monkeypatch.setattr(byte_sources._Input, "next", counting)
    pack = gzip.compress if kind == "members" else _zstd().compress
    source = Bytes(EMPTY[kind] * 2000 + pack(b"content"))
    how = byte_sources.compression(source.data)
    assert how is not None
    assert Inflated(source, how, budget.Budget()).pread(0, 100) == b"content"
    assert sum(given) < 2100 * 512


@pytest.mark.parametrize("kind", EMPTY)
def test_empty_parts_count(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "INFLATED_FREE", 100 * budget.MEMBER_COST)
    pack = gzip.compress if kind == "members" else _zstd().compress
    source = Bytes(EMPTY[kind] * 1000 + pack(b"content"))
    how = byte_sources.compression(source.data)
    assert how is not None
    with pytest.raises(BrokenArchive, match="when decompressed"):
        Inflated(source, how, budget.Budget()).pread(0, 100)


def test_many_small_parts_are_read_anywhere() -> None:
    for pack in (gzip.compress, _zstd().compress):
        data = bytes(range(256)) * 8
        source = Bytes(b"".join(pack(data[at : at + 3]) for at in range(0, len(data), 3)))
        how = byte_sources.compression(source.data)
        assert how is not None
        found = Inflated(source, how, budget.Budget())
        assert found.pread(0, 5000) == data
        assert [found.pread(at, 7) for at in (2000, 3, 999)] == [
            data[at : at + 7] for at in (2000, 3, 999)
        ]


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_the_limit_of_decompressed_bytes_is_that_of_the_image(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "INFLATED_FREE", 1_000_000)
    layers = [layer(member(f"f{number}", bytes(400_000))) for number in range(4)]
    look(docker_archive(tmp_path / "two.tar", layers[:2], how=how))
    assert "when decompressed" in refused(docker_archive(tmp_path / "four.tar", layers, how=how))


def test_more_may_come_out_of_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "INFLATED_FREE", 1000)
    one = budget.Budget(stored=100)
    one.inflate(1000 + 100 * budget.INFLATED_RATIO)
    with pytest.raises(budget.OverBudget, match="an image of 100 B"):
        one.inflate(1)
    monkeypatch.setattr(budget, "INFLATED_LIMIT", 1200)
    with pytest.raises(budget.OverBudget, match=r"1\.2 kB"):
        budget.Budget(stored=100).inflate(1201)


def test_what_is_kept_is_kept_for_all_layers_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_sources, "BLOCK", 1000)
    monkeypatch.setattr(budget, "BLOCKS", 5)
    monkeypatch.setattr(budget, "CURSORS", 2)
    one = budget.Budget()
    data = bytes(50_000)
    layers = [Inflated(Bytes(gzip.compress(data)), "gzip", one) for _ in range(10)]
    for at in (40_000, 0, 20_000):
        assert all(layer.pread(at, 1000) == data[:1000] for layer in layers)
    assert (len(one.blocks.items()), len(one.cursors.items())) == (5, 2)


# Files


def test_the_limit_of_files_is_that_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "ENTRY_LIMIT", 50)
    layers = [layer(*(member(f"{n}/{m}") for m in range(20))) for n in range(3)]
    look(docker_archive(tmp_path / "x.tar", layers[:2]))
    assert "more than 50 files" in refused(docker_archive(tmp_path / "x.tar", layers))


def test_a_layer_that_is_named_again_is_read_once_and_counts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counting(*arguments: object, **more: object) -> object:
        read.append(str(arguments[1]))
        return index_layer(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("mlcheck.engines.archive.engine.index_layer", counting)
    look(named(60, tmp_path / "x.tar", files=10))
    assert len(read) == 1
    monkeypatch.setattr(budget, "ENTRY_LIMIT", 500)
    look(named(50, tmp_path / "x.tar", files=10))
    assert "more than 500 files" in refused(named(60, tmp_path / "x.tar", files=10))


def test_the_number_of_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlcheck.engines.archive.contents.LAYER_LIMIT", 20)
    look(named(20, tmp_path / "x.tar", files=1))
    assert "has 21 layers" in refused(named(21, tmp_path / "x.tar", files=1), UsageError)


def test_directories_that_are_only_implied_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "ENTRY_LIMIT", 1000)
    deep = [member(f"{number}/{'d/' * 100}x") for number in range(20)]
    look(docker_archive(tmp_path / "x.tar", [layer(*deep[:5])]))
    assert "more than 1000 files" in refused(docker_archive(tmp_path / "x.tar", [layer(*deep)]))


def test_names_count_as_long_as_links_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "NAMES_LIMIT", 10_000)
    members = [member("/".join("d" * 100) + "/x"), member("l", to="/".join("d" * 100))]
    members += [member(f"l/{number}") for number in range(100)]
    path = docker_archive(tmp_path / "x.tar", [layer(*members)])
    assert "characters of names" in refused(path)


# Links


@pytest.mark.parametrize("fields", [{"to": "t/" * 3000}, {"link": "t/" * 3000}])
def test_targets_that_no_system_can_hold(fields: dict[str, str], tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "x.tar", [layer(member("l", **fields))])
    assert "it has 6000 characters" in refused(path)


def below_a_link(count: int) -> list[bytes]:
    return [member(f"{place}/{number}") for number in range(count) for place in ("l0", "a")]


def links_to_a_link(count: int) -> list[bytes]:
    return [member(f"b{number}", to="l0") for number in range(count)]


def hard_links(count: int) -> list[bytes]:
    return [member("l0/x"), *(member(f"h{n}", link="l0/x") for n in range(count))]


@pytest.mark.parametrize("made", [below_a_link, links_to_a_link, hard_links])
def test_links_times_targets(
    made: Callable[[int], list[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is reached through a chain of links with long targets."""
    monkeypatch.setattr(budget, "STEP_LIMIT", 50_000)
    chain = [member("a", None), member("l5", None)]
    chain += [member(f"l{n}", to="a/../" * 100 + f"l{n + 1}") for n in range(5)]
    look(docker_archive(tmp_path / "x.tar", [layer(*chain, *made(10))]))
    path = docker_archive(tmp_path / "x.tar", [layer(*chain, *made(100))])
    assert "more than 50000 steps" in refused(path)
