"""Reference images: known-good images that meet the profiles, and faults to plant in them.

They are built on demand, without root, a container engine or a registry.
"""

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
