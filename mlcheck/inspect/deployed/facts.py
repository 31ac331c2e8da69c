"""Images that are deployed as directories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from mlcheck.inspect.files.facts import Files
from mlcheck.model.files import File

_DIRECTORY = "/.singularity.d"

SINGULARITY_FILES = (
    *(f"{_DIRECTORY}/actions/{name}" for name in ("exec", "run", "shell", "start", "test")),
    *(
        f"{_DIRECTORY}/env/{name}.sh"
        for name in (
            "01-base",
            "10-docker2singularity",
            "90-environment",
            "95-apps",
            "99-base",
            "99-runtimevars",
        )
    ),
    f"{_DIRECTORY}/runscript",
    f"{_DIRECTORY}/startscript",
)
"""Files that both apptainer and CVMFS' tool write (`makeFiles` in
https://github.com/cvmfs/cvmfs/blob/devel/ducc/singularity/dotfiles.go). labels.json is apptainer's
alone. Images on unpacked.cern.ch have lost all of them (cvmfs/cvmfs#4208)."""

SINGULARITY_LIBS = f"{_DIRECTORY}/libs"
"""The directory into which apptainer mounts libraries of the host."""

SINGULARITY_LINKS = {
    "/.exec": "actions/exec",
    "/.run": "actions/run",
    "/.shell": "actions/shell",
    "/.test": "actions/test",
    "/environment": "env/90-environment.sh",
    "/singularity": "runscript",
}
"""Symlinks to some of those; an image that has another file of that name keeps it."""

NO_DIRECTORY = "the image is not deployed as a directory"

SingularityFiles = NewType("SingularityFiles", Files)
"""The paths by which apptainer starts an image that is deployed as a directory."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """The directory of an image, on the machine that runs mlcheck.

    Args:
        path: the directory as it was given, absolute.
        final_path: the same without any symlink.
        cvmfs: True if CVMFS serves it: it is below `/cvmfs`, or has the layout of CVMFS' tool.
        flat: the part after `.flat/` in `final_path` ("ab/abcd...": two hex digits and the digest
            of the image's configuration), or None if the path has no `.flat`.
    """

    path: str
    final_path: str
    cvmfs: bool
    flat: str | None


@dataclass(frozen=True, slots=True)
class UnreadableFiles:
    """Files and directories that users other than the owner cannot read.

    Args:
        looked_at: number of files and directories that were examined. The contents of a directory
            that others cannot enter are not counted.
        files: each without r for others, directories without r and x; symlinks are not judged.
    """

    looked_at: int
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class PublishedDigest:
    """The published image that a deployed one should be.

    Args:
        digest: "sha256:..." of the published image's configuration, or None if it is unknown.
        source: origin of the digest; without a digest, the reason why it is unknown.
    """

    digest: str | None
    source: str
