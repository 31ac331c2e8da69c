"""Byte code that Python does not check, compared with what Python runs."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.conda import byte_code
from mlcheck.inspect.conda.facts import ByteCode
from selftests.images import write

SITE = "opt/conda/lib/python3.11/site-packages"
TAG = sys.implementation.cache_tag
MODE = py_compile.PycInvalidationMode


def probe(root: Path) -> ByteCode:
    return byte_code.probe(DirectoryRootFS(root), "/opt/conda")


@given(st.binary(max_size=100))
@settings(max_examples=200)
def test_hash_of_a_source_compared_with_python(source: bytes) -> None:
    key = int.from_bytes(importlib.util.MAGIC_NUMBER, "little")
    own = byte_code.sip_hash(key, 0, source, 1, 3).to_bytes(8, "little")
    assert own == importlib.util.source_hash(source)
    assert byte_code.source_hash(importlib.util.MAGIC_NUMBER, source) == own


def test_hash_of_older_pythons() -> None:
    """The example of SipHash's authors: https://131002.net/siphash/siphash.pdf, appendix A."""
    k0, k1 = 0x0706050403020100, 0x0F0E0D0C0B0A0908
    assert byte_code.sip_hash(k0, k1, bytes(range(15)), 2, 4) == 0xA129CA6149BE45E5
    magic_39 = (3425).to_bytes(2, "little") + b"\r\n"
    key = int.from_bytes(magic_39, "little")
    expected = byte_code.sip_hash(key, 0, b"x = 1\n", 2, 4).to_bytes(8, "little")
    assert byte_code.source_hash(magic_39, b"x = 1\n") == expected


@pytest.mark.parametrize("mode", list(MODE))
@pytest.mark.parametrize("changed", [True, False])
def test_stale_byte_code_compared_with_what_python_runs(
    tmp_path: Path, mode: py_compile.PycInvalidationMode, changed: bool
) -> None:
    source = write(tmp_path, f"{SITE}/constants.py", "pi = 3.5\n" if changed else "pi = 3.14\n")
    os.utime(source, (1_000_000_000, 1_000_000_000))
    cache = source.parent / f"__pycache__/constants.{TAG}.pyc"
    py_compile.compile(str(source), str(cache), invalidation_mode=mode)
    source.write_text("pi = 3.14\n")
    os.utime(source, (1_100_000_000, 1_100_000_000))
    argv = [sys.executable, "-B", "-c", "import constants; print(constants.pi)"]
    env = {**os.environ, "PYTHONPATH": str(source.parent)}
    said = subprocess.check_output(argv, env=env, text=True).strip()
    found = probe(tmp_path)
    assert bool(found.stale) is (said != "3.14")
    assert found.compared == (mode is MODE.UNCHECKED_HASH)


@pytest.mark.parametrize("content", [b"", b"\0" * 15, b"\xff" * 16, b"\0\0\r\n\1\0\0\0"])
def test_byte_code_that_is_none(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, f"{SITE}/x.py", "")
    write(tmp_path, f"{SITE}/__pycache__/x.{TAG}.pyc", content)
    assert probe(tmp_path).stale == ()


def test_byte_code_without_its_source_or_elsewhere(tmp_path: Path) -> None:
    header = importlib.util.MAGIC_NUMBER + b"\1\0\0\0" + b"x" * 8
    write(tmp_path, f"{SITE}/__pycache__/gone.{TAG}.pyc", header)
    write(tmp_path, f"{SITE}/x.py", "")
    write(tmp_path, f"{SITE}/x.pyc", header)
    assert probe(tmp_path).stale == ()
    write(tmp_path, f"{SITE}/__pycache__/x.{TAG}.opt-1.pyc", header)
    (stale,) = probe(tmp_path).stale
    assert (stale.source, stale.found) == (f"/{SITE}/x.py", "is of another source")
