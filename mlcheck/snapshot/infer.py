"""Infer expectations from what was found in an image. Pure functions, without I/O.

Expectations should survive the next build: they have the leading parts of versions, names of labels
without values, and sizes with room to grow. Expectations that only a run can confirm are written
all the same, and removed if the suite finds that they do not hold (`revision`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlcheck.inspect.jupyter.facts import Kernelspec
from mlcheck.inspect.packages.asked_for import module_of
from mlcheck.inspect.packages.facts import SYSTEM_SOURCES
from mlcheck.inspect.system.programs import COMMANDS
from mlcheck.model.files import ResolvedFile
from mlcheck.snapshot.document import Entry, KeyPath, writable
from mlcheck.snapshot.found import PACKAGE_LIST, SHELLS, URL_PREFIX, Found

HEADROOM = 1.1
"""Factor by which the image may grow."""

GENERATION = "snapshot"
_ANY_TAG = r"[\w][\w.-]*"
_LONG = 200

_RELEASES_OF_TWO_PARTS = ("ubuntu", "alpine", "opensuse-leap", "nixos", "linuxmint", "photon")
"""Distributions of which 22.04 or 3.20 is one release, as `ID` of os-release names them."""

NOTES: Mapping[KeyPath, str] = {
    ("tags",): "The whole tag has to fit. Name parts of it, (?P<major>\\d+), to use them below as "
    "{tag.major}.",
    ("packages", "required"): "Leading parts of the versions: `*` stands for any text. "
    "`import` is the module's name where it is another, false where there is none.",
    ("packages", "requested"): "All that conda was asked for is loaded, in Python or R: under "
    "another name, or not at all (false).",
    ("commands",): "Each must end with 0 and print something.",
    ("files",): "Without a mode: everybody can read it, and only owner and group write.",
    ("environment", "starts"): "First entries of lists; an engine may append others.",
    ("kernelspecs", "generations", GENERATION): "Exactly these kernels.",
    ("server",): "Started by CMD under a URL prefix that NB_PREFIX names.",
    ("rpath",): "No library may be found by the prefix's absolute path.",
    ("libraries",): "What the prefix's files take from the system.",
    ("size",): "A tenth more than now.",
    ("layers",): "A tenth more than now; what is wasted is what it is now.",
    ("notebooks",): "A notebook of one cell, by nbconvert; {a} and {b} are numbers.",
    ("integrity", "edited"): "Files that are not as their conda package has them: say why.",
    ("deployed",): "As a directory for many users: readable, and with all of /.singularity.d.",
}
"""Comments on tables, for readers of the file."""


def entries(found: Found) -> list[Entry]:
    """Return all expectations that can be inferred, in the order of the file."""
    parts = (
        _names(found),
        _system(found),
        _packages(found),
        _start(found),
        _files(found),
        _jupyter(found),
        _programs(found),
        _server(found),
        _libraries(found),
        _families(found),
        _sizes(found),
    )
    every = [entry for part in parts for entry in part]
    return [entry for entry in every if writable(entry.path) and writable(entry.value)]


def _names(found: Found) -> Iterator[Entry]:
    labels = found.environment.labels or {}
    said = labels.get("org.opencontainers.image.description") or labels.get("description") or ""
    said = " ".join("".join(c if c.isprintable() else " " for c in said).split())[:_LONG]
    yield Entry(("description",), said or f"{found.name}: say here what it is for", tells=True)
    if found.prefix:
        yield Entry(("prefix",), found.prefix)
    there = [shell for shell in SHELLS if _is_file(found.files.get(shell))]
    if there:
        yield Entry(("shells",), there)
    if found.tag:
        yield Entry(("tags", "pattern"), _ANY_TAG, tells=True)
        yield Entry(("tags", "examples"), [found.tag], tells=True)


def _system(found: Found) -> Iterator[Entry]:
    fields = found.system.fields
    if fields.get("ID") and fields.get("VERSION_ID"):
        version = fields["VERSION_ID"]
        # Elsewhere 9.5 follows 9.4.
        parts = 2 if fields["ID"] in _RELEASES_OF_TWO_PARTS else 1
        version = ".".join(version.split(".")[:parts])
        yield Entry(("os", "id"), fields["ID"])
        yield Entry(("os", "version"), version)
    if found.python and found.prefix and "python3" in found.tools:
        yield Entry(("python", "version"), found.python)
    # A directory has no USER; docker-stacks and similar images have it in a variable too.
    config = found.environment
    user = config.env.get("NB_USER", "") if config.user is None else config.user
    user = user.partition(":")[0]
    account = found.accounts.get(user) or next(
        (one for one in found.accounts.values() if str(one.uid) == user), None
    )
    if account is not None and account.uid != 0:
        yield Entry(("user", "name"), account.name)
        yield Entry(("user", "uid"), account.uid)
        yield Entry(("user", "gid"), account.gid)
        writable_there = [path for path in (found.prefix, account.home) if path and path != "/"]
        yield Entry(("user", "writable"), list(dict.fromkeys(writable_there)))
        yield Entry(("user", "setgid"), True, otherwise=False)
    for name, argv in COMMANDS.items():
        if name in found.tools:
            yield Entry(("commands", name), list(argv))


def _packages(found: Found) -> Iterator[Entry]:
    if found.listed is not None and found.listed.entries:
        yield Entry(("packages", "list"), PACKAGE_LIST)
        system = {
            f"{p.name}.{p.arch}": p.name
            for p in found.packages.packages
            if p.source in SYSTEM_SOURCES
        }
        named = sorted({system[e.name] for e in found.listed.entries if e.name in system})
        if named:
            yield Entry(("packages", "system"), named)
    # R packages are loaded by library(); in that case all requested packages are loaded.
    with_r = any(package.name.startswith("r-") for package in found.asked.packages)
    for package in found.asked.packages:
        wanted: dict[str, Any] = {}
        if version := pinned(package.version):
            wanted["version"] = version
        otherwise = {**wanted, "import": False}
        module = module_of(package)
        if module is not True:
            wanted["import"] = module
        yield Entry(("packages", "required", package.name), wanted, otherwise)
    if with_r:
        yield Entry(("packages", "requested"), {})
        for package in found.asked.packages:
            module = module_of(package)
            if (own := package.name.removeprefix("r-")) != package.name:
                module = found.r_names.get(own, False)
                module = True if module == own else module
            if module is not True:
                yield Entry(("packages", "requested", package.name), module)


def pinned(version: str) -> str | None:
    """Return a pattern that keeps the leading parts of a version: 2.15.3 becomes 2.15.*.

    None if no profile can express it.
    """
    if not version or re.search(r"[*?\[\]]", version):
        return None
    parts = version.split(".")
    return f"{parts[0]}.{parts[1]}.*" if len(parts) > 2 else version


_NOT_OF_IMAGE = re.compile(
    r"HOME|HOSTNAME|PWD|OLDPWD|SHLVL|TERM|USER|_|PS1|(APPTAINER|SINGULARITY)_.*|\w*(_SHA\d*|_MD5)"
    r"|NV_.*|GPG_KEY"
)
_SECRET = re.compile(r"\w*(TOKEN|PASS|SECRET|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY)\w*", re.I)
_LISTS = ("PATH", "LD_LIBRARY_PATH", "PKG_CONFIG_PATH", "MANPATH")


def _start(found: Found) -> Iterator[Entry]:
    config = found.environment
    if config.entrypoint:
        yield Entry(("entrypoint", "argv"), list(config.entrypoint))
        if config.cmd is not None:
            yield Entry(("entrypoint", "cmd"), list(config.cmd))
        yield Entry(("entrypoint", "activates"), False, otherwise=True)
    for name, value in sorted(config.env.items()):
        if name in _LISTS:
            first = value.split(":") if name != "PATH" else value.split(":")[:1]
            if first and all(first):
                yield Entry(("environment", "starts", name), first)
        elif not (_NOT_OF_IMAGE.fullmatch(name) or _SECRET.fullmatch(name) or len(value) > _LONG):
            yield Entry(("environment", "equals", name), value)
    if config.labels is not None and config.labels:
        yield Entry(("configuration", "labels"), sorted(config.labels))
    if config.user is not None:
        yield Entry(("configuration", "user"), config.user)
    if config.workdir is not None:
        yield Entry(("configuration", "workdir"), "" if config.workdir == "/" else config.workdir)
    if config.exposed is not None:
        yield Entry(("configuration", "exposed"), sorted(config.exposed))


_MOST_FILES = 40


def _files(found: Found) -> Iterator[Entry]:
    there = [
        (path, one)
        for path, one in sorted(found.files.items())
        if one.file is not None and one.final is not None and path not in ("/bin/sh", "/bin/bash")
    ]
    for path, one in there[:_MOST_FILES]:
        assert one.file is not None
        assert one.final is not None
        wanted: dict[str, Any] = {}
        if one.file.type == "symlink":
            wanted["type"] = "symlink"
            if one.file.target and not re.search(r"[*?\[\]]", one.file.target):
                wanted["target"] = one.file.target
        if one.final.mode & 0o111:
            wanted["mode"] = f"0{one.final.mode:03o}"
        yield Entry(("files", path), wanted or {"type": "file"})


def _is_file(one: ResolvedFile | None) -> bool:
    return one is not None and one.final is not None and one.final.type == "file"


def _jupyter(found: Found) -> Iterator[Entry]:
    specs = {spec.name: spec for spec in reversed(found.kernels.specs)}
    if specs:
        yield Entry(("kernelspecs", "generation"), GENERATION)
        yield Entry(("kernelspecs", "clean"), True, otherwise=False)
    python_kernel = None
    for name, spec in sorted(specs.items()):
        path = ("kernelspecs", "generations", GENERATION, name)
        yield from (
            Entry((*path, *entry.path), entry.value, entry.otherwise) for entry in _kernel(spec)
        )
        if spec.language.lower() == "python" and python_kernel is None:
            python_kernel = name
    start = "python3" if "python3" in specs else python_kernel
    if start is not None and "jupyter-lab" in found.tools:
        yield Entry(("jupyterlab", "kernel"), start)
        shells = [s for s in SHELLS if s != "/bin/sh" and _is_file(found.files.get(s))]
        if shells:
            yield Entry(("jupyterlab", "terminals"), shells)
    scripts = [f"{name}*" for name in ("ipython", "jupyter") if name in found.tools]
    if scripts and found.prefix:
        yield Entry(("scripts", "speaking"), scripts)
        pip = [name for name in ("pip", "pip3") if name in found.tools]
        yield Entry(("scripts", "portable"), [*scripts, *pip])
    if "jupyter-nbconvert" in found.tools:
        cells = {"python": "print({a} * {b})", "r": 'cat(sprintf("%.0f", {a} * {b}))'}
        for name, spec in sorted(specs.items()):
            if spec.language.lower() in cells:
                yield Entry(("notebooks", name, "code"), cells[spec.language.lower()])


def _kernel(spec: Kernelspec) -> Iterator[Entry]:
    yield Entry(("argv",), list(spec.argv))
    yield Entry(("display_name",), spec.display_name)
    if spec.language != "python":
        yield Entry(("language",), spec.language)
    metadata = {k: v for k, v in spec.metadata.items() if isinstance(v, bool | int | str)}
    if metadata:
        yield Entry(("metadata",), metadata)
    if spec.language.lower() != "python":
        return
    options = {word for word in spec.argv[1:] if re.fullmatch(r"-[A-Za-z]+", word)}
    letters = set("".join(options))
    yield Entry(("usersite",), not letters & {"s", "I"}, otherwise=bool(letters & {"s", "I"}))
    # Rules try programs of the same name from a host. That cannot affect an absolute path, and
    # Python itself is started by name nowhere else.
    ignored = ["PYTHONHOME", "PYTHONPATH"] if letters & {"I", "E"} else ["PYTHONHOME"]
    yield Entry(("ignores_variables",), ignored)
    yield Entry(("ignores_programs",), ["python", "python3"])


def _programs(found: Found) -> Iterator[Entry]:
    local = "/usr/local/bin/"
    if any(path.startswith(local) for path in found.tools.values()):
        yield Entry(("scripts", "installed"), [f"{local}*"])


def _server(found: Found) -> Iterator[Entry]:
    if found.server is None:
        return
    port, said = found.server
    page = next((page for page in said.pages if page.status == 200 and page.title), None)
    if said.trouble or said.error or page is None or not page.path.startswith(URL_PREFIX):
        return
    yield Entry(("server", "port"), port)
    # The argument after the program's name is often the name of a notebook.
    yield Entry(("server", "title"), page.title.split(" - ")[0])
    path = page.path.removeprefix(URL_PREFIX).partition("?")[0].rstrip("/")
    yield Entry(("server", "page"), path or "/")
    command = found.environment.health_command
    if command and said.healthcheck is None:
        yield Entry(("server", "healthcheck"), list(command))


def _libraries(found: Found) -> Iterator[Entry]:
    if found.prefix:
        yield Entry(("rpath", "forbidden"), [found.prefix], otherwise=[])
    if found.sonames:
        yield Entry(("libraries", "system"), list(found.sonames))


def _families(found: Found) -> Iterator[Entry]:
    """Infer what follows from known paths alone: the scripts of the ML-Containers."""
    if "/create-newEnv-on-base.sh" in found.files:
        yield Entry(("new_env", "script"), "/create-newEnv-on-base.sh")
        yield Entry(("new_env", "reuse"), "setup-UserEnv-in-container.sh")
        archive = f"{found.prefix}/newEnv-base.tgz"
        if archive in found.files:
            yield Entry(("new_env", "archive"), archive)
    if "/setupMe-on-host.sh" in found.files:
        yield Entry(("on_host", "script"), "/setupMe-on-host.sh")
        for name in ("python3", "pip", "jupyter"):
            if name in found.tools:
                yield Entry(("on_host", "commands", name), [name, "--version"])
    if found.directory and "/.singularity.d" in _parents(found):
        yield Entry(("deployed",), {})


def _parents(found: Found) -> set[str]:
    source = found.environment.source
    return {"/.singularity.d"} if source.startswith("/.singularity.d") else set()


def _sizes(found: Found) -> Iterator[Entry]:
    yield Entry(("size", "unpacked"), budget(found.unpacked))
    if found.sif is not None:
        yield Entry(("size", "file"), budget(found.sif))
    if found.layers is not None:
        yield Entry(("layers", "max_size"), budget(found.layers.size))
        kinds = {"copies": 0, "hidden": 0, "caches": 0}
        for layer in found.layers.layers:
            for waste in layer.waste:
                kinds["copies" if waste.kind in ("metadata", "same") else "hidden"] += waste.size
            kinds["caches"] += sum(one.size for one in layer.leftovers)
        wasted = max(kinds.values())
        yield Entry(("layers", "max_waste"), budget(wasted) if wasted else "0 B")


def budget(size: int) -> str:
    """Return a limit somewhat above a size, in two digits: 1234567890 becomes "1.4 GB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size * HEADROOM >= factor:
            amount = size * HEADROOM / factor
            step = 10 ** max(math.floor(math.log10(amount)) - 1, -1)
            rounded = math.ceil(round(amount / step, 6)) * step
            return f"{rounded:.1f} {unit}".replace(".0 ", " ")
    return "1 kB"
