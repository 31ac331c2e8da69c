"""Proxy variables of the host, for images that may use its network."""

from __future__ import annotations

import os

NAMES = tuple(
    variant
    for name in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for variant in (name, name.upper())
)


def proxies() -> dict[str, str]:
    """Return the proxy variables that are set."""
    return {name: os.environ[name] for name in NAMES if name in os.environ}
