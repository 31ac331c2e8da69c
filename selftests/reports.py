"""Reports for self-tests, written down: small ones, large ones, and those of a hostile image."""

from __future__ import annotations

from typing import Any

from mlcheck.report.model import (
    FindingModel,
    ImageModel,
    LayerModel,
    Outcome,
    Report,
    ResultModel,
    WaiverModel,
)

HOSTILE = (
    "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
    "\n::error::made up\n  ::set-output name=x::y\n##[add-path]/evil\n"
    "]]> & <!-- --> \" ' `code` | **bold** [link](javascript:alert(1)) www.evil.example "
    "\x1b[31m\x00\x07\u202e\ufffe %0A ${{ secrets.X }} </details> <script"
)
"""What an image may say to whoever shows it."""


def image(name: str = "mini:v1", engine: str = "sandbox", **more: Any) -> ImageModel:
    """An image of that name on that engine."""
    fields = {"profile": "mini", "lineage": ("mini",), **more}
    return ImageModel(id=f"{name}@{engine}", reference=name, engine=engine, **fields)


def finding(subject: str = "/opt/x", **more: Any) -> FindingModel:
    """A finding about that subject."""
    fields = {"found": "this", "expected": "that", "source": "tests/mini/image.toml:3", **more}
    return FindingModel(subject=subject, **fields)


def result(
    of: ImageModel, check: str = "files", outcome: Outcome = "passed", **more: Any
) -> ResultModel:
    """The result of a check on an image; a failed one has a finding, a skipped one a reason."""
    fields: dict[str, Any] = {
        "check": None if outcome == "skipped" else check,
        "rule": f"The rule of {check}.",
        "remedy": f"Mend {check}.",
        "seconds": 0.25,
        "checked": 7,
    }
    if outcome == "failed":
        fields["findings"] = (finding(),)
    if outcome in ("skipped", "error"):
        fields["message"] = "the machine has none"
    if outcome == "waived":
        waiver = WaiverModel(
            source="tests/mini/image.toml:9", reason="soon", until="2999-12-31", expired=False
        )
        fields |= {"findings": (finding(waived=True),), "waivers": (waiver,)}
    name = f"tests/general/test_{check}.py::test_{check.replace('-', '_')}[{of.id}]"
    return ResultModel(test=name, image=of.id, outcome=outcome, **{**fields, **more})


def report(*results: ResultModel, images: tuple[ImageModel, ...], **more: Any) -> Report:
    """A report of these results."""
    counts: dict[Outcome, int] = dict.fromkeys(
        ("passed", "failed", "error", "skipped", "waived"), 0
    )
    for one in results:
        counts[one.outcome] += 1
    fields = {
        "mlcheck_version": "0.1.0",
        "machine": "a",
        "started": "2026-11-21T19:00:00+00:00",
        "seconds": 1.5,
        "exit_code": 1,
        **more,
    }
    return Report(images=images, results=results, counts=counts, **fields)


LAYERS = tuple(
    LayerModel(
        number=number,
        digest=f"sha256:{number:064x}",
        created_by=f"/bin/sh -c make part {number}",
        size=number * 300_000_000,
        files=number,
        **waste,
    )
    for number, waste in enumerate(
        ({}, {"repeated": 200_000_000}, {"hidden": 500_000_000, "caches": 100_000_000}), 1
    )
)


def small() -> Report:
    """Three images, one result of every outcome, packages that differ, layers."""
    good = image("ml-pyroot:alma9-python311", "podman", digest=f"sha256:{1:064x}")
    bad = image("ml-pyroot:alma9-python311", "sandbox", layers=LAYERS)
    other = image("jupyterlab-tensorflow:2.2.1", "docker", notes=("a note",))
    packages = tuple(
        finding(f"package-{n}", found=f"1.{n}", expected=f"2.{n}, as in B") for n in range(30)
    )
    by_hand = finding("/opt/conda/bin/root.exe", by_hand="readelf -d /opt/conda/bin/root.exe")
    results = []
    for one in (good, bad, other):
        results += [
            result(one, "os-release"),
            result(one, "files", "waived" if one is other else "passed"),
            result(one, "layers-secrets", "skipped"),
        ]
    results += [
        result(good, "rpath-hard-coded"),
        result(bad, "rpath-hard-coded", "failed", findings=(by_hand,)),
        result(bad, "parity-packages", "failed", findings=packages, checked=300),
        result(other, "imports", "error"),
    ]
    return report(*results, images=(good, bad, other))


def large(images: int = 50, checks: int = 100) -> Report:
    """So many images x checks, every 17th of them failed."""
    every = tuple(image(f"ml-{n}:alma9-python3{n}", "docker") for n in range(images))
    results = [
        result(one, f"check-{n}", "failed" if (index * checks + n) % 17 == 0 else "passed")
        for index, one in enumerate(every)
        for n in range(checks)
    ]
    return report(*results, images=every)


def hostile() -> Report:
    """An image that says HOSTILE wherever it can."""
    one = image(
        HOSTILE,
        digest=HOSTILE,
        notes=(HOSTILE,),
        unused_waivers=(HOSTILE,),
        layers=(LAYERS[0].model_copy(update={"created_by": HOSTILE}),),
    )
    said = finding(HOSTILE, found=HOSTILE, expected=HOSTILE, source=f"{HOSTILE}:3", by_hand=HOSTILE)
    return report(
        result(one, HOSTILE, "failed", findings=(said,), notes=(HOSTILE,)),
        result(one, "packages-promised", "failed", findings=(said,)),
        result(one, "b", "error", message=HOSTILE),
        result(one, "c", "skipped", message=HOSTILE),
        result(one, "d", "waived", findings=(said,)),
        images=(one,),
        machine=HOSTILE,
        mlcheck_version=HOSTILE,
    )  # fmt: skip
