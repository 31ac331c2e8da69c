"""The data goes one way, and the places that may touch something are the only ones."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from mlcheck.kept import version

PACKAGE = Path(__file__).parents[1] / "mlcheck"

# Who may import what of mlcheck. A name stands for itself and everything below it. The order is
# the data's: image reference -> engine -> probes -> facts -> checks -> plugin and reports.
ALLOWED = {
    "argv": set(),
    "errors": set(),
    "environ": set(),
    "gpu": {"environ", "facts"},
    "facts": {"facts"},
    "verdict": set(),
    "shell_words": set(),
    "toml_lines": set(),
    "expectations": {"expectations"},
    "image": {"errors"},
    "profile": {"errors", "expectations", "toml_lines", "verdict"},
    "files": {"facts"},
    "places": set(),
    "listing": set(),
    "directories": {"errors", "listing"},
    "entries": {"directories", "errors", "facts", "files", "listing"},
    "rootfs": {"directories", "engines.base", "entries", "facts", "files"},
    "engines": {"entries", "engines", "errors", "facts", "files", "image", "listing", "rootfs"}
    | {"environ", "shell_words"},
    "layered": {"engines.base", "facts", "files"},
    "probes": {"environ", "errors", "facts", "engines.base", "layered", "probes"},
    "kept": {"__init__", "engines.base", "errors", "facts", "files", "kept", "layered"}
    | {"listing", "places", "rootfs"},
    "checks": {"expectations", "facts", "profile", "verdict", "checks"},
    "reference": {"errors", "places", "reference"},
    "report": {"checks.layers", "errors", "report", "verdict"},
    "published": {"errors", "image", "profile", "verdict"},
    "registry": {"engines", "errors", "image"},
    "resolving": {"engines.base", "errors", "image", "opening", "published"},
    "info": {"engines", "errors", "image", "opening", "published", "registry"},
    "doctor": {"gpu", "opening"},
    # What is known of a check, from where it is.
    "explaining": {"checks", "errors", "expectations", "facts", "profile", "reference", "verdict"},
    # From an image to expectations of it; `trial` runs the suite on it.
    "snapshot": {
        "__version__",
        "engines.base",
        "engines.janitor",
        "errors",
        "expectations",
        "facts",
        "probes",
        "profile",
        "snapshot",
    }
    | {"toml_lines", "verdict"},
    "host": {"engines.base"},
    "opening": {"engines", "errors", "image", "reference"},
}
GLUE = {
    "ahead",
    "plugin",
    "run",
    "judge",
    "spreading",
    "fixtures",
    "fixtures_static",
    "fixtures_at_work",
}
GLUE |= {"fixtures_parity"}
GLUE |= {"fixtures_serving", "reporting"}
GLUE |= {
    "checking",
    "cli",
    "collecting",
    "told",
    "commands",
    "schemas",
    "side_by_side",
    "selection",
}
GLUE |= {"__init__"}


def modules() -> list[tuple[str, Path]]:
    return [
        (".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"), file)
        for file in sorted(PACKAGE.rglob("*.py"))
        # What lies in an image's root file system is part of that image.
        if "rootfs" not in file.relative_to(PACKAGE).parts
    ]


def imports(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
            names.add(node.module)
    return names


def below(name: str, tops: set[str]) -> bool:
    return any(name == top or name.startswith(top + ".") for top in tops)


@pytest.mark.parametrize(("name", "file"), modules(), ids=lambda value: str(value))
def test_imports_go_one_way(name: str, file: Path) -> None:
    top = name.partition(".")[0]
    if top in GLUE:
        return
    assert top in ALLOWED, f"{name}: say in ALLOWED what it may import"
    for imported in imports(file):
        package, _, rest = imported.partition(".")
        # `from mlcheck.x import Thing` is seen as mlcheck.x and as mlcheck.x.Thing.
        if package == "mlcheck" and rest and rest != "engines":
            assert below(rest, ALLOWED[top]), f"{name} imports {imported}"


@pytest.mark.parametrize(
    ("library", "only"),
    [
        ("lief", {"probes.lief_server"}),
        # probes.inside is what runs in an image.
        (
            "subprocess",
            {"engines", "gpu", "listing", "reference.cache", "probes.inside"}
            | {"probes.lief_client"},
        ),
        (
            "pydantic",
            {"expectations", "profile", "report.model", "report.reading", "kept.fact_json"},
        ),
        (
            "pytest",
            {
                "ahead",
                "checking",
                "collecting",
                "commands.check",
                "plugin",
                "run",
                "judge",
                "side_by_side",
                "told",
                "spreading",
                "fixtures",
                "fixtures_static",
                "fixtures_at_work",
                "fixtures_parity",
                "fixtures_serving",
                "reporting",
                "snapshot.trial",
            },
        ),
        ("testinfra", {"host", "fixtures"}),
        ("docker", {"engines"}),
        ("xdist", {"plugin", "reporting", "spreading", "told"}),
        ("tree_sitter", {"toml_lines"}),
        ("shtab", {"commands.completion"}),
        ("tomlkit", {"snapshot.document"}),
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


def test_checks_do_no_input_or_output() -> None:
    for name, file in modules():
        if name.startswith("checks"):
            forbidden = {"os", "pathlib", "io", "subprocess", "socket", "shutil", "tempfile"}
            assert not imports(file) & forbidden, name
            calls = {
                node.func.id
                for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            }
            assert not calls & {"open", "exec", "eval", "print"}, name


def test_kept_facts_depend_on_the_source_of_all_that_reads() -> None:
    """What probes import, and what that imports, is in the version of kept facts; what an engine
    takes from elsewhere (how an image is called) has no part in what is read."""
    known = {reader.removesuffix(".py") for reader in version._READERS}
    for name, file in modules():
        if name.partition(".")[0] in known - {"engines"}:
            used = {imported.split(".")[1] for imported in imports(file) if "mlcheck." in imported}
            assert used <= known | {"__version__", "environ", "image", "kept", "places"}, name
