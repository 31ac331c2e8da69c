"""Images that are deployed as directories: CVMFS and sandboxes."""

from __future__ import annotations

import fnmatch
import re

from mlcheck.inspect.deployed.facts import (
    NO_DIRECTORY,
    SINGULARITY_FILES,
    SINGULARITY_LIBS,
    SINGULARITY_LINKS,
    Deployment,
    PublishedDigest,
    SingularityFiles,
    UnreadableFiles,
)
from mlcheck.model.rule import rule
from mlcheck.model.verdict import (
    Finding,
    ShowFile,
    ShowHere,
    Verdict,
    judged,
    not_tried,
    skipped,
)
from mlcheck.profile.catalog import Profile, promised

_FLAT = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})")


@rule("deployed-digest")
def test_deployed_digest(deployment: Deployment | None, published: PublishedDigest) -> Verdict:
    """The directory on CVMFS is named after the digest of the image's configuration, and is the one
    of the published image.

    Why: Users of CVMFS get what was converted last, which may be an older image than the tag names;
    the directory is named after the digest, so that it can be told (cvmfs_ducc,
    https://github.com/cvmfs/cvmfs/tree/devel/ducc).

    Fix: Let cvmfs_ducc convert the image again; until then users of CVMFS get another image.
    """
    if deployment is None:
        return skipped(NO_DIRECTORY)
    if deployment.flat is None:
        return skipped(f"{deployment.final_path} is not laid out by CVMFS' tool (no .flat)")
    found = _FLAT.fullmatch(deployment.flat)
    if found is None:
        wanted = ".flat/AB/DIGEST with the 64 hex digits of a SHA-256 that begins with AB"
        finding = Finding(
            deployment.path, f"leads to {deployment.final_path}", wanted, show=_place(deployment)
        )
        return judged(1, [finding])
    if published.digest is None:
        return not_tried(
            f"the directory is sha256:{found[2][:12]}..., which is compared with nothing: "
            f"{published.source}"
        )
    findings = []
    if published.digest != f"sha256:{found[2]}":
        wanted = f"{published.digest} ({published.source})"
        show = _place(deployment)
        findings.append(Finding(deployment.path, f"sha256:{found[2]}", wanted, show=show))
    return judged(1, findings)


@rule("singularity-d", keys=["deployed"])
def test_singularity_d(files: SingularityFiles) -> Verdict:
    """An image that is deployed as a directory has all of /.singularity.d, by which apptainer and
    singularity start it.

    Why: apptainer and singularity start a directory by the scripts in /.singularity.d; where some
    are missing, the image starts without its variables or not at all
    (https://github.com/cvmfs/cvmfs/blob/devel/ducc/singularity/dotfiles.go).

    Fix: Build the sandbox again, or let cvmfs_ducc publish the image again.
    """
    findings = []
    for path in (*SINGULARITY_FILES, SINGULARITY_LIBS, *SINGULARITY_LINKS):
        there = files.files[path]
        show = ShowFile("ls -ld", path)
        wanted = "directory" if path == SINGULARITY_LIBS else "file"
        if there.final is None:
            findings.append(Finding(path, there.problem or "missing", f"a {wanted}", None, show))
        elif there.final.type != wanted:
            findings.append(Finding(path, f"a {there.final.type}", f"a {wanted}", None, show))
        elif path in SINGULARITY_FILES and not there.final.mode & 0o111:
            found = f"mode {there.final.mode:04o}"
            findings.append(Finding(path, found, "an executable file", None, show))
    return judged(len(SINGULARITY_FILES) + 1 + len(SINGULARITY_LINKS), findings)


@rule("deployed-readable", keys=["deployed"])
def test_deployed_readable(files: UnreadableFiles, profile: Profile) -> Verdict:
    """In a sandbox that others use, everybody can enter every directory and read every file.

    Why: A sandbox is built by one person and used by others; --fix-perms gives rights to its owner
    alone (README of usatlas/ML-Containers, "Deployment of Singularity Images onto CVMFS").

    Fix: Build it with --fix-perms, and then `chmod -R o+rX` the directory.
    """
    private = promised(profile.expect.deployed).private
    findings = [
        Finding(
            file.path,
            f"a {file.type}, mode {file.mode:04o}",
            "r-x for others" if file.type == "directory" else "r-- for others",
            profile.source("deployed", "private"),
            ShowFile("ls -ld", file.path),
        )
        for file in files.files
        if not any(fnmatch.fnmatchcase(file.path, glob) for glob in private)
    ]
    return judged(files.looked_at, findings)


def _place(deployment: Deployment) -> ShowHere:
    return ShowHere(("readlink", "-f", deployment.path))
