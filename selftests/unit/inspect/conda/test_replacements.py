"""What an image has in place of a conda package's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.conda import replacements
from selftests.images import write

SSL = "/opt/conda/lib/libssl.so.3"
LIBRARY = b"\x7fELF\x02\x01\x01" + b"\0" * 9 + b"\x03\0\x3e\0" + b"\0" * 100


def problem(root: Path, by: str = "") -> str:
    (found,) = replacements.probe(DirectoryRootFS(root), [SSL], [by]).files
    return found.problem


@pytest.mark.parametrize("by", ["/usr/lib64", "/usr/lib64/libssl.so.3"])
def test_a_file_that_equals_another(tmp_path: Path, by: str) -> None:
    write(tmp_path, "usr/lib64/libssl.so.3.0.7", LIBRARY)
    (tmp_path / "usr/lib64/libssl.so.3").symlink_to("libssl.so.3.0.7")
    write(tmp_path, SSL[1:], LIBRARY)
    assert problem(tmp_path, by) == ""
    write(tmp_path, SSL[1:], b"0123456789")
    assert problem(tmp_path, by) == "neither the package's nor that file"
    (tmp_path / SSL[1:]).unlink()
    (tmp_path / SSL[1:]).symlink_to("/usr/lib64/libssl.so.3")
    assert problem(tmp_path, by) == ""
    (tmp_path / "usr/lib64/libssl.so.3").unlink()
    assert "libssl.so.3" in problem(tmp_path, by)


@pytest.mark.parametrize(
    ("content", "is_library"),
    [
        (LIBRARY, True),
        (b"\x7fELF\x02\x02\x01" + b"\0" * 9 + b"\0\x03\0\x16", True),
        (b"", False),
        (b"0123456789", False),
        (b"\x7fELF", False),
        (b"\x7fELF\x02\x01\x01" + b"\0" * 9 + b"\x01\0\x3e\0", False),
        (b"GROUP ( /usr/lib64/libssl.so.3 )\n", False),
    ],
)
def test_a_library_is_a_library(tmp_path: Path, content: bytes, is_library: bool) -> None:
    write(tmp_path, SSL[1:], content)
    assert (problem(tmp_path) == "") is is_library


def test_libraries_of_this_machine(tmp_path: Path) -> None:
    maps = Path("/proc/self/maps").read_text().splitlines()
    libraries = {line.split()[-1] for line in maps if ".so" in line}
    for library in sorted(libraries):
        write(tmp_path, SSL[1:], Path(library).read_bytes())
        assert problem(tmp_path) == "", library
