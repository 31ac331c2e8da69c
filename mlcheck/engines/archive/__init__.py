"""Images in archives, read without unpacking them."""

from __future__ import annotations

from mlcheck.engines.base import Declaration, Engine


def _engine(name: str) -> Engine:
    from mlcheck.engines.archive.engine import Archive

    return Archive(name)


ARCHIVE = Declaration(
    _engine,
    opens={"docker-archive": 90, "oci-archive": 90, "oci": 90},
    only_reads=True,
    obvious=True,
)
