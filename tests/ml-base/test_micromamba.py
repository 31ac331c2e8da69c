"""micromamba, one statically linked program.

"a tiny statically linked C++ executable [that] does not come with a default version of Python"
(README of ML-Containers).
"""

from __future__ import annotations

from mlcheck.inspect.system.facts import Micromamba
from mlcheck.model.rule import rule
from mlcheck.model.verdict import Finding, ShowFile, Verdict, judged
from mlcheck.profile.catalog import Profile, promised


@rule("micromamba", keys=["micromamba"])
def test_micromamba(micromamba: Micromamba, profile: Profile) -> Verdict:
    """micromamba is one statically linked ELF file, the same under both of its names: it brings no
    Python and needs no library.

    Why: "A tiny statically linked C++ executable" that comes without a Python of its own, and so
    cannot break with the environment that it manages (README of usatlas/ML-Containers, "Package
    Manager micromamba").

    Fix: Install the released micromamba binary itself.
    """
    expected = promised(profile.expect.micromamba)
    findings = []
    paths = [path for path in (expected.path, expected.link) if path is not None]
    for path in paths:
        source = profile.source("micromamba", "path" if path == expected.path else "link")
        show = ShowFile("readelf -ld", path)
        there = micromamba.files[path]
        if there.final is None:
            findings.append(Finding(path, there.problem or "missing", "an ELF file", source, show))
            continue
        file = micromamba.elf.files.get(path)
        if file is None:
            broken = next(
                (p.what for p in micromamba.elf.problems if p.path == path), "is no ELF file"
            )
            findings.append(Finding(path, broken, "a static ELF file", source, show))
        elif file.dynamic or file.interpreter:
            needs = ", ".join(file.needed) or file.interpreter or "a loader"
            found = f"dynamically linked, needs {needs}"
            findings.append(Finding(path, found, "a static ELF file", source, show))
    if len(set(micromamba.contents.values())) > 1 and not findings:
        findings.append(
            Finding(
                paths[1],
                "a file of another content",
                f"the same file as {paths[0]}",
                profile.source("micromamba", "link"),
                ShowFile("sha256sum", paths[1], (paths[0],)),
            )
        )
    return judged(len(paths), findings)
