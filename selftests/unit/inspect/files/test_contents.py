"""The contents of promised files, and the places of links, in directories."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

from mlcheck.engines.base import PLAINLY
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.files import contents
from mlcheck.inspect.files.facts import PromisedFiles
from mlcheck.inspect.system import probe as system
from mlcheck.machine import shell_syntax
from mlcheck.profile.catalog import Profile
from selftests.rules import judge

LONG_CASE = b"case $1 in\n+(a|b)) echo yes ;;\nesac\n"


def problem(root: Path, path: str, content: bytes, mode: int = 0o644) -> str | None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    file.chmod(mode)
    profile = Profile.of({"files": {f"/{path}": {}}})
    return contents.contents(PLAINLY, DirectoryRootFS(root), profile).problems.get(f"/{path}")


@pytest.mark.parametrize(
    ("path", "content", "mode", "said"),
    [
        ("setup.sh", b"#!/bin/sh\necho hello\n", 0o755, None),
        ("setup.sh", b"export A=1\n", 0o644, None),
        ("setup.sh", b"", 0o644, "is empty"),
        ("setup.sh", b" \n\n", 0o644, "is empty"),
        ("setup.sh", b"#!/bin/sh\n# nothing yet\n", 0o644, "has no command"),
        ("setup.sh", b"\x7fELF\0\0", 0o755, "is no shell script: it has a null byte"),
        ("setup.sh", b"#!/usr/bin/python3\nprint()\n", 0o644, "is no shell script: it begins"),
        ("setup.sh", b"<!DOCTYPE html>\n<html></html>\n", 0o644, "is no shell script but a page"),
        ("setup.sh", b"version https://git-lfs.github.com/spec/v1\n", 0o644, "is a pointer of Git"),
        ("setup.sh", b"import os\nprint(os.getcwd())\n", 0o644, "is no script of bash"),
        ("setup.sh", LONG_CASE, 0o644, None),
        ("setup.sh", b"if !(true); then echo; fi\n", 0o644, None),
        ("setup.csh", b"setenv A 1\n", 0o644, None),
        ("base.tgz", gzip.compress(b"x", mtime=0), 0o644, None),
        ("base.tgz", b"not packed\n", 0o644, "is no gzip file"),
        ("list.txt", b"numpy 1.0\n", 0o644, None),
        ("list.txt", b"", 0o644, "is empty"),
        ("check.py", b"print()\n", 0o644, None),
        ("check.py", b"\n", 0o644, "is empty"),
        ("usr/bin/tool", b"#!/bin/sh\n", 0o755, None),
        ("usr/bin/tool", b"\x7fELF", 0o755, None),
        ("usr/bin/tool", b"echo hello\n", 0o755, "is neither a program"),
        ("usr/bin/tool", b"", 0o755, "is empty"),
        ("etc/resolv.conf", b"", 0o644, None),
        ("etc/hosts", b"", 0o644, None),
        ("opt/.marker", b"", 0o644, None),
        ("lib64/libz.so.1", b"text\n", 0o755, "is no ELF file"),
        ("lib64/libc.so", b"/* GNU ld script */ GROUP ( libc.so.6 )\n", 0o644, None),
    ],
)
def test_kinds(tmp_path: Path, path: str, content: bytes, mode: int, said: str | None) -> None:
    answer = problem(tmp_path, path, content, mode)
    assert answer is None if said is None else (answer or "").startswith(said)


@pytest.mark.parametrize("name", ["setup.csh", "long.sh"])
def test_a_script_that_is_not_read_is_not_called_good(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell_syntax, "here", lambda: ("bash",))
    (tmp_path / name).write_bytes(b"echo a\n" * 200_000)
    profile = Profile.of({"files": {f"/{name}": {"mode": "0644"}}})
    rootfs = DirectoryRootFS(tmp_path)
    found = contents.contents(PLAINLY, rootfs, profile)
    assert not found.problems
    files = PromisedFiles(system.files(rootfs, [f"/{name}"]))
    verdict = judge("files", files, found, profile, None)
    assert not verdict.findings
    assert (verdict.untried or "").startswith(f"/{name} was not read: ")


SCRIPTS = [
    b"echo a\n",
    b"a() { echo; }\na\n",
    b"function a { echo; }\n",
    b"a=(1 2 3)\n",
    b"if true; then\n",
    b"if [ 1 ]; then echo; fi }\n",
    b"for x in a; do echo; done\n",
    b"case x in x) ;; esac\n",
    b"cat <<EOF\n$(\nEOF\n",
    b"echo 'unclosed\n",
    b"def f(x):\n    return x\n",
    b"x = [1, 2]\nprint(x)\n",
    b'{ "a": 1 }\n',
    b"[[ a == +(a) ]]\n",
    b"echo $(( 1 + \n",
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_compared_with_the_shell(tmp_path: Path, script: bytes) -> None:
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, check=False)
    assert (problem(tmp_path, "x.sh", script) is None) == (done.returncode == 0)


@pytest.mark.parametrize(
    ("name", "soname", "good"),
    [
        ("libtinfo.so.5", "libtinfo.so.5", True),
        ("libtinfo.so.5", "libtinfo.so.6", False),
        ("libtinfo.so.5.9", "libtinfo.so.5", True),
        ("libtinfo.so.5", None, True),
        ("libtinfo.so", "libtinfo.so.6", True),
        ("libssl.so.10", "libcrypto.so.3", False),
        ("libblas.so.3", "libopenblas.so.0", True),
        ("libblas.so.3", "libblas.so.4", False),
        ("libcrypto.so.10", "libcrypto.so.1", False),
    ],
)
def test_libraries(tmp_path: Path, name: str, soname: str | None, good: bool) -> None:
    source = tmp_path / "x.c"
    source.write_text("int mlcheck_probe(void) { return 42; }\n")
    library = tmp_path / "lib64" / "real"
    library.parent.mkdir()
    options = [f"-Wl,-soname,{soname}"] if soname else []
    subprocess.run(["cc", "-shared", "-fPIC", *options, "-o", library, source], check=True)
    (tmp_path / "lib64" / name).symlink_to("real")
    profile = Profile.of({"files": {f"/lib64/{name}": {"mode": "0755"}}})
    said = contents.contents(PLAINLY, DirectoryRootFS(tmp_path), profile).problems
    assert (said == {}) == good


@pytest.mark.parametrize(
    ("target", "leads", "good"),
    [
        ("../opt/conda/bin/zsh", "../opt/conda/bin/zsh", True),
        ("*/opt/conda/bin/zsh", "/opt/conda/bin/zsh", True),
        ("*/opt/conda/bin/zsh", "/opt/miniforge3/bin/zsh", True),
        ("*/opt/conda/bin/zsh", "/srv/opt/conda/bin/zsh", False),
        ("*/opt/conda/bin/z*", "/srv/opt/conda/bin/zsh", None),
    ],
)
def test_places(tmp_path: Path, target: str, leads: str, good: bool | None) -> None:
    for place in ("opt/miniforge3/bin", "srv/opt/conda/bin"):
        (tmp_path / place).mkdir(parents=True)
        shutil.copy("/bin/true", tmp_path / place / "zsh")
    (tmp_path / "opt/conda").symlink_to("miniforge3")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/zsh").symlink_to(leads)
    promise = {"type": "symlink", "target": target, "mode": "0755"}
    profile = Profile.of({"files": {"/bin/zsh": promise}})
    places = contents.contents(PLAINLY, DirectoryRootFS(tmp_path), profile).places
    if target.startswith("..") or good is None:
        assert places == {}
    else:
        must, led = places["/bin/zsh"]
        assert (must == led) == good
