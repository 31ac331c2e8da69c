"""What each engine can do on this machine, and what helps where it cannot."""

from __future__ import annotations

from dataclasses import dataclass

from mlcheck import gpu, opening


@dataclass(frozen=True, slots=True)
class Finding:
    """One engine.

    Args:
        what: what it is and where; or why it cannot be used.
        remedy: what helps, if it cannot be used, or with what is wrong with it all the same.
        kinds: the kinds of images that it opens.
        chosen: whether `--engine auto` takes it; a run starts nothing to find that out.
    """

    engine: str
    usable: bool
    what: str
    remedy: str
    kinds: tuple[str, ...]
    chosen: bool


def examine() -> list[Finding]:
    """Try every engine for real."""
    findings = []
    for name, kinds in opening.KINDS.items():
        engine = opening.engine(name)
        forbidden = engine.unusable()
        reason = forbidden or engine.tried()
        what, _, remedy = (engine.describe() if reason is None else reason).partition("\n")
        findings.append(Finding(name, reason is None, what, remedy, kinds, forbidden is None))
    return findings


def chosen(findings: list[Finding]) -> dict[str, str | None]:
    """By the kind of image: which engine "auto" takes on this machine."""
    found = {finding.engine for finding in findings if finding.chosen}
    return {
        kind: next((name for name in names if name in found), None)
        for kind, names in opening.PREFERRED.items()
    }


def gpu_line() -> str:
    """What --nv=auto does on this machine."""
    if gpu.host_has_driver():
        return f"NVIDIA's driver is loaded ({gpu.DRIVER}): --nv asks the engine for GPUs"
    return f"NVIDIA's driver is not loaded (no {gpu.DRIVER}): --nv asks for none"
