"""What images are compared in: files, their packages, tools, packages of R."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mlcheck.engines.base import PLAINLY
from mlcheck.inspect.packages import r_packages
from mlcheck.inspect.parity import probe as parity
from mlcheck.inspect.parity.facts import FileContent
from mlcheck.inspect.prefix import probe as prefixes
from selftests.images import opened, script, write

SITE = "opt/conda/lib/python3.11/site-packages"


def files(root: Path, prefix: str | None = "/opt/conda") -> dict[str, FileContent]:
    with opened(root) as image:
        return {
            file.path: file
            for file in parity.files(image.rootfs, prefixes.at(image.rootfs, prefix)).files
        }


def test_content_and_not_time_nor_byte_code(root: Path) -> None:
    for name, content in (("a", "1"), ("b", "1"), ("c", "2"), ("c.pyc", "2"), ("empty", "")):
        write(root, f"opt/{name}", content)
    os.link(root / "opt/c", root / "opt/hard")
    os.mkfifo(root / "opt/fifo")
    (root / "opt/__pycache__").mkdir()
    write(root, "opt/x/__pycache__", "no directory")
    found = files(root)
    assert "/opt/__pycache__" not in found
    assert "/opt/x/__pycache__" in found
    digests = {name: found[f"/opt/{name}"].digest for name in ("a", "b", "c", "hard", "fifo")}
    assert digests["a"] == digests["b"] != digests["c"] == digests["hard"]
    assert digests["fifo"] == ""
    assert found["/opt/empty"].digest
    assert "/opt/c.pyc" not in found


def test_what_engines_and_package_managers_note_is_left_out(root: Path) -> None:
    paths = ("etc/hosts", "run/x", "opt/conda/conda-meta/x.json", "var/lib/dpkg/status")
    for path in (*paths, "etc/hosts.allow"):
        write(root, path, "")
    found = files(root)
    assert not found.keys() & {f"/{path}" for path in paths}
    assert "/etc/hosts.allow" in found


def test_who_installed_a_file(root: Path) -> None:
    record = {"name": "Zlib", "version": "1", "files": ["lib/libz.so", f"{SITE[10:]}/n/x.py"]}
    write(root, "opt/conda/conda-meta/zlib-1-0.json", json.dumps(record))
    write(root, "opt/conda/lib/libz.so", "")
    write(root, f"{SITE}/n/x.py", "")
    write(root, f"{SITE}/n/y.py", "")
    write(root, f"{SITE}/n-1.dist-info/METADATA", "Name: N\nVersion: 1\n")
    rows = "n/x.py,,\nn/y.py,,\n../../../bin/n,,\n"
    write(root, f"{SITE}/n-1.dist-info/RECORD", rows)
    write(root, "opt/conda/bin/n", "")
    write(root, "var/lib/dpkg/info/tool:amd64.list", "/.\n/bin/tool\n")
    script(root, "usr/bin/tool", "true")
    found = files(root)
    assert {path: found[path].package for path in found if found[path].package} == {
        "/opt/conda/lib/libz.so": "conda:zlib",
        f"/{SITE}/n/x.py": "conda:zlib",
        f"/{SITE}/n/y.py": "pip:n",
        "/opt/conda/bin/n": "pip:n",
        "/usr/bin/tool": "dpkg:tool",  # the list says /bin, which leads to /usr/bin
    }


@pytest.mark.parametrize(
    "content", [b'"', b"\xff,\n", b"a\0b,\n", b"," * 200_000, b"../../../../x"]
)
def test_a_damaged_record_owns_nothing_that_matters(root: Path, content: bytes) -> None:
    write(root, f"{SITE}/n-1.dist-info/METADATA", "Name: n\nVersion: 1\n")
    write(root, f"{SITE}/n-1.dist-info/RECORD", content)
    assert f"/{SITE}/n-1.dist-info/RECORD" in files(root)


def test_a_file_that_is_too_large_is_not_read(root: Path) -> None:
    with write(root, "opt/sparse", "").open("r+b") as file:
        file.truncate(parity.FILE_LIMIT + 1)
    with opened(root) as image:
        found = parity.files(image.rootfs, prefixes.find(image.rootfs))
    assert found.unread == 1
    (sparse,) = (file for file in found.files if file.path == "/opt/sparse")
    assert (sparse.digest, sparse.size) == ("", parity.FILE_LIMIT + 1)


def test_tools_are_what_path_starts(root: Path) -> None:
    for path in ("opt/conda/bin/tool", "usr/bin/tool", "usr/bin/other"):
        script(root, path, "true")
    write(root, "opt/conda/bin/data", "", 0o644)
    (root / "opt/conda/bin/link").symlink_to("/usr/bin/other")
    (root / "opt/conda/bin/nowhere").symlink_to("/nowhere")
    env = "export PATH=/opt/conda/bin:relative:/nothing:/usr/bin\n"
    write(root, ".singularity.d/env/10-docker2singularity.sh", env)
    with opened(root) as image:
        found = parity.tools(image.rootfs, image.environment).paths
    assert found["tool"] == "/opt/conda/bin/tool"
    assert found["other"] == "/usr/bin/other"
    assert found["link"] == "/opt/conda/bin/link"
    assert not {"data", "nowhere"} & found.keys()


def test_packages_of_r(root: Path) -> None:
    record = {"name": "r-dplyr", "version": "1.1", "files": ["lib/R/library/dplyr/DESCRIPTION"]}
    write(root, "opt/conda/conda-meta/r-dplyr-1.1-0.json", json.dumps(record))
    for library, name in (("opt/conda/lib", "dplyr"), ("usr/lib", "base"), ("usr/lib", "broken")):
        text = f"Package: {name}\nVersion: 1.1\nAuthor: A\n  Version: 9\n\nVersion: 8\n"
        text = "\n" if name == "broken" else text
        write(root, f"{library}/R/library/{name}/DESCRIPTION", text)
    with opened(root) as image:
        found = r_packages.probe(image.rootfs, prefixes.find(image.rootfs))
    assert [(p.name, p.version, p.owner) for p in found.packages] == [
        ("base", "1.1", ""),
        ("dplyr", "1.1", "r-dplyr"),
    ]
    assert [problem.path for problem in found.problems] == ["/usr/lib/R/library/broken/DESCRIPTION"]


def test_all_of_an_image(root: Path) -> None:
    write(root, "usr/lib/R/library/base/DESCRIPTION", "Package: base\nVersion: 4\n")
    dist = "usr/local/lib/python3.11/dist-packages/six-1.dist-info/METADATA"
    write(root, dist, "Name: six\nVersion: 1\n")
    with opened(root) as image:
        side = parity.probe(image, PLAINLY, "it")
    assert {(p.name, p.source) for p in side.packages.packages} == {
        ("base", "R"),
        ("six", "dist-info"),
    }
    assert not side.owns
