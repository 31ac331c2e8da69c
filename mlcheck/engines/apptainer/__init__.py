"""apptainer and singularity, through their command line."""

from __future__ import annotations

import dataclasses

from mlcheck.engines.base import Declaration, Engine
from mlcheck.model.image_ref import Kind


def _engine(name: str) -> Engine:
    from mlcheck.engines.apptainer.engine import Apptainer

    return Apptainer(name)


_OPENS: tuple[Kind, ...] = (
    "sif",
    "directory",
    "registry",
    "docker-archive",
    "oci-archive",
    "oci",
    "reference",
)

APPTAINER = Declaration(
    _engine, opens=dict.fromkeys(_OPENS, 30), gives_gpus=True, keeps_owners=False
)
SINGULARITY = dataclasses.replace(APPTAINER, opens=dict.fromkeys(_OPENS, 40))
