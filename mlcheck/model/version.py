"""Versions, compared part by part."""

from __future__ import annotations


def leads(expected: str, found: str) -> bool:
    """Return whether a version begins with all parts of the expected one: 3.1 does not
    lead 3.11."""
    parts = expected.split(".")
    return found.split(".")[: len(parts)] == parts
