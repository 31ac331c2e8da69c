"""The abilities of each engine on this machine, and remedies for those that cannot be used."""

from __future__ import annotations

from dataclasses import dataclass

from mlcheck.engines import installed, select
from mlcheck.engines.base import Abilities
from mlcheck.machine import gpu
from mlcheck.model.errors import MlcheckError
from mlcheck.model.image_ref import Kind

_KINDS: tuple[Kind, ...] = (
    *("directory", "reference", "sif", "registry", "docker-archive", "oci-archive", "oci"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One engine.

    Args:
        what: what it is and where; or why it cannot be used.
        remedy: what to do if it cannot be used, or if something is wrong with it although it can.
        kinds: the kinds of images that it opens.
        chosen: True if `--engine auto` chooses it; a run starts nothing to find that out.
        can: what it can do here; None if it cannot be used.
    """

    engine: str
    usable: bool
    what: str
    remedy: str
    kinds: tuple[str, ...]
    chosen: bool
    can: Abilities | None = None


def examine() -> list[Finding]:
    """Try every engine for real."""
    return [examined(name) for name in installed.names()]


def examined(name: str) -> Finding:
    """Try an engine for real."""
    try:
        declared, engine = installed.declaration(name), select.engine(name)
    except MlcheckError as error:
        return Finding(name, False, error.what, error.remedy, (), False)
    kinds = tuple(declared.opens)
    forbidden = engine.unusable()
    trouble = forbidden or engine.tried()
    if trouble is not None:
        chosen = forbidden is None
        return Finding(name, False, trouble.what, trouble.remedy, kinds, chosen)
    what, _, wrong = engine.describe().partition("\n")
    return Finding(name, True, what, wrong, kinds, True, engine.abilities())


def chosen(findings: list[Finding]) -> dict[str, str | None]:
    """Return, by the kind of image, the engine that "auto" chooses on this machine."""
    found = {finding.engine for finding in findings if finding.chosen}
    return {
        kind: next((name for name in select.preferred(kind) if name in found), None)
        for kind in _KINDS
    }


def gpu_line() -> str:
    """Describe the effect of --nv=auto on this machine."""
    if gpu.host_has_driver():
        return f"NVIDIA's driver is loaded ({gpu.DRIVER}): --nv asks the engine for GPUs"
    return f"NVIDIA's driver is not loaded (no {gpu.DRIVER}): --nv asks for none"
