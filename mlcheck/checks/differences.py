"""In what two images differ. Nothing is judged here: see parity.py."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from packaging.utils import canonicalize_name

from mlcheck.facts import Environment, InstalledPackage, Side
from mlcheck.verdict import ShowFile

Aspect = Literal["os", "packages", "kernels", "tools", "environment", "files"]

MISSING = "missing"

_SYSTEM = ("dpkg", "rpm")
_WORDS = {"dist-info": "pip"}
"""What users call a source of packages, where it is another word than ours."""

_MERGED = ("/bin", "/sbin", "/usr/sbin")
"""Directories that are /usr/bin in some systems."""

_OF_BUILD = (
    *("org.label-schema.build-", "org.label-schema.usage", "org.label-schema.schema-version"),
    "org.opencontainers.image.created",
)
"""Beginnings of labels with the time of a build, and of those that apptainer adds."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which two images differ.

    Args:
        a, b: what each has; MISSING where it has nothing of the kind.
        names: by which a profile may allow it: globs are compared with each.
        version_of_system: whether another version of the operating system explains it.
        show: how a person sees it in the first image.
    """

    aspect: Aspect
    subject: str
    a: str
    b: str
    names: tuple[str, ...]
    version_of_system: bool = False
    show: ShowFile | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """What two images differ in, of how many things that were compared, and what was not."""

    count: int
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()


def system(a: Side, b: Side) -> Compared:
    """Name and version of the operating system."""
    found = [
        Difference(
            "os",
            key,
            a.system.fields.get(key, MISSING),
            b.system.fields.get(key, MISSING),
            (key,),
            version_of_system=key == "VERSION_ID",
            show=ShowFile("cat -v", "/etc/os-release"),
        )
        for key in ("ID", "VERSION_ID")
        if a.system.fields.get(key) != b.system.fields.get(key)
    ]
    return Compared(2 if a.system.fields or b.system.fields else 0, tuple(found))


def package_names(source: str, name: str) -> str:
    """By which a package is known: "pip:scikit-learn"."""
    return f"{_WORDS.get(source, source)}:{canonicalize_name(name)}"


def packages(a: Side, b: Side) -> Compared:
    """Name, version and who installed it, of what conda, pip, R and the system have.

    conda's and pip's packages are one kind, since either may have installed one; so a package is
    the same only if the same one did.
    """
    sides = _by_kind(a), _by_kind(b)
    notes = dict.fromkeys((*a.packages.notes, *b.packages.notes))
    found: list[Difference] = []
    count = 0
    for kind in dict.fromkeys((*sides[0], *sides[1])):
        here, there = (side.get(kind, {}) for side in sides)
        if kind in _SYSTEM and not (here and there):
            # One database that is not there is not as many packages that are missing.
            said = [f"{len(p)} packages" if p else MISSING for p in (here, there)]
            found.append(Difference("packages", kind, said[0], said[1], (kind, f"{kind}:*")))
            continue
        count += len({*here, *there})
        for key in sorted({*here, *there}):
            texts = [_versions(side.get(key, ())) for side in (here, there)]
            if texts[0] == texts[1]:
                continue
            every = [*here.get(key, ()), *there.get(key, ())]
            names = {every[0].name, key, *(package_names(p.source, p.name) for p in every)}
            show = ShowFile("cat -v", here[key][0].record) if key in here else None
            found.append(
                Difference(
                    "packages",
                    every[0].name,
                    texts[0],
                    texts[1],
                    tuple(sorted(names)),
                    version_of_system=kind in _SYSTEM and MISSING not in texts,
                    show=None if kind in _SYSTEM else show,
                )
            )
    return Compared(count, tuple(found), tuple(notes) if not count else ())


def _by_kind(side: Side) -> dict[str, dict[str, list[InstalledPackage]]]:
    found: dict[str, dict[str, list[InstalledPackage]]] = {}
    for package in side.packages.packages:
        if package.owner or package.name in side.packages.unasked:
            continue
        kind = package.source if package.source in (*_SYSTEM, "R") else "conda and pip"
        by_name = found.setdefault(kind, defaultdict(list))
        by_name[canonicalize_name(package.name)].append(package)
    return found


def _versions(packages: Iterable[InstalledPackage]) -> str:
    said = {f"{p.version} ({_WORDS.get(p.source, p.source)})" for p in packages}
    return " and ".join(sorted(said)) or MISSING


def kernels(a: Side, b: Side) -> Compared:
    """Each kernelspec: argv, name on the screen, language and environment."""
    sides = [{spec.name: spec for spec in reversed(side.kernels.specs)} for side in (a, b)]
    found = []
    for name in sorted({*sides[0], *sides[1]}):
        here, there = (side.get(name) for side in sides)
        show = ShowFile("cat -v", here.path) if here else None
        if here is None or there is None:
            said = [f"{spec.path}" if spec else MISSING for spec in (here, there)]
            found.append(Difference("kernels", name, said[0], said[1], (name,), show=show))
            continue
        for key, one, other in (
            ("argv", " ".join(here.argv), " ".join(there.argv)),
            ("display_name", here.display_name, there.display_name),
            ("language", here.language, there.language),
            ("env", _assignments(here.env), _assignments(there.env)),
        ):
            if one != other:
                texts = f"{key}: {one}", f"{key}: {other}"
                found.append(Difference("kernels", name, *texts, (name,), show=show))
    return Compared(len({*sides[0], *sides[1]}), tuple(found))


def _assignments(env: Mapping[str, str]) -> str:
    return " ".join(f"{key}={env[key]}" for key in sorted(env)) or "none"


def tools(a: Side, b: Side) -> Compared:
    """Each program on PATH, and whether it is the system's or of another directory."""
    here, there = a.tools.paths, b.tools.paths
    found = []
    for name in sorted({*here, *there}):
        paths = here.get(name, MISSING), there.get(name, MISSING)
        if _place(paths[0]) != _place(paths[1]):
            names = (name, *(path for path in paths if path != MISSING))
            found.append(Difference("tools", name, *paths, names))
    return Compared(len({*here, *there}), tuple(found))


def _place(path: str) -> str:
    directory = path.rpartition("/")[0]
    return "/usr/bin" if directory in _MERGED else directory


def environment(a: Side, b: Side) -> Compared:
    """Variables, and entrypoint, cmd, user, workdir, exposed ports and labels."""
    here, there = _settings(a.environment), _settings(b.environment)
    found = []
    notes = []
    for name in sorted({*here, *there}):
        one, other = here.get(name, ""), there.get(name, "")
        if None in (one, other):
            notes.append(f"{name} is not compared: one of the images does not tell")
        elif one != other:
            texts = (one or "not set", other or "not set")
            found.append(Difference("environment", name, *texts, (name,)))
    return Compared(len({*here, *there}), tuple(found), tuple(notes))


def _settings(environment: Environment) -> dict[str, str | None]:
    """What is set, by name; None: the image does not tell."""

    def words(value: Iterable[str] | None) -> str | None:
        return None if value is None else " ".join(value)

    exposed = environment.exposed
    return {
        **environment.env,
        **{
            f"label {name}": value
            for name, value in (environment.labels or {}).items()
            if not name.startswith(_OF_BUILD)
        },
        "entrypoint": words(environment.entrypoint),
        "cmd": words(environment.cmd),
        "user": environment.user,
        "workdir": environment.workdir,
        "exposed": words(None if exposed is None else sorted(exposed)),
    }


Compare = Callable[[Side, Side], Compared]

ASPECTS: Mapping[Aspect, Compare] = {
    "os": system,
    "packages": packages,
    "kernels": kernels,
    "tools": tools,
    "environment": environment,
}
"""What is compared but the files, which need all that a package changed to be known first."""


def changed_packages(a: Side, b: Side) -> frozenset[str]:
    """Packages that are not the same on both sides, by the names that their files have."""
    return frozenset(_names(packages(a, b).differences))


def _names(differences: Iterable[Difference]) -> Iterator[str]:
    for difference in differences:
        yield from difference.names
