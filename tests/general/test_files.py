"""Promised files, scripts, and the size of the image."""

from __future__ import annotations

import fnmatch
import posixpath
import shlex

from mlcheck.inspect.deployed.facts import Deployment
from mlcheck.inspect.files.facts import FileContents, ImageSize, PromisedFiles, Scripts, SifSize
from mlcheck.model.rule import rule
from mlcheck.model.units import in_bytes
from mlcheck.model.verdict import Finding, ShowFile, ShowMlcheck, Verdict, judged, skipped
from mlcheck.profile.catalog import Profile, promised


@rule("files", keys=["files"])
def test_files(
    files: PromisedFiles, contents: FileContents, profile: Profile, deployment: Deployment | None
) -> Verdict:
    """Every promised file is there, of its type, with its permissions, and with content of the kind
    that its name says: a shell script has commands that a shell can read, libX.so.5 is that
    library and not a link to another version, an archive can be unpacked.

    Why: Users start scripts and read lists by these paths, which the documentation names (README of
    usatlas/ML-Containers, "Image Content" and "Extension of ML Image Envs").

    Fix: Copy the file into the image, or set its mode, in the image's build.
    """
    wanted = profile.expect.files
    on_cvmfs = deployment is not None and deployment.cvmfs
    compared = 0o777 if on_cvmfs else 0o7777
    notes = []
    if on_cvmfs:
        notes.append("set-uid, set-gid and sticky bits: not judged, CVMFS keeps none")
    findings = []
    for path, expected in wanted.items():
        there = files.files[path]
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
        text, (must, leads) = there.file.target or "", contents.places.get(path, (None, None))
        if expected.target is not None and not (
            fnmatch.fnmatchcase(text, expected.target) and must == leads
        ):
            source = profile.source("files", path, "target")
            found = f"points to {there.file.target}"
            findings.append(Finding(path, found, expected.target, source, show))
        if path in contents.problems:
            source = profile.source("files", path)
            wanted_kind = "content of its kind"
            seen = ShowFile("head -c 300", path)
            findings.append(Finding(path, contents.problems[path], wanted_kind, source, seen))
        mode = there.final.mode
        allowed = expected.mode or "readable by everybody, writable by its owner and group alone"
        good = mode & 0o006 == 0o004
        if expected.mode:
            good = mode & compared == int(expected.mode, 8) & compared
        if not good:
            source = profile.source("files", path, "mode")
            findings.append(Finding(path, f"mode {mode:04o}", allowed, source, show))
    untried = [f"{path} {why}" for path, why in sorted(contents.unread.items())]
    return judged(len(wanted), findings, notes, untried)


@rule("script-shebangs", keys=["prefix"], also=["scripts.portable"])
def test_script_shebangs(scripts: Scripts, profile: Profile) -> Verdict:
    """Every script in the prefix's bin/ can be executed, and the portable ones do not name the
    prefix; no other executable script wants an interpreter of the prefix, or of the machine that
    built its package, that is not there.

    Why: A first line that names a Python of another machine fails with `bad interpreter`; one that
    names the prefix starts another Python where the image lies elsewhere (README of
    usatlas/ML-Containers, "Env Extension in Virtual Env"). Where that line would be too long, pip,
    conda and uv write `#!/bin/sh` and an `exec` of the Python in the second.

    Fix: Begin the script with `#!/usr/bin/env python3`, or install its interpreter.
    """
    prefix = promised(profile.expect.prefix)
    portable = profile.expect.scripts.portable if profile.expect.scripts else ()
    findings = [
        Finding(p.path, p.what, "a readable script", show=ShowFile("head -n 1", p.path))
        for p in scripts.problems
    ]
    findings += [
        Finding(
            script.path,
            f"#!{' '.join(script.interpreter)}",
            "an interpreter in the image",
            show=ShowFile("head -n 1", script.path),
        )
        for script in scripts.elsewhere
    ]
    absolute = []
    for script in scripts.scripts:
        words = " ".join(script.interpreter)
        line = f"#!{words}" if script.line == 1 else f"line {script.line}: exec {words}"
        show = ShowFile(shlex.join(["head", "-n", str(script.line)]), script.path)
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
                wanted = f"no {prefix} as the interpreter"
                findings.append(Finding(script.path, line, wanted, source, show))
            else:
                absolute.append(name)
    notes = []
    if absolute:
        notes.append(
            f"{len(absolute)} other scripts name {prefix} in their first line and work only "
            f"there: {', '.join(sorted(absolute))}"
        )
    if not scripts.scripts and portable:
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
    compared = len(scripts.scripts) + len(scripts.elsewhere)
    return judged(compared, findings, notes, nothing=nothing)


@rule("image-size", keys=["size"])
def test_image_size(size: ImageSize | None, sif: SifSize | None, profile: Profile) -> Verdict:
    """The image is no larger than its profile allows.

    Why: New software is weighed against the size of the image, which everybody pulls (README of
    StatCan/aaw-kubeflow-containers, "Adding new software"; the prototype of ATLAS Jupyter promises
    about 1 GB).

    Fix: Leave out what the image need not have (caches of package managers, tests, debugging
    symbols), or raise the budget with a reason.
    """
    budget = promised(profile.expect.size)
    findings, notes, compared = [], [], 0
    for key, allowed, found in (
        ("unpacked", budget.unpacked, None if size is None else size.unpacked),
        ("file", budget.file, sif),
    ):
        if allowed is None or found is None:
            continue
        compared += 1
        notes.append(f"{key}: {found / 10**6:.0f} MB of {allowed}")
        if found > in_bytes(allowed):
            source = profile.source("size", key)
            words = f"{found / 10**6:.0f} MB"
            show = ShowMlcheck("facts", ("--probe", "size")) if key == "unpacked" else None
            findings.append(Finding(key, words, f"at most {allowed}", source, show))
    if not compared:
        return skipped("the profile sets a budget for a SIF file alone")
    return judged(compared, findings, notes)
