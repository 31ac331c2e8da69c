"""Make the packages of a reference image fit together, and apply its builders' changes."""

from __future__ import annotations

import hashlib
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlcheck.reference import elf, tree
from mlcheck.reference.cache import Job
from mlcheck.reference.condameta import CondaPackage, build_string
from mlcheck.reference.dist_info import record_hash, record_rows, write_record
from mlcheck.reference.python import PREFIX, SITE
from mlcheck.reference.system import LIB

OPENSSL = tuple(f"{PREFIX}/lib/{name}" for name in ("libcrypto.so.3", "libssl.so.3"))
_PKGCONFIG = f"{PREFIX}/lib/pkgconfig/libssl.pc"
_PADDING = b"\0" * 16


def add_openssl(root: Path, job: Job) -> CondaPackage:
    """Add conda's openssl, whose libraries the images replace; returns its record."""
    hashes = {}
    for path in OPENSSL:
        source = tree.at(root, path.replace(f"{PREFIX}/lib", LIB))
        if not source.is_file():  # OpenSSL is linked into this Python
            elf.library(job, source, source.name, "OPENSSL_version", "3.0.7")
        tree.copy(root, path, source, 0o755)
        own = source.read_bytes() + _PADDING
        inside = path.removeprefix(f"{PREFIX}/")
        hashes[inside] = (hashlib.sha256(own).hexdigest(), len(own))
    text = f"prefix={PREFIX}\nlibdir=${{prefix}}/lib\n\nName: OpenSSL-libssl\nVersion: 3.4.1\n"
    tree.write(root, _PKGCONFIG, f"{text}Description: stand-in\nLibs: -L${{libdir}} -lssl\n")
    return CondaPackage(
        "openssl",
        "3.4.1",
        build_string("openssl", python=False),
        "Apache-2.0",
        ("ca-certificates",),
        tuple(sorted((*hashes, _PKGCONFIG.removeprefix(f"{PREFIX}/")))),
        hashes,
    )


def undo_openssl(root: Path) -> None:
    """Restore the libraries of conda's openssl, as in its record."""
    for path in OPENSSL:
        tree.write(root, path, tree.at(root, path).read_bytes() + _PADDING, 0o755)


def drop_missing_parts(root: Path, name: str) -> None:
    """Remove requirements of a package that is installed without some of its parts."""
    installed = {
        canonicalize_name(HeaderParser().parsestr(file.read_text())["Name"])
        for file in tree.at(root, SITE).glob("*.dist-info/METADATA")
    }
    (info,) = tree.at(root, SITE).glob(f"{name}-*.dist-info")
    lines = []
    for line in (info / "METADATA").read_text().splitlines(keepends=True):
        key, _, value = line.partition(": ")
        requirement = Requirement(value.strip()) if key == "Requires-Dist" else None
        if requirement is None or canonicalize_name(requirement.name) in installed:
            lines.append(line)
    content = "".join(lines).encode()
    path = f"{info.name}/METADATA"
    tree.write(root, f"{SITE}/{path}", content)
    rows = [
        [path, record_hash(content), str(len(content))] if row[0] == path else row
        for row in record_rows(info / "RECORD")
    ]
    write_record(root, info.name, rows)
