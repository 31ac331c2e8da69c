"""Imports in a real Python inside a sandbox."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcheck.engines.base import OpenImage
from mlcheck.inspect.packages import imports
from mlcheck.inspect.system import probe as system
from selftests import images

MODULES = {
    "good": "",
    "chatty": "print('imported', flush=True)\nimport sys; sys.stdout.write('no newline')",
    "mute": "import os, sys; sys.stdout = None; os.close(2)",
    "exits": "import os; os._exit(0)",
    "sysexit": "import sys; sys.exit('bye')",
    "boasts": "print('imported'); import os; os._exit(0)",
    "raises": "raise ValueError('first\\nlast line of it')",
    "odd": "raise Exception('\\udcff \\u2014')",
    "broken": "import absent_thing",
    "syntax": "def",
    "illegal": "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
    "lingers": "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()",
    "endless": "while True: print('x' * 10000)",
    "sleeps": "import time; time.sleep(600)",
}


@pytest.fixture(scope="module")
def image(tiny_rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenImage]:
    """An image with this machine's Python and the modules above."""
    root = Path(
        shutil.copytree(tiny_rootfs, tmp_path_factory.mktemp("python") / "image", symlinks=True)
    )
    program = Path(sys.base_prefix, "bin", Path(sys.executable).resolve().name).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    unneeded = ("test", "__pycache__", "site-packages", "dist-packages", "idlelib", "ensurepip")
    target = root / "opt/conda/lib" / library.name
    shutil.copytree(
        library, target, ignore=shutil.ignore_patterns(*unneeded, "config-*"), dirs_exist_ok=True
    )
    (root / "opt/conda/bin").mkdir()
    shutil.copy(program, root / "opt/conda/bin/python3")
    needing = [str(program), *map(str, library.glob("lib-dynload/zlib.*.so"))]
    said = subprocess.run(["ldd", *needing], capture_output=True, text=True, check=True).stdout
    for found in re.findall(r"(/\S+) \(0x", said):
        place = root / found.removeprefix("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            shutil.copy(found, place)
    for name, text in MODULES.items():
        (target / f"{name}.py").write_text(text)
    where = "import site, sys; print(site.getsitepackages()[-1], sys.prefix)"
    argv = [str(program), "-I", "-c", where]  # Debian's Python has no site-packages
    place, prefix = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    site = root / "opt/conda" / Path(place).relative_to(prefix)
    for name in ("plain", "shadowed", "unlisted"):
        images.write(site, f"{name}/__init__.py", "")
        images.write(site, f"{name}_x-1.5.dist-info/METADATA", f"Name: {name}-x\nVersion: 1.5\n")
        record = "" if name == "unlisted" else f"{name}/__init__.py,,\n"
        images.write(site, f"{name}_x-1.5.dist-info/RECORD", record)
    for name in ("shadowed", "unlisted"):
        (target / f"{name}.py").write_text("")  # the standard library comes first
    (root / ".singularity.d/env").mkdir(parents=True)
    (root / ".singularity.d/env/10-docker2singularity.sh").write_text(
        "export PATH='/opt/conda/bin:/usr/bin:/bin'\nexport PYTHONHOME='/opt/conda'\n"
        f"export LD_LIBRARY_PATH='{Path(sys.base_prefix, 'lib')}'\n"
    )
    with images.opened(root) as opened:
        yield opened


def error_of(image: OpenImage, module: str) -> str | None:
    (result,) = imports.probe(image, [module]).results
    assert result.module == module
    return result.error


def test_python_tells_who_it_is(image: OpenImage) -> None:
    found = system.python(image)
    assert found.info is not None, found.result
    assert found.info.executable == "/opt/conda/bin/python3"
    assert found.info.prefix == "/opt/conda"
    assert found.info.version.split(".")[:2] == [str(n) for n in sys.version_info[:2]]


@pytest.mark.parametrize("module", ["good", "chatty", "mute", "lingers", "json.decoder"])
def test_imported(image: OpenImage, module: str) -> None:
    assert error_of(image, module) is None


@pytest.mark.parametrize(
    ("module", "error"),
    [
        ("raises", "last line of it"),
        ("broken", "ModuleNotFoundError: No module named 'absent_thing'"),
        ("absent", "ModuleNotFoundError: No module named 'absent'"),
        ("sysexit", "SystemExit: bye"),
        ("odd", "Exception: \\udcff —"),
    ],
)
def test_last_line_of_the_traceback(image: OpenImage, module: str, error: str) -> None:
    assert error_of(image, module) == error


def test_syntax_error(image: OpenImage) -> None:
    assert (error_of(image, "syntax") or "").startswith("SyntaxError")


@pytest.mark.parametrize("module", ["exits", "boasts"])
def test_leaving_early_is_no_success(image: OpenImage, module: str) -> None:
    assert "exit code 0" in (error_of(image, module) or "")


def test_unknown_instruction(image: OpenImage) -> None:
    assert "SIGILL" in (error_of(image, "illegal") or "")


def test_printing_without_end(image: OpenImage) -> None:
    assert "without end" in (error_of(image, "endless") or "")


@pytest.mark.slow
def test_never_ending(image: OpenImage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "LIMIT_S", 1.0)
    assert error_of(image, "sleeps") == "python3 did not finish in 1 s"


def test_all_in_the_order_asked(image: OpenImage) -> None:
    names = ["good", "absent", "json", "raises"]
    found = imports.probe(image, names)
    assert [result.module for result in found.results] == names
    assert [result.error is None for result in found.results] == [True, False, True, False]
    assert imports.probe(image, []).results == ()


@pytest.mark.parametrize(
    ("module", "version"), [("plain", "1.5"), ("unlisted", "1.5"), ("json", "")]
)
def test_version_of_the_package_that_was_imported(
    image: OpenImage, module: str, version: str
) -> None:
    (result,) = imports.probe(image, [module], packages={module: f"{module}-x"}).results
    assert (result.error, result.version) == (None, version)


def test_a_module_of_another_package(image: OpenImage) -> None:
    (result,) = imports.probe(image, ["shadowed"], packages={"shadowed": "shadowed-x"}).results
    assert result.error is not None
    assert result.error.startswith("is imported from '/opt/conda/lib/python3")
    assert result.error.endswith("/shadowed.py', which is not of the package shadowed-x")


def test_another_interpreter(image: OpenImage) -> None:
    (result,) = imports.probe(image, ["json"], python="python9").results
    assert result.error == "python9 is not on the image's PATH"
