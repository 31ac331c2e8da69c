"""The state of one pytest process' run: images on engines, expectations, and results."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fnmatch
import functools
import os
import platform
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pytest

import mlcheck
from mlcheck import cache
from mlcheck.engines import binds, installed, limits, select
from mlcheck.engines.base import Prepared, Progress, Start
from mlcheck.engines.resolve import Resolved, resolve
from mlcheck.inspect.deployed.facts import PublishedDigest
from mlcheck.inspect.facts import Facts, Session
from mlcheck.machine import gpu
from mlcheck.model.errors import EngineError, MlcheckError, UsageError, raising_only
from mlcheck.model.image_ref import ImageRef
from mlcheck.profile.catalog import SUITE, Catalog, Profile
from mlcheck.profile.published import ALL, Published
from mlcheck.pytest_plugin import without_profile
from mlcheck.pytest_plugin.baseline import Baseline
from mlcheck.pytest_plugin.quiet import is_quiet
from mlcheck.report import bounds, overview, text
from mlcheck.report.model import ImageModel, LayerModel, Report, ResultModel

_REGISTRY_LIMIT_S = 15.0
"""Seconds to ask a registry for one digest; many machines with CVMFS reach none."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


IMAGE_VARIABLE = "IMAGE_NAME"
"""Variable of this machine that names images where --image does not."""


@dataclass(frozen=True)
class Target:
    """One image on one engine, and the expectations for it.

    Args:
        why: reason why this engine was chosen.
        label: name and tag of the image, or the whole reference if two are alike in that.
        meant: reason for the choice of this image, in words, if the user wrote a short name;
            otherwise "".
        published: True if it is the published image of a short name.
        without_profile: True if no profile knows it: `profile` is what holds for every image.
    """

    ref: ImageRef
    engine: str
    why: str
    profile: Profile
    label: str
    meant: str = ""
    published: bool = False
    without_profile: bool = False

    @property
    def id(self) -> str:
        return f"{self.label}@{self.engine}"


class Run:
    """The options of a run, its targets, and its results so far.

    Args:
        given: in a worker, the decisions of the process that the user started.
    """

    def __init__(self, config: pytest.Config, given: Mapping[str, Any] | None = None) -> None:
        self.config = config
        self.started = datetime.datetime.now(datetime.UTC)
        self.started_ns = time.time_ns()
        self.clock = time.monotonic()
        self.catalog = Catalog([Path(p) for p in config.getoption("--profiles")] + [SUITE])
        self.package_list = self._file_option("--package-list")
        self.base_list = self._file_option("--base-list")
        self.baseline = Baseline.of(config)
        self.binds = binds.parse_all(config.getoption("--bind"))
        self.limits = limits.parse(
            config.getoption("--limit-memory"), config.getoption("--limit-processes")
        )
        self._config_digests = self._digests_option("--config-digest")
        self.results: list[ResultModel] = []
        self.notes: dict[str, dict[str, None]] = {}
        self.layers: dict[str, tuple[LayerModel, ...]] = {}
        self._given = given
        self._ready: dict[str, Prepared | EngineError] = {}
        self._images = contextlib.ExitStack()
        self._found_without_profile: dict[str, without_profile.Found] = {}

    @functools.cached_property
    def of_suite(self) -> bool:
        """Return whether this run collects tests of images at all, and not only other tests."""
        real = os.path.realpath  # Path.resolve raises if a link leads in a circle
        suites = [Path(real(directory)) for directory in self.catalog.directories]
        for argument in self.config.args:
            path = Path(real(self.config.invocation_params.dir / argument.partition("::")[0]))
            if any(path in (s, *s.parents) or s in path.parents for s in suites):
                return True
        return False

    @functools.cached_property
    def targets(self) -> list[Target]:
        """Return each image on each of the requested engines.

        Raises:
            UsageError: an image, an engine or a profile cannot be used.
        """
        option = self.config.getoption
        name, _, tag = (option("--profile") or "").partition(":")
        targets = []
        labels = [found.ref.label for found in self._resolved]
        for found in self._resolved:
            ref = found.ref
            engines = None
            try:
                if not name and self._is_without_profile(ref):
                    engines = self._engines(ref)
                    profile = Profile.of(self._without_profile(ref, engines[0][0]), ref.name)
                else:
                    profile = self.catalog.load(
                        name or ref.name, (tag or None) if name else ref.tag
                    )
            except UsageError:
                if not name and self._given is None and not self.config.option.collectonly:
                    select.check_exists(ref)  # a missing image is the nearer mistake
                raise
            profile = self.baseline.added_to(profile)
            label = ref.label if labels.count(ref.label) == 1 else ref.text
            for engine, why in engines or self._engines(ref):
                published = found.published is not None
                targets.append(
                    Target(
                        ref, engine, why, profile, label, found.why, published, engines is not None
                    )
                )
        if self.package_list and not any(one.profile.says("packages.list") for one in targets):
            raise UsageError(
                "--package-list: the profile says nothing at packages.list, so that nothing would "
                "be compared with this file.",
                "Add packages.list to the profile, or leave the option away.",
            )
        return targets

    def _is_without_profile(self, ref: ImageRef) -> bool:
        if self._given is not None:
            return ref.text in self._given["without_profile"]
        return without_profile.is_meant(ref, self.catalog, self.config.getoption("--profiles"))

    def _without_profile(self, ref: ImageRef, engine: str) -> dict[str, Any]:
        """Return what holds for every image, found by the process that the user started."""
        if self._given is not None:
            found = without_profile.Found(self._given["without_profile"][ref.text])
        elif self.config.option.collectonly:
            found = without_profile.Found({})
        else:

            def told(line: str) -> None:
                if is_quiet(self.config):
                    return
                print(f"mlcheck: {text.line(f'{ref.text}: {line}')}", file=sys.stderr)

            pull = self.config.getoption("--pull")
            found = without_profile.expectations(ref, engine, pull, told, self.started_ns)
        self._found_without_profile[ref.text] = found
        return found.data

    def looked_for(self, target: Target) -> without_profile.Found:
        """Return what was found in an image without a profile, and what could not be looked for."""
        found = self._found_without_profile.get(target.ref.text)
        return found if found is not None and target.without_profile else without_profile.Found({})

    @functools.cached_property
    def compared(self) -> Target | None:
        """Return the image of --compare, on the first requested engine that opens it.

        Raises:
            UsageError: it, its engine or its profile cannot be used.
        """
        text = self.config.getoption("--compare")
        if text is None:
            return None
        if self._given is not None:
            fields, why, engine, chosen = self._given["compared"]
            found = Resolved(ImageRef(**fields), why)
        else:
            if text == ALL:
                raise UsageError("--compare all: that is more than one image.")
            asked = self.config.getoption("--engine") or [select.AUTO]
            (found,) = self._resolve([text], asked)
            kind = found.ref.kind
            named = [name for name in asked if name != select.AUTO]
            fitting = [name for name in named if kind in installed.declaration(name).opens]
            ((engine, chosen), *_) = self._choose(found.ref, fitting[:1] or [select.AUTO])
        ref = found.ref
        known = self.catalog.name_of(ref.name) is not None
        profile = self.catalog.load(ref.name, ref.tag) if known else Profile.of({}, ref.name)
        label = f"--compare {ref.text}"
        return Target(ref, engine, chosen, profile, label, found.why, found.published is not None)

    @functools.cached_property
    def _resolved(self) -> list[Resolved]:
        """Resolve the values of --image."""
        if self._given is not None:
            # Docker's images and mounts may have changed by now.
            return [Resolved(ImageRef(**fields), why) for fields, why in self._given["resolved"]]
        option = self.config.getoption
        images = option("--image") or self._named_by_environment() or self._reference_images()
        return self._resolve(images, option("--engine") or [select.AUTO])

    def _resolve(self, images: Sequence[str], engines: Sequence[str]) -> list[Resolved]:
        return resolve(
            images,
            Published(self.catalog),
            engines=engines,
            pull=self.config.getoption("--pull"),
            stores=not self.config.option.collectonly,
        )

    @staticmethod
    def _named_by_environment() -> list[str]:
        """Return the image that IMAGE_NAME names, as in the tests of docker-stacks and the like."""
        return os.environ.get(IMAGE_VARIABLE, "").split()

    @staticmethod
    def _reference_images() -> list[str]:
        """Return the images that are judged when none is given."""
        from mlcheck import reference

        return [f"reference:{name}" for name in reference.NAMES]

    def _engines(self, ref: ImageRef) -> Sequence[Sequence[str]]:
        if self._given is not None:
            chosen: Sequence[Sequence[str]] = self._given["engines"][ref.text]
            return chosen
        return self._choose(ref, self.config.getoption("--engine") or [select.AUTO])

    def _choose(self, ref: ImageRef, wanted: Sequence[str]) -> Sequence[Sequence[str]]:
        if self.config.option.collectonly:
            # Nothing will be opened: no engine has to be there.
            if ref.place in select.stores():
                return select.choose(ref, wanted)
            likely = select.preferred(ref.kind)[0]
            named = dict.fromkeys(likely if name == select.AUTO else name for name in wanted)
            return [(name, "not tried") for name in named]
        return select.choose(ref, wanted)

    def _file_option(self, option: str) -> Path | None:
        value = self.config.getoption(option)
        if value is None:
            return None
        path: Path = self.config.invocation_params.dir / str(value)
        if not path.is_file():
            raise UsageError(f"{option} {value}: there is no such file.")
        return path

    def _digests_option(self, option: str) -> dict[str, str]:
        """Map each image as written, or "" for all, to its expected digest."""
        found = {}
        for value in self.config.getoption(option):
            image, _, digest = str(value).rpartition("=")
            if not _DIGEST.fullmatch(digest):
                raise UsageError(
                    f"{option} {value}: expected [IMAGE=]sha256:<64 hex digits>.",
                    "It is the digest of the image's configuration: "
                    "`mlcheck info IMAGE` shows it as config digest.",
                )
            found[image] = digest
        return found

    def published_digest(self, target: Target, directory: str) -> PublishedDigest:
        """Return the published image for the one in `directory`: as given, or as its registry
        reports."""
        for image in (target.ref.text, target.label, ""):
            if image in self._config_digests:
                return PublishedDigest(self._config_digests[image], "--config-digest")
        reference = Published(self.catalog).reference_of(directory)
        if reference is None:
            return PublishedDigest(
                None, "of which image it is a copy was not said (--config-digest)"
            )
        from mlcheck.engines.oci import registry

        try:
            found = registry.describe(ImageRef.parse(reference), limit_s=_REGISTRY_LIMIT_S)
        except MlcheckError as error:
            return PublishedDigest(None, f"{error.what} --config-digest gives it without asking.")
        return PublishedDigest(found.config_digest, reference)

    def session(self, target: Target) -> Session:
        """Return this run's knowledge of the image of a target, for its facts."""
        return Session(
            prepared=self.prepared(target),
            start=self.start(target),
            package_list=self.package_list,
            base_list=self.base_list,
            gpu_refused=self.gpu_refused(target),
            require_gpu=bool(self.config.getoption("--require-gpu")),
            published_digest=functools.partial(self.published_digest, target),
            compared=self._compared_facts if self.compared else None,
        )

    def _compared_facts(self, stack: contextlib.ExitStack) -> Facts:
        """Return the facts of the image of --compare, which is open until the stack is closed."""
        target = self.compared
        assert target is not None
        prepared = self.prepared(target)
        image = stack.enter_context(select.opened(prepared, target.engine))
        ask = cache.asking(image, self.started_ns)
        facts = Facts(image, ask, target.profile, Session(prepared=prepared))
        stack.callback(facts.close)
        return facts

    def start(self, target: Target) -> Start:
        """Return the way in which the image of a target is started."""
        gpus = not self.gpu_refused(target)
        return Start(self.config.getoption("--network"), gpus, self.binds, self.limits)

    def gpu_refused(self, target: Target) -> str:
        """Return why no GPU is requested, or "" if one is."""
        option = self.config.getoption
        request, required = option("--nv"), option("--require-gpu")
        if request == "always":
            return ""
        if request == "never" and not required:
            return "no GPU was asked for (--nv)"
        if not gpu.host_has_driver():
            pci = gpu.host().pci
            if not pci:
                return "this machine has no NVIDIA GPU"
            return f"this machine has an NVIDIA GPU (PCI {pci[0]}), and its driver is not loaded"
        if not installed.declaration(target.engine).gives_gpus:
            return f"the engine {target.engine} gives no GPU to an image"
        return ""

    def check_options(self) -> None:
        """Find mistakes before the first test, in one message.

        Raises:
            UsageError: an image does not exist.
        """
        for target in (*self.targets, *filter(None, [self.compared])):
            select.check_exists(target.ref)

    def prepare(self, targets: Sequence[Target], progress: Progress) -> None:
        """Prepare images. An engine's trouble is kept for the tests of its images.

        Raises:
            UsageError: an image that the user wrote as it is does not exist.
        """
        pull = self.config.getoption("--pull")
        for target in targets:

            def told(line: str, text: str = target.ref.text) -> None:
                progress(f"{text}: {line}")

            try:
                self._ready[target.id] = self._images.enter_context(
                    select.prepare(target.ref, target.engine, pull=pull, progress=told)
                )
            except EngineError as error:
                self._ready[target.id] = error
            except UsageError as error:
                if not target.published:
                    raise
                # Nobody wrote this reference: the other images of `all` are judged all the same.
                self._ready[target.id] = EngineError(error.what, error.remedy)

    def prepared(self, target: Target) -> Prepared:
        """Return the image of a target, ready to be opened.

        Raises:
            EngineError: it could not be made ready.
        """
        if self._given is not None:
            given, *error = self._given["images"][target.id]
            found: Prepared | EngineError = (
                EngineError(*error) if error else Prepared(target.ref, *given)
            )
        else:
            found = self._ready[target.id]
        if isinstance(found, EngineError):
            raise EngineError(found.what, found.remedy) from found.__cause__
        return found

    def digests(self) -> dict[str, str]:
        """Return the digests of the judged images that are ready and have one."""
        return {
            name: ready.digest
            for name, ready in self._ready.items()
            if isinstance(ready, Prepared) and ready.digest is not None
        }

    def for_workers(self) -> dict[str, Any]:
        """Return the value of `given` for a worker: data that execnet can send."""
        engines: dict[str, list[tuple[str, str]]] = {}
        for target in self.targets:
            engines.setdefault(target.ref.text, []).append((target.engine, target.why))
        images = {
            id_: (None, ready.what, ready.remedy)
            if isinstance(ready, EngineError)
            else ((ready.location, ready.digest, ready.config_digest),)
            for id_, ready in self._ready.items()
        }
        resolved = [(dataclasses.asdict(found.ref), found.why) for found in self._resolved]
        compared = self.compared and (
            dataclasses.asdict(self.compared.ref),
            self.compared.meant,
            self.compared.engine,
            self.compared.why,
        )
        return {
            "engines": engines,
            "images": images,
            "resolved": resolved,
            "compared": compared,
            "without_profile": {
                name: found.data for name, found in self._found_without_profile.items()
            },
        }

    def close(self) -> None:
        """Release everything that was made for this run alone.

        Raises:
            EngineError: an engine failed in that; what other engines made is released all the same.
        """
        with raising_only(EngineError, "releasing the images"):
            self._images.close()

    def report(
        self,
        left_out: Mapping[str, tuple[str, ...]],
        not_promised: Mapping[str, tuple[str, ...]],
    ) -> Report:
        """Return the results so far, with verdicts and the exit code that follows from them.

        Args:
            left_out: for each image the rules that were not chosen.
            not_promised: for each image the rules that its profile does not mention.
        """
        counts = dict.fromkeys(("passed", "failed", "error", "skipped", "waived"), 0)
        for result in self.results:
            counts[result.outcome] += 1
        report = Report(
            mlcheck_version=mlcheck.__version__,
            machine=platform.node() or None,
            started=self.started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self.clock, 3),
            exit_code=0,
            images=tuple(
                self._image(target, left_out[target.id], not_promised[target.id])
                for target in self.targets
            ),
            compared_with=self.compared and f"{self.compared.ref.text}@{self.compared.engine}",
            results=bounds.bounded(self.results),
            counts=counts,
        )
        found = overview.images(report)
        verdicts = {one.image.id: one.verdict[0] for one in found}
        images = (
            image.model_copy(update={"verdict": verdicts.get(image.id)}) for image in report.images
        )
        code = overview.exit_code(found)
        return report.model_copy(update={"images": tuple(images), "exit_code": code})

    def _image(
        self, target: Target, left_out: tuple[str, ...], not_promised: tuple[str, ...]
    ) -> ImageModel:
        results = [result for result in self.results if result.image == target.id]
        judged = {result.check for result in results if result.outcome != "skipped"}
        used = {waiver.source for result in results for waiver in result.waivers}
        unused = []
        for index, waiver in enumerate(target.profile.expect.waivers):
            source = str(target.profile.source("waivers", index))
            if waiver.check in judged and source not in used:
                unused.append(f"{source}: {waiver.check}")
        ready = self._ready.get(target.id)
        return ImageModel(
            id=target.id,
            reference=target.ref.text,
            profile=target.profile.name,
            lineage=target.profile.lineage,
            without_profile=target.without_profile,
            tag=target.profile.tag,
            not_selected=left_out,
            not_promised=not_promised,
            engine=target.engine,
            digest=ready.digest if isinstance(ready, Prepared) else None,
            config_digest=ready.config_digest if isinstance(ready, Prepared) else None,
            notes=(*self.notes.get(target.id, ()), *self._misspelt(target)),
            unused_waivers=tuple(unused),
            layers=self.layers.get(target.id, ()),
        )

    def _misspelt(self, target: Target) -> Iterator[str]:
        """Yield waivers and severities of rules that are neither of this run nor of the suite."""
        ran = {result.check for result in self.results}
        for pattern in target.profile.expect.severity:
            from mlcheck.inspect.rules import all_rules

            known = [*all_rules(), *filter(None, ran)]
            if not fnmatch.filter(known, pattern):
                near = get_close_matches(pattern, known, 1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                source = target.profile.source("severity", pattern)
                yield f"{source}: severity: there is no rule {pattern!r}.{hint}"
        for index, waiver in enumerate(target.profile.expect.waivers):
            if waiver.check in ran:
                continue
            from mlcheck.inspect.rules import all_rules

            # A name that resembles none may be a rule of the user's own that did not run.
            names = all_rules()
            if waiver.check not in names and (near := get_close_matches(waiver.check, names, 1)):
                source = target.profile.source("waivers", index)
                yield f"{source}: there is no rule {waiver.check!r}. Did you mean {near[0]!r}?"


def target_of(item: pytest.Item) -> Target | None:
    """Return the image that a test is about."""
    found = item.callspec.params.get("mlcheck_target") if hasattr(item, "callspec") else None
    return found if isinstance(found, Target) else None


RUN = pytest.StashKey[Run]()

WHOLE_IMAGES = "mlcheck_whole_images"
"""Key in the input of a worker of xdist: True if it has all tests of each of its images."""
