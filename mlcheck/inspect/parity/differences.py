"""Differences between two images. Nothing is judged here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from packaging.utils import canonicalize_name

from mlcheck.inspect.jupyter.facts import Kernelspec
from mlcheck.inspect.packages.facts import InstalledPackage
from mlcheck.inspect.parity.facts import Side
from mlcheck.inspect.prefix.facts import KIND_WORDS, Prefix
from mlcheck.model.environment import Environment
from mlcheck.model.verdict import ShowFile

Aspect = Literal["os", "packages", "kernels", "tools", "environment", "files"]

MISSING = "missing"

_SYSTEM = ("apk", "dpkg", "rpm")
_KINDS = ("conda and pip", "R")
"""Kinds of packages that an environment has."""

_WORDS = {"dist-info": "pip"}
"""Users' words for sources of packages, if they differ from ours."""

_MERGED = ("/bin", "/sbin", "/usr/sbin")
"""Directories that are /usr/bin in some systems."""

_OF_BUILD = (
    *("org.label-schema.build-", "org.label-schema.usage", "org.label-schema.schema-version"),
    "org.opencontainers.image.created",
)
"""Beginnings of labels with the time of a build, and of those that apptainer adds."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between two images.

    Args:
        a, b: the values of each; MISSING if it has none.
        names: names by which a profile may allow it: globs are compared with each.
        version_of_system: True if another version of the operating system explains it.
        show: a command that shows it in the first image.
        prefixes: roots of the environments that a difference of packages is about.
    """

    aspect: Aspect
    subject: str
    a: str
    b: str
    names: tuple[str, ...]
    version_of_system: bool = False
    show: ShowFile | None = None
    prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Compared:
    """The differences between two images.

    Args:
        count: number of things that were compared.
        notes: remarks for a reader.
        missed: things that exist and could not be compared.
    """

    count: int
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()


def system(a: Side, b: Side) -> Compared:
    """Compare name and version of the operating system."""
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
    """Return the name by which a package is known: "pip:scikit-learn"."""
    return f"{_WORDS.get(source, source)}:{canonicalize_name(name)}"


def packages(a: Side, b: Side) -> Compared:
    """Compare the environments; and name, version and installer of the packages of conda, pip, R
    and the system.

    conda's and pip's packages are one kind, since either may have installed one; so a package is
    the same only if the same one did. Each environment is compared with that in the same place. An
    environment that only one image has is one difference, not one for each of its packages.
    """
    groups = _groups(a, b), _groups(b, a)
    pairs = _pairs(a, b)
    found = [difference for pair in pairs if (difference := _environments(pair, groups))]
    count = len(pairs)
    for kind in dict.fromkeys(kind for kind, _ in (*groups[0], *groups[1])):
        for places in _places(pairs, groups):
            here, there = (
                group.get((kind, place), {}) for group, place in zip(groups, places, strict=True)
            )
            if kind in _SYSTEM and not (here and there):
                # A missing database is one difference, not one for each package in it.
                unread = [not p and kind in s.packages.unread for p, s in ((here, a), (there, b))]
                if (here or there) and not any(unread):
                    said = [f"{len(p)} packages" if p else MISSING for p in (here, there)]
                    names = (kind, f"{kind}:*")
                    found.append(Difference("packages", kind, said[0], said[1], names))
                continue
            count += len({*here, *there})
            where = f" in {places[0]}" if places[0] and len(pairs) > 1 else ""
            of_system = kind in _SYSTEM or (places == ("/usr", "/usr") and _of_system(groups))
            found += _versions_differ(kind, here, there, places, where, of_system)
    notes = dict.fromkeys((*a.packages.notes, *b.packages.notes))
    return Compared(count, tuple(found), tuple(notes) if not count else (), _missed(a, b))


_Packages = Mapping[str, list[InstalledPackage]]
_Groups = Mapping[tuple[str, str], _Packages]
"""By kind and root of the environment: packages by name."""

_Pair = tuple[Prefix | None, Prefix | None]


def _groups(side: Side, other: Side) -> _Groups:
    # Packages that were not listed on one side are ignored on both.
    unasked = side.packages.unasked | other.packages.unasked
    found: dict[tuple[str, str], dict[str, list[InstalledPackage]]] = {}
    for package in side.packages.packages:
        if package.owner or package.name in unasked:
            continue
        kind = package.source if package.source in (*_SYSTEM, "R") else "conda and pip"
        by_name = found.setdefault((kind, package.prefix), defaultdict(list))
        by_name[canonicalize_name(package.name)].append(package)
    return found


def _pairs(a: Side, b: Side) -> list[_Pair]:
    """Pair the environments to compare: those in the same place; then, if each image has one more,
    these two. None stands for a missing partner."""
    found: list[_Pair] = []
    for system in (False, True):
        here, there = (
            {one.path: one for one in side.environments.found if (one.kind == "system") is system}
            for side in (a, b)
        )
        found += [(here[path], there[path]) for path in here if path in there]
        left = [one for path, one in here.items() if path not in there]
        right = [one for path, one in there.items() if path not in here]
        if len(left) == len(right) == 1:
            found.append((left[0], right[0]))
        else:
            found += [*((one, None) for one in left), *((None, one) for one in right)]
    return found


def _places(pairs: Iterable[_Pair], groups: Iterable[_Groups]) -> list[tuple[str, str]]:
    """Pair the places of packages: in both environments of a pair, and outside of all."""
    told = {one.path for pair in pairs for one in pair if one is not None}
    others = dict.fromkeys(path for group in groups for _, path in group if path not in told)
    both = [(one.path, other.path) for one, other in pairs if one and other]
    return [*both, *((path, path) for path in others)]


def _environments(pair: _Pair, groups: tuple[_Groups, _Groups]) -> Difference | None:
    """Report that an environment of a pair is missing, of another kind or elsewhere."""
    said = []
    for one, group in zip(pair, groups, strict=True):
        count = sum(len(group.get((kind, one.path), ())) for kind in _KINDS) if one else 0
        said.append(f"{KIND_WORDS[one.kind]} with {count} packages" if one else MISSING)
    there = [one for one in pair if one is not None]
    paths = tuple(dict.fromkeys(one.path for one in there))
    in_place = len(there) == 2 and len(paths) == 1
    if in_place and there[0].kind == there[1].kind:
        return None
    if len(paths) == 2:
        said = [f"{one.path}: {KIND_WORDS[one.kind]}" for one in there]
    # The files of one in the same place are compared anyway.
    prefixes = () if in_place else paths
    return Difference("packages", paths[0], said[0], said[1], paths, prefixes=prefixes)


def _versions_differ(
    kind: str,
    here: _Packages,
    there: _Packages,
    places: tuple[str, str],
    where: str,
    of_system: Container[str] | bool,
) -> Iterator[Difference]:
    """Yield each package that differs.

    Args:
        where: text after its name.
        of_system: packages that belong to the operating system; or True if all do.
    """
    for key in sorted({*here, *there}):
        texts = [_versions(side.get(key, ())) for side in (here, there)]
        if texts[0] == texts[1]:
            continue
        every = [*here.get(key, ()), *there.get(key, ())]
        names = {every[0].name, key, *(package_names(p.source, p.name) for p in every)}
        show = ShowFile("cat -v", here[key][0].record) if key in here else None
        yield Difference(
            "packages",
            f"{every[0].name}{where}",
            texts[0],
            texts[1],
            tuple(sorted(names)),
            version_of_system=MISSING not in texts
            and (of_system if isinstance(of_system, bool) else key in of_system),
            show=None if kind in _SYSTEM else show,
            prefixes=places,
        )


def _of_system(groups: tuple[_Groups, _Groups]) -> frozenset[str]:
    """Return packages of Python in /usr that both images have from their system's package manager,
    which calls them python3-NAME."""
    known = ({name for kind in _SYSTEM for name in group.get((kind, ""), ())} for group in groups)
    both = set.intersection(*known)
    return frozenset(name.removeprefix("python3-") for name in both if name.startswith("python3-"))


def _missed(a: Side, b: Side) -> tuple[str, ...]:
    """Describe sources that exist and could not be read."""
    said = (
        f"{side.name}: {text}"
        for side in (a, b)
        for text in (
            *side.packages.unread.values(),
            *(
                f"the version of {name}, which only it tells"
                for name in sorted(side.packages.unasked)
            ),
            *(f"{problem.path} {problem.what}" for problem in side.packages.problems),
        )
    )
    return tuple(dict.fromkeys(said))


def _versions(packages: Iterable[InstalledPackage]) -> str:
    said = {f"{p.version} ({_WORDS.get(p.source, p.source)})" for p in packages}
    return " and ".join(sorted(said)) or MISSING


def kernels(a: Side, b: Side) -> Compared:
    """Compare each kernelspec: argv, name on the screen, language and environment.

    Of several with one name, Jupyter takes the first; the others are named by their path.
    """
    sides = [_by_name(side.kernels.specs) for side in (a, b)]
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
    missed = (
        f"{side.name}: {problem.path} {problem.what}"
        for side in (a, b)
        for problem in side.kernels.problems
    )
    return Compared(len({*sides[0], *sides[1]}), tuple(found), missed=tuple(missed))


def _by_name(specs: Iterable[Kernelspec]) -> dict[str, Kernelspec]:
    found: dict[str, Kernelspec] = {}
    for spec in specs:
        found.setdefault(spec.path if spec.name in found else spec.name, spec)
    return found


def _assignments(env: Mapping[str, str]) -> str:
    return " ".join(f"{key}={env[key]}" for key in sorted(env)) or "none"


def tools(a: Side, b: Side) -> Compared:
    """Compare each program on PATH, and whether it is the system's or of another directory."""
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
    """Compare variables, and entrypoint, cmd, user, workdir, exposed ports and labels."""
    here, there = _settings(a.environment), _settings(b.environment)
    found = []
    notes = []
    count = 0
    for name in sorted({*here, *there}):
        one, other = here.get(name, ""), there.get(name, "")
        if None in (one, other):
            notes.append(f"{name} is not compared: one of the images does not record it")
            continue
        count += 1
        if one != other:
            texts = (one or "not set", other or "not set")
            found.append(Difference("environment", name, *texts, (name,)))
    return Compared(count, tuple(found), tuple(notes))


def _settings(environment: Environment) -> dict[str, str | None]:
    """Return the settings by name, with None for those that the image does not record."""

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
"""Comparisons of all aspects but the files, which need the set of changed packages first."""


def changed_packages(a: Side, b: Side) -> frozenset[tuple[str, str]]:
    """Return packages that differ between the sides, by the root of their environment and the names
    that their files have; with the root as its name, all of the environment."""
    return frozenset(
        (prefix, name)
        for difference in packages(a, b).differences
        for prefix in difference.prefixes or ("",)
        for name in difference.names
    )
