"""The data goes one way, and the places that may touch something are the only ones."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

from mlcheck.cache import version
from mlcheck.engines import installed
from mlcheck.profile.catalog import SUITE
from selftests.checkout import CHECKOUT

PACKAGE = CHECKOUT / "mlcheck"

FLOORS = (
    {"model"},
    {"machine"},
    {"image", "profile", "reference", "report"},
    {"engines"},
    {"cache"},
    {"inspect"},
    {"pytest_plugin", "release", "snapshot"},
    {"cli"},
)
"""The rooms of mlcheck, from the ground up. A room imports itself and rooms on lower floors."""

FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

REFERENCE_IMAGES = {
    "cli.cache",
    "cli.completion",
    "cli.images",
    "engines.select",
    "cli.explain",
    "pytest_plugin.run",
    "release.jobs",
}
"""Who knows of reference images, besides themselves: nobody else needs to."""


FREE_RELATIVES = {"What", "Which", "Where", "How", "Whether"}


@functools.cache
def modules() -> list[tuple[str, Path]]:
    return [
        (".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"), file)
        for file in sorted(PACKAGE.rglob("*.py"))
        # What lies in an image's root file system is part of that image.
        if "rootfs" not in file.relative_to(PACKAGE).parts
    ]


@functools.cache
def imports(file: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
            names.add(node.module)
    return frozenset(names)


def ours(file: Path) -> set[str]:
    """What a file imports of mlcheck, each as it is called below that."""
    return {
        imported.removeprefix("mlcheck.")
        for imported in imports(file)
        if imported.startswith("mlcheck.")
    }


def below(name: str, tops: set[str]) -> bool:
    return any(name == top or name.startswith(top + ".") for top in tops)


def test_every_folder_is_a_room() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert folders - {"__pycache__", "suite"} == set(FLOOR)
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize(("name", "file"), modules(), ids=lambda value: str(value))
def test_a_room_imports_lower_floors_only(name: str, file: Path) -> None:
    room = name.partition(".")[0]
    if room in ("__init__", "__main__"):
        return  # the names for rules of other distributions, and the command
    for imported in ours(file) - {"__version__", "DISTRIBUTION"}:
        other = imported.partition(".")[0]
        assert other in FLOOR, f"{name} imports {imported}"
        assert other == room or FLOOR[other] < FLOOR[room], f"{name} imports {imported}"


def test_few_know_of_reference_images() -> None:
    users = {
        name for name, file in modules() if any(below(used, {"reference"}) for used in ours(file))
    }
    assert {name for name in users if not below(name, {"reference"})} == REFERENCE_IMAGES


@pytest.mark.parametrize(
    ("library", "only"),
    [
        ("lief", {"inspect.elf.lief_server"}),
        # inspect.inside is what runs in an image.
        (
            "subprocess",
            {"engines", "image.scan", "machine", "reference.cache"}
            | {"inspect.elf.lief_client", "inspect.inside", "release.attempt"},
        ),
        (
            "pydantic",
            {"cache.fact_json", "profile.catalog", "profile.schema", "profile.toml_file"}
            | {"report.attestation", "report.model", "report.reading"},
        ),
        ("pytest", {"cli.check", "pytest_plugin", "snapshot.suite_run"}),
        ("testinfra", {"pytest_plugin.fixtures", "pytest_plugin.testinfra_host"}),
        ("dask", {"release.pool", "release.where"}),
        ("dask_jobqueue", {"release.where"}),
        ("distributed", {"release.pool", "release.where"}),
        ("docker", {"engines.oci"}),
        ("cryptography", {"report.signatures"}),
        ("securesystemslib", {"report.signatures"}),
        ("xdist", {"pytest_plugin"}),
        ("tree_sitter", {"profile.toml_lines"}),
        ("shtab", {"cli.completion"}),
        ("tomlkit", {"profile.waivers", "snapshot.document"}),
    ],
)
def test_a_library_is_used_in_one_place(library: str, only: set[str]) -> None:
    users = {
        name
        for name, file in modules()
        if any(below(imported, {library}) for imported in imports(file))
    }
    assert users, f"nothing uses {library}: take it out of the dependencies"
    assert all(below(name, only) for name in users), users


OWN_FOLDERS = {"apptainer", "archive", "oci", "sandbox"}
"""Of mlcheck's own engines."""


def test_an_engine_is_known_in_its_own_folder_only() -> None:
    """Nobody else imports its class, or asks for it by its name."""
    for name, file in modules():
        folder = name.removeprefix("engines.").partition(".")[0]
        if folder in OWN_FOLDERS:
            continue
        used = ours(file)
        assert not any(below(one, {f"engines.{own}.engine" for own in OWN_FOLDERS}) for one in used)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                words = {leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)}
                asked = words & set(installed.names())
                assert not asked or name == "model.image_ref", f"{name}:{node.lineno}: {asked}"


def rules() -> list[Path]:
    """The files with rules."""
    found = sorted(SUITE.glob("*/test_*.py"))
    assert found
    return found


@pytest.mark.parametrize("file", rules(), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_rules_do_no_input_or_output(file: Path) -> None:
    forbidden = {"os", "pathlib", "io", "subprocess", "socket", "shutil", "tempfile"}
    assert not imports(file) & forbidden
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"open", "exec", "eval", "print"}


@pytest.mark.parametrize("file", rules(), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_rules_know_of_no_probe_and_no_engine(file: Path) -> None:
    """They import facts, the profile, what all rooms share, and words and comparisons that know of
    nothing else either."""
    known = {name: path for name, path in modules() if name.startswith("inspect.")}
    waiting = [file]
    while waiting:
        one = waiting.pop()
        for imported in ours(one):
            if below(imported, {"model", "profile"}):
                continue
            name = imported if imported in known else imported.rpartition(".")[0]
            assert name in known, f"{one} imports {imported}"
            if known[name].name not in ("__init__.py", "facts.py"):
                waiting.append(known[name])


def test_probes_know_of_no_reference_image() -> None:
    for name, file in modules():
        if name.startswith("inspect."):
            assert not any(below(imported, {"reference"}) for imported in ours(file)), name


def test_kept_facts_depend_on_the_source_of_all_that_reads() -> None:
    """What probes import, and what that imports, is in the version of kept facts; what an engine
    takes from elsewhere (how an image is called) and what a profile says, which is in the question,
    have no part in what is read."""
    known = {reader.removesuffix(".py").replace("/", ".") for reader in version._READERS}
    known |= {"__version__", "machine", "model.image_ref", "profile", "model.rule", "model.verdict"}
    known |= {"model.shell_words", "model.units", "model.layer_history", "fact"}
    for name, file in modules():
        if below(name, known - {"engines", "profile"}):
            used = ours(file) - {"model"}
            assert all(below(imported, known) for imported in used), name


@pytest.mark.parametrize(("name", "file"), modules(), ids=lambda value: str(value))
def test_docstrings_begin_with_a_noun_or_a_verb(name: str, file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node) or ""
            first = text.partition("\n")[0]
            assert not FREE_RELATIVES & set(first.split(maxsplit=1)[:1]), first
