"""The archive of links from which environments are made, made by hand and hostile."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from mlcheck.engines.base import PLAINLY
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.environments import archive as env_archive
from mlcheck.inspect.environments import probe as env_probe
from mlcheck.inspect.environments.facts import EnvArchive
from mlcheck.inspect.prefix.facts import PrefixPath
from mlcheck.model.files import File
from mlcheck.profile.catalog import Profile
from selftests import images

PATH = "/opt/conda/newEnv-base.tgz"


def member(name: str, kind: bytes = tarfile.SYMTYPE, to: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, to
    return found


def packed(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for entry in members:
            archive.addfile(entry, io.BytesIO(b"x" * entry.size))
    return buffer.getvalue()


def probe(root: Path, content: bytes) -> EnvArchive:
    images.write(root, "opt/conda/bin/python3", "")
    images.write(root, PATH.lstrip("/"), content)
    return env_archive.probe(DirectoryRootFS(root), PATH, "/opt/conda")


def test_links_files_and_directories(tmp_path: Path) -> None:
    script = member("etc/conda/activate.d/x-python.sh", tarfile.REGTYPE)
    script.size = 3
    found = probe(
        tmp_path,
        packed(
            member("bin", tarfile.DIRTYPE),
            member("bin/python3", to="../baseEnv_dir/bin/python3"),
            member("bin/gone", to="../baseEnv_dir/bin/gone"),
            script,
        ),
    )
    assert found.problems == ()
    assert (found.directories, found.files) == (1, {"etc/conda/activate.d/x-python.sh": 3})
    assert [(link.name, link.within, link.found) for link in found.links] == [
        ("bin/python3", "baseEnv_dir/bin/python3", True),
        ("bin/gone", "baseEnv_dir/bin/gone", False),
    ]


@pytest.mark.parametrize(
    "target", ["/opt/conda/bin/python3", "../../opt/conda/bin/python3", "..", "../.."]
)
def test_links_that_lead_out(tmp_path: Path, target: str) -> None:
    (link,) = probe(tmp_path, packed(member("bin/python3", to=target))).links
    if target == "..":  # the environment itself
        assert (link.within, link.found) == (".", False)
    else:
        assert (link.within, link.found) == (None, False)


def test_a_link_into_the_image_is_followed_inside_the_image(tmp_path: Path) -> None:
    (tmp_path / "opt/conda/bin").mkdir(parents=True)
    (tmp_path / "opt/conda/bin/out").symlink_to("/etc/passwd")
    (link,) = probe(tmp_path, packed(member("bin/out", to="../baseEnv_dir/bin/out"))).links
    assert not link.found


@pytest.mark.parametrize(
    ("name", "kind", "what"),
    [
        ("/etc/passwd", tarfile.REGTYPE, "is a path out of it"),
        ("../../x", tarfile.REGTYPE, "is a path out of it"),
        ("dev", tarfile.CHRTYPE, "device"),
        ("fifo", tarfile.FIFOTYPE, "FIFO"),
        ("hard", tarfile.LNKTYPE, "hard link"),
    ],
)
def test_members_that_are_refused(tmp_path: Path, name: str, kind: bytes, what: str) -> None:
    (problem,) = probe(tmp_path, packed(member(name, kind, "bin/python3"))).problems
    assert what in problem.what


def test_a_member_below_a_link_is_refused(tmp_path: Path) -> None:
    found = probe(
        tmp_path,
        packed(member("lib", to="../baseEnv_dir/lib"), member("lib/x", tarfile.REGTYPE)),
    )
    assert [problem.what for problem in found.problems] == [
        "its member 'lib/x' lies below the link 'lib'"
    ]


def test_what_lies_below_which_link(tmp_path: Path) -> None:
    links = [member(name, to="x") for name in ("lib", "lib/a/b", "c")]
    files = ["lib-1", "lib.d/x", "lib/a/b/c", "lib/z", "c/d/e", "d/lib/x", "libx"]
    found = probe(tmp_path, packed(*links, *(member(name, tarfile.REGTYPE) for name in files)))
    said = {problem.what.removeprefix("its member ") for problem in found.problems}
    assert said == {
        f"'{name}' lies below the link '{link}'"
        for name, link in (
            ("lib/a/b", "lib"),
            ("lib/a/b/c", "lib"),
            ("lib/z", "lib"),
            ("c/d/e", "c"),
        )
    }


def test_twice_the_same_name(tmp_path: Path) -> None:
    twice = packed(member("bin/a", to="b"), member("bin/a", to="../../x"))
    (problem,) = probe(tmp_path, twice).problems
    assert "twice" in problem.what


@pytest.mark.parametrize(
    "content", [b"", b"no gzip", b"\x1f\x8b\x08\0", gzip.compress(b"no tar", mtime=0)]
)
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    found = probe(tmp_path, content)
    assert not found.links
    assert "cannot be read as a .tgz" in found.problems[0].what


def test_no_header_is_read_byte_by_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither gzip's own, whose file name has no limit, nor a tar header of 300,000 digits."""
    reads = []
    pread = env_archive._Packed.pread

    def counted(self: env_archive._Packed, offset: int, count: int) -> bytes:
        reads.append(count)
        return pread(self, offset, count)

    monkeypatch.setattr(env_archive._Packed, "pread", counted)
    whole = packed(member("bin/python3", to="../baseEnv_dir/bin/python3"))
    named = whole[:3] + b"\x08" + whole[4:10] + b"n" * 10_000_000 + b"\0"
    named += whole[10:].split(b"\0", 1)[1] if whole[3] & 8 else whole[10:]
    assert [link.name for link in probe(tmp_path, named).links] == ["bin/python3"]
    assert len(reads) < 200
    digits = member("pax", tarfile.XHDTYPE)
    digits.size = 300_000
    pax = digits.tobuf(tarfile.USTAR_FORMAT) + b"1" * digits.size + bytes(1024)
    (problem,) = probe(tmp_path, gzip.compress(pax)).problems
    assert "it has a broken header" in problem.what
    digits.size = 400 * 1024**2
    (problem,) = probe(tmp_path, gzip.compress(digits.tobuf(tarfile.USTAR_FORMAT))).problems
    assert "it has a header of more than 1048576 bytes" in problem.what


def test_links_are_not_looked_for_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "opt/conda/bin").mkdir(parents=True)
    (tmp_path / "opt/conda/lib64").symlink_to("bin")
    (tmp_path / "opt/conda/gone").symlink_to("nowhere")
    images.write(tmp_path, PATH.lstrip("/"), b"")
    rootfs = DirectoryRootFS(tmp_path)
    names = [f"{place}/{n}" for place in ("bin", "lib64", "none", "gone/x") for n in range(100)]
    names += ["lib64/python3", "bin/python3", "gone"]
    images.write(tmp_path, "opt/conda/bin/python3", "")
    links = (member(f"{n}", to=f"baseEnv_dir/{name}") for n, name in enumerate(names))
    images.write(tmp_path, PATH.lstrip("/"), packed(*links))
    asked = []
    lstat = rootfs.lstat

    def counted(path: str) -> File | None:
        asked.append(path)
        return lstat(path)

    monkeypatch.setattr(rootfs, "lstat", counted)
    found = env_archive.probe(rootfs, PATH, "/opt/conda").links
    assert [link.target for link in found if link.found] == [
        "baseEnv_dir/lib64/python3",
        "baseEnv_dir/bin/python3",
    ]
    assert {*asked} <= {"/opt/conda/lib64", "/opt/conda/gone", PATH}
    assert len(asked) < 10


def test_names_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env_archive, "MOST_NAMES", 1024**2)
    many = (member(f"{n}{'/a' * 2000}", to="x" * 2000) for n in range(300))
    assert "has names of more than 1 MiB" in probe(tmp_path, packed(*many)).problems[0].what


def test_a_truncated_one_keeps_what_was_read(tmp_path: Path) -> None:
    whole = packed(*(member(f"bin/{n}", to=f"../baseEnv_dir/bin/{n}" * 5) for n in range(2000)))
    found = probe(tmp_path, whole[: len(whole) // 2])
    assert found.problems


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = member("big", tarfile.REGTYPE)
    big.size = 50 * 1024 * 1024
    bomb = gzip.compress(big.tobuf() + bytes(big.size + 1024))
    monkeypatch.setattr(env_archive, "MOST_BYTES", 1024 * 1024)
    assert "more than 1 MiB" in probe(tmp_path, bomb).problems[0].what
    monkeypatch.setattr(env_archive, "MOST_MEMBERS", 3)
    many = packed(*(member(f"bin/{n}", to="x") for n in range(5)))
    assert "more than 3 members" in probe(tmp_path, many).problems[0].what


def test_missing_and_no_file(tmp_path: Path) -> None:
    rootfs = DirectoryRootFS(tmp_path)
    assert env_archive.probe(rootfs, PATH, "/opt/conda").problems
    (tmp_path / PATH.lstrip("/")).mkdir(parents=True)
    assert env_archive.probe(rootfs, PATH, "/opt/conda").problems


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("unset A\n", ""),
        ("import os\n", "import"),
        ("if [ 1 ]; then\n", ""),
        ("true\nno_such_command_of_mine\n", "no_such_command_of_mine"),
        ("false\n", ""),
    ],
)
def test_scripts_for_leaving_compared_with_bash(tmp_path: Path, text: str, complaint: str) -> None:
    script = tmp_path / "leave.sh"
    script.write_text(text)
    words = ["bash", "-c", '. "$0"; echo "$?"', str(script)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={"PATH": "/bin"})
    last = "".join(done.stderr.splitlines()[-1:])
    said = [("leave", f"{done.stdout.strip()} {script} {last}")]
    found = env_probe._leaving(said)[str(script)]
    assert bool(found) == (last != "")
    assert complaint in found


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (b"unset A\n", True),
        (b"import os\nprint(os.environ)\n", False),
        (b"\x7fELF\0", False),
        (b"# nothing\n", False),
    ],
)
def test_scripts_in_the_archive(tmp_path: Path, text: bytes, good: bool) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        script = member("etc/conda/deactivate.d/x-python.sh", tarfile.REGTYPE)
        script.size = len(text)
        archive.addfile(script, io.BytesIO(text))
        archive.addfile(member("bin/python3", to="../baseEnv_dir/bin/python3"))
    images.write(tmp_path, "opt/conda/bin/python3", "")
    images.write(tmp_path, PATH.lstrip("/"), buffer.getvalue())
    promise = {"script": "/new.sh", "reuse": "enter.sh", "archive": PATH}
    profile = Profile.of({"prefix": "/opt/conda", "new_env": promise})
    found = env_archive.environment_archive(
        DirectoryRootFS(tmp_path), PLAINLY, profile, PrefixPath("/opt/conda")
    )
    assert [link.name for link in found.links] == ["bin/python3"]
    assert (found.problems == ()) == good
