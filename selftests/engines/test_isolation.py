"""What an image must not reach from inside: tried with things that the test itself has made."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from selftests.images import copy_programs

_WITH_A_KEY = """
import ctypes, subprocess, sys
libc = ctypes.CDLL(None)
libc.syscall(250, 1, None)  # keyctl: join a session keyring of our own
key = libc.syscall(248, b"user", sys.argv[1].encode(), b"secret", 6, -3)  # add_key: to that
libc.syscall(250, 5, key, 0x3f000000)  # keyctl: only for those who have the keyring
sys.exit(subprocess.run(sys.argv[2:]).returncode)
"""
"""Runs a command with a key in its session keyring; the numbers are those of x86_64."""


@pytest.mark.engine("apptainer")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls of x86_64")
def test_the_callers_keyring_is_not_the_images(tmp_path: Path, tiny_rootfs: Path) -> None:
    root = tmp_path / "small:v1"
    shutil.copytree(tiny_rootfs, root, symlinks=True)
    copy_programs(root, ["cat"])

    def keys(*before: str) -> str:
        argv = [sys.executable, "-c", _WITH_A_KEY, tmp_path.name, *before, "cat", "/proc/keys"]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    if tmp_path.name not in keys():
        pytest.skip("this kernel has no keyrings for this user")
    said = keys(sys.executable, "-m", "mlcheck.cli", "exec", "--engine=apptainer", str(root), "--")
    assert "keyring" in said
    assert tmp_path.name not in said
