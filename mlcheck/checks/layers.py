"""What the layers of an image cost, and what they must not hold."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from mlcheck.facts import ImageLayer, Layers, Secret, WasteKind
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowMlcheck, Verdict

SIZE = Rule(
    "layers-size",
    "The files of all layers together are not larger than the image's budget.",
    "`mlcheck layers IMAGE` shows which layer is large, and what is stored in vain.",
    "Nobody notices how an image grows by a few percent with each push, until it no longer fits "
    "a runner (https://github.com/jupyter/docker-stacks/issues/1214).",
    keys=("layers.max_size",),
)
PERMISSIONS = Rule(
    "layers-permissions",
    "Owner and mode of files are set in the layer that adds them: another layer would hold a "
    "second copy of all their bytes.",
    "Change owner and mode in the RUN instruction that adds the files, or with COPY --chown "
    "--chmod.",
    "A layer that changes only the owner or mode of files holds all their bytes once more: 1 GB "
    'twice in the example of the README of StatCan/aaw-kubeflow-containers ("Set User File '
    'Permissions after Every pip/conda Install").',
    keys=("layers.max_waste",),
)
DELETED = Rule(
    "layers-deleted",
    "No layer deletes or replaces files of layers below it: their bytes stay in the image.",
    "Delete what is not needed in the RUN instruction that makes it, or build in stages.",
    "A layer can hide a file of the layers below it, and not take its bytes back "
    "(https://github.com/opencontainers/image-spec/blob/main/layer.md).",
    keys=("layers.max_waste",),
)
CACHES = Rule(
    "layers-caches",
    "No layer holds what package managers keep for themselves.",
    "Clean up in the same RUN instruction (apt-get clean, rm -rf /var/lib/apt/lists/*, conda clean "
    "-afy, pip install --no-cache-dir, dnf clean all), or use RUN --mount=type=cache.",
    "Caches of package managers are often the largest thing in an image that nobody needs "
    "(https://docs.docker.com/build/building/best-practices/).",
    keys=("layers.max_waste",),
)
SECRETS = Rule(
    "layers-secrets",
    "No layer holds private keys or credentials: who has the image can read every layer, also what "
    "a later one deletes.",
    "Take them out of the layer (RUN --mount=type=secret), and replace them: they are known now.",
    "Every layer is an archive that everybody with the image can unpack "
    "(https://docs.docker.com/build/building/secrets/).",
)

NO_LAYERS = "this engine sees one file system without layers: docker, podman and archive have them"

PUBLISHED = {
    f"*/{place}/*": "a key of a package's own tests or examples, published with it"
    for place in (
        *("site-packages/*/test", "site-packages/*/tests", "site-packages/*/testing"),
        *("dist-packages/*/test", "dist-packages/*/tests", "dist-packages/*/testing"),
        *("lib/python*/test", "node_modules/*/test", "node_modules/*/tests"),
        *("node_modules/*/fixtures", "share/doc"),
    )
}
"""Private keys that are none, because everybody has them."""

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_SHELL = re.compile(r"^(?:RUN )?(?:\|\d+ .*?)?/bin/(?:ba)?sh (?:-\w+ \w+ )?-c ")
"""How docker writes what RUN stands for, with the build's arguments before it."""

_CHECKSUM = re.compile(r"(?<=:)([0-9a-f]{8})[0-9a-f]{56}\b")

_WORDS: dict[WasteKind, str] = {
    "metadata": "stored again, only owner or mode differ",
    "same": "stored again, unchanged",
    "deleted": "that {by} deletes",
    "overwritten": "that {by} replaces",
}
_LAYERS = ShowMlcheck("layers")
_NAMED = 3
_LINE = 100


def size(fact: Layers | None, profile: Profile) -> Verdict:
    """The budget of the image."""
    budget = profile.expect.layers.max_size
    if (reason := _skip(fact, budget)) is not None or fact is None or budget is None:
        return SIZE.skipped(reason or NO_LAYERS)
    findings = []
    if fact.size > in_bytes(budget):
        largest = max(fact.layers, key=lambda layer: layer.size)
        found = f"{shown(fact.size)}, of which {shown(largest.size)} in {title(largest)}"
        source = profile.source("layers", "max_size")
        findings.append(Finding("all layers", found, f"at most {budget}", source, _LAYERS))
    return SIZE.judged(len(fact.layers), findings)


def permissions(fact: Layers | None, profile: Profile) -> Verdict:
    """Second copies of the same content."""
    return _waste(PERMISSIONS, fact, profile, ("metadata", "same"))


def deleted(fact: Layers | None, profile: Profile) -> Verdict:
    """Content that later layers hide."""
    return _waste(DELETED, fact, profile, ("deleted", "overwritten"))


def caches(fact: Layers | None, profile: Profile) -> Verdict:
    """Caches of package managers."""
    budget = profile.expect.layers.max_waste
    if (reason := _skip(fact, budget)) is not None or fact is None or budget is None:
        return CACHES.skipped(reason or NO_LAYERS)
    allowed = profile.expect.layers.allowed
    left = [
        (layer, leftover)
        for layer in fact.layers
        for leftover in layer.leftovers
        if not all(_allowed(path, allowed) for path, _ in leftover.largest)
    ]
    total = sum(leftover.size for _, leftover in left)
    findings = [
        Finding(
            title(layer),
            f"{shown(leftover.size)} of {leftover.cache}'s cache{_later(leftover.deleted_by)}: "
            f"{_files(leftover.largest, leftover.files)}",
            f"at most {budget} in all layers, which have {shown(total)}",
            profile.source("layers", "max_waste"),
            _LAYERS,
        )
        for layer, leftover in left
    ]
    return CACHES.judged(len(fact.layers), findings if total > in_bytes(budget) else ())


def secrets(fact: Layers | None, profile: Profile) -> Verdict:
    """Private keys and credentials."""
    if (reason := _skip(fact, "")) is not None or fact is None:
        return SECRETS.skipped(reason or NO_LAYERS)
    findings = []
    reasons: dict[str, int] = {}
    for layer in fact.layers:
        for secret in layer.secrets:
            why = _allowed(secret.path, profile.expect.layers.allowed) or _published(secret)
            if why is not None:
                reasons[why] = reasons.get(why, 0) + 1
                continue
            found = f"{secret.what} in {title(layer)}{_later(secret.deleted_by)}"
            findings.append(Finding(secret.path, found, "in no layer", show=_LAYERS))
    if fact.untold:
        more = f"{fact.untold} more such files"
        findings.append(Finding("all layers", more, "none", show=_LAYERS))
    notes = [f"{count} that look like secrets are none: {why}" for why, count in reasons.items()]
    return SECRETS.judged(len(fact.layers), findings, notes)


def _waste(
    rule: Rule, fact: Layers | None, profile: Profile, kinds: Sequence[WasteKind]
) -> Verdict:
    budget = profile.expect.layers.max_waste
    if (reason := _skip(fact, budget)) is not None or fact is None or budget is None:
        return rule.skipped(reason or NO_LAYERS)
    found = [(layer, waste) for layer in fact.layers for waste in layer.waste]
    found = [(layer, waste) for layer, waste in found if waste.kind in kinds]
    total = sum(waste.size for _, waste in found)
    if total <= in_bytes(budget):
        return rule.judged(len(fact.layers))
    findings: list[Finding] = []
    for layer, waste in sorted(found, key=lambda one: -one[1].size):
        if findings and waste.size * 100 < total:
            break  # what does not matter
        by = fact.layers[waste.by - 1]
        words = _WORDS[waste.kind].format(by=title(by))
        findings.append(
            Finding(
                title(layer),
                f"{shown(waste.size)} {words}: {_files(waste.largest, waste.files)}",
                f"at most {budget} in all layers, which have {shown(total)}",
                profile.source("layers", "max_waste"),
                _LAYERS,
            )
        )
    return rule.judged(len(fact.layers), findings)


def _skip(fact: Layers | None, budget: str | None) -> str | None:
    if fact is None:
        return NO_LAYERS
    if not fact.layers:
        return "the image has no layers"
    return "the profile has no budget for it ([layers])" if budget is None else None


def _allowed(path: str, allowed: Mapping[str, str]) -> str | None:
    """The reason why a file may be there; None: there is none."""
    fitting = (why for glob, why in allowed.items() if fnmatch.fnmatchcase(path, glob))
    return next(fitting, None)


def _published(secret: Secret) -> str | None:
    """The reason why a private key is none; None: there is none."""
    return _allowed(secret.path, PUBLISHED) if secret.what == "private key" else None


def _later(deleted_by: int | None) -> str:
    return "" if deleted_by is None else f", deleted by layer {deleted_by}"


def _files(largest: Sequence[tuple[str, int]], count: int) -> str:
    named = [f"{path} ({shown(size)})" for path, size in largest[:_NAMED]]
    more = [f"{count - len(named)} more"] if count > len(named) else []
    return ", ".join([*named, *more])


def title(layer: ImageLayer) -> str:
    """A layer for people: its number, and the line of the image's history."""
    return f"layer {layer.number} ({instruction(layer.created_by, _LINE)})"


def instruction(created_by: str, width: int) -> str:
    """A history line as the instruction was written, cut to a width."""
    if not created_by:
        return "its history is not told"
    line = " ".join(created_by.split()).removesuffix("# buildkit").strip()
    line = _SHELL.sub("RUN ", line.replace("/bin/sh -c #(nop) ", "", 1).strip())
    line = _CHECKSUM.sub(r"\1", line)
    return line if len(line) <= width else f"{line[: width - 3]}..."


def in_bytes(budget: str) -> int:
    """A size with its unit ("8 GB") as a number."""
    number = budget.rstrip("BkMG ")
    return int(float(number) * _UNITS[budget[len(number) :].strip()])


def shown(count: int) -> str:
    """A number of bytes for people."""
    for unit in ("GB", "MB", "kB"):
        if count >= _UNITS[unit]:
            return f"{count / _UNITS[unit]:.1f} {unit}"
    return f"{count} B"


def remarks(layer: ImageLayer) -> Iterator[str]:
    """What a layer holds in vain, a line each."""
    for waste in layer.waste:
        words = _WORDS[waste.kind].format(by=f"layer {waste.by}")
        yield f"{shown(waste.size)} {words}: {_files(waste.largest, waste.files)}"
    for left in layer.leftovers:
        files = _files(left.largest, left.files)
        yield f"{shown(left.size)} of {left.cache}'s cache{_later(left.deleted_by)}: {files}"
    published: Counter[str] = Counter()
    for secret in layer.secrets:
        if why := _published(secret):
            published[why] += 1
        else:
            yield f"{secret.what}{_later(secret.deleted_by)}: {secret.path}"
    for why, count in published.items():
        yield f"{count} that look like secrets are none: {why}"
