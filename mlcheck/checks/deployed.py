"""An image that is deployed as a directory: on CVMFS, or as a sandbox on a shared file system."""

from __future__ import annotations

import fnmatch
import re

from mlcheck.facts import Deployment, Files, PublishedDigest, UnreadableFiles
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowFile, ShowHere, Verdict

DIGEST = Rule(
    "deployed-digest",
    "The directory on CVMFS is named after the digest of the image's configuration, and is the "
    "one of the published image.",
    "Let cvmfs_ducc convert the image again; until then users of CVMFS get another image.",
    "Users of CVMFS get what was converted last, which may be an older image than the tag names; "
    "the directory is named after the digest, so that it can be told (cvmfs_ducc, "
    "https://github.com/cvmfs/cvmfs/tree/devel/ducc).",
)
SINGULARITY_D = Rule(
    "singularity-d",
    "An image that is deployed as a directory has all of /.singularity.d, by which apptainer and "
    "singularity start it.",
    "Build the sandbox again, or let cvmfs_ducc publish the image again.",
    "apptainer and singularity start a directory by the scripts in /.singularity.d; where some "
    "are missing, the image starts without its variables or not at all "
    "(https://github.com/cvmfs/cvmfs/blob/devel/ducc/singularity/dotfiles.go).",
    keys=("deployed",),
)
READABLE = Rule(
    "deployed-readable",
    "In a sandbox that others use, everybody can enter every directory and read every file.",
    "Build it with --fix-perms, and then `chmod -R o+rX` the directory.",
    "A sandbox is built by one person and used by others; --fix-perms gives rights to its owner "
    'alone (README of usatlas/ML-Containers, "Deployment of Singularity Images onto CVMFS").',
    keys=("deployed",),
)

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
"""What both apptainer and CVMFS' tool write (`makeFiles` in
https://github.com/cvmfs/cvmfs/blob/devel/ducc/singularity/dotfiles.go). labels.json is apptainer's
alone. Images on unpacked.cern.ch have lost all this (cvmfs/cvmfs#4208)."""

SINGULARITY_LINKS = {
    "/.exec": "actions/exec",
    "/.run": "actions/run",
    "/.shell": "actions/shell",
    "/.test": "actions/test",
    "/environment": "env/90-environment.sh",
    "/singularity": "runscript",
}
"""Symlinks to some of them; an image that has another file of that name keeps it."""

NO_DIRECTORY = "the image is not deployed as a directory"
_FLAT = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})")


def digest(deployment: Deployment | None, published: PublishedDigest) -> Verdict:
    """The directory's name has the form `.flat/ab/abcd...`, and the digest is the published one."""
    if deployment is None:
        return DIGEST.skipped(NO_DIRECTORY)
    if deployment.flat is None:
        return DIGEST.skipped(f"{deployment.final_path} is not laid out by CVMFS' tool (no .flat)")
    found = _FLAT.fullmatch(deployment.flat)
    if found is None:
        wanted = ".flat/AB/DIGEST with the 64 hex digits of a SHA-256 that begins with AB"
        finding = Finding(
            deployment.path, f"leads to {deployment.final_path}", wanted, show=_place(deployment)
        )
        return DIGEST.judged(1, [finding])
    if published.digest is None:
        return DIGEST.not_tried(
            f"the directory is sha256:{found[2][:12]}..., which is compared with nothing: "
            f"{published.source}"
        )
    findings = []
    if published.digest != f"sha256:{found[2]}":
        wanted = f"{published.digest} ({published.source})"
        show = _place(deployment)
        findings.append(Finding(deployment.path, f"sha256:{found[2]}", wanted, show=show))
    return DIGEST.judged(1, findings)


def _place(deployment: Deployment) -> ShowHere:
    return ShowHere(("readlink", "-f", deployment.path))


def singularity_d(deployment: Deployment | None, fact: Files, profile: Profile) -> Verdict:
    """The scripts are there and can be executed, and the links lead to them."""
    if deployment is None:
        return SINGULARITY_D.skipped(NO_DIRECTORY)
    if profile.expect.deployed is None:
        return SINGULARITY_D.skipped("the profile does not say that the image is deployed")
    findings = []
    for path in (*SINGULARITY_FILES, f"{_DIRECTORY}/libs", *SINGULARITY_LINKS):
        there = fact.files[path]
        show = ShowFile("ls -ld", path)
        wanted = "directory" if path.endswith("/libs") else "file"
        if there.final is None:
            findings.append(Finding(path, there.problem or "missing", f"a {wanted}", None, show))
        elif there.final.type != wanted:
            findings.append(Finding(path, f"a {there.final.type}", f"a {wanted}", None, show))
        elif path in SINGULARITY_FILES and not there.final.mode & 0o111:
            found = f"mode {there.final.mode:04o}"
            findings.append(Finding(path, found, "an executable file", None, show))
    return SINGULARITY_D.judged(len(SINGULARITY_FILES) + 1 + len(SINGULARITY_LINKS), findings)


def readable(
    deployment: Deployment | None, fact: UnreadableFiles | None, profile: Profile
) -> Verdict:
    """Permissions of others, but for what the profile names as private."""
    if deployment is None:
        return READABLE.skipped(NO_DIRECTORY)
    if deployment.cvmfs:
        return READABLE.skipped("CVMFS publishes for everybody, and keeps no owners")
    private = profile.expect.deployed.private if profile.expect.deployed else None
    if private is None or fact is None:
        return READABLE.skipped("the profile does not tell what may be private")
    findings = [
        Finding(
            file.path,
            f"a {file.type}, mode {file.mode:04o}",
            "r-x for others" if file.type == "directory" else "r-- for others",
            profile.source("deployed", "private"),
            ShowFile("ls -ld", file.path),
        )
        for file in fact.files
        if not any(fnmatch.fnmatchcase(file.path, glob) for glob in private)
    ]
    return READABLE.judged(fact.looked_at, findings)
