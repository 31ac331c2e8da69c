"""An installer's records of a distribution: its dist-info directory, and RECORD."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mlcheck.reference import tree
from mlcheck.reference.python import SITE


def find(root: Path, name: str) -> str:
    """Return the path of the dist-info directory of the distribution `name`."""
    (found,) = tree.at(root, SITE).glob(f"{name}-*.dist-info")
    return f"{SITE}/{found.name}"


def add_distribution(
    root: Path, name: str, version: str, package: str, programs: Iterable[str] = ()
) -> None:
    """Write an installer's records of a stand-in distribution, whose one package exists.

    Args:
        package: its directory in site-packages.
        programs: its files in the prefix's bin, which exist too.
    """
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    for file, content in (
        (
            "METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            f"Summary: stand-in for {name} in a reference image\nLicense: BSD-3-Clause\n",
        ),
        (
            "WHEEL",
            "Wheel-Version: 1.0\nGenerator: mlcheck\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        ),
        ("INSTALLER", "mlcheck\n"),
        ("top_level.txt", f"{package}\n"),
    ):
        tree.write(root, f"{SITE}/{info}/{file}", content)
    site = tree.at(root, SITE)
    files = [f"../../../bin/{program}" for program in programs]
    for directory in (package, info):
        below = sorted((site / directory).rglob("*"))
        files += [str(path.relative_to(site)) for path in below if path.is_file()]
    rows = []
    for file in files:
        data = tree.at(root, os.path.normpath(f"{SITE}/{file}")).read_bytes()
        rows.append((file, record_hash(data), str(len(data))))
    write_record(root, info, [*rows, (f"{info}/RECORD", "", "")])


def record_rows(record: Path) -> Iterator[list[str]]:
    """Yield the rows of a RECORD file: path from site-packages, "sha256=...", size in bytes."""
    with record.open(newline="") as file:
        yield from csv.reader(file)


def record_hash(content: bytes) -> str:
    """Hash content in the format of RECORD files."""
    digest = hashlib.sha256(content).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def write_record(root: Path, info: str, rows: Iterable[Sequence[str]]) -> None:
    """Write the RECORD of a dist-info directory from rows like those of `record_rows`."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    tree.write(root, f"{SITE}/{info}/RECORD", text.getvalue())


def mend_record(root: Path, record: Path, changed: set[str]) -> None:
    rows = list(record_rows(record))
    touched = False
    for row in rows:
        path = os.path.normpath(f"{SITE}/{row[0]}")
        if path in changed:
            content = tree.at(root, path).read_bytes()
            row[1:] = [record_hash(content), str(len(content))]
            touched = True
    if touched:
        write_record(root, record.parent.name, rows)
