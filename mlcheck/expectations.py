"""What an `image.toml` may say: the one definition behind validation and the editors' schema.

Every key is optional: a rule about which a profile says nothing does not apply to its image.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

AbsolutePath = Annotated[str, Field(pattern=r"^/")]
Glob = Annotated[str, Field(min_length=1)]
ByteSize = Annotated[str, Field(pattern=r"^\d{1,6}(\.\d+)? ?(B|kB|MB|GB)$")]
"""A number with its unit, decimal: "8 GB", "0.5 MB"."""


class Table(BaseModel):
    """A TOML table: unknown keys are errors, and values are not converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Tags(Table):
    """Which tags the image has."""

    pattern: str
    """A regular expression for the whole tag. `{tag.NAME}` in any string of the profile stands
    for its group NAME."""
    examples: tuple[str, ...] = ()
    """Published tags, named in messages and listed by `mlcheck images`."""


class Os(Table):
    """The operating system, as /etc/os-release tells it."""

    id: str
    """ID ("almalinux")."""
    version: str
    """VERSION_ID, or its leading parts ("9" for 9.5)."""


class Python(Table):
    """The Python that the image's PATH starts."""

    version: str
    """Leading parts of its version ("3.11")."""


class Micromamba(Table):
    """The package manager: one statically linked ELF file."""

    path: AbsolutePath
    """The program."""
    link: AbsolutePath | None = None
    """A second name of the same file."""


class Package(Table):
    """One promised package."""

    version: str = "*"
    """Its version; `*` stands for any text ("2.15.*")."""
    module: str | Literal[False] | None = Field(default=None, alias="import")
    """Name of the module to import; false: it has none. Left out: the package's name with `_`
    for `-`."""


class Packages(Table):
    """The package list and the packages in it."""

    list: AbsolutePath | None = None
    """The list inside the image."""
    checked_in: str | None = None
    """Its copy outside, a path relative to the image.toml."""
    system: tuple[str, ...] = ()
    """Packages of rpm or dpkg that the list names (with their architecture)."""
    required: dict[str, Package] = {}
    """The promised packages of conda or pip."""
    requested: dict[str, str | Literal[False]] | None = None
    """Package that somebody asked for by name (`conda env export --from-history`; `*` stands for
    any text) = the name by which Python imports it or R's library() loads it; false: there is
    nothing to load. What is not here is loaded by its own name (`r-NAME` in R). Left out: what was
    asked for is not tried."""
    contains_base: bool = False
    """Whether every package of the image that this one extends is in it too, with any version."""

    def modules(self) -> dict[str, str]:
        """Package name to the module that it must let import."""
        return {
            name: package.module or name.replace("-", "_")
            for name, package in self.required.items()
            if package.module is not False
        }


class PromisedFile(Table):
    """One promised path."""

    type: Literal["file", "directory", "symlink"] = "file"
    """What is there; a symlink is not followed if "symlink" is asked, else it may lead there."""
    mode: Annotated[str, Field(pattern=r"^0[0-7]{3,4}$")] | None = None
    """Permission bits in octal, of what a symlink leads to. Left out: everybody can read it, and
    only its owner and group can write."""
    target: Glob | None = None
    """Where a symlink points, as it is written; `*` stands for any text."""


class Environment(Table):
    """Variables of the image's configuration."""

    equals: dict[str, str] = {}
    """Variable = value."""
    starts: dict[str, tuple[str, ...]] = {}
    """Variable = first entries of its colon-separated list; an engine may append others."""


class Entrypoint(Table):
    """How the image is started by default."""

    argv: tuple[str, ...]
    """ENTRYPOINT."""
    cmd: tuple[str, ...] | None = None
    """CMD."""
    activates: bool | None = None
    """Whether it activates the conda environment. Left out: not checked."""


class Banner(Table):
    """What the image says when it starts."""

    script: AbsolutePath
    """The script that says it, which the entrypoint sources."""
    says: tuple[str, ...] = ()
    """Words that it must print."""
    writable: tuple[str, ...] = ()
    """Words that it must print where the prefix can be written, and nowhere else."""
    read_only: tuple[str, ...] = ()
    """Words that it must print where the prefix cannot be written, and nowhere else."""
    silenced_by: str
    """Variable that silences it, set to anything."""


class Configuration(Table):
    """The rest of the image's configuration. What is left out is not checked."""

    labels: tuple[str, ...] = ()
    """Names of labels; their values are free."""
    user: str | None = None
    """USER; empty: not set."""
    workdir: str | None = None
    """WORKDIR; empty: not set, which is the root directory."""
    exposed: tuple[str, ...] | None = None
    """EXPOSE, such as "8888/tcp"; empty: none."""


class Cell(Table):
    """Code for a kernel."""

    code: str
    prints: str
    """All that it prints, without white space around it."""


class KernelSetup(Table):
    """A shell script of the user's that a kernel sources before it starts, if it is there."""

    file: Annotated[str, Field(pattern=r"^~/")]
    """Where it is, in the user's home."""
    variables: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], str] = {}
    """Shell variable that it can test = the version that stands there ("2.7"), in more or fewer
    parts."""


class Kernelspec(Table):
    """One promised kernel."""

    argv: tuple[str, ...] | None = None
    """Left out: not checked."""
    display_name: str | None = None
    """Left out: not checked."""
    language: str = "python"
    """In Jupyter's words ("python", "R", "C++")."""
    metadata: dict[str, bool | int | str] = {}
    """Entries that its metadata must have."""
    ignores_programs: tuple[str, ...] = ()
    """Programs of a host's that it must not start although they come first in PATH ("python3")."""
    ignores_variables: tuple[Literal["PYTHONHOME", "PYTHONPATH"], ...] = ()
    """Variables of a host's in which anything may stand."""
    usersite: bool | None = None
    """Whether it sees the packages in the user's `~/.local`. Left out: nothing is promised."""
    mounts: tuple[AbsolutePath, ...] = ()
    """Directories from outside without which it need not start; with --bind they are there."""
    setup: KernelSetup | None = None
    cells: dict[str, Cell] = {}
    """By name: code that it must run."""


class Kernelspecs(Table):
    """The Jupyter kernels of the image: exactly these."""

    generation: str
    """Which of the generations this image follows."""
    generations: dict[str, dict[str, Kernelspec]]
    """By generation, by name of the kernel."""
    clean: bool = True
    """Whether the list shows none of a user's and none that a host adds."""


class JupyterLab(Table):
    """JupyterLab, as users start it."""

    command: str = "jupyter-lab"
    """The program, found on the image's PATH."""
    kernel: str
    """The kernel that is started through its API."""
    terminals: tuple[AbsolutePath, ...] = ()
    """Shells with which it opens a terminal."""


class User(Table):
    """The user as whom the image runs, when nobody says otherwise."""

    name: str
    """Its name in /etc/passwd."""
    uid: int
    gid: int
    writable: tuple[AbsolutePath, ...] = ()
    """Directories in which it, and its group, can change everything."""
    setgid: bool = False
    """Whether the directories there are set-gid, so that new files belong to the same group."""


class Server(Table):
    """The server that the image starts by itself."""

    port: int
    """Where it listens in the container."""
    prefix: str = "NB_PREFIX"
    """The variable that names the path before all its URLs."""
    page: AbsolutePath = "/lab"
    """Where one comes who asks for the prefix alone."""
    title: str
    """What the title of that page begins with."""
    healthy: tuple[AbsolutePath, ...] = ()
    """Paths, without the prefix, that answer 200."""
    healthcheck: tuple[str, ...] = ()
    """The command of HEALTHCHECK, which must succeed while the server runs."""


class Task(Table):
    """A small program, run in an empty directory."""

    run: Annotated[tuple[str, ...], Field(min_length=1)]
    """argv."""
    program: str = ""
    """What it gets on its standard input."""
    prints: str = ""
    """Words that it must print."""
    draws: tuple[str, ...] = ()
    """Names of PNG files that it must leave in its directory."""


class Notebook(Table):
    """A notebook of one cell, executed with one of the kernels."""

    code: str
    """The cell, which must print the product of `{a}` and `{b}`; numbers are put in there."""


class Size(Table):
    """How large the image may be, with its unit ("1.2 GB" is 1.2 * 10^9 bytes)."""

    file: ByteSize | None = None
    """As a SIF file, which is compressed."""
    unpacked: ByteSize | None = None
    """All its files, each counted once however many names it has."""


class RunServer(Table):
    """A server that the image starts when it is run without a command."""

    url: str
    """A regular expression for the address that it prints for the user, with a group `token`."""


class Rpath(Table):
    """RPATH and RUNPATH of every ELF file of the prefix."""

    forbidden: tuple[AbsolutePath, ...] = ()
    """No entry may be one of these directories or lie under it."""
    required: dict[AbsolutePath, tuple[str, ...]] = {}
    """ELF file = entries that it must have."""


class Libraries(Table):
    """Shared libraries that the loader must find."""

    system: tuple[str, ...] = ()
    """Sonames that must come from the system, not from the prefix."""


class Framework(Table):
    """The framework of a machine-learning image."""

    module: Literal["tensorflow", "torch"]
    """The Python package."""
    cuda: str | Literal[False]
    """The CUDA version that it was built for, or its leading parts; false: it was built for none,
    and asks nothing of a GPU."""
    opens: tuple[str, ...] = ()
    """Sonames of CUDA's libraries that it opens by name when it is used, so that no ELF file tells
    of them."""
    script: AbsolutePath | None = None
    """The image's own check of it, a Python program that ends with 0 and prints the version."""
    hints: tuple[AbsolutePath, ...] = ()
    """Scripts that tell a user, when a shell starts, that the GPU's driver is not in there."""


class RootConfig(Table):
    """What `root-config` answers."""

    libs: tuple[str, ...]
    """Words that `root-config --libs` must print."""


class NewEnv(Table):
    """Environments of the user's own on top of the image's."""

    script: AbsolutePath
    """Sourced with -p DIR, it makes one."""
    reuse: str
    """Name of the script, in the environment, by which a new session enters it."""
    entries: tuple[str, ...] = ()
    """Names at the top of the environment, besides the script above."""
    archive: AbsolutePath | None = None
    """A .tgz of links from which environments are made."""


class OnHost(Table):
    """The unpacked image as a virtual environment on the host, without a container."""

    script: AbsolutePath
    """Sourced there, it enters the image's environment."""
    commands: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    """Name = argv of a command that must run there."""
    modules: tuple[str, ...] = ()
    """Python modules that must import there."""
    programs: tuple[AbsolutePath, ...] = ()
    """Programs, besides python3, whose libraries must be the image's own."""


class Scripts(Table):
    """Scripts in the prefix's bin/."""

    portable: tuple[Glob, ...] = ()
    """Names whose first line must not hold the prefix, so that they work in a moved copy."""
    installed: tuple[Glob, ...] = ()
    """Paths of programs that everybody can execute; those of them that are wrappers (shell scripts
    that hand "$@" on) must find what they call."""
    speaking: tuple[Glob, ...] = ()
    """Names of programs that must print something when asked for their version or for help."""


class Integrity(Table):
    """Files of conda packages that the image changes on purpose."""

    replaced: dict[Glob, Annotated[str, Field(min_length=1)] | Literal[False]] = {}
    """File (with `*`) = why it must not be the package's own; false: it must be, whatever a
    parent says."""
    edited: dict[Glob, Annotated[str, Field(min_length=1)]] = {}
    """File (with `*`) = why it may differ from the package's own."""


class Deployed(Table):
    """An image that is deployed as a directory for many users: with all of /.singularity.d, and
    readable by others."""

    private: tuple[Glob, ...] = ()
    """Files and directories that others need not read (with `*`)."""


Reason = Annotated[str, Field(min_length=1)]


class Parity(Table):
    """What may differ between this image and the one that it is compared with. Each entry is a
    name (with `*`) = the reason."""

    os: Reason | None = None
    """Why the version of the operating system may differ, and with it the versions of its
    packages; that one is missing on one side is not allowed by this."""
    packages: dict[Glob, Reason] = {}
    """Packages, as NAME or MANAGER:NAME ("conda:cudatoolkit", "pip:*", "dpkg:lib*", "R:*"): with
    other versions, or on one side alone."""
    kernels: dict[Glob, Reason] = {}
    """Jupyter kernels."""
    tools: dict[Glob, Reason] = {}
    """Programs on PATH, by name or by path."""
    environment: dict[Glob, Reason] = {}
    """Variables, "label NAME", "entrypoint", "cmd", "user", "workdir" and "exposed"."""
    files: dict[Glob, Reason] = {}
    """Files by path, or all of a package ("conda:pytorch", for another build of one version)."""


class Layers(Table):
    """What the layers of the image may hold: of docker's and podman's images, and of archives."""

    max_size: ByteSize | None = None
    """Bytes of all files in all layers ("8 GB")."""
    max_waste: ByteSize | None = None
    """Bytes that may be stored in vain ("100 MB"): second copies of files of which a layer changes
    only owner or mode; files that a later layer deletes or replaces; caches of package managers.
    Each of these three may have as much."""
    allowed: dict[Glob, Annotated[str, Field(min_length=1)]] = {}
    """File (with `*`) = why it is no secret although it looks like one, or why this cache is
    wanted."""


class Waiver(Table):
    """A known deviation: reported as waived until its end date, failing again after it."""

    check: str
    """Name of the check, as its failures begin with it."""
    match: Glob = "*"
    """Which of its findings: compared with the finding's subject; `*` stands for any text."""
    reason: Annotated[str, Field(min_length=1)]
    """Why this is accepted, with a link where there is one."""
    until: datetime.date
    """Last day on which it is accepted."""


class Expectations(Table):
    """What one image is expected to be."""

    prefix: AbsolutePath | None = None
    """Root of the conda environment."""
    os: Os | None = None
    python: Python | None = None
    micromamba: Micromamba | None = None
    packages: Packages = Packages()
    commands: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    """Name = argv of a command that must exit with 0 and print something."""
    shells: tuple[AbsolutePath, ...] = ()
    """Shells that must run a command given by -c."""
    files: dict[AbsolutePath, PromisedFile] = {}
    environment: Environment = Environment()
    entrypoint: Entrypoint | None = None
    banner: Banner | None = None
    configuration: Configuration | None = None
    kernelspecs: Kernelspecs | None = None
    jupyterlab: JupyterLab | None = None
    user: User | None = None
    server: Server | None = None
    tasks: dict[str, Task] = {}
    """Name = a program that must work, such as one that draws."""
    notebooks: dict[str, Notebook] = {}
    """Kernel = a notebook that `jupyter nbconvert --execute` must execute."""
    agreements: dict[str, dict[AbsolutePath, str]] = {}
    """What several files tell (a version) = by file (with `*`), a regular expression whose group 1
    is what it tells there; all must tell the same."""
    run_server: RunServer | None = None
    size: Size | None = None
    rpath: Rpath | None = None
    libraries: Libraries = Libraries()
    framework: Framework | None = None
    root_config: RootConfig | None = None
    new_env: NewEnv | None = None
    on_host: OnHost | None = None
    scripts: Scripts | None = None
    integrity: Integrity = Integrity()
    deployed: Deployed | None = None
    parity: Parity = Parity()
    layers: Layers = Layers()
    waivers: tuple[Waiver, ...] = ()

    def kernels(self) -> dict[str, Kernelspec]:
        """The kernels of the generation that the image follows, by name."""
        specs = self.kernelspecs
        return specs.generations.get(specs.generation, {}) if specs else {}


class Published(Table):
    """Where an image is published. `{name}` stands for the profile's name, `{tag}` for each of
    `tags.examples`."""

    registry: Annotated[str, Field(pattern=r"^(localhost|[^/{}]*[.:][^/{}]*)/.*\{tag\}$")]
    """Its reference in a registry, with the registry's host ("docker.io/me/{name}:{tag}")."""
    cvmfs: tuple[Annotated[str, Field(pattern=r"^/.*\{tag\}")], ...] = ()
    """Directories that hold it unpacked, on CVMFS or whatever else many machines share."""


class ImageToml(Expectations):
    """The whole of an `image.toml`."""

    description: str = ""
    """What the image is for, one sentence."""
    extends: str | None = None
    """Name of the profile whose expectations and tests this one takes over."""
    aliases: tuple[str, ...] = ()
    """Other names by which the image is known."""
    tags: Tags | None = None
    published: Published | None = None
    """Left out: as in the profile that this one extends, if both are in one directory of
    profiles."""
    variants: dict[Glob, Expectations] = {}
    """Tag (with `*`) = expectations of the images with that tag, over those above."""


def meaning(key: str) -> str | None:
    """What a key of an `image.toml` says, such as "packages.required"; `*` stands for any name.

    Returns:
        The text that the schema has too; None: there is no such key.
    """
    field = _field(key.split("."), any_name=False)
    if field is None:
        return None
    # Of a table of tables, what each of them is.
    annotation = field.annotation
    table = _table(annotation) or next(filter(None, map(_table, get_args(annotation))), None)
    return " ".join((field.description or (table.__doc__ if table else None) or "").split())


def is_required(path: Sequence[str]) -> bool:
    """Whether the table in which a key stands must have that key."""
    field = _field(path)
    return field is not None and field.is_required()


def _field(path: Sequence[str], *, any_name: bool = True) -> FieldInfo | None:
    """What is known of a key; of one that anybody may choose, what is known of its table.

    Args:
        any_name: whether names that anybody may choose stand in the path, and not `*`.
    """
    annotation: Any = ImageToml
    field: FieldInfo | None = None
    for part in path:
        model = _table(annotation)
        if model is None:
            if get_origin(annotation) is not dict or not (any_name or part == "*"):
                return None
            annotation = get_args(annotation)[-1]
            continue
        fields = {info.alias or name: info for name, info in model.model_fields.items()}
        if part not in fields:
            return None
        field = fields[part]
        annotation = field.annotation
    return field


def _table(annotation: Any) -> type[Table] | None:
    """The table that an annotation means, also as `Table | None`."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, Table):
            return one if one is annotation or type(None) in get_args(annotation) else None
    return None
