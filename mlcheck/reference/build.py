"""Build reference images in layers: packages, ml-base, additions of other images, faults."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from mlcheck.model.errors import EngineError, UsageError
from mlcheck.reference import (
    atlas,
    cache,
    condameta,
    config,
    consistency,
    debian,
    elf,
    frameworks,
    listing,
    newenv,
    python,
    real_root,
    root,
    rpmdb,
    stacks,
    system,
    tree,
    wheels,
)
from mlcheck.reference.cache import Job, Progress
from mlcheck.reference.condameta import CondaPackage, build_string
from mlcheck.reference.defects import Defect, find
from mlcheck.reference.python import PREFIX, SITE, VERSION
from mlcheck.reference.tools import tools

Add = Callable[[Path, Job, bool], list[CondaPackage]]
"""Function that extends a copy of ml-base, with real packages or not; returns their records."""


def _add_root(directory: Path, job: Job, real: bool) -> list[CondaPackage]:
    if real:
        debian.add_lib_gl(directory, job)
        records = real_root.add(directory, job)
    else:
        system.add_lib_gl(directory, job)
        records = root.add(directory, job)
    system.write_loader_cache(directory, job)
    return records


DERIVED: dict[str, tuple[str, Add]] = {
    "ml-pyroot": ("ROOT", _add_root),
    "ml-tensorflow-cpu": ("TensorFlow", frameworks.add_tensorflow_cpu),
    "ml-tensorflow-gpu": ("TensorFlow", frameworks.add_tensorflow_gpu),
    "ml-torch-gpu": ("torch", frameworks.add_torch_gpu),
}
"""Images that extend ml-base: a title, and the function that adds the rest."""

ALONE: dict[str, tuple[str, Callable[[Path, Job, bool], None]]] = {
    "atlas-jupyter": ("JupyterLab for ATLAS", atlas.add),
}
"""Images that share only the Python packages with ml-base: a title, and what makes them."""

NAMES = ("ml-base", *DERIVED, *ALONE, *stacks.IMAGES)
MICROMAMBA = "2.1.0"
_HERE = Path(__file__).parent
# Sources that cannot change a good image do not make cached images stale.
_NOT_IN_KEY = ("defects", "cli.py", "export.py", "tools.py", "__init__.py")
_PACKAGE_SOURCES = (
    "python.py",
    "wheels.py",
    "dist_info.py",
    "system.py",
    "elf.py",
    "tree.py",
    "rootfs/kernels",
)

_LISTED_SYSTEM_PACKAGES = ("which", "file", "git", "bzip2")

_REQUESTED = """
    catboost ipykernel jupyterlab lightgbm pip pipenv plotly_express scikit-hep scikit-learn
    seaborn tcsh uproot xgboost zsh
"""


def default_tag(name: str = "ml-base") -> str:
    """Return the tag of a reference image.

    It is the tag with the version of the running Python ("alma9-python311"), or "v1" for images of
    docker-stacks.
    """
    if name in stacks.IMAGES:
        return stacks.TAG
    return f"alma9-python{sys.version_info.major}{sys.version_info.minor}"


def build(
    name: str,
    *,
    tag: str | None = None,
    defects: Iterable[str] = (),
    real: bool = False,
    framework: bool = False,
    progress: Progress = lambda line: None,
) -> Path:
    """Build a reference image, or take it from the cache.

    Args:
        name: one of `NAMES`.
        tag: `default_tag()` or None.
        defects: names of faults in `DEFECTS`; each is planted once, in the order of the names.
        real: use complete real packages instead of stand-ins.
        framework: put TensorFlow itself into ml-tensorflow-cpu, even without `real`; some packages
            that come with it need a real pandas to load.
        progress: receives a line for each finished step.

    Returns: the image's root directory, called `NAME:TAG`. All users of the cache share it, so
    nobody may write into it.

    Raises:
        UsageError: there is no such image, tag or fault, or this machine cannot build it.
        EngineError: the build failed; no half-made image is left.
    """
    if name not in NAMES:
        raise UsageError(
            f"There is no reference image {name!r}.", f"There are: {', '.join(NAMES)}."
        )
    tag = tag or default_tag(name)
    if tag != default_tag(name):
        raise UsageError(
            f"The reference image {name}:{tag} cannot be built here: its Python is a copy of the "
            f"one that runs mlcheck, {python.full_version()}.",
            f"Ask for {name}:{default_tag(name)}, or run mlcheck with the Python of that tag.",
        )
    planted = [find(defect, name) for defect in sorted(set(defects))]
    for defect in planted:
        if defect.layers is not None:
            raise UsageError(
                f"The defect {defect.name} shows only in an image that has layers.",
                f"Write one: mlcheck reference build {name} --defect {defect.name} "
                f"--format docker-archive --output {name}.tar, and give docker-archive:{name}.tar.",
            )
    _require_linux()
    framework = real or (framework and name == "ml-tensorflow-cpu")
    steps = _Steps(progress, name, tag, real, framework, planted)
    return steps.with_defects() if planted else steps.good(name)


class _Steps:
    """The layers of one image; each one knows the layer below it."""

    def __init__(
        self,
        progress: Progress,
        name: str,
        tag: str,
        real: bool,
        framework: bool,
        planted: Sequence[Defect],
    ) -> None:
        self.progress, self.name, self.tag = progress, name, tag
        self.real, self.framework = real, framework
        self.planted = planted
        self.key = _hash(_sources(), _machine(), real, tag)

    def good(self, name: str) -> Path:
        label = f"{name}:{self.tag}"
        if name in stacks.ALL:
            return cache.layer(_hash(self.key, name), label, self._stack(name), self.progress)
        make = self._derived if name in DERIVED else self._base
        if name in ALONE:
            make = self._alone
        own = [name, self.framework] if name in DERIVED else [name]
        return cache.layer(_hash(self.key, *own), label, make, self.progress)

    def with_defects(self) -> Path:
        label = f"{self.name}:{self.tag}"
        names = [defect.name for defect in self.planted]
        key = _hash(self.key, self.name, self.framework, names, _content(_HERE / "defects"))

        def make(directory: Path, job: Job) -> None:
            cache.clone(self.good(self.name), directory)
            for defect in self.planted:
                defect.apply(directory)
                job.progress(f"defect planted: {defect.name}: {defect.plants}")

        return cache.layer(key, label, make, self.progress)

    def _packages(self) -> Path:
        files = (*wheels.LOCKS, *_PACKAGE_SOURCES)
        contents = (_content(_HERE / name) for name in files)
        key = _hash("packages 3", *contents, _machine(), self.real)

        def make(directory: Path, job: Job) -> None:
            tools(job.progress)
            _require_space(4.0 if self.real else 0.6)
            with self._step(job, 1, "Python") as step:
                python.lay_out(directory, job)
                step(f"{python.full_version()} of this machine, moved to {PREFIX}")
            with self._step(job, 2, "packages") as step:
                count, stand_ins = wheels.install(directory, job, real=self.real)
                wheels.arrange(directory)
                step(f"{count - stand_ins} from PyPI, {stand_ins} stand-ins")
            with self._step(job, 3, "byte code") as step:
                python.compile_bytecode(directory, job)
                step("compiled")
            # conda installs them like this. Images of docker-stacks share them, and there a group
            # must write.
            tree.tidy_modes(directory, group=[PREFIX])

        return cache.layer(key, "packages", make, self.progress)

    def _base(self, directory: Path, job: Job) -> None:
        tools(job.progress)
        cache.clone(self._packages(), directory)
        with self._step(job, 4, "system") as step:
            system.lay_out(directory, job)
            tree.overlay(directory, _HERE / "rootfs" / "ml-base", VERSION)
            system.add_old_host_libraries(directory, job)
            _micromamba(directory, job)
            shells = {"zsh": "5.9", "tcsh": "6.24.15"}
            if self.real:
                shells = debian.add_shells(directory, job)
            _links_of_system(directory)
            config.write_singularity(directory, self.tag)
            rpmdb.write(
                tree.at(directory, "/var/lib/rpm/rpmdb.sqlite"),
                system.PACKAGES,
                int(condameta.INSTALLED.timestamp()),
            )
            system.write_loader_cache(directory, job)
            step("commands, libraries and scripts")
        with self._step(job, 5, "records") as step:
            consistency.drop_missing_parts(directory, "scikit_hep")
            openssl = consistency.add_openssl(directory, job)
            count = _conda_packages(directory, shells, openssl)
            step(f"{count} in conda-meta, and the package list")
        _finish(directory, self._packages())

    def _derived(self, directory: Path, job: Job) -> None:
        tools(job.progress)
        cache.clone(self.good("ml-base"), directory)
        title, add = DERIVED[self.name]
        with self._step(job, 6, title) as step:
            if (own := _HERE / "rootfs" / self.name).is_dir():
                tree.overlay(directory, own, VERSION)
            config.write_singularity(directory, self.tag, self.name)
            condameta.write(directory, add(directory, job, self.framework))
            step("programs, libraries and records")
        _finish(directory, self.good("ml-base"))

    def _stack(self, name: str) -> Callable[[Path, Job], None]:
        """Build an image of docker-stacks, on the image below it or on the packages."""
        stack = stacks.ALL[name]

        def make(directory: Path, job: Job) -> None:
            tools(job.progress)
            below = self.good(stack.below) if stack.below else self._packages()
            cache.clone(below, directory)
            with self._step(job, 4 + len(stacks.lineage(name)), stack.title) as step:
                stack.add(directory, job, self.real)
                stacks.finish(directory, name, below)
                step("added")

        return make

    def _alone(self, directory: Path, job: Job) -> None:
        tools(job.progress)
        cache.clone(self._packages(), directory)
        title, add = ALONE[self.name]
        with self._step(job, 4, title) as step:
            add(directory, job, self.real)
            config.write_singularity(directory, self.tag, self.name)
            system.write_loader_cache(directory, job)
            tree.tidy_modes(directory, self._packages())
            step("system, programs and kernels")

    @contextlib.contextmanager
    def _step(self, job: Job, number: int, title: str) -> Iterator[Callable[[str], None]]:
        """Report the result of a step and its duration once the body has named the result."""
        start = time.monotonic()
        of = 6 if self.name in DERIVED else 4 if self.name in ALONE else 5
        if self.name in stacks.ALL:
            of = 4 + len(stacks.lineage(self.name))

        def done(what: str) -> None:
            job.progress(f"[{number}/{of}] {title}: {what} ({time.monotonic() - start:.1f} s)")

        yield done


def _finish(directory: Path, below: Path) -> None:
    listed = [package for package in system.PACKAGES if package.name in _LISTED_SYSTEM_PACKAGES]
    listing.write(directory, listed, MICROMAMBA)
    newenv.write(directory)
    tree.tidy_modes(directory, below)


def _micromamba(directory: Path, job: Job) -> None:
    program = tree.at(directory, "/usr/bin/micromamba")
    defines = {"VERSION": f'"{MICROMAMBA}"'}
    elf.compile_c(job, "micromamba.c", program, defines, ["-static"])
    os.link(program, tree.at(directory, f"{PREFIX}/bin/micromamba"))


def _links_of_system(directory: Path) -> None:
    for path, to in (
        ("/etc/os-release", "../usr/lib/os-release"),
        ("/etc/redhat-release", "almalinux-release"),
        ("/etc/system-release", "almalinux-release"),
        ("/usr/bin/zsh", "/opt/conda/bin/zsh"),
        ("/usr/bin/tcsh", "/opt/conda/bin/tcsh"),
    ):
        tree.symlink(directory, path, to)


def _conda_packages(directory: Path, shells: dict[str, str], openssl: CondaPackage) -> int:
    """Write the records of the prefix as in ml-base; returns their number."""
    certificates = tree.at(directory, f"{SITE}/certifi/cacert.pem").read_bytes()
    tree.write(directory, f"{PREFIX}/ssl/cacert.pem", certificates)
    tree.symlink(directory, f"{PREFIX}/ssl/cert.pem", "cacert.pem")
    shutil.copytree(
        tree.at(directory, f"{SITE}/tzdata/zoneinfo"),
        tree.at(directory, f"{PREFIX}/share/zoneinfo"),
        ignore=shutil.ignore_patterns("*.py", "__pycache__"),
    )
    packages = [openssl, *condameta.python_packages(directory, _REQUESTED.split())]
    owned = {path for package in packages for path in package.files}
    interpreter = condameta.files_below(
        directory,
        f"{PREFIX}/lib",
        *(f"{PREFIX}/bin/{name}" for name in ("python", "python3", f"python{VERSION}")),
    )
    packages += [
        CondaPackage(
            "python",
            python.full_version(),
            build_string("python", python=False) + "_cpython",
            "Python-2.0",
            ("tzdata", "ca-certificates", "openssl >=3.4.1,<4.0a0"),
            tuple(path for path in interpreter if path not in owned),
            requested=f"python={VERSION}",
        ),
        CondaPackage("python_abi", VERSION, f"8_cp{VERSION.replace('.', '')}", "BSD-3-Clause"),
        CondaPackage(
            "ca-certificates",
            "2025.1.31",
            build_string("ca-certificates", python=False),
            "ISC",
            files=("ssl/cacert.pem", "ssl/cert.pem"),
        ),
        CondaPackage(
            "tzdata",
            "2025b",
            build_string("tzdata", python=False),
            "LicenseRef-Public-Domain",
            files=condameta.files_below(directory, f"{PREFIX}/share/zoneinfo"),
            noarch=True,
        ),
        *(
            CondaPackage(
                name,
                version,
                build_string(name, python=False),
                licence,
                files=(f"bin/{name}",),
                requested=name,
            )
            for name, version, licence in (
                ("zsh", shells["zsh"], "MIT"),
                ("tcsh", shells["tcsh"], "BSD-3-Clause"),
            )
        ),
    ]
    condameta.write(directory, packages)
    return len(packages)


def _require_linux() -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise UsageError(
            "Reference images are made of this machine's own programs, for x86-64 Linux; this is "
            f"{platform.system()} on {platform.machine()}.",
            "Give an image with --image, or work on an x86-64 Linux machine.",
        )


def _require_space(needed: float) -> None:
    """Make sure that `needed` gigabytes are free."""
    free = shutil.disk_usage(cache.cache_root()).free / 1e9
    if free < needed:
        raise EngineError(
            f"A reference image needs about {needed} GB below {cache.cache_root()}, where "
            f"{free:.1f} GB are free.",
            "Free some, or set MLCHECK_CACHE_DIR to a directory on another file system.",
        )


def _machine() -> list[object]:
    """Return properties that distinguish this machine's Python and programs from others."""
    parts: list[object] = [sys.version]
    for path in (cache.base_interpreter(), Path("/bin/bash"), Path("/lib64/ld-linux-x86-64.so.2")):
        with contextlib.suppress(OSError):
            status = path.stat()
            parts.append((str(path), status.st_size, status.st_mtime_ns))
    return parts


def _sources() -> str:
    return _hash(
        *(
            _content(entry)
            for entry in sorted(_HERE.iterdir())
            if entry.name not in _NOT_IN_KEY and entry.name != "__pycache__"
        )
    )


def _content(path: Path) -> str:
    """Hash a file, or the names and contents of all files below a directory."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return _hash(
        *(
            (str(file.relative_to(path)), hashlib.sha256(file.read_bytes()).hexdigest())
            for file in files
            if file.is_file() and "__pycache__" not in file.parts
        )
    )


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]
