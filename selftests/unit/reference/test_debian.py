"""Debian's packages in a reference image, which takes them with `--real`: a few small ones here.

ROOT and atlas-jupyter as a whole are tried by .ci/run; the others take more than is fetched there.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from mlcheck.model.errors import EngineError
from mlcheck.reference import debian, elf, system, tree
from mlcheck.reference.cache import Job
from selftests import images

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get here")


@pytest.fixture(scope="module")
def told() -> list[str]:
    """What building `small` told."""
    return []


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, told: list[str]) -> Path:
    """A system with four programs of Debian's: one needs libraries of its own, one is static."""
    root = tmp_path_factory.mktemp("small") / "root"
    root.mkdir()
    job = Job(told.append)
    system.lay_out(root, job)
    tree.write(root, "/usr/bin/tini", "#!/bin/sh\n# A stand-in.\n", 0o755)
    debian.add_programs(root, job, ["jq", "tini", "tree", "zip"])
    system.write_loader_cache(root, job)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("echo '[1, 42]' | jq '.[1]'", "42"),
        ("tini -- echo started", "started"),
        ("tini-static --version", "tini version"),
        ("tree --version", "tree v"),
        ("echo content | zip - - | tail -c +31 | head -c 1 | wc -c", "1"),
        ("test -r /usr/share/terminfo/x/xterm || test -r /lib/terminfo/x/xterm && echo it", "it"),
    ],
)
def test_programs_run_in_the_image(small: Path, command: str, answer: str) -> None:
    with images.opened(small) as opened:
        done = opened.run(["/bin/sh", "-c", command])
    assert done.stdout.decode().startswith(answer), done.stderr.decode()


@pytest.mark.slow
def test_programs_replace_stand_ins_without_documents(small: Path) -> None:
    assert elf.is_elf(small / "usr/bin/tini")
    assert elf.is_linked(small / "usr/bin/tini")
    assert not elf.is_linked(small / "usr/bin/tini-static")
    assert not (small / "usr/share/doc").exists()
    assert not (small / "usr/share/man").exists()


@pytest.mark.slow
def test_a_download_says_its_size(small: Path, told: list[str]) -> None:
    assert told, small
    for line in told:
        assert re.fullmatch(r"fetching \d+ of Debian's packages, \d+\.\d MB \.\.\.", line)


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/lib").mkdir(parents=True)
    with pytest.raises(EngineError, match=r"no-such-package-here.*could not be had") as caught:
        debian.add_programs(root, Job(), ["no-such-package-here"])
    assert "without --real" in caught.value.remedy
    assert [entry.name for entry in tmp_path.iterdir()] == ["root"]
