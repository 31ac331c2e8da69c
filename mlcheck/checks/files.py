"""Promised files, and the scripts in the prefix's bin/."""

from __future__ import annotations

import fnmatch
import posixpath

from mlcheck.facts import Deployment, Files, Scripts
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowFile, Verdict

FILES = Rule(
    "files",
    "Every promised file is there, of its type, with its permissions.",
    "Copy the file into the image, or set its mode, in the image's build.",
    "Users start scripts and read lists by these paths, which the documentation names (README of "
    'usatlas/ML-Containers, "Image Content" and "Extension of ML Image Envs").',
    keys=("files",),
)
SHEBANGS = Rule(
    "script-shebangs",
    "Every script in the prefix's bin/ can be executed, and the portable ones do not name the "
    "prefix.",
    "Begin the script with `#!/usr/bin/env python3`, or install its interpreter.",
    "A first line that names a Python of another machine fails with `bad interpreter`; one that "
    "names the prefix starts another Python where the image lies elsewhere (README of "
    'usatlas/ML-Containers, "Env Extension in Virtual Env").',
    keys=(
        "prefix",
        "scripts.portable",
    ),
)


def files(fact: Files, profile: Profile, deployment: Deployment | None = None) -> Verdict:
    """The paths of `files`. CVMFS keeps neither owners nor set-uid, set-gid and sticky bits."""
    promised = profile.expect.files
    if not promised:
        return FILES.skipped("the profile promises no file")
    on_cvmfs = deployment is not None and deployment.cvmfs
    compared = 0o777 if on_cvmfs else 0o7777
    notes = []
    if on_cvmfs:
        notes.append("set-uid, set-gid and sticky bits: not judged, CVMFS keeps none")
    findings = []
    for path, expected in promised.items():
        there = fact.files[path]
        show = ShowFile("ls -ld", path)
        if there.file is None or there.final is None:
            found = there.problem or "missing"
            source = profile.source("files", path)
            findings.append(Finding(path, found, f"a {expected.type}", source, show))
            continue
        actual = there.file if expected.type == "symlink" else there.final
        if actual.type != expected.type:
            source = profile.source("files", path, "type")
            findings.append(Finding(path, f"a {actual.type}", f"a {expected.type}", source, show))
            continue
        if expected.target is not None and not fnmatch.fnmatchcase(
            there.file.target or "", expected.target
        ):
            source = profile.source("files", path, "target")
            found = f"points to {there.file.target}"
            findings.append(Finding(path, found, expected.target, source, show))
        mode = there.final.mode
        wanted = expected.mode or "readable by everybody, writable by its owner and group alone"
        good = mode & 0o006 == 0o004
        if expected.mode:
            good = mode & compared == int(expected.mode, 8) & compared
        if not good:
            source = profile.source("files", path, "mode")
            findings.append(Finding(path, f"mode {mode:04o}", wanted, source, show))
    return FILES.judged(len(promised), findings, notes)


def shebangs(fact: Scripts, profile: Profile) -> Verdict:
    """Interpreters exist, scripts are executable, portable ones do not name the prefix."""
    prefix = profile.expect.prefix
    if prefix is None:
        return SHEBANGS.skipped("the profile names no prefix")
    portable = profile.expect.scripts.portable if profile.expect.scripts else ()
    findings = [
        Finding(p.path, p.what, "a readable script", show=ShowFile("head -n 1", p.path))
        for p in fact.problems
    ]
    absolute = []
    for script in fact.scripts:
        line = "#!" + " ".join(script.interpreter)
        show = ShowFile("head -n 1", script.path)
        name = posixpath.basename(script.path)
        must = [i for i, glob in enumerate(portable) if fnmatch.fnmatchcase(name, glob)]
        if script.resolved is None:
            findings.append(Finding(script.path, line, "an interpreter in the image", None, show))
        elif not script.mode & 0o111:
            found = f"mode {script.mode:04o}"
            mode = ShowFile("ls -l", script.path)
            findings.append(Finding(script.path, found, "executable", None, mode))
        elif script.interpreter[0].startswith(prefix + "/"):
            if must:
                source = profile.source("scripts", "portable", must[0])
                wanted = f"no {prefix} in the first line"
                findings.append(Finding(script.path, line, wanted, source, show))
            else:
                absolute.append(name)
    notes = []
    if absolute:
        notes.append(
            f"{len(absolute)} other scripts name {prefix} in their first line and work only "
            f"there: {', '.join(sorted(absolute))}"
        )
    if not fact.scripts and portable:
        source = profile.source("scripts", "portable")
        findings.append(
            Finding(
                f"{prefix}/bin",
                "no script is there",
                f"the portable ones: {', '.join(portable)}",
                source,
                ShowFile("ls -la", f"{prefix}/bin"),
            )
        )
    nothing = f"no file in {prefix}/bin is a script"
    return SHEBANGS.judged(len(fact.scripts), findings, notes, nothing=nothing)
