"""Judging layers, by literal facts."""

from __future__ import annotations

from typing import Any

import pytest

from mlcheck.inspect.layers.facts import ImageLayer, Layers, Leftover, Secret, Waste
from mlcheck.model.environment import Environment
from mlcheck.model.layer_history import instruction
from mlcheck.model.units import in_bytes
from mlcheck.profile.catalog import Profile
from selftests.rules import judge

MB = 1_000_000
COPY = ImageLayer(1, "sha256:1", "COPY data /data", 60 * MB, 2)
CHMOD = ImageLayer(
    *(2, "sha256:2", "/bin/sh -c chmod -R g+w /data", 60 * MB, 2),
    waste=(Waste("metadata", 2, 60 * MB, 2, (("/data/a", 40 * MB), ("/data/b", 20 * MB))),),
)
FETCHED = ImageLayer(
    *(3, "sha256:3", "RUN /bin/sh -c curl x # buildkit", 5 * MB, 9),
    waste=(Waste("deleted", 4, 5 * MB, 9, (("/x", 5 * MB),)),),
    leftovers=(Leftover("apt", 3 * MB, 5, (("/var/lib/apt/lists/x", 3 * MB),), 4),),
    secrets=(Secret("/root/.netrc", "logins", 4),),
)
RM = ImageLayer(4, "sha256:4", "", 0, 0)
ALL = Layers((COPY, CHMOD, FETCHED, RM))
CONFIG = Environment({}, (), (), "", "", (), {}, "the configuration")


def profile(**layers: Any) -> Profile:
    return Profile.of({"layers": layers})


@pytest.mark.parametrize(("budget", "outcome"), [("125 MB", "passed"), ("124.9 MB", "failed")])
def test_size(budget: str, outcome: str) -> None:
    verdict = judge("layers-size", ALL, profile(max_size=budget))
    assert verdict.outcome == outcome
    assert verdict.checked == 4
    if outcome == "failed":
        (finding,) = verdict.findings
        assert finding.found == "125.0 MB, of which 60.0 MB in layer 1 (COPY data /data)"
        assert finding.expected == "at most 124.9 MB"


def test_permissions() -> None:
    assert judge("layers-permissions", ALL, profile(max_waste="60 MB")).outcome == "passed"
    (finding,) = judge("layers-permissions", ALL, profile(max_waste="10 MB")).findings
    assert finding.subject == "layer 2 (RUN chmod -R g+w /data)"
    assert finding.found == (
        "60.0 MB stored again, only owner or mode differ: /data/a (40.0 MB), /data/b (20.0 MB)"
    )
    assert finding.expected == "at most 10 MB in all layers, which have 60.0 MB"


def test_what_does_not_matter_is_no_finding_of_its_own() -> None:
    def deleted(number: int, size: int) -> ImageLayer:
        waste = (Waste("deleted", 4, size, 1, (("/x", size),)),) if size else ()
        return ImageLayer(number, "", "", size, 1, waste=waste)

    few = Layers(tuple(deleted(n, size) for n, size in enumerate([1, 9 * MB, 2 * MB, 0], 1)))
    findings = judge("layers-deleted", few, profile(max_waste="10 MB")).findings
    assert [finding.found.partition(" that")[0] for finding in findings] == ["9.0 MB", "2.0 MB"]
    many = Layers(tuple(deleted(n, MB) for n in range(1, 121)))
    (first, *_) = judge("layers-deleted", many, profile(max_waste="10 MB")).findings
    assert first.found.startswith("1.0 MB that layer 4")


def test_deleted() -> None:
    assert judge("layers-deleted", ALL, profile(max_waste="5 MB")).outcome == "passed"
    (finding,) = judge("layers-deleted", ALL, profile(max_waste="4.9 MB")).findings
    assert finding.subject == "layer 3 (RUN curl x)"
    assert finding.found == ("5.0 MB that layer 4 (no build history) deletes: /x (5.0 MB), 8 more")


def test_caches() -> None:
    assert judge("layers-caches", ALL, profile(max_waste="3 MB")).outcome == "passed"
    (finding,) = judge("layers-caches", ALL, profile(max_waste="100 kB")).findings
    assert finding.found.startswith("3.0 MB of apt's cache, deleted by layer 4: /var/lib/apt/")
    allowed = profile(max_waste="100 kB", allowed={"/var/lib/apt/*": "needed by a test"})
    assert judge("layers-caches", ALL, allowed).outcome == "passed"


def test_secrets() -> None:
    (finding,) = judge("layers-secrets", ALL, CONFIG, profile()).findings
    assert finding.subject == "/root/.netrc"
    assert finding.found == "logins in layer 3 (RUN curl x), deleted by layer 4"
    verdict = judge("layers-secrets", ALL, CONFIG, profile(allowed={"/root/.net*": "of the demo"}))
    assert verdict.outcome == "passed"
    assert verdict.notes == ("1 that look like secrets are none: of the demo",)


def test_secrets_that_everybody_has_are_none() -> None:
    place = "/opt/conda/lib/python3.11/site-packages/tornado/test/test.key"
    layer = ImageLayer(1, "", "", 1, 1, secrets=(Secret(place, "private key", None),))
    assert judge("layers-secrets", Layers((layer,)), CONFIG, profile()).outcome == "passed"
    other = ImageLayer(1, "", "", 1, 1, secrets=(Secret(place, "credentials of AWS", None),))
    assert judge("layers-secrets", Layers((other,)), CONFIG, profile()).outcome == "failed"
    mine = Secret("/opt/test/my.key", "private key", None)
    layer = ImageLayer(1, "", "", 1, 1, secrets=(mine,))
    assert judge("layers-secrets", Layers((layer,)), CONFIG, profile()).outcome == "failed"


def test_secrets_that_were_not_told_fail_too() -> None:
    assert judge("layers-secrets", Layers((COPY,), untold=3), CONFIG, profile()).outcome == "failed"


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ("8 GB", 8 * 10**9),
        ("0.5MB", 500_000),
        ("12 kB", 12_000),
        ("7 B", 7),
        ("1.5 GB", 15 * 10**8),
    ],
)
def test_sizes_with_units(budget: str, expected: int) -> None:
    assert in_bytes(budget) == expected
    profile(max_size=budget)


@pytest.mark.parametrize("budget", ["8", "8 GiB", "-1 GB", "GB", "8 gb", "8  GB", "1e9 B"])
def test_sizes_that_are_none(budget: str) -> None:
    with pytest.raises(ValueError, match="max_size"):
        profile(max_size=budget)


@pytest.mark.parametrize(
    ("created_by", "expected"),
    [
        ("/bin/sh -c #(nop) COPY dir:" + "0a" * 32 + " in /x ", "COPY dir:0a0a0a0a in /x"),
        ("/bin/sh -c apt-get update &&     apt-get clean", "RUN apt-get update && apt-get clean"),
        ("RUN /bin/sh -c true # buildkit", "RUN true"),
        ("RUN |2 A=b C=d e /bin/sh -c true # buildkit", "RUN true"),
        ("|1 A=b /bin/bash -o pipefail -c conda clean", "RUN conda clean"),
        ("RUN /bin/bash -o pipefail -c true # buildkit", "RUN true"),
        ("COPY --chown=1 x /y # buildkit", "COPY --chown=1 x /y"),
        ("mlcheck reference build", "mlcheck reference build"),
        ("", "no build history"),
        ("RUN " + "x" * 200, "RUN " + "x" * 93 + "..."),
    ],
)
def test_instructions_as_they_were_written(created_by: str, expected: str) -> None:
    assert instruction(created_by, 100) == expected
