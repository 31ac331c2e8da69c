"""Reference images: known-good images that fulfil the profiles, made on the spot, and defects
to plant in them. No root, no container engine and no registry is needed."""

from mlcheck.reference.build import NAMES, build, default_tag
from mlcheck.reference.defects import DEFECTS, Defect
from mlcheck.reference.export import export_docker_archive, export_tar

__all__ = [
    "DEFECTS",
    "NAMES",
    "Defect",
    "build",
    "default_tag",
    "export_docker_archive",
    "export_tar",
]
