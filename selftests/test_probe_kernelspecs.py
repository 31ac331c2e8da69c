"""Kernelspecs: the directories, the shape of kernel.json, and what Jupyter says."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from mlcheck.engines.base import PLAINLY
from mlcheck.facts import Kernelspecs
from mlcheck.probes import kernelspecs, to_json
from selftests.images import opened, script, write

KERNELS = "opt/conda/share/jupyter/kernels"
GOOD = {
    "argv": ["python3-nohome", "-s", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
    "display_name": "ML-Python3",
    "language": "python",
    "metadata": {"debugger": True},
}


@pytest.fixture
def root(tiny_rootfs: Path, tmp_path: Path) -> Path:
    """An image of our own with the environment of the ML images."""
    root = Path(shutil.copytree(tiny_rootfs, tmp_path / "image", symlinks=True))
    write(
        root,
        ".singularity.d/env/10-docker2singularity.sh",
        "export PATH='/opt/conda/bin:/usr/bin:/bin'\n"
        "export CONDA_PREFIX='/opt/conda'\n"
        "export JUPYTER_PATH='/opt/conda/share/jupyter'\n",
    )
    return root


def probe(root: Path) -> Kernelspecs:
    with opened(root) as image:
        return kernelspecs.probe(image, PLAINLY)


def test_a_good_kernelspec(root: Path) -> None:
    write(root, f"{KERNELS}/python3/kernel.json", json.dumps(GOOD))
    script(root, "opt/conda/bin/python3-nohome", "true")
    (root / KERNELS / "no-kernel").mkdir()
    found = probe(root)
    (spec,) = found.specs
    assert spec.name == "python3"
    assert spec.path == f"/{KERNELS}/python3/kernel.json"
    assert list(spec.argv) == GOOD["argv"]
    assert (spec.display_name, spec.language) == ("ML-Python3", "python")
    assert spec.metadata == {"debugger": True}
    assert spec.env == {}
    assert spec.argv0 == "/opt/conda/bin/python3-nohome"
    assert not found.problems


def test_directories_in_jupyters_order_each_once(root: Path) -> None:
    (root / "home/ann").mkdir(parents=True)
    found = probe(root)
    assert found.searched[0] == f"/{KERNELS}"
    assert found.searched.count(f"/{KERNELS}") == 1
    for directory in ("/root/.local/share", "/home/ann/.local/share", "/usr/local/share"):
        assert f"{directory}/jupyter/kernels" in found.searched
    assert found.searched.index("/usr/local/share/jupyter/kernels") < found.searched.index(
        "/usr/share/jupyter/kernels"
    )


def test_kernels_of_user_and_system_are_found(root: Path) -> None:
    for top in ("root/.local/share", "home/ann/.local/share", "usr/share", "usr/local/share"):
        write(root, f"{top}/jupyter/kernels/{top.replace('/', '-')}/kernel.json", json.dumps(GOOD))
    assert len(probe(root).specs) == 4


@pytest.mark.parametrize(
    ("argv0", "expected"),
    [
        ("env", "/usr/bin/env"),
        ("/bin/env", "/bin/env"),
        ("absent", None),
        ("/absent", None),
        ("bin/env", None),
        ("plain", None),
        ("out", None),
        ("", None),
        ("a\0b", None),
    ],
)
def test_first_word_on_the_images_path(root: Path, argv0: str, expected: str | None) -> None:
    write(root, "opt/conda/bin/plain", "not executable")
    (root / "opt/conda/bin/out").symlink_to(shutil.which("git") or "/usr/bin/perl")
    write(root, f"{KERNELS}/x/kernel.json", json.dumps({**GOOD, "argv": [argv0]}))
    assert probe(root).specs[0].argv0 == expected


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"argv": None}, "$.argv"),
        ({"argv": []}, "$.argv"),
        ({"argv": "python3"}, "$.argv"),
        ({"argv": ["python3", 5]}, "$.argv[1]"),
        ({"display_name": 1}, "$.display_name"),
        ({"language": None}, "$.language"),
        ({"metadata": []}, "$.metadata"),
        ({"env": ["A=1"]}, "$.env"),
        ({"env": {"A": 1}}, "$.env['A']"),
        ({"interrupt_mode": "never"}, "$.interrupt_mode"),
    ],
)
def test_wrong_shapes_name_the_place(root: Path, change: dict[str, object], where: str) -> None:
    write(root, f"{KERNELS}/x/kernel.json", json.dumps({**GOOD, **change}))
    write(root, f"{KERNELS}/y/kernel.json", json.dumps(GOOD))
    found = probe(root)
    assert [spec.name for spec in found.specs] == ["y"]
    (problem,) = found.problems
    assert problem.path == f"/{KERNELS}/x/kernel.json"
    assert where in problem.what


@pytest.mark.parametrize("key", ["argv", "display_name", "language"])
def test_missing_keys(root: Path, key: str) -> None:
    rest = {name: value for name, value in GOOD.items() if name != key}
    write(root, f"{KERNELS}/x/kernel.json", json.dumps(rest))
    assert f"$.{key} is missing" in probe(root).problems[0].what


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{} {}",
        b"[]",
        b"null",
        b"\xff",
        b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
        b'{"argv": ["a"], "argv": ["b"], "display_name": "x", "language": "x"}',
        b'{"argv": ["a"], "display_name": "x", "language": "x", "metadata": {"x": NaN}}',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"[" * 500_000,
        b'{"argv": ["\\udc00"], "display_name": "x", "language": "x"}',
    ],
    ids=[
        *("empty", "two", "list", "null", "not UTF-8", "BOM", "key twice", "NaN"),
        *("deep lists", "deep objects", "half a megabyte", "half a pair"),
    ],
)
def test_what_is_no_kernelspec(root: Path, content: bytes) -> None:
    write(root, f"{KERNELS}/x/kernel.json", content)
    found = probe(root)
    assert not found.specs
    assert [problem.path for problem in found.problems] == [f"/{KERNELS}/x/kernel.json"]
    json.dumps(to_json(found))


def test_half_a_gigabyte(root: Path) -> None:
    with write(root, f"{KERNELS}/x/kernel.json", "").open("wb") as file:
        file.truncate(500 * 1024**2)
    began = time.monotonic()
    assert "larger" in probe(root).problems[0].what
    assert time.monotonic() - began < 5


def test_links(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kernel.json").write_text(json.dumps(GOOD))
    kernels = root / KERNELS
    kernels.mkdir(parents=True)
    write(root, "opt/elsewhere/kernel.json", json.dumps(GOOD))
    (kernels / "inside").symlink_to("/opt/elsewhere")
    (kernels / "host").symlink_to(outside)
    (kernels / "loop").symlink_to("loop")
    (kernels / "dangling").mkdir()
    (kernels / "dangling/kernel.json").symlink_to("/absent")
    found = probe(root)
    assert [spec.name for spec in found.specs] == ["inside"]
    assert [problem.path for problem in found.problems] == [f"/{KERNELS}/dangling/kernel.json"]


LISTED = '{"kernelspecs": {"python3": {"resource_dir": "/opt/k/python3", "spec": {}}}}'


def test_what_jupyter_lists(root: Path) -> None:
    script(root, "opt/conda/bin/jupyter", f"echo 'a {{ banner }}'; echo '{LISTED}'; echo bye")
    found = probe(root)
    assert found.listed == {"python3": "/opt/k/python3"}
    assert found.note == ""


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("exit 1", "exit code 1"),
        ("echo", "JSON"),
        ("echo '{}'", "kernelspecs"),
        ('echo \'{"kernelspecs": {"x": 1}}\'', "resource_dir"),
        ("exec yes '{'", "without end"),
    ],
)
def test_jupyter_that_does_not_answer(root: Path, text: str, word: str) -> None:
    script(root, "opt/conda/bin/jupyter", text)
    found = probe(root)
    assert found.listed is None
    assert word in found.note


def test_no_jupyter(root: Path) -> None:
    found = probe(root)
    assert found.listed is None
    assert "not on the image's PATH" in found.note
