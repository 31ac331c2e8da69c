"""docker and podman, through docker's API."""

from __future__ import annotations

from mlcheck.engines.base import Declaration, Engine


def _engine(name: str) -> Engine:
    from mlcheck.engines.oci.dialect import DOCKER, PODMAN
    from mlcheck.engines.oci.engine import Oci

    return Oci({"docker": DOCKER, "podman": PODMAN}[name])


DOCKER = Declaration(
    _engine,
    opens={"registry": 10, "docker-archive": 10, "reference": 50},
    gives_gpus=True,
    keeps_images=True,
    pins_layers=True,
)
PODMAN = Declaration(
    _engine,
    opens={"registry": 20, "docker-archive": 20, "oci-archive": 20, "oci": 20, "reference": 60},
    gives_gpus=True,
    keeps_images=True,
    pins_layers=True,
)
