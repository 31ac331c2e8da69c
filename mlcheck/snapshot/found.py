"""Read from an image everything that expectations can be made of.

Only rpm, micromamba, `jupyter kernelspec` and the image's own server run in it, since nothing else
knows what they know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.image.api import RootFS
from mlcheck.inspect.conda import records as conda_records
from mlcheck.inspect.elf import libraries
from mlcheck.inspect.elf import probe as elf
from mlcheck.inspect.facts import Facts
from mlcheck.inspect.files import size
from mlcheck.inspect.files.facts import PromisedFiles
from mlcheck.inspect.jupyter import kernelspecs
from mlcheck.inspect.jupyter.facts import Kernelspecs
from mlcheck.inspect.layers import probe as layers
from mlcheck.inspect.layers.facts import Layers
from mlcheck.inspect.packages import asked_for, distributions, r_packages
from mlcheck.inspect.packages.facts import (
    AskedFor,
    InstalledPackages,
    ListedPackages,
    PackageList,
    Requested,
)
from mlcheck.inspect.parity import probe as parity
from mlcheck.inspect.prefix import probe as prefixes
from mlcheck.inspect.prefix.chosen import prefix_of
from mlcheck.inspect.prefix.facts import Environments, Prefix, Prefixes
from mlcheck.inspect.probe_catalog import facts_about
from mlcheck.inspect.server import probe as started
from mlcheck.inspect.server.facts import Account, Accounts, Started
from mlcheck.inspect.system.facts import OsRelease
from mlcheck.model.environment import Environment
from mlcheck.model.errors import NothingRuns
from mlcheck.model.files import ResolvedFile

SHELLS = ("/bin/sh", "/bin/bash", "/bin/zsh", "/bin/tcsh", "/bin/fish")
PACKAGE_LIST = "/list-of-pkgs-inside.txt"
_MADE_BY_ENGINES = ("/.dockerenv", "/environment", "/singularity", "/.exec", "/.run", "/.shell")
_SYSTEMS_OWN = ("/.autorelabel", "/.readahead", "/.hushlogin")


@dataclass(frozen=True)
class Found:
    """Everything that was read from an image.

    Args:
        name, tag: name and tag of the image, as the user wrote them.
        prefix: root of conda or of a virtual environment; None for the system's or no Python.
        files: entries of `/`, the shells, and the scripts of the start, by path.
        r_names: R packages by their names in lower case.
        sonames: libraries that files of the prefix need and the loader finds in the system.
        sif: bytes of the SIF file; None if the image is not one.
        directory: whether it is a directory on this machine.
        server: port of the image's server, and its answers; None if none was started.
        others: environments about which nothing is expected.
    """

    name: str
    tag: str | None
    system: OsRelease
    environment: Environment
    prefix: str | None
    python: str
    packages: InstalledPackages
    asked: AskedFor
    listed: PackageList | None
    kernels: Kernelspecs
    tools: Mapping[str, str]
    files: Mapping[str, ResolvedFile]
    accounts: Mapping[str, Account]
    unpacked: int
    r_names: Mapping[str, str] = field(default_factory=dict)
    sonames: tuple[str, ...] = ()
    layers: Layers | None = None
    sif: int | None = None
    directory: bool = False
    server: tuple[int, Started] | None = None
    others: tuple[Prefix, ...] = ()


def look(image: OpenImage, static: Ask) -> Found:
    """Read an image.

    Raises:
        EngineError, ProbeError: the engine or this machine failed.
    """
    rootfs, env = image.rootfs, image.environment
    facts = facts_about(image, static)
    every = facts[Environments]
    tools = static(parity.tools, rootfs, env).paths
    prefix = prefix_of(rootfs, env, tools, every)
    paths = [*_at_the_top(rootfs), *SHELLS]
    for words in (env.entrypoint or (), env.cmd or ()):
        paths += [word for word in words[:1] if word.startswith("/")]
    if prefix:
        archive = f"{prefix}/newEnv-base.tgz"
        paths += [archive] if rootfs.resolve(archive).final is not None else []
    of = facts.expecting(prefix=prefix, files=dict.fromkeys(paths))
    packages, used = of[InstalledPackages], of[Environments]
    python = static(distributions.probe, rootfs, prefix or _system(tools))
    requested = of[Requested] if prefix else Requested((), "")
    records = conda_records.read(rootfs, prefix) if prefix else None
    return Found(
        name=image.ref.name,
        tag=image.ref.tag,
        system=of[OsRelease],
        environment=env,
        prefix=prefix,
        python=python.python,
        packages=packages,
        asked=asked_for.probe(rootfs, packages, requested, records, python),
        listed=of[ListedPackages] if rootfs.resolve(PACKAGE_LIST).final is not None else None,
        kernels=_kernels(of),
        tools=tools,
        files=of[PromisedFiles].files,
        accounts=of[Accounts].accounts,
        unpacked=static(size.probe, rootfs).unpacked,
        r_names={p.name.lower(): p.name for p in static(r_packages.probe, rootfs, used).packages},
        sonames=_of_the_system(of, prefix) if prefix else (),
        layers=None if image.layers is None else static(layers.probe, image.layers),
        sif=Path(image.ref.location).stat().st_size if image.ref.kind == "sif" else None,
        directory=image.ref.kind in ("directory", "reference"),
        server=_server(image, prefix) if prefix else None,
        others=_others(rootfs, every, used),
    )


def _system(tools: Mapping[str, str]) -> str:
    """Return the prefix of the system's Python."""
    return next(
        (path for path in prefixes.SYSTEM if tools.get("python3", "").startswith(f"{path}/bin/")),
        "/usr",
    )


def _others(rootfs: RootFS, environments: Prefixes, used: Prefixes) -> tuple[Prefix, ...]:
    real = {rootfs.resolve(one.path).final_path for one in used.found}
    return tuple(one for one in environments.found if one.path not in real)


def _at_the_top(rootfs: RootFS) -> list[str]:
    """List files in `/`, where system packages have none: somebody put them there for users."""
    paths = [f"/{name}" for name in rootfs.listdir("/")]
    known = (*_MADE_BY_ENGINES, *_SYSTEMS_OWN)
    found = [(path, rootfs.lstat(path)) for path in paths if path not in known]
    return [path for path, file in found if file is not None and file.type == "file"]


def _kernels(facts: Facts) -> Kernelspecs:
    try:
        return facts[Kernelspecs]
    except NothingRuns:
        return facts.ask(kernelspecs.from_files, facts.image.rootfs, facts.image.environment)


NOTEBOOK_PORT = 8888
URL_PREFIX = "/mlcheck/snapshot"


def _server(image: OpenImage, prefix: str) -> tuple[int, Started] | None:
    """Start the server in CMD if the image has all the marks of a notebook server: a port, and a
    user as in docker-stacks."""
    config = image.environment
    ports = [port.partition("/")[0] for port in config.exposed or ()]
    port = int(ports[0]) if len(ports) == 1 and ports[0].isdigit() else NOTEBOOK_PORT
    if not config.cmd or "NB_USER" not in config.env or (ports and str(port) not in ports):
        return None
    try:
        return port, started.server(
            image,
            f"{prefix}/bin/python3",
            variable="NB_PREFIX",
            prefix=URL_PREFIX,
            port=port,
            pages=[f"{URL_PREFIX}/"],
            healthcheck=config.health_command,
            site=prefix,
        )
    except NothingRuns:
        return None


_GLIBC: tuple[str, ...] = (
    "ld-linux",
    "libc.so",
    "libm.so",
    "libdl.so",
    "libpthread.so",
    "librt.so",
    "libutil.so",
)
_GLIBC += ("libresolv.so", "libnsl.so", "libanl.so", "libmvec.so", "libcrypt.so")
_GPU = ("libcuda.so", "libnvidia", "libnvcuvid")


def _of_the_system(facts: Facts, prefix: str) -> tuple[str, ...]:
    files = facts.ask(elf.probe, facts.image.rootfs, prefix)
    inside = {path.rpartition("/")[2] for path in files.files}
    inside |= {file.soname for file in files.files.values() if file.soname}
    needed = {name for file in files.files.values() for name in file.needed}
    # Nothing links these; ROOT, Qt and OpenCV open them by name.
    needed |= {"libGL.so.1", "libEGL.so.1"}
    asked = sorted(name for name in needed - inside if not name.startswith((*_GLIBC, *_GPU)))
    resolved = facts.ask(libraries.probe, facts.image, asked, [f"{prefix}/bin/python3"])
    return tuple(
        sorted(
            {
                need.soname
                for need in resolved.needs
                if not need.by
                and need.final_path is not None
                and not need.final_path.startswith(f"{prefix}/")
            }
        )
    )
