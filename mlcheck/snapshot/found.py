"""What an image has, of which expectations can be made. Nothing runs in it but rpm, micromamba,
`jupyter kernelspec` and the image's own server, where only they know."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlcheck import facts
from mlcheck.engines.base import Ask, OpenImage, RootFS
from mlcheck.errors import NothingRuns
from mlcheck.probes import (
    asked_for,
    conda_files,
    distributions,
    elf,
    installed,
    kernelspecs,
    layers,
    libraries,
    package_list,
    parity,
    prefixes,
    r_packages,
    requested,
    size,
    started,
    system,
    users,
)

SHELLS = ("/bin/sh", "/bin/bash", "/bin/zsh", "/bin/tcsh", "/bin/fish")
PACKAGE_LIST = "/list-of-pkgs-inside.txt"
_MADE_BY_ENGINES = ("/.dockerenv", "/environment", "/singularity", "/.exec", "/.run", "/.shell")
_SYSTEMS_OWN = ("/.autorelabel", "/.readahead", "/.hushlogin")


@dataclass(frozen=True)
class Found:
    """What an image has.

    Args:
        name, tag: of the image, as the user wrote it.
        prefix: of conda or a virtual environment; None: Python is the system's, or there is none.
        files: what is directly in `/`, at the shells' paths and at those of the start, by path.
        r_names: the packages of R, by their names in small letters.
        sonames: libraries that the prefix's files need, and that the loader finds in the system.
        sif: bytes of the SIF file; None: it is none.
        directory: whether it is a directory on this machine.
        server: its port, and what it answered; None: none was started.
        others: environments of which nothing is expected.
    """

    name: str
    tag: str | None
    system: facts.OsRelease
    environment: facts.Environment
    prefix: str | None
    python: str
    packages: facts.InstalledPackages
    asked: facts.AskedFor
    listed: facts.PackageList | None
    kernels: facts.Kernelspecs
    tools: Mapping[str, str]
    files: Mapping[str, facts.ResolvedFile]
    accounts: Mapping[str, facts.Account]
    unpacked: int
    r_names: Mapping[str, str] = field(default_factory=dict)
    sonames: tuple[str, ...] = ()
    layers: facts.Layers | None = None
    sif: int | None = None
    directory: bool = False
    server: tuple[int, facts.Started] | None = None
    others: tuple[facts.Prefix, ...] = ()


def look(image: OpenImage, static: Ask) -> Found:
    """Read an image.

    Raises:
        EngineError, ProbeError: the engine or this machine could not.
    """
    rootfs, env = image.rootfs, image.environment
    tools = static(parity.tools, rootfs, env).paths
    environments = static(prefixes.find, rootfs)
    prefix = prefix_of(rootfs, env, tools, environments)
    used = static(prefixes.at, rootfs, prefix)
    packages = installed.probe(image, static, used)
    python = static(distributions.probe, rootfs, prefix or _system(tools))
    records = conda_files.records(rootfs, prefix) if prefix else None
    history = static(requested.read, rootfs, prefix) if prefix else facts.Requested((), "")
    paths = [*_at_the_top(rootfs), *SHELLS]
    for words in (env.entrypoint or (), env.cmd or ()):
        paths += [word for word in words[:1] if word.startswith("/")]
    if prefix:
        archive = f"{prefix}/newEnv-base.tgz"
        paths += [archive] if rootfs.resolve(archive).final is not None else []
    listed = None
    if rootfs.resolve(PACKAGE_LIST).final is not None:
        listed = static(package_list.read, rootfs, PACKAGE_LIST)
    return Found(
        name=image.ref.name,
        tag=image.ref.tag,
        system=static(system.os_release, rootfs),
        environment=env,
        prefix=prefix,
        python=python.python,
        packages=packages,
        asked=asked_for.probe(rootfs, packages, history, records, python),
        listed=listed,
        kernels=_kernels(image, static),
        tools=tools,
        files=static(system.files, rootfs, list(dict.fromkeys(paths))).files,
        accounts=static(users.accounts, rootfs).accounts,
        unpacked=static(size.probe, rootfs).unpacked,
        r_names={p.name.lower(): p.name for p in static(r_packages.probe, rootfs, used).packages},
        sonames=_of_the_system(image, static, prefix) if prefix else (),
        layers=None if image.layers is None else static(layers.probe, image.layers),
        sif=Path(image.ref.location).stat().st_size if image.ref.kind == "sif" else None,
        directory=image.ref.kind in ("directory", "reference"),
        server=_server(image, prefix) if prefix else None,
        others=_others(rootfs, environments, used),
    )


def prefix_of(
    rootfs: RootFS,
    config: facts.Environment,
    tools: Mapping[str, str],
    environments: facts.Prefixes,
) -> str | None:
    """Root of the environment that users of the image work in: that of the first python3 on PATH,
    what the variables of conda and virtual environments say, that of the program which the image
    starts; where there is no python3 on PATH, the one with the most packages. None: Python is the
    system's, or there is none."""
    own = {one.path: one for one in environments.found if one.kind not in ("system", "packages")}
    python = tools.get("python3")
    programs = [python, rootfs.resolve(python).final_path] if python else []
    starts = [_above_bin(program) for program in programs]
    starts += [
        config.env[name]
        for name in ("CONDA_PREFIX", "CONDA_DIR", "VIRTUAL_ENV")
        if config.env.get(name)
    ]
    starts += [_above_bin(words[0]) for words in (config.entrypoint, config.cmd) if words]
    for top in starts:
        if top.startswith("/") and rootfs.resolve(top).final_path in own:
            return top.rstrip("/")
    if python or not own:
        return None
    return max(own.values(), key=lambda one: _size(rootfs, one)).path


def _above_bin(program: str) -> str:
    return posixpath.dirname(posixpath.dirname(program))


def _size(rootfs: RootFS, prefix: facts.Prefix) -> int:
    """About how many packages an environment has."""
    return sum(
        len(rootfs.listdir(path)) for path in (*prefix.packages, f"{prefix.path}/conda-meta")
    )


def _system(tools: Mapping[str, str]) -> str:
    """The prefix of the system's Python."""
    return next(
        (path for path in prefixes.SYSTEM if tools.get("python3", "").startswith(f"{path}/bin/")),
        "/usr",
    )


def _others(
    rootfs: RootFS, environments: facts.Prefixes, used: facts.Prefixes
) -> tuple[facts.Prefix, ...]:
    real = {rootfs.resolve(one.path).final_path for one in used.found}
    return tuple(one for one in environments.found if one.path not in real)


def _at_the_top(rootfs: RootFS) -> list[str]:
    """Files in `/`, where no package of a system has any: somebody put them there for users."""
    paths = [f"/{name}" for name in rootfs.listdir("/")]
    known = (*_MADE_BY_ENGINES, *_SYSTEMS_OWN)
    found = [(path, rootfs.lstat(path)) for path in paths if path not in known]
    return [path for path, file in found if file is not None and file.type == "file"]


def _kernels(image: OpenImage, static: Ask) -> facts.Kernelspecs:
    try:
        return kernelspecs.probe(image, static)
    except NothingRuns:
        return static(kernelspecs.from_files, image.rootfs, image.environment)


NOTEBOOK_PORT = 8888
URL_PREFIX = "/mlcheck/snapshot"


def _server(image: OpenImage, prefix: str) -> tuple[int, facts.Started] | None:
    """The server that CMD starts, where the image has all the marks of a notebook server: a port,
    and a user of docker-stacks' kind."""
    config = image.environment
    ports = [port.partition("/")[0] for port in config.exposed or ()]
    port = int(ports[0]) if len(ports) == 1 and ports[0].isdigit() else NOTEBOOK_PORT
    if not config.cmd or "NB_USER" not in config.env or (ports and str(port) not in ports):
        return None
    check = config.healthcheck or ()
    try:
        return port, started.server(
            image,
            f"{prefix}/bin/python3",
            variable="NB_PREFIX",
            prefix=URL_PREFIX,
            port=port,
            pages=[f"{URL_PREFIX}/"],
            healthcheck=check[1:] if check[:1] == ("CMD",) else (),
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


def _of_the_system(image: OpenImage, static: Ask, prefix: str) -> tuple[str, ...]:
    files = static(elf.probe, image.rootfs, prefix)
    inside = {path.rpartition("/")[2] for path in files.files}
    inside |= {file.soname for file in files.files.values() if file.soname}
    needed = {name for file in files.files.values() for name in file.needed}
    # Nobody links these, and ROOT, Qt and OpenCV open them by name.
    needed |= {"libGL.so.1", "libEGL.so.1"}
    asked = sorted(name for name in needed - inside if not name.startswith((*_GLIBC, *_GPU)))
    resolved = static(libraries.probe, image, asked, [f"{prefix}/bin/python3"])
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
