"""What the benchmarks measure with and on; that each of them runs is shown by `make bench`."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

import pytest

from benchmarks import data, measure


def test_a_command_costs_time_and_memory() -> None:
    hungry = measure.run([sys.executable, "-c", "x = bytearray(64 * 2**20)"])
    modest = measure.run([sys.executable, "-c", ""])
    assert hungry.peak_mib > modest.peak_mib + 50


def test_a_command_that_fails_ends_the_benchmark_with_its_words() -> None:
    argv = [sys.executable, "-c", "import sys; sys.exit('no such peer')"]
    with pytest.raises(SystemExit, match="no such peer"):
        measure.run(argv)
    assert measure.run(argv, fine=(0, 1)).seconds > 0


def test_medians_of_rounds_after_one_that_warms() -> None:
    values = iter([90.0, 3.0, 1.0, 2.0])
    (cost,) = measure.in_turns(3, lambda: measure.Cost(next(values)))
    assert cost.seconds == 2.0


def test_a_table_stands_in_the_docs_as_it_is() -> None:
    table = measure.Table("Title", "About it.", ("a", "b"), [("1", "2")])
    section = (
        "## Title (`python -m benchmarks x`)\n\nAbout it.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    assert table.markdown("x") == section


def test_an_archive_is_what_docker_saves(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "os-release").write_text("ID=x\n")
    file = tmp_path / "image.tar"
    data.docker_archive([root], file)

    with tarfile.open(file) as archive:

        def member(name: str) -> bytes:
            found = archive.extractfile(name)
            assert found is not None
            return found.read()

        (manifest,) = json.loads(member("manifest.json"))
        config = json.loads(member(manifest["Config"]))
        layer = member(manifest["Layers"][0])
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as inner:
        assert "./etc/os-release" in inner.getnames()


def test_a_part_of_an_image_is_no_larger_than_asked_for(tmp_path: Path) -> None:
    packages = tmp_path / "image" / data.PREFIX / "lib/python3.11/site-packages"
    for number in range(10):
        directory = packages / f"package{number}"
        directory.mkdir(parents=True)
        (directory / "module.py").write_bytes(b"#" * 1000)
    data.part_of(tmp_path / "image", tmp_path / "part", 0.35)
    assert len(list((tmp_path / "part").rglob("module.py"))) == 3
