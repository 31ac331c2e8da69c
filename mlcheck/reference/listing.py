"""`/list-of-pkgs-inside.txt` as in the alma9 images, written from what is installed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from email.parser import HeaderParser
from pathlib import Path

from mlcheck.reference import tree
from mlcheck.reference.condameta import META
from mlcheck.reference.python import SITE
from mlcheck.reference.rpmdb import RpmPackage

PATH = "/list-of-pkgs-inside.txt"


def write(root: Path, system_packages: Iterable[RpmPackage], micromamba: str) -> None:
    """Write the lines of conda, pip, yum and micromamba together, sorted regardless of case."""
    lines = [f"micromamba {micromamba}"]
    for record in tree.at(root, META).glob("*.json"):
        content = json.loads(record.read_text())
        lines.append(f"{content['name']} {content['version']}")
    for info in tree.at(root, SITE).glob("*.dist-info"):
        metadata = HeaderParser().parsestr((info / "METADATA").read_text())
        lines.append(f"{metadata['Name']} {metadata['Version']}")
    for package in system_packages:
        lines.append(f"{package.name}.{package.arch} {package.version}-{package.release}")
    tree.write(root, PATH, "\n".join(in_order(lines)) + "\n")


def in_order(lines: Iterable[str]) -> list[str]:
    """Sort like `sort -fu`: fold case, and keep one of the lines that differ only in case."""
    unique: dict[str, str] = {}
    for line in sorted(lines):
        unique[line.upper()] = line  # of such a pair, keep conda's, which is in lower case
    return [unique[key] for key in sorted(unique)]
