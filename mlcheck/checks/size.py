"""How large the image is."""

from __future__ import annotations

from mlcheck.checks.layers import in_bytes
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowMlcheck, Verdict

SIZE = Rule(
    "image-size",
    "The image is no larger than its profile allows.",
    "Leave out what the image need not have (caches of package managers, tests, debugging "
    "symbols), or raise the budget with a reason.",
    "New software is weighed against the size of the image, which everybody pulls (README of "
    'StatCan/aaw-kubeflow-containers, "Adding new software"; the prototype of ATLAS Jupyter '
    "promises about 1 GB).",
    keys=("size",),
)


def size(unpacked: int | None, file: int | None, profile: Profile) -> Verdict:
    """The budgets of `size`.

    Args:
        unpacked: bytes of all its files; None: not asked for.
        file: bytes of the SIF file; None: it is none.
    """
    budget = profile.expect.size
    if budget is None:
        return SIZE.skipped("the profile sets no budget")
    findings, notes, compared = [], [], 0
    for key, allowed, found in (
        ("unpacked", budget.unpacked, unpacked),
        ("file", budget.file, file),
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
        return SIZE.skipped("the profile sets a budget for a SIF file alone")
    return SIZE.judged(compared, findings, notes)
