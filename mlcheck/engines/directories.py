"""Directories of this machine that hold an image's root file system."""

from __future__ import annotations

import os
from pathlib import Path

from mlcheck.image.singularity_d import DIRECTORY as SINGULARITY_D
from mlcheck.model.errors import UsageError
from mlcheck.model.image_ref import ImageRef

_MARKS = ("bin", "usr", "etc", "opt", SINGULARITY_D.strip("/"))


def check_directory(ref: ImageRef) -> Path:
    """Return the image's directory as an absolute path, since the working directory may change.

    Raises:
        UsageError: there is none, or it does not look like an image.
    """
    directory = Path(ref.location).expanduser().absolute()
    try:
        names = {entry.name for entry in os.scandir(directory)}
    except FileNotFoundError:
        if directory.is_symlink():
            # This happens on CVMFS if the image was removed, or is not yet on this machine.
            raise UsageError(
                f"{ref.text}: {directory} is a symlink to {directory.readlink()}, which leads to "
                "no directory.",
                "On CVMFS, see that the repository is mounted and the image is published; "
                "elsewhere, correct the link.",
            ) from None
        raise UsageError(
            f"{ref.text}: there is no directory {directory}.",
            "Give the directory that holds the image's root file system.",
        ) from None
    except NotADirectoryError:
        raise UsageError(
            f"{ref.text}: {directory} is a file, not a directory.",
            "An archive is written docker-archive:FILE or oci-archive:FILE, a SIF file FILE.sif.",
        ) from None
    except OSError as error:
        raise UsageError(
            f"{ref.text}: {directory} cannot be read: {error.strerror}.",
            "Run mlcheck as a user who may read the whole image.",
        ) from None
    if not names.intersection(_MARKS):
        raise UsageError(
            f"{ref.text}: {directory} holds no image: it has none of {', '.join(_MARKS)}.",
            "Give the directory that holds the image's root file system.",
        )
    return directory
