"""Probes: each reads and parses one thing and judges nothing.

What an image holds may be broken or hostile: a probe then records a `Problem` in its fact. Only
what this machine or the engine cannot do is raised (`ProbeError`, `EngineError`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mlcheck.engines.base import Ask, OpenImage, Plainly
from mlcheck.facts import (
    EnvArchive,
    File,
    FileContents,
    FilePresence,
    InstalledPackages,
    Layers,
    Libraries,
    NewEnv,
    Prefix,
    Prefixes,
    PrefixKind,
    Scripts,
)
from mlcheck.probes import (
    conda_files,
    distributions,
    elf,
    env_archive,
    framework,
    gpu,
    imports,
    installed,
    kernelspecs,
    layers,
    libraries,
    newenv,
    package_list,
    parity,
    prefixes,
    r_packages,
    root_config,
    root_runs,
    size,
    startup,
    system,
)


@dataclass(frozen=True)
class Questions:
    """What to ask an image for which no profile says it.

    Args:
        prefix: root of an environment; None: every one that is found.
        package_list: path of the package list.
        files: paths to look at.
        libraries: sonames to resolve, besides what the programs in `bin/` need.
        modules: Python modules to import.
        shells: paths of shells to start.
        new_env_script, new_env_reuse: what makes an environment, and what enters it again.
        commands: name to the argv that prints its version.
        static: calls the probes that only read, whose facts may be kept.
    """

    prefix: str | None = None
    package_list: str = "/list-of-pkgs-inside.txt"
    files: tuple[str, ...] = (
        "/entrypoint.sh",
        "/bin/micromamba",
        "/list-of-pkgs-inside.txt",
        "/setupMe-on-host.sh",
        "/setup-UserEnv-in-container.sh",
        "/create-newEnv-on-base.sh",
        "/create-py_newEnv-on-base.sh",
    )
    libraries: tuple[str, ...] = ("libGL.so.1", "libstdc++.so.6", "libz.so.1")
    new_env_script: str = "/create-newEnv-on-base.sh"
    new_env_reuse: str = "setup-UserEnv-in-container.sh"
    modules: tuple[str, ...] = ("ssl", "sqlite3", "numpy", "pandas", "ROOT")
    shells: tuple[str, ...] = ("/bin/sh", "/bin/bash", "/bin/zsh", "/bin/tcsh")
    commands: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {
            "micromamba": ("micromamba", "--version"),
            "pipenv": ("pipenv", "--version"),
            "jupyter-lab": ("jupyter-lab", "--version"),
        }
    )
    static: Ask = field(default_factory=Plainly)


def environments(image: OpenImage, ask: Questions) -> Prefixes:
    """The environments that are asked about."""
    if ask.prefix is None:
        return ask.static(prefixes.find, image.rootfs)
    return ask.static(prefixes.at, image.rootfs, ask.prefix)


def _paths(image: OpenImage, ask: Questions, *kinds: PrefixKind) -> list[str]:
    """The roots of the environments.

    Args:
        kinds: of which; none: of all.
    """
    found = environments(image, ask).found
    return [one.path for one in found if not kinds or one.kind in kinds or ask.prefix]


def _tops(image: OpenImage, ask: Questions) -> list[str]:
    """The directories of the environments: below /usr is all of the system too."""
    found = environments(image, ask).found
    return [top for one in found for top in (one.packages if _is_system(one) else (one.path,))]


def _is_system(prefix: Prefix) -> bool:
    return prefix.path in ("/usr", "/")


def _installed(image: OpenImage, ask: Questions) -> InstalledPackages:
    return installed.probe(image, ask.static, environments(image, ask))


def _libraries(image: OpenImage, ask: Questions) -> Libraries:
    found = environments(image, ask).found
    programs = [
        path
        for one in found
        if not _is_system(one)
        for path in ask.static(elf.probe, image.rootfs, f"{one.path}/bin").files
    ]
    return ask.static(libraries.probe, image, ask.libraries, programs)


def _conda_files(
    image: OpenImage, ask: Questions
) -> Mapping[str, tuple[FilePresence, FileContents]]:
    found = {}
    for path in _paths(image, ask, "conda"):
        recorded = ask.static.later(conda_files.records, image.rootfs, path)
        found[path] = (
            ask.static(conda_files.presence, image.rootfs, recorded),
            ask.static(conda_files.contents, image.rootfs, recorded),
        )
    return found


def _scripts(image: OpenImage, ask: Questions) -> Mapping[str, Scripts]:
    path = image.environment.env.get("PATH", "")
    return {
        prefix: ask.static(system.scripts, image.rootfs, prefix, path)
        for prefix in _paths(image, ask)
    }


def _env_archive(image: OpenImage, ask: Questions) -> Mapping[str, EnvArchive]:
    return {
        prefix: ask.static(env_archive.probe, image.rootfs, f"{prefix}/newEnv-base.tgz", prefix)
        for prefix in _paths(image, ask, "conda")
    }


def _new_environment(image: OpenImage, ask: Questions) -> NewEnv | None:
    """By the first of conda's."""
    for prefix in _paths(image, ask, "conda"):
        return newenv.probe(image, ask.new_env_script, ask.new_env_reuse, prefix)
    return None


def _layers(image: OpenImage, ask: Questions) -> Layers | None:
    return None if image.layers is None else ask.static(layers.probe, image.layers)


PROBES: Mapping[str, Callable[[OpenImage, Questions], object]] = MappingProxyType(
    {
        "os-release": lambda image, ask: ask.static(system.os_release, image.rootfs),
        "environment": lambda image, _: image.environment,
        "files": lambda image, ask: ask.static(system.files, image.rootfs, ask.files),
        "size": lambda image, ask: ask.static(size.probe, image.rootfs),
        "package-list": lambda image, ask: ask.static(
            package_list.read, image.rootfs, ask.package_list
        ),
        "environments": environments,
        "installed": _installed,
        "distributions": lambda image, ask: {
            prefix: ask.static(distributions.probe, image.rootfs, prefix)
            for prefix in _paths(image, ask)
        },
        "conda-files": _conda_files,
        "elf": lambda image, ask: {
            top: ask.static(elf.probe, image.rootfs, top) for top in _tops(image, ask)
        },
        "libraries": _libraries,
        "scripts": _scripts,
        "r-packages": lambda image, ask: ask.static(
            r_packages.probe, image.rootfs, environments(image, ask)
        ),
        "tools": lambda image, ask: ask.static(parity.tools, image.rootfs, image.environment),
        "layers": _layers,
        "kernelspecs": lambda image, ask: kernelspecs.probe(
            image, ask.static, environments(image, ask)
        ),
        "root-config": lambda image, ask: root_config.probe(image, ask.static),
        "python": lambda image, _: system.python(image),
        "entrypoint": lambda image, _: startup.entrypoint(image),
        "shells": lambda image, ask: system.shells(image, ask.static, ask.shells),
        "commands": lambda image, ask: system.commands(image, ask.commands),
        "tensorflow": lambda image, _: framework.probe(image, "tensorflow"),
        "torch": lambda image, _: framework.probe(image, "torch"),
        "cuda-driver": lambda image, _: gpu.driver(image),
        "imports": lambda image, ask: imports.probe(image, ask.modules),
        "env-archive": _env_archive,
        "new-environment": _new_environment,
        "pyroot": lambda image, _: root_runs.pyroot(image, None),
        "root-program": lambda image, ask: root_runs.program(image, ask.static, None),
    }
)
"""Every probe by the name that `mlcheck facts --probe` takes; cheap and static ones first.

Those in OF_ENVIRONMENTS answer for each environment, by its directory."""

OF_ENVIRONMENTS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("distributions", "elf", "scripts"), "no environment"),
        **dict.fromkeys(("conda-files", "env-archive", "new-environment"), "no conda environment"),
    }
)
"""Probes that say nothing of an image without an environment: what it then has not."""


def to_json(fact: object) -> object:
    """A fact as plain JSON data: the same fact always gives the same data.

    Mappings are sorted by key and sets by value; text that is not Unicode (names of files) has
    its odd bytes as `\\udcXX` escapes.
    """
    if dataclasses.is_dataclass(fact) and not isinstance(fact, type):
        return {item.name: to_json(getattr(fact, item.name)) for item in dataclasses.fields(fact)}
    if isinstance(fact, File):
        return to_json(fact._asdict())
    if isinstance(fact, Mapping):
        return {_text(str(key)): to_json(fact[key]) for key in sorted(fact)}
    if isinstance(fact, (set, frozenset)):
        return sorted((to_json(item) for item in fact), key=str)
    if isinstance(fact, (list, tuple)):
        return [to_json(item) for item in fact]
    return _text(fact) if isinstance(fact, str) else fact


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
