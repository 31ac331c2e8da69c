"""What is installed: real records and databases, and broken ones."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import sysconfig
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from importlib import metadata
from pathlib import Path

import pytest

from mlcheck.engines.base import Plainly
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.packages import installed
from mlcheck.inspect.packages import rpm_database as rpm_database_probe
from mlcheck.inspect.packages.facts import InstalledPackages
from mlcheck.inspect.prefix import probe as prefixes
from selftests.checkout import CHECKOUT
from selftests.images import opened, script, write

SITE = "opt/conda/lib/python3.11/site-packages"
ENV_FILE = ".singularity.d/env/10-docker2singularity.sh"


def probe(root: Path) -> InstalledPackages:
    with opened(root) as image:
        return installed.probe(image, Plainly(), prefixes.at(image.rootfs, "/opt/conda"))


def versions(found: InstalledPackages, source: str) -> dict[str, str]:
    return {p.name: p.version for p in found.packages if p.source == source}


def problem_paths(found: InstalledPackages) -> list[str]:
    return [problem.path for problem in found.problems]


def test_nothing_at_all(root: Path) -> None:
    found = probe(root)
    assert not found.packages
    assert not found.sources
    assert not found.problems
    assert len(found.notes) == 5


def test_conda_owns_what_its_record_lists(root: Path) -> None:
    owned, free = "numpy-1.26.4.dist-info", "pipenv-2023.12.1.dist-info"
    record = {
        "name": "numpy-base",
        "version": "1.26.4",
        "files": [f"lib/python3.11/site-packages/{owned}/METADATA", "bin/f2py"],
    }
    write(root, "opt/conda/conda-meta/numpy-base-1.26.4-0.json", json.dumps(record))
    write(root, "opt/conda/conda-meta/history", "==> 2024 <==\n")
    write(root, f"{SITE}/{owned}/METADATA", "Name: numpy\nVersion: 1.26.4\n\nVersion: 9\n")
    write(root, f"{SITE}/{free}/METADATA", "Name: pipenv\nVersion: 2023.12.1\n")
    found = probe(root)
    assert versions(found, "conda") == {"numpy-base": "1.26.4"}
    assert versions(found, "dist-info") == {"numpy": "1.26.4", "pipenv": "2023.12.1"}
    owners = {p.name: p.owner for p in found.packages if p.source == "dist-info"}
    assert owners == {"numpy": "numpy-base", "pipenv": ""}
    assert found.sources == {"conda", "dist-info"}
    assert not found.problems


def test_eggs_of_both_kinds_and_the_short_link(root: Path) -> None:
    write(root, f"{SITE}/old.egg-info", "Name: old\r\nVersion: 1.0\r\n\r\ntext\r\n")
    write(root, f"{SITE}/less_old.egg-info/PKG-INFO", "Name: less-old\nVersion: 2.0\n")
    (root / "opt/conda/lib/python3.1").symlink_to("python3.11")
    found = probe(root)
    assert versions(found, "dist-info") == {"old": "1.0", "less-old": "2.0"}
    assert len(found.packages) == 2
    assert {p.record.split("/")[4] for p in found.packages} == {"python3.11"}


def test_python_packages_of_this_environment(root: Path) -> None:
    """The same as importlib.metadata says."""
    here = Path(sysconfig.get_path("purelib"))
    for source in here.glob("*.dist-info/METADATA"):
        write(root, f"{SITE}/{source.parent.name}/METADATA", source.read_bytes())
    expected = {d.metadata["Name"]: d.version for d in metadata.distributions(path=[str(here)])}
    assert expected
    assert versions(probe(root), "dist-info") == expected


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"name": "x"}',
        b'{"name": 5, "version": "1"}',
        b'{"name": "x", "version": "1", "files": "all"}',
        b'{"name": "x", "version": "1", "files": [1]}',
        b'{"name": "x", "version": "1", "name": "y"}',
        b'{"name": "x", "version": NaN}',
        b'\xef\xbb\xbf{"name": "x", "version": "1"}',
        b'{"name": "\xff", "version": "1"}',
        b'{"name": "\\ud800", "version": "1"}',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"name": "x", "version": "1", "depends": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"name": "x", "version": ' + b"9" * 10_000 + b"}",
    ],
)
def test_broken_conda_records(root: Path, content: bytes) -> None:
    write(root, "opt/conda/conda-meta/bad-1-0.json", content)
    write(root, "opt/conda/conda-meta/good-1-0.json", '{"name": "good", "version": "1"}')
    found = probe(root)
    assert versions(found, "conda") == {"good": "1"}
    assert problem_paths(found) == ["/opt/conda/conda-meta/bad-1-0.json"]


def test_record_of_half_a_gigabyte(root: Path) -> None:
    with write(root, "opt/conda/conda-meta/big-1-0.json", "").open("wb") as file:
        file.truncate(500 * 1024**2)
    assert problem_paths(probe(root)) == ["/opt/conda/conda-meta/big-1-0.json"]


def test_record_outside_the_image(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret.json"
    outside.write_text('{"name": "secret", "version": "1"}')
    directory = root / "opt/conda/conda-meta"
    directory.mkdir(parents=True)
    (directory / "absolute.json").symlink_to(outside)
    (directory / "relative.json").symlink_to("../" * 20 + str(outside).lstrip("/"))
    found = probe(root)
    assert not found.packages
    assert len(found.problems) == 2


@pytest.mark.parametrize("content", [b"", b"Name: x\n", b"\xff\xfe\0", b"Name: x\n\nVersion: 1\n"])
def test_broken_python_metadata(root: Path, content: bytes) -> None:
    write(root, f"{SITE}/x.dist-info/METADATA", content)
    assert problem_paths(probe(root)) == [f"/{SITE}/x.dist-info/METADATA"]


def test_python_metadata_that_is_missing(root: Path) -> None:
    (root / SITE / "x.dist-info").mkdir(parents=True)
    assert problem_paths(probe(root)) == [f"/{SITE}/x.dist-info/METADATA"]


def test_dpkg(root: Path) -> None:
    write(
        root,
        "var/lib/dpkg/status",
        "Package: bzip2\nStatus: install ok installed\nArchitecture: amd64\n"
        "Version: 1.0.8-5+b1\nDescription: blocks\n Package: no\n .\n more\n\n"
        "Package: git\nStatus: install ok installed\nVersion: 1:2.39.5-0+deb12u2\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n"
        "Package: never\nStatus: unknown ok not-installed\nVersion: 1\n",
    )
    found = probe(root)
    assert versions(found, "dpkg") == {"bzip2": "1.0.8-5+b1", "git": "2.39.5-0+deb12u2"}
    assert [p.arch for p in found.packages] == ["amd64", ""]
    assert not found.problems


STATES = [
    *("install ok installed", "install ok triggers-awaited", "install ok triggers-pending"),
    *("hold ok installed", "deinstall ok config-files", "install ok unpacked"),
    *("install ok half-configured", "install reinstreq half-installed", "purge ok not-installed"),
]


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="this machine has no dpkg")
def test_states_of_packages_compared_with_dpkg(root: Path) -> None:
    """A package counts if dpkg lists it with its files in place and set up."""
    for number, state in enumerate(STATES):
        with (
            (root / "var/lib/dpkg/status").open("a")
            if number
            else write(root, "var/lib/dpkg/status", "").open("a") as file
        ):
            file.write(
                f"Package: p{number}\nStatus: {state}\nMaintainer: x\nArchitecture: amd64\n"
                f"Version: 2:1.{number}-3\nDescription: x\n"
            )
            config = "Config-Version: 2:1.0-3\n" if "half-configured" in state else ""
            triggers = {"triggers-pending": "Triggers-Pending: x\n"}.get(state.split()[-1], "")
            awaited = {"triggers-awaited": "Triggers-Awaited: p0\n"}.get(state.split()[-1], "")
            file.write(f"{config}{triggers}{awaited}\n")
    argv = ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W"]
    argv += ["-f", "${db:Status-Abbrev}${Package} ${Version}\\n"]
    said = subprocess.check_output(argv, text=True)
    # The second letter: i installed, W triggers awaited, t triggers pending.
    rows = [line.split() for line in said.splitlines() if line[1] in "iWt"]
    assert len(rows) == 4
    expected = {name: version.partition(":")[2] for _, name, version in rows}
    assert versions(probe(root), "dpkg") == expected


def test_apk(root: Path) -> None:
    """https://wiki.alpinelinux.org/wiki/Apk_spec: what is in the database is installed."""
    write(
        root,
        "lib/apk/db/installed",
        "C:Q1abc=\nP:musl\nV:1.2.5-r0\nA:x86_64\nS:1\nI:2\nT:the musl c library\no:musl\n"
        "p:so:libc.musl-x86_64.so.1=1\nF:lib\nR:ld-musl-x86_64.so.1\na:0:0:755\nZ:Q1x=\n\n"
        "P:busybox\nV:1.36.1-r29\nA:x86_64\n\nP:broken\n\n",
    )
    found = probe(root)
    assert versions(found, "apk") == {"musl": "1.2.5-r0", "busybox": "1.36.1-r29"}
    assert {p.arch for p in found.packages} == {"x86_64"}
    assert found.sources == {"apk"}
    assert problem_paths(found) == ["/lib/apk/db/installed"]


@pytest.mark.parametrize("listed", ["lib/python3.1/site-packages", "site-packages"])
def test_conda_owns_what_its_paths_lead_to(root: Path, listed: str) -> None:
    """A link that conda makes, and a noarch package whose record names files as it does itself."""
    write(root, f"{SITE}/graphviz-0.20.3.dist-info/METADATA", "Name: graphviz\nVersion: 0.20.3\n")
    (root / "opt/conda/lib/python3.1").symlink_to("python3.11")
    files = [f"{listed}/graphviz-0.20.3.dist-info/METADATA"]
    record = {"name": "python-graphviz", "version": "0.20.3", "files": files}
    write(root, "opt/conda/conda-meta/python-graphviz-0.20.3-0.json", json.dumps(record))
    assert [p.owner for p in probe(root).packages if p.source == "dist-info"] == ["python-graphviz"]


@pytest.mark.parametrize(("version", "replaced"), [("5.1.0", True), ("5.0.13", False)])
def test_pip_over_a_package_of_conda(root: Path, version: str, replaced: bool) -> None:
    files = ["lib/python3.11/site-packages/uproot-5.0.13.dist-info/METADATA"]
    record = {"name": "uproot", "version": "5.0.13", "files": files}
    write(root, "opt/conda/conda-meta/uproot-5.0.13-0.json", json.dumps(record))
    write(
        root, f"{SITE}/uproot-{version}.dist-info/METADATA", f"Name: uproot\nVersion: {version}\n"
    )
    (conda,) = (p for p in probe(root).packages if p.source == "conda")
    assert bool(conda.replaced) is replaced


def test_dpkg_of_distroless(root: Path) -> None:
    write(root, "var/lib/dpkg/status.d/tzdata", "Package: tzdata\nVersion: 2024a-0\n")
    write(root, "var/lib/dpkg/status.d/tzdata.md5sums", "d41d8cd98f00b204e9800998ecf8427e  x\n")
    assert versions(probe(root), "dpkg") == {"tzdata": "2024a-0"}


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="this machine has no dpkg")
def test_dpkg_of_this_machine(root: Path) -> None:
    write(root, "var/lib/dpkg/status", Path("/var/lib/dpkg/status").read_bytes())
    form = "${db:Status-Status} ${Package} ${Architecture} ${Version}\\n"
    said = subprocess.check_output(["dpkg-query", "-W", "-f", form], text=True)
    rows = [line.split() for line in said.splitlines()]
    expected = {(p, a, v.partition(":")[2] or v) for s, p, a, v in rows if s == "installed"}
    found = probe(root)
    assert {(p.name, p.arch, p.version) for p in found.packages} == expected


def test_micromamba_says_its_version(root: Path) -> None:
    script(root, "bin/micromamba", "echo a banner; echo 2.1.0")
    found = probe(root)
    assert versions(found, "micromamba") == {"micromamba": "2.1.0"}
    assert found.packages[0].record == "/bin/micromamba"


def test_micromamba_where_the_environment_says(root: Path) -> None:
    script(root, "bin/micromamba", "echo 1.5.1")
    script(root, "opt/mm", "echo 2.0.4")
    write(root, ENV_FILE, "export MAMBA_EXE='/opt/mm'\n")
    assert versions(probe(root), "micromamba") == {"micromamba": "2.0.4"}


@pytest.mark.parametrize("text", ["exit 3", "echo", "echo no version", "kill -ILL $$"])
def test_micromamba_that_does_not_answer(root: Path, text: str) -> None:
    script(root, "bin/micromamba", text)
    found = probe(root)
    assert "micromamba" not in found.sources
    assert problem_paths(found) == ["/bin/micromamba"]


# rpm


def header(tags: dict[int, str]) -> bytes:
    """A package's header as rpm stores it, all tags of type string."""
    store = b""
    entries = b""
    for tag, value in tags.items():
        entries += struct.pack(">IIII", tag, 6, len(store), 1)
        store += value.encode() + b"\0"
    return struct.pack(">II", len(tags), len(store)) + entries + store


BZIP2 = {1000: "bzip2", 1001: "1.0.8", 1002: "8.el9", 1022: "x86_64"}
TABLE = "CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)"
DATABASE = "var/lib/rpm/rpmdb.sqlite"


def rpm_database(root: Path, *blobs: object, table: str = TABLE) -> Path:
    path = write(root, DATABASE, b"")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(table)
        for blob in blobs:
            connection.execute("INSERT INTO Packages (blob) VALUES (?)", (blob,))
        connection.commit()
    return path


def test_rpm_database(root: Path) -> None:
    key = {1000: "gpg-pubkey", 1001: "8483c65d", 1002: "5ccc5b19"}
    rpm_database(root, header(BZIP2), header(key))
    found = probe(root)
    assert versions(found, "rpm") == {"bzip2": "1.0.8-8.el9", "gpg-pubkey": "8483c65d-5ccc5b19"}
    assert [(p.arch, p.record) for p in found.packages] == [
        ("x86_64", f"/{DATABASE}"),
        ("", f"/{DATABASE}"),
    ]
    assert not found.problems


def test_rpm_database_with_changes_in_its_log(root: Path) -> None:
    path = rpm_database(root, header(BZIP2))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        late = header({**BZIP2, 1000: "late"})
        connection.execute("INSERT INTO Packages (blob) VALUES (?)", (late,))
        connection.commit()
        assert path.with_name("rpmdb.sqlite-wal").stat().st_size
        assert set(versions(probe(root), "rpm")) == {"bzip2", "late"}


GOOD = header(BZIP2)


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        GOOD[:-1],
        GOOD + b"\0",
        GOOD[:-7],
        b"\xff" * 8 + GOOD[8:],
        header({1000: "x", 1001: "1"}),
        header({1000: "", 1001: "1", 1002: "1"}),
        header({**BZIP2, 1001: "9" * 10_000}),
        struct.pack(">IIIIII", 1, 2, 1000, 6, 1 << 31, 1) + b"a\0",
        "text",
    ],
)
def test_damaged_rpm_headers(root: Path, blob: object) -> None:
    rpm_database(root, GOOD, blob)
    found = probe(root)
    assert problem_paths(found) == [f"/{DATABASE}"]
    assert "rpm" not in found.sources


@pytest.mark.parametrize(
    "table",
    [
        "CREATE TABLE Other (blob BLOB)",
        "CREATE VIEW Packages AS SELECT 1 AS hnum, zeroblob(900000000) AS blob",
        "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, "
        "blob BLOB GENERATED ALWAYS AS (zeroblob(hnum)) VIRTUAL)",
        "CREATE VIEW Packages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT i AS hnum, i AS blob FROM n",
    ],
    ids=["other table", "large view", "computed column", "endless view"],
)
def test_rpm_database_of_another_shape(root: Path, table: str) -> None:
    path = write(root, DATABASE, b"")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(table)
    assert problem_paths(probe(root)) == [f"/{DATABASE}"]


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 4096])
def test_rpm_database_that_is_none(root: Path, content: bytes) -> None:
    write(root, DATABASE, content)
    assert problem_paths(probe(root)) == [f"/{DATABASE}"]


def test_rpm_database_with_a_schema_that_is_not_text(root: Path) -> None:
    path = rpm_database(root, GOOD)
    for wrong in (b"CREATE TABL\xff 'Packages'", b"CREATE TABLE '\xffackages'"):
        content = path.read_bytes()
        write(root, DATABASE, content.replace(b"CREATE TABLE 'Packages'", wrong))
        assert problem_paths(probe(root)) == [f"/{DATABASE}"]
        write(root, DATABASE, content)


def test_rpm_database_with_holes_takes_neither_memory_nor_disk(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 100 * 1024**2
    os.truncate(rpm_database(root, GOOD), size)
    on_disk = []
    blobs = rpm_database_probe._blobs

    def looking(connection: sqlite3.Connection, path: str) -> Iterator[bytes]:
        (_, _, copy) = connection.execute("PRAGMA database_list").fetchone()
        on_disk.append((Path(copy).stat().st_size, Path(copy).stat().st_blocks * 512))
        return blobs(connection, path)

    monkeypatch.setattr(rpm_database_probe, "_blobs", looking)
    tracemalloc.start()
    try:
        found = rpm_database_probe.read_sqlite(DirectoryRootFS(root), f"/{DATABASE}")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [package.name for package in found] == ["bzip2"]
    ((there, taken),) = on_disk
    assert there == size
    assert taken < size / 10
    assert most < size / 10


def test_the_copy_of_an_rpm_database_does_not_outlive_a_kill(root: Path, tmp_path: Path) -> None:
    rpm_database(root, GOOD)
    write(root, f"{DATABASE}-wal", b"\0" * 1024)
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from mlcheck.image.rootfs import DirectoryRootFS\n"
        "from mlcheck.inspect.packages import rpm_database\n"
        "def killed(*_):\n"
        "    print(len(list(Path(os.environ['TMPDIR']).glob('*/*'))), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "rpm_database._blobs = killed\n"
        f"rpm_database.read_sqlite(DirectoryRootFS(Path(sys.argv[1])), '/{DATABASE}')\n"
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    argv = [sys.executable, "-c", code, str(root)]
    done = subprocess.run(argv, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-9, "2\n"), done.stderr
    for _ in range(1000):
        if not any(temporary.iterdir()):
            break
        time.sleep(0.01)
    assert not [*temporary.iterdir()]


def test_rpm_database_of_an_older_kind_is_left_to_rpm(root: Path) -> None:
    write(root, "var/lib/rpm/Packages", b"\0" * 64)
    assert [note for note in probe(root).notes if "needs rpm" in note]
    script(root, "bin/rpm", "printf 'bzip2\\t1.0.6-13.el7\\tx86_64\\ngpg-pubkey\\t1-2\\t(none)\\n'")
    found = probe(root)
    assert versions(found, "rpm") == {"bzip2": "1.0.6-13.el7", "gpg-pubkey": "1-2"}
    script(root, "bin/rpm", "echo rpmdb open failed >&2; exit 1")
    found = probe(root)
    assert "rpm" not in found.sources
    assert [note for note in found.notes if "rpmdb open failed" in note]


@pytest.mark.skipif(
    not (shutil.which("rpm") and shutil.which("rpmbuild")), reason="there is no rpmbuild here"
)
def test_rpm_database_that_rpm_made(root: Path, tmp_path: Path) -> None:
    """The same packages as rpm itself lists."""
    for name, version, release, epoch in (
        ("bzip2", "1.0.8", "8.el9", ""),
        ("which", "2.21", "29.el9", "Epoch: 3"),
    ):
        spec = tmp_path / f"{name}.spec"
        spec.write_text(
            f"Name: {name}\nVersion: {version}\nRelease: {release}\n{epoch}\nSummary: x\n"
            f"License: x\nBuildArch: noarch\n%description\nx\n%files\n"
        )
        build = ["rpmbuild", "-bb", "--define", f"_topdir {tmp_path}/build", str(spec)]
        subprocess.run(build, check=True, capture_output=True)
    database = root / "var/lib/rpm"
    packages = [str(path) for path in (tmp_path / "build").rglob("*.rpm")]
    rpm = ["rpm", "--dbpath", str(database), "--root", "/"]
    subprocess.run([*rpm, "-i", "--justdb", "--nodeps", *packages], check=True)
    said = subprocess.check_output(
        [*rpm, "-qa", "--qf", "%{NAME} %{VERSION}-%{RELEASE} %{ARCH}\\n"], text=True
    )
    found = probe(root)
    assert not found.problems
    listed = [f"{p.name} {p.version} {p.arch}" for p in found.packages]
    assert listed == sorted(said.splitlines())
    assert len(listed) == 2
