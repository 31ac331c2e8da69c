"""Where an image is deployed as a directory."""

from __future__ import annotations

from dataclasses import dataclass

from mlcheck.facts.files import File


@dataclass(frozen=True, slots=True)
class Deployment:
    """The directory of an image, on the machine that runs mlcheck.

    Args:
        path: the directory as it was given, absolute.
        final_path: the same without any symlink.
        cvmfs: whether CVMFS serves it: below `/cvmfs`, or laid out as its tool does it.
        flat: what stands behind `.flat/` in `final_path` ("ab/abcd...": two hex digits and the
            digest of the image's configuration); None when there is no `.flat` in it.
    """

    path: str
    final_path: str
    cvmfs: bool
    flat: str | None


@dataclass(frozen=True, slots=True)
class UnreadableFiles:
    """What users other than the owner cannot read.

    Args:
        looked_at: how many files and directories were looked at. What lies in a directory that
            others cannot enter is not among them.
        files: each without r for others, directories without r and x; symlinks are not judged.
    """

    looked_at: int
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class PublishedDigest:
    """Which image a deployed one should be.

    Args:
        digest: "sha256:..." of the published image's configuration; None: it is not known.
        source: who said so; without a digest, why it is not known.
    """

    digest: str | None
    source: str
