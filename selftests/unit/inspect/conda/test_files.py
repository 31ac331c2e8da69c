"""conda's records against files: what micromamba writes, what is broken, what is hostile."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mlcheck.engines.base import Later
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.conda import probe as conda_files
from mlcheck.inspect.conda import records as conda_records
from mlcheck.inspect.conda.facts import CondaRecords, FileContents, FilePresence
from mlcheck.inspect.deployed import probe as deployed
from mlcheck.inspect.packages import distributions
from mlcheck.model.files import File
from selftests.images import write

PREFIX = "opt/conda"
PLACEHOLDER = "/home/conda/feedstock_root/build_artifacts/x_1/_h_env_placehold_placehold_placehold"
EMPTY = hashlib.sha256().hexdigest()


def sha(content: bytes | str) -> str:
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()


def entry(path: str, content: bytes | str | None = None, **more: Any) -> dict[str, Any]:
    """An entry of paths_data as micromamba writes it for a file without the prefix in it."""
    found: dict[str, Any] = {"_path": path, "path_type": "hardlink"}
    if content is not None:
        size = len(content.encode() if isinstance(content, str) else content)
        digest = sha(content)
        found |= {"sha256": digest, "sha256_in_prefix": digest, "size_in_bytes": size}
    return found | more


def record(root: Path, *entries: dict[str, Any], name: str = "thing", **more: Any) -> None:
    data = {
        "name": name,
        "version": "1.0",
        "build": "0",
        "depends": [],
        "files": [item["_path"] for item in entries],
        "paths_data": {"paths": list(entries), "paths_version": 1},
    }
    write(root, f"{PREFIX}/conda-meta/{name}-1.0-0.json", json.dumps(data | more))


def probed(root: Path) -> tuple[CondaRecords, FilePresence, FileContents]:
    rootfs = DirectoryRootFS(root)
    recorded = conda_records.read(rootfs)
    return (
        recorded,
        conda_files.presence(rootfs, Later(lambda: recorded)),
        conda_files.contents(rootfs, Later(lambda: recorded)),
    )


def missing(root: Path) -> dict[str, str]:
    return {d.path.removeprefix("/opt/conda/"): d.found for d in probed(root)[1].missing}


def changed(root: Path) -> dict[str, str]:
    return {d.path.removeprefix("/opt/conda/"): d.found for d in probed(root)[2].changed}


def test_files_that_are_as_recorded(tmp_path: Path) -> None:
    write(tmp_path, f"{PREFIX}/lib/a", "a")
    write(tmp_path, f"{PREFIX}/lib/listed-only", "?")
    record(tmp_path, entry("lib/a", "a"), files=["lib/a", "lib/listed-only"])
    recorded, present, contents = probed(tmp_path)
    assert not recorded.problems
    assert (present.compared, present.missing) == (2, ())
    assert (contents.compared, contents.hashed, contents.size, contents.changed) == (1, 1, 1, ())


def test_two_records_of_one_package(tmp_path: Path) -> None:
    record(tmp_path, name="thing")
    record(tmp_path, name="thing", build="1")
    old = tmp_path / PREFIX / "conda-meta/thing-1.0-0.json"
    old.with_name("thing-1.0-1.json").write_text(old.read_text())
    (problem,) = probed(tmp_path)[0].problems
    assert problem.path == "/opt/conda/conda-meta/thing-1.0-1.json"
    assert "second record of thing" in problem.what


def test_missing_changed_and_another_size(tmp_path: Path) -> None:
    write(tmp_path, f"{PREFIX}/lib/b", "x")
    write(tmp_path, f"{PREFIX}/lib/c", "longer")
    record(tmp_path, entry("lib/a", "a"), entry("lib/b", "b"), entry("lib/c", "c"))
    assert missing(tmp_path) == {"lib/a": "missing"}
    assert changed(tmp_path) == {"lib/b": f"SHA-256 {sha('x')[:16]}...", "lib/c": "6 bytes"}
    # A wrong size tells enough: such a file is not hashed.
    assert probed(tmp_path)[2].hashed == 1


def test_byte_code_is_made_anew(tmp_path: Path) -> None:
    write(tmp_path, f"{PREFIX}/lib/b.pyc", "compiled again")
    record(
        tmp_path,
        {"_path": "lib/a.pyc", "path_type": "pyc_file"},
        entry("lib/b.pyc", "old"),
    )
    assert missing(tmp_path) == changed(tmp_path) == {}
    assert probed(tmp_path)[1].uncompiled == 1


def test_entry_points_are_made_at_installation(tmp_path: Path) -> None:
    write(tmp_path, f"{PREFIX}/bin/tool", "#!/usr/bin/env python3\n")
    record(
        tmp_path,
        {"_path": "bin/tool", "path_type": "unix_python_entry_point"},
        {"_path": "bin/gone", "path_type": "unix_python_entry_point"},
    )
    assert missing(tmp_path) == {"bin/gone": "missing"}
    assert changed(tmp_path) == {}


def test_links_have_the_hash_of_what_they_lead_to(tmp_path: Path) -> None:
    write(tmp_path, f"{PREFIX}/lib/real", "edited")
    for name, target in (("link", "real"), ("dangling", "nowhere"), ("broken", "nowhere")):
        (tmp_path / PREFIX / "lib" / name).symlink_to(target)
    soft = {"path_type": "softlink"}
    record(
        tmp_path,
        entry("lib/real", "real"),
        entry("lib/link", "real", **soft),
        # What led nowhere when it was installed has the hash of nothing.
        entry("lib/dangling", "build time", **(soft | {"sha256_in_prefix": EMPTY})),
        entry("lib/broken", "once there", **soft),
    )
    assert missing(tmp_path) == {"lib/broken": "a symlink to nowhere, which leads nowhere"}
    # The edited file is told once, not through its link again.
    assert set(changed(tmp_path)) == {"lib/real"}


def test_a_link_that_leads_to_another_file(tmp_path: Path) -> None:
    for name in ("libz.so.1.3", "libother.so"):
        write(tmp_path, f"{PREFIX}/lib/{name}", name)
    write(tmp_path, f"{PREFIX}/lib/copy", "libz.so.1.3")
    for name, target in (("libz.so", "libother.so"), ("libz.so.1", "libz.so.1.3"), ("x", "copy")):
        (tmp_path / PREFIX / "lib" / name).symlink_to(target)
    soft = {"path_type": "softlink"}
    record(
        tmp_path,
        *(entry("lib/libz.so.1.3", "libz.so.1.3"), entry("lib/libother.so", "libother.so")),
        *(entry(f"lib/{name}", "libz.so.1.3", **soft) for name in ("libz.so", "libz.so.1", "x")),
    )
    (found,) = changed(tmp_path).items()
    assert found[0] == "lib/libz.so"
    assert found[1].startswith("a symlink to libother.so: SHA-256 ")


def test_a_file_replaced_by_a_link(tmp_path: Path) -> None:
    write(tmp_path, "usr/lib64/libssl.so.3", "the system's")
    write(tmp_path, "usr/lib64/same", "own")
    (tmp_path / PREFIX / "lib").mkdir(parents=True)
    (tmp_path / PREFIX / "lib/libssl.so.3").symlink_to("/usr/lib64/libssl.so.3")
    (tmp_path / PREFIX / "lib/same").symlink_to("/usr/lib64/same")
    record(tmp_path, entry("lib/libssl.so.3", "the packages"), entry("lib/same", "own"))
    assert missing(tmp_path) == {}
    (found,) = changed(tmp_path).items()
    assert found[0] == "lib/libssl.so.3"
    assert found[1].startswith("a symlink to /usr/lib64/libssl.so.3: SHA-256 ")


def test_directories(tmp_path: Path) -> None:
    write(tmp_path, f"{PREFIX}/file", "")
    (tmp_path / PREFIX / "empty").mkdir()
    directory = {"path_type": "directory"}
    record(tmp_path, entry("empty", **directory), entry("file", **directory))
    assert missing(tmp_path) == {"file": "a file"}


def test_files_behind_links(tmp_path: Path) -> None:
    write(tmp_path, f"{PREFIX}/lib/a", "a")
    write(tmp_path, "usr/share/doc/b", "b")
    (tmp_path / PREFIX / "lib64").symlink_to("lib")
    (tmp_path / PREFIX / "share").symlink_to("/usr/share")
    (tmp_path / PREFIX / "gone").symlink_to("nowhere")
    (tmp_path / PREFIX / "round").symlink_to("round")
    (tmp_path / PREFIX / "self").symlink_to(".")
    there = ["lib64/a", "share/doc/b", "lib//./a", "self/self/lib64/a", "self/share/doc/b"]
    gone = ["lib64/b", "share/b", "gone/a", "round/a", "lib/a/b", "no/such/a", f"{'self/' * 60}a"]
    record(tmp_path, *(entry(path) for path in (*there, *gone)))
    assert missing(tmp_path) == dict.fromkeys(gone, "missing")


def test_a_record_of_files_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be a million: the image is asked for none of them."""
    (tmp_path / PREFIX / "lib").mkdir(parents=True)
    (tmp_path / PREFIX / "self").symlink_to(".")
    folders = ("lib", "self", "self/lib", "none", "none/deep")
    record(tmp_path, *(entry(f"{folder}/{n}") for n in range(100) for folder in folders))
    rootfs = DirectoryRootFS(tmp_path)
    recorded = conda_records.read(rootfs)
    asked: list[str] = []
    lstat = rootfs.lstat  # resolve asks it too

    def counted(path: str) -> File | None:
        asked.append(path)
        return lstat(path)

    monkeypatch.setattr(rootfs, "lstat", counted)
    monkeypatch.setattr(conda_files, "MOST_MISSING", 30)
    found = conda_files.presence(rootfs, Later(lambda: recorded))
    assert (found.compared, len(found.missing), found.more) == (500, 30, 470)
    assert asked == ["/opt/conda/self"]


def test_a_prefix_with_more_files_than_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conda_records, "FILES_LIMIT", 5)
    for name in ("one", "two"):
        record(tmp_path, *(entry(f"lib/{name}{n}") for n in range(3)), name=name)
    recorded, present, _ = probed(tmp_path)
    assert [one.what for one in recorded.problems] == [
        "brings the files of all records to more than 5"
    ]
    assert (len(recorded.records), present.compared) == (2, 3)
    first = (tmp_path / PREFIX / "conda-meta/one-1.0-0.json").stat().st_size
    monkeypatch.setattr(conda_records, "SIZE_LIMIT", first)
    recorded, present, _ = probed(tmp_path)
    (problem,) = recorded.problems
    assert problem.what.startswith("brings the size of all records to more than")
    assert (len(recorded.records), present.compared) == (1, 3)


def test_a_file_of_two_packages(tmp_path: Path) -> None:
    write(tmp_path, f"{PREFIX}/include/jpeglib.h", "turbo")
    record(tmp_path, entry("include/jpeglib.h", "jpeg"), name="jpeg")
    record(tmp_path, entry("include/jpeglib.h", "turbo"), name="libjpeg-turbo")
    assert changed(tmp_path) == {}
    write(tmp_path, f"{PREFIX}/include/jpeglib.h", "other")
    (found,) = probed(tmp_path)[2].changed
    assert found.packages == ("jpeg", "libjpeg-turbo")


def test_prefix_put_in_as_recorded(tmp_path: Path) -> None:
    before, after = f"prefix={PLACEHOLDER}\n", "prefix=/opt/conda\n"
    more = {"sha256_in_prefix": sha(after)}
    record(tmp_path, entry("a.pc", before, **more))
    write(tmp_path, f"{PREFIX}/a.pc", after)
    assert changed(tmp_path) == {}
    assert probed(tmp_path)[2].relocated == 1
    write(tmp_path, f"{PREFIX}/a.pc", before)
    assert changed(tmp_path) == {"a.pc": "as in the package: the prefix was not put in"}
    write(tmp_path, f"{PREFIX}/a.pc", before + "more\n")
    assert "placeholder" in changed(tmp_path)["a.pc"]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("binary", [True, False])
def test_prefix_put_in_and_only_the_content_before_is_known(
    tmp_path: Path, binary: bool, known: bool
) -> None:
    if binary:
        pad = b"\0" * (len(PLACEHOLDER) - len("/opt/conda"))
        before = b"\x7fELF\0" + PLACEHOLDER.encode() + b"/lib\0\0end"
        after = b"\x7fELF\0/opt/conda/lib" + pad + b"\0\0end"
    else:
        before = f"{PLACEHOLDER}/lib:{PLACEHOLDER}/bin\n".encode()
        after = b"/opt/conda/lib:/opt/conda/bin\n"
    write(tmp_path, f"{PREFIX}/file", after)
    more: dict[str, Any] = {"file_mode": "binary" if binary else "text"}
    if known:
        more |= {"prefix_placeholder": PLACEHOLDER, "sha256_in_prefix": None}
    record(tmp_path, entry("file", before, **more))
    contents = probed(tmp_path)[2]
    assert contents.changed == ()
    # With the placeholder the step is undone and proven; without it nothing can be said.
    assert (contents.relocated, len(contents.unjudged)) == ((1, 0) if known else (0, 1))


def test_a_record_of_the_installed_file_is_believed(tmp_path: Path) -> None:
    """Where another record tells the file as it was installed, this one does so too."""
    pad = b"\0" * (len(PLACEHOLDER) - len("/opt/conda"))
    before = b"\x7fELF\0" + PLACEHOLDER.encode() + b"/lib\0\0end"
    write(tmp_path, f"{PREFIX}/file", b"\x7fELF\0/opt/conda/lib" + pad + b"\0\0end")
    text = f"prefix={PLACEHOLDER}\n"
    write(tmp_path, f"{PREFIX}/a.pc", "prefix=/opt/conda\n")
    other = entry("a.pc", text, sha256_in_prefix=sha("prefix=/opt/conda\n"))
    record(tmp_path, entry("file", before), other)
    contents = probed(tmp_path)[2]
    assert (len(contents.changed), contents.unjudged) == (1, ())


def test_a_changed_file_that_happens_to_name_the_prefix(tmp_path: Path) -> None:
    write(tmp_path, f"{PREFIX}/file", "see /opt/conda, and something else\n")
    record(tmp_path, entry("file", "see below\n"))
    assert changed(tmp_path) == {"file": "35 bytes"}


@pytest.mark.parametrize(
    ("before", "after", "accepted"),
    [
        ("/opt/conda/bin/python3.11", "/usr/bin/env python3", True),
        ("/opt/conda/bin/python", "/opt/conda/bin/python3", True),
        ("/usr/bin/env python3", "/usr/bin/env python3.11", True),
        ("/usr/bin/env python", "/usr/bin/env -S python3 -I", True),
        ("/opt/conda/bin/python3.11", "/opt/conda/bin/../bin/python3", True),
        ("/opt/conda/bin/python", "/home/conda/feedstock_root/x/bin/python", False),
        ("/opt/conda/bin/python", "/usr/bin/env python2", False),
        ("/opt/conda/bin/python", "/bin/sh", False),
        ("/opt/conda/bin/python", "python3", False),
        ("/opt/conda/bin/python", "", False),
    ],
)
def test_first_lines_that_were_rewritten(
    tmp_path: Path, before: str, after: str, accepted: bool
) -> None:
    write(tmp_path, f"{PREFIX}/bin/python3.11", "")
    write(tmp_path, "bin/sh", "")
    (tmp_path / PREFIX / "bin/python3").symlink_to("python3.11")
    body = "import sys\nprint(sys.path)\n"
    write(tmp_path, f"{PREFIX}/share/tool", f"#!{after}\n{body}")
    record(tmp_path, entry("share/tool", f"#!{before}\n{body}"))
    contents = probed(tmp_path)[2]
    assert bool(contents.rewritten) is accepted
    assert bool(contents.changed) is not accepted


def test_a_first_line_that_was_rewritten(tmp_path: Path) -> None:
    write(tmp_path, f"{PREFIX}/bin/python3", "")
    body = "import sys\nprint(sys.path)\n"
    write(tmp_path, f"{PREFIX}/bin/tool", f"#!/usr/bin/env python3\n{body}")
    write(tmp_path, f"{PREFIX}/bin/other", f"#!/usr/bin/env python3\n{body}# more\n")
    original = f"#!/opt/conda/bin/python3.11\n{body}"
    record(tmp_path, entry("bin/tool", original), entry("bin/other", original))
    contents = probed(tmp_path)[2]
    assert contents.rewritten == ("/opt/conda/bin/tool",)
    assert [d.path for d in contents.changed] == ["/opt/conda/bin/other"]


def test_names_of_files_as_rattler_keeps_them(tmp_path: Path) -> None:
    write(tmp_path, f"{PREFIX}/lib/python3.11/site-packages/a.py", "a")
    write(tmp_path, f"{PREFIX}/bin/tool", "t")
    files = ["lib/python3.11/site-packages/a.py", "bin/tool"]
    record(
        tmp_path, entry("site-packages/a.py", "a"), entry("python-scripts/tool", "t"), files=files
    )
    assert missing(tmp_path) == changed(tmp_path) == {}
    assert probed(tmp_path)[2].compared == 2


def test_hostile_files_are_findings(tmp_path: Path) -> None:
    (tmp_path / PREFIX).mkdir(parents=True)
    os.mkfifo(tmp_path / PREFIX / "fifo")
    (tmp_path / PREFIX / "loop").symlink_to("loop")
    (tmp_path / PREFIX / "outside").symlink_to("/../../../../etc/passwd")
    (tmp_path / PREFIX / "directory").mkdir()
    names = ("fifo", "loop", "outside", "directory")
    record(tmp_path, *(entry(name, "content") for name in names))
    assert set(missing(tmp_path)) == {"loop", "outside", "directory"}
    assert changed(tmp_path) == {"fifo": "is a FIFO, not a regular file"}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("{", "is no JSON"),
        ("[]", "$.name and $.version must be text"),
        ({"name": "a", "version": 1}, "$.name and $.version must be text"),
        ({"name": "a", "version": "1", "depends": "b"}, "$.depends must be a list of text"),
        ({"name": "a", "version": "1", "files": [1]}, "$.files must be a list of text"),
        ({"name": "a", "version": "1", "paths_data": []}, "$.paths_data.paths must be a list"),
        ({"name": "a", "version": "1", "files": ["../../etc/shadow"]}, "is no path below"),
        ({"name": "a", "version": "1", "files": ["/etc/shadow"]}, "is no path below the prefix"),
        (
            {"name": "a", "version": "1", "paths_data": {"paths": [{"_path": 1}]}},
            "lists '', which is no path",
        ),
    ],
)
def test_a_broken_record_is_a_problem(tmp_path: Path, data: object, what: str) -> None:
    text = data if isinstance(data, str) else json.dumps(data)
    write(tmp_path, f"{PREFIX}/conda-meta/a-1-0.json", text)
    recorded, present, _ = probed(tmp_path)
    (problem,) = recorded.problems
    assert what in problem.what
    assert present.compared == 0


def test_hashes_and_sizes_of_other_types_say_nothing(tmp_path: Path) -> None:
    write(tmp_path, f"{PREFIX}/a", "a")
    record(tmp_path, {"_path": "a", "sha256": "ABC", "sha256_in_prefix": 7, "size_in_bytes": -1})
    _, present, contents = probed(tmp_path)
    assert (present.missing, contents.compared) == ((), 0)


def test_what_python_packages_require(tmp_path: Path) -> None:
    site = f"{PREFIX}/lib/python3.11/site-packages"
    header = "Metadata-Version: 2.1\nName: a\nVersion: 1\nRequires-Dist: b (>=2)\n"
    write(tmp_path, f"{site}/a-1.dist-info/METADATA", f"{header}\nRequires-Dist: in the text\n")
    write(tmp_path, f"{site}/bad-1.dist-info/METADATA", "Name: bad\n")
    write(tmp_path, f"{site}/empty-1.dist-info/RECORD", "")
    found = distributions.probe(DirectoryRootFS(tmp_path), "/opt/conda")
    assert found.python == "3.11"
    assert [(d.name, d.requires) for d in found.distributions] == [("a", ("b (>=2)",))]
    assert len(found.problems) == 2


def test_what_others_cannot_read(tmp_path: Path) -> None:
    write(tmp_path, "open/file", "", 0o644)
    write(tmp_path, "open/secret", "", 0o640)
    write(tmp_path, "closed/file", "", 0o600)
    (tmp_path / "closed").chmod(0o754)
    (tmp_path / "open").chmod(0o755)
    (tmp_path / "link").symlink_to("closed/file")
    found = deployed.unreadable(DirectoryRootFS(tmp_path))
    assert [file.path for file in found.files] == ["/closed", "/open/secret"]
    assert found.looked_at == 4
