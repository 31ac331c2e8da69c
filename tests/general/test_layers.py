"""Wasted bytes and secrets in the layers of the image."""

from __future__ import annotations

from collections.abc import Sequence

from mlcheck.inspect.layers.facts import Layers, WasteKind
from mlcheck.inspect.layers.secrets import in_variables
from mlcheck.inspect.layers.words import later, left_over, published, reason, title, wasted
from mlcheck.model.environment import Environment
from mlcheck.model.rule import rule
from mlcheck.model.units import in_bytes, shown
from mlcheck.model.verdict import Finding, ShowMlcheck, Verdict, judged
from mlcheck.profile.catalog import Profile, promised

_LAYERS = ShowMlcheck("layers")
_CONFIGURED = ShowMlcheck("facts", ("--probe", "environment"))


@rule("layers-size", keys=["layers.max_size"])
def test_layers_size(layers: Layers, profile: Profile) -> Verdict:
    """The files of all layers together are not larger than the image's budget.

    Why: Nobody notices how an image grows by a few percent with each push, until it no longer fits
    a runner (https://github.com/jupyter/docker-stacks/issues/1214).

    Fix: `mlcheck layers IMAGE` shows which layer is large, and what is wasted.
    """
    budget = promised(profile.expect.layers.max_size)
    findings = []
    if layers.size > in_bytes(budget):
        largest = max(layers.layers, key=lambda layer: layer.size)
        found = f"{shown(layers.size)}, of which {shown(largest.size)} in {title(largest)}"
        source = profile.source("layers", "max_size")
        findings.append(Finding("all layers", found, f"at most {budget}", source, _LAYERS))
    return judged(len(layers.layers), findings)


@rule("layers-permissions", keys=["layers.max_waste"])
def test_layers_permissions(layers: Layers, profile: Profile) -> Verdict:
    """Owner and mode of files are set in the layer that adds them: another layer would hold a
    second copy of all their bytes.

    Why: A layer that changes only the owner or mode of files holds all their bytes once more: 1 GB
    twice in the example of the README of StatCan/aaw-kubeflow-containers ("Set User File
    Permissions after Every pip/conda Install").

    Fix: Change owner and mode in the RUN instruction that adds the files, or with COPY --chown
    --chmod.
    """
    return _waste(layers, profile, ("metadata", "same"))


@rule("layers-deleted", keys=["layers.max_waste"])
def test_layers_deleted(layers: Layers, profile: Profile) -> Verdict:
    """No layer deletes or replaces files of layers below it: their bytes stay in the image.

    Why: A layer can hide a file of the layers below it, and not take its bytes back
    (https://github.com/opencontainers/image-spec/blob/main/layer.md).

    Fix: Delete what is not needed in the RUN instruction that makes it, or build in stages.
    """
    return _waste(layers, profile, ("deleted", "overwritten"))


@rule("layers-caches", keys=["layers.max_waste"], also=["layers.allowed"])
def test_layers_caches(layers: Layers, profile: Profile) -> Verdict:
    """No layer holds what package managers keep for themselves.

    Why: Caches of package managers are often the largest thing in an image that nobody needs
    (https://docs.docker.com/build/building/best-practices/).

    Fix: Clean up in the same RUN instruction (apt-get clean, rm -rf /var/lib/apt/lists/*, conda
    clean -afy, pip install --no-cache-dir, dnf clean all), or use RUN --mount=type=cache.
    """
    budget = promised(profile.expect.layers.max_waste)
    allowed = profile.expect.layers.allowed
    left = [
        (layer, leftover)
        for layer in layers.layers
        for leftover in layer.leftovers
        if not all(reason(path, allowed) for path, _ in leftover.largest)
    ]
    total = sum(leftover.size for _, leftover in left)
    findings = [
        Finding(
            title(layer),
            left_over(leftover),
            f"at most {budget} in all layers, which have {shown(total)}",
            profile.source("layers", "max_waste"),
            _LAYERS,
        )
        for layer, leftover in left
    ]
    return judged(len(layers.layers), findings if total > in_bytes(budget) else ())


@rule("layers-secrets", also=["layers.allowed"])
def test_layers_secrets(layers: Layers, config: Environment, profile: Profile) -> Verdict:
    """No layer holds private keys or credentials, and neither do the image's variables, labels and
    history: who has the image can read all of these, also what a later layer deletes. Texts are
    searched to their end, or 1 GB; of other files the first megabyte is.

    Why: Every layer is an archive that everybody with the image can unpack
    (https://docs.docker.com/build/building/secrets/).

    Fix: Take them out of the layer (RUN --mount=type=secret), and replace them: they are known now.
    """
    findings = []
    reasons: dict[str, int] = {}
    named = {*config.env, *(config.labels or ())}
    for layer in layers.layers:
        for secret in layer.secrets:
            why = reason(secret.path, profile.expect.layers.allowed) or published(secret)
            if why is not None:
                reasons[why] = reasons.get(why, 0) + 1
                continue
            found = f"{secret.what} in {title(layer)}{later(secret.deleted_by)}"
            findings.append(Finding(secret.path, found, "in no layer", show=_LAYERS))
        for instruction, kind in layer.told:
            if instruction in ("ENV", "LABEL") and kind.partition(" ")[0] in named:
                continue  # it still holds
            found = f"{instruction} has {kind}"
            findings.append(Finding(title(layer), found, "no secret", show=_LAYERS))
    for what, variables in (("ENV", config.env), ("LABEL", config.labels or {})):
        for name, kind in in_variables(variables):
            found = f"is {kind}"
            findings.append(Finding(f"{what} {name}", found, "no secret", show=_CONFIGURED))
    if layers.untold:
        more = f"{layers.untold} more such files"
        findings.append(Finding("all layers", more, "none", show=_LAYERS))
    notes = [f"{count} that look like secrets are none: {why}" for why, count in reasons.items()]
    return judged(len(layers.layers), findings, notes)


def _waste(layers: Layers, profile: Profile, kinds: Sequence[WasteKind]) -> Verdict:
    budget = promised(profile.expect.layers.max_waste)
    found = [(layer, waste) for layer in layers.layers for waste in layer.waste]
    found = [(layer, waste) for layer, waste in found if waste.kind in kinds]
    total = sum(waste.size for _, waste in found)
    if total <= in_bytes(budget):
        return judged(len(layers.layers))
    findings: list[Finding] = []
    for layer, waste in sorted(found, key=lambda one: -one[1].size):
        if findings and waste.size * 100 < total:
            break  # what does not matter
        findings.append(
            Finding(
                title(layer),
                wasted(waste, title(layers.layers[waste.by - 1])),
                f"at most {budget} in all layers, which have {shown(total)}",
                profile.source("layers", "max_waste"),
                _LAYERS,
            )
        )
    return judged(len(layers.layers), findings)
