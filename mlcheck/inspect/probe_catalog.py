"""Facts that `mlcheck facts` shows of an image, with a profile or without one, by the names that
`--probe` takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

from mlcheck.engines.base import PLAINLY, Ask, OpenImage, Prepared
from mlcheck.inspect.conda.facts import FileContents, FilePresence
from mlcheck.inspect.elf import libraries
from mlcheck.inspect.elf import probe as elf
from mlcheck.inspect.elf.facts import ElfFiles, Libraries
from mlcheck.inspect.environments.facts import EnvArchive, NewEnv
from mlcheck.inspect.facts import Facts, Session
from mlcheck.inspect.files.facts import ImageSize, PromisedFiles, Scripts
from mlcheck.inspect.framework.facts import Framework
from mlcheck.inspect.gpu import probe as gpu
from mlcheck.inspect.jupyter import kernelspecs
from mlcheck.inspect.layers import probe as layers
from mlcheck.inspect.layers.facts import Layers
from mlcheck.inspect.packages import r_packages
from mlcheck.inspect.packages.facts import (
    Distributions,
    InstalledPackages,
    ListedPackages,
    ModuleImports,
)
from mlcheck.inspect.parity import probe as parity
from mlcheck.inspect.prefix import probe as prefixes
from mlcheck.inspect.prefix.facts import Environments, Prefix
from mlcheck.inspect.root.facts import PyRoot, RootConfig, RootProgram
from mlcheck.inspect.startup.facts import EntrypointRuns
from mlcheck.inspect.system.facts import Commands, OsRelease, PythonProbe, Shells
from mlcheck.model.files import File
from mlcheck.profile.catalog import Profile
from mlcheck.profile.schema import Expectations

_MODULES = ("ssl", "sqlite3", "numpy", "pandas", "ROOT")

USUAL = Profile.of(
    {
        "packages": {
            "list": "/list-of-pkgs-inside.txt",
            "required": {name: {"version": "*", "import": name} for name in _MODULES},
        },
        "files": {
            path: {}
            for path in (
                *("/entrypoint.sh", "/bin/micromamba", "/list-of-pkgs-inside.txt"),
                *("/setupMe-on-host.sh", "/setup-UserEnv-in-container.sh"),
                *("/create-newEnv-on-base.sh", "/create-py_newEnv-on-base.sh"),
            )
        },
        "libraries": {"system": ["libGL.so.1", "libstdc++.so.6", "libz.so.1"]},
        "new_env": {
            "script": "/create-newEnv-on-base.sh",
            "reuse": "setup-UserEnv-in-container.sh",
        },
        "shells": ["/bin/sh", "/bin/bash", "/bin/zsh", "/bin/tcsh"],
        "commands": {name: [name, "--version"] for name in ("micromamba", "pipenv", "jupyter-lab")},
        "size": {"unpacked": "1 GB"},
    }
)
"""Defaults for an image whose profile does not say what to look for."""


def facts_about(image: OpenImage, ask: Ask = PLAINLY, profile: Profile | None = None) -> Facts:
    """Return the facts of an image for people who look at it, whatever its profile promises.

    Args:
        profile: says what to look for; missing keys have the usual values. Without its prefix,
            every environment that is found is examined.
    """
    said = profile.expect if profile else Expectations()
    usual = USUAL.expect
    packages = usual.packages.model_copy(
        update={
            "list": said.packages.list or usual.packages.list,
            "required": said.packages.required
            if said.packages.modules()
            else usual.packages.required,
        }
    )
    libraries = usual.libraries.model_copy(
        update={"system": said.libraries.system or usual.libraries.system}
    )
    asked = usual.model_copy(
        update={
            "prefix": said.prefix,
            "packages": packages,
            "files": said.files or usual.files,
            "libraries": libraries,
            "shells": said.shells or usual.shells,
            "commands": said.commands or usual.commands,
        }
    )
    found = (
        ask(prefixes.find, image.rootfs)
        if said.prefix is None
        else ask(prefixes.at, image.rootfs, said.prefix)
    )
    session = Session(prepared=Prepared(image.ref, image.ref.location, image.digest))
    expected = dataclasses.replace(USUAL, expect=asked)
    return Facts(image, ask, expected, session, given={Environments: Environments(found)})


def _environments(facts: Facts, *kinds: str) -> list[Prefix]:
    """Return the environments of some kinds; those that the user named are of every kind."""
    found = facts[Environments].found
    named = facts.profile.expect.prefix is not None
    return [one for one in found if not kinds or one.kind in kinds or named]


def _each(facts: Facts, kind: type[object], *kinds: str) -> dict[str, object]:
    """Find a fact of each environment, by its root."""
    return {
        one.path: facts.expecting(prefix=one.path)[kind] for one in _environments(facts, *kinds)
    }


def _is_system(prefix: Prefix) -> bool:
    return prefix.path in ("/usr", "/")


def _elf(facts: Facts) -> Mapping[str, ElfFiles]:
    """Find ELF files by the directories of the environments: below /usr is all of the system
    too."""
    return {
        top: facts.ask(elf.probe, facts.image.rootfs, top)
        for one in _environments(facts)
        for top in (one.packages if _is_system(one) else (one.path,))
    }


def _libraries(facts: Facts) -> Libraries:
    programs = [
        path
        for one in _environments(facts)
        if not _is_system(one)
        for path in facts.ask(elf.probe, facts.image.rootfs, f"{one.path}/bin").files
    ]
    return facts.ask(libraries.probe, facts.image, facts.profile.expect.libraries.system, programs)


def _conda_files(facts: Facts) -> Mapping[str, tuple[FilePresence, FileContents]]:
    found = {}
    for one in _environments(facts, "conda"):
        of_one = facts.expecting(prefix=one.path)
        found[one.path] = (of_one[FilePresence], of_one[FileContents])
    return found


def _env_archive(facts: Facts) -> Mapping[str, EnvArchive]:
    promised = USUAL.expect.new_env
    assert promised is not None
    return {
        one.path: facts.expecting(
            prefix=one.path,
            new_env=promised.model_copy(update={"archive": f"{one.path}/newEnv-base.tgz"}),
        )[EnvArchive]
        for one in _environments(facts, "conda")
    }


def _new_environment(facts: Facts) -> NewEnv | None:
    """Try the first of conda's environments."""
    for one in _environments(facts, "conda"):
        return facts.expecting(prefix=one.path)[NewEnv]
    return None


def _framework(facts: Facts, module: str) -> Framework:
    promised = Profile.of({"framework": {"module": module, "cuda": False}}).expect.framework
    return facts.expecting(framework=promised)[Framework]


def _layers(facts: Facts) -> Layers | None:
    image = facts.image
    return None if image.layers is None else facts.ask(layers.probe, image.layers)


PROBES: Mapping[str, Callable[[Facts], object]] = MappingProxyType(
    {
        "os-release": lambda facts: facts[OsRelease],
        "environment": lambda facts: facts.image.environment,
        "files": lambda facts: facts[PromisedFiles],
        "size": lambda facts: facts[ImageSize],
        "package-list": lambda facts: facts[ListedPackages],
        "environments": lambda facts: facts[Environments],
        "installed": lambda facts: facts[InstalledPackages],
        "distributions": lambda facts: _each(facts, Distributions),
        "conda-files": _conda_files,
        "elf": _elf,
        "libraries": _libraries,
        "scripts": lambda facts: _each(facts, Scripts),
        "r-packages": lambda facts: facts.ask(
            r_packages.probe, facts.image.rootfs, facts[Environments]
        ),
        "tools": lambda facts: facts.ask(parity.tools, facts.image.rootfs, facts.image.environment),
        "layers": _layers,
        "kernelspecs": lambda facts: kernelspecs.probe(facts.image, facts.ask, facts[Environments]),
        "root-config": lambda facts: facts[RootConfig],
        "python": lambda facts: facts[PythonProbe],
        "entrypoint": lambda facts: facts[EntrypointRuns],
        "shells": lambda facts: facts[Shells],
        "commands": lambda facts: facts[Commands],
        "tensorflow": lambda facts: _framework(facts, "tensorflow"),
        "torch": lambda facts: _framework(facts, "torch"),
        "cuda-driver": lambda facts: gpu.driver(facts.image),
        "imports": lambda facts: facts[ModuleImports],
        "env-archive": _env_archive,
        "new-environment": _new_environment,
        "pyroot": lambda facts: facts[PyRoot],
        "root-program": lambda facts: facts[RootProgram],
    }
)
"""Probes by the name that `mlcheck facts --probe` takes; cheap and static ones first.

Those in OF_ENVIRONMENTS return one fact for each environment, by its directory."""

OF_ENVIRONMENTS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("distributions", "elf", "scripts"), "no environment"),
        **dict.fromkeys(("conda-files", "env-archive", "new-environment"), "no conda environment"),
    }
)
"""Reasons why some probes find nothing in an image without an environment."""


def to_json(fact: object) -> object:
    """Convert a fact to plain JSON data: the same fact always gives the same data.

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
