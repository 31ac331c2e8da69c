"""The packages that Python finds, compared with importlib.metadata on the same directories."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.packages import python_packages
from mlcheck.inspect.packages.python_packages import PythonPackages
from mlcheck.inspect.prefix import probe as prefixes
from mlcheck.inspect.prefix.probe import package_directories
from selftests.images import write

SITE = "opt/venv/lib/python3.11/site-packages"
PROGRAM = """\
import json, sys
from importlib import metadata
import email.parser, site, zipfile
names, places = json.loads(sys.argv[1])
sys.path[:] = []
for place in places:
    if place.endswith("-packages"):
        site.addsitedir(place)
    else:
        sys.path.append(place)
found = {}
for name in names:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def info(root: Path, directory: str, name: str, version: str, file: str = "METADATA") -> None:
    write(root, f"{directory}/{file}", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def found_by_python(root: Path, places: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """What importlib.metadata finds with these places on sys.path."""
    asked = json.dumps([names, [str(root / place) for place in places]])
    argv = [sys.executable, "-I", "-S", "-c", PROGRAM, asked]
    found: dict[str, str] = json.loads(subprocess.check_output(argv, text=True))
    return found


def find(root: Path, *roots: str) -> PythonPackages:
    rootfs = DirectoryRootFS(root)
    return python_packages.find(
        rootfs, [(f"/{one}", tuple(package_directories(rootfs, f"/{one}"))) for one in roots]
    )


def versions(there: PythonPackages) -> dict[str, str]:
    return {package.name: package.version for package in there.found}


NAMES = ("numpy", "ruamel.yaml", "Typing_Extensions", "zope-interface")
PLACES = (
    "usr/local/lib64/python3.9/site-packages",
    "usr/local/lib/python3.9/site-packages",
    "usr/lib64/python3.9/site-packages",
    "usr/lib/python3.9/site-packages",
)
KINDS = ("{}-{}.dist-info/METADATA", "{}-{}.egg-info/PKG-INFO", "{}-{}-py3.9.egg-info")
ENTRIES = st.tuples(
    st.sampled_from(NAMES), st.sampled_from(["1.0", "2.0"]), st.sampled_from(KINDS), st.booleans()
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(ENTRIES, max_size=3), min_size=4, max_size=4))
def test_enterprise_linux_compared_with_importlib(
    packages: list[list[tuple[str, str, str, bool]]],
) -> None:
    """Four directories of packages in the order of sys.path, and a `.pth` file in each."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        write(root, "usr/lib64/python3.9/os.py", "")
        for place, entries in zip(PLACES, packages, strict=True):
            write(root, f"{place}/more.pth", "# more\nimport os\n../more\nnowhere\n")
            for name, version, kind, in_more in entries:
                at = place.replace("site-packages", "more") if in_more else place
                path = kind.format(name.replace("-", "_"), version)
                write(root, f"{at}/{path}", f"Name: {name}\nVersion: {version}\n")
        there = find(root, "usr/local", "usr")
        said = found_by_python(root, PLACES, NAMES)
        assert set(said) == set(versions(there))
        for name, version in said.items():
            both = {p.version for p in there.found if p.name == name}
            assert version in both
            assert len(both) == 1 or there.doubled


def test_a_virtual_environment_compared_with_importlib(tmp_path: Path) -> None:
    """Eggs, links of `pip install -e` and what an interrupted pip leaves."""
    info(tmp_path, f"{SITE}/baz-2.0-py3.11.egg/EGG-INFO", "baz", "2.0", "PKG-INFO")
    info(tmp_path, f"{SITE}/alone-2.0-py3.11.egg/EGG-INFO", "alone", "2.0", "PKG-INFO")
    info(tmp_path, "opt/venv/src/foo/foo.egg-info", "foo", "1.0", "PKG-INFO")
    write(tmp_path, f"{SITE}/foo.egg-link", "../../../src/foo\n.")
    write(tmp_path, f"{SITE}/lonely.egg-link", "../../../src/lonely\n.")
    info(tmp_path, "opt/venv/src/lonely/lonely.egg-info", "lonely", "1.0", "PKG-INFO")
    write(tmp_path, f"{SITE}/easy-install.pth", "../../../src/foo\n./baz-2.0-py3.11.egg\n")
    info(tmp_path, f"{SITE}/bar-1.0.dist-info", "bar", "1.0")
    info(tmp_path, f"{SITE}/~umpy-1.26.4.dist-info", "numpy", "1.26.4")
    info(tmp_path, f"{SITE}/~cipy-1.0.dist-info", "scipy", "1.0")
    info(tmp_path, f"{SITE}/scipy-2.0.dist-info", "scipy", "2.0")
    info(tmp_path, f"{SITE}/sneaky-2.0.dist-info", "sneaky", "1.0")
    info(tmp_path, f"{SITE}/old.dist-info", "old", "3.0", "PKG-INFO")
    info(tmp_path, f"{SITE}/UPPER-1.0.DIST-INFO", "upper", "1.0")
    names = ["baz", "alone", "foo", "lonely", "bar", "numpy", "scipy", "sneaky", "old", "upper"]
    there = find(tmp_path, "opt/venv")
    assert versions(there) == found_by_python(tmp_path, [SITE], names)
    assert set(versions(there)) == {"baz", "foo", "bar", "scipy", "sneaky", "old", "upper"}
    assert {problem.path.split("/")[-2]: problem.what for problem in there.problems} == {
        "~umpy-1.26.4.dist-info": "is left of an interrupted pip, which was about to remove "
        "numpy 1.26.4",
        "~cipy-1.0.dist-info": "is left of an interrupted pip, which was about to remove scipy 1.0",
        "sneaky-2.0.dist-info": "says that it is sneaky 1.0, in a directory of the version 2.0",
    }


def egg(root: Path, path: str, content: str, member: str = "EGG-INFO/PKG-INFO") -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/__init__.py", "")
        archive.writestr(member, content)


def test_zipped_eggs_compared_with_importlib(tmp_path: Path) -> None:
    text = "Metadata-Version: 2.1\nName: {0}\nVersion: 1.0\n"
    egg(tmp_path, f"{SITE}/zipped-1.0-py3.11.egg", text.format("zipped"))
    egg(tmp_path, f"{SITE}/alone-1.0-py3.11.egg", text.format("alone"))
    egg(tmp_path, f"{SITE}/wheel.whl", text.format("wheel"), "wheel-1.0.dist-info/METADATA")
    egg(tmp_path, f"{SITE}/other.zip", text.format("other"))  # EGG-INFO counts in an .egg alone
    write(tmp_path, f"{SITE}/text.egg", "no zip")
    lines = ["zipped-1.0-py3.11.egg", "wheel.whl", "other.zip", "text.egg", "gone.egg"]
    write(tmp_path, f"{SITE}/easy-install.pth", "".join(f"./{line}\n" for line in lines))
    names = ["zipped", "alone", "wheel", "other", "text"]
    there = find(tmp_path, "opt/venv")
    assert versions(there) == found_by_python(tmp_path, [SITE], names)
    assert set(versions(there)) == {"zipped", "wheel"}
    assert not there.problems


def test_a_damaged_egg_is_a_problem(tmp_path: Path) -> None:
    egg(tmp_path, f"{SITE}/a.egg", "Name: a\nVersion: 1\n" * 99)
    content = (tmp_path / SITE / "a.egg").read_bytes()
    at = content.index(b"EGG-INFO/PKG-INFO") + len("EGG-INFO/PKG-INFO")
    write(tmp_path, f"{SITE}/a.egg", content[:at] + b"\xff" * 8 + content[at + 8 :])
    write(tmp_path, f"{SITE}/a.pth", "a.egg\n")
    (problem,) = find(tmp_path, "opt/venv").problems
    assert "is damaged" in problem.what


@pytest.mark.parametrize("said", ["true", "TRUE", "false", "yes", None])
def test_what_is_below_a_virtual_environment_compared_with_python(
    said: str | None, tmp_path: Path
) -> None:
    """pyvenv.cfg decides whether the packages of the Python that made it count."""
    base, virtual = tmp_path / "base", tmp_path / "venv"
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # A Python of its own below, whose standard library is this one's.
    write(tmp_path, f"base/bin/{name}", "")
    (base / "lib").mkdir()
    places = [f"{one}/lib/{name}/site-packages" for one in ("venv", "base")]
    for number, place in enumerate(places):
        info(tmp_path, f"{place}/both-{number}.0.dist-info", "both", f"{number}.0")
        info(tmp_path, f"{place}/one{number}-1.dist-info", f"one{number}", "1")
    setting = f"Include-System-Site-Packages = {said}\n" if said else ""
    write(tmp_path, "venv/pyvenv.cfg", f"home = /base/bin\n{setting}")
    program = (
        f"import json, site, sys; sys.prefix = sys.exec_prefix = {str(base)!r}; "
        f"site.PREFIXES[:] = [sys.prefix, sys.exec_prefix]; sys.path[:] = []; "
        f"sys.executable = sys._base_executable = {str(virtual / 'bin/python')!r}; "
        "import os; os.environ.pop('__PYVENV_LAUNCHER__', None); "
        "known = site.venv(set()); site.addsitepackages(known); print(json.dumps(sys.path))"
    )
    (virtual / "bin").mkdir()
    path = json.loads(subprocess.check_output([sys.executable, "-I", "-S", "-c", program]))
    found = prefixes.at(DirectoryRootFS(tmp_path), "/venv").found
    assert [f"{tmp_path}{one}" for prefix in found for one in prefix.packages] == path
    there = python_packages.find(
        DirectoryRootFS(tmp_path), [(prefix.path, prefix.packages) for prefix in found]
    )
    names = ["both", "one0", "one1"]
    assert versions(there) == found_by_python(tmp_path, path, names)


def test_the_standard_library_comes_first_compared_with_importlib(tmp_path: Path) -> None:
    library = "opt/venv/lib/python3.11"
    write(tmp_path, f"{library}/os.py", "")
    info(tmp_path, f"{library}/numpy-1.0.dist-info", "numpy", "1.0")
    info(tmp_path, f"{SITE}/numpy-2.0.dist-info", "numpy", "2.0")
    there = find(tmp_path, "opt/venv")
    assert versions(there) == found_by_python(tmp_path, [library, SITE], ["numpy"])
    (hidden,) = there.hidden
    assert (hidden.version, hidden.why.startswith("Python finds /opt/venv/lib/python3.11/")) == (
        "2.0",
        True,
    )


@pytest.mark.parametrize(
    "directory", [sysconfig.get_path("purelib"), "/usr/lib/python3/dist-packages"]
)
def test_packages_of_this_machine_compared_with_importlib(tmp_path: Path, directory: str) -> None:
    """No package of a real directory is lost, doubled or said to be broken."""
    for source in Path(directory).glob("*-info"):
        if source.is_file():
            write(tmp_path, f"{SITE}/{source.name}", source.read_bytes())
        for name in ("METADATA", "PKG-INFO"):
            if (source / name).is_file():
                write(tmp_path, f"{SITE}/{source.name}/{name}", (source / name).read_bytes())
    expected = {d.metadata["Name"]: d.version for d in metadata.distributions(path=[directory])}
    if not expected:
        pytest.skip(f"no package in {directory}")
    there = find(tmp_path, "opt/venv")
    assert versions(there) == expected
    assert not (there.hidden or there.doubled or there.problems)


_DEBIANS = ("/usr/local", "/usr")
PYTHONS = {
    sys.executable: (sys.prefix,),
    os.path.realpath(sys.executable): _DEBIANS if sys.base_prefix == "/usr" else (sys.base_prefix,),
    "/usr/bin/python3": _DEBIANS,
}
"""The Pythons of this machine, with their environments in the order of sys.path."""
OWN_PACKAGES = """\
import json
from importlib import metadata
found = {}
for one in metadata.distributions():
    found.setdefault(one.metadata["Name"], one.version)
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("python", "prefixes"), [one for one in PYTHONS.items() if os.access(one[0], os.X_OK)]
)
def test_pythons_of_this_machine_compared_with_importlib(
    python: str, prefixes: tuple[str, ...]
) -> None:
    """Each finds what the model finds of its environment, `.pth` files and all."""
    said = json.loads(subprocess.check_output([python, "-I", "-c", OWN_PACKAGES], text=True))
    assert versions(find(Path("/"), *(one.lstrip("/") for one in prefixes))) == said


def test_a_link_in_pth_files_leads_inside_the_image(tmp_path: Path) -> None:
    info(tmp_path, "src/foo/foo.egg-info", "foo", "1.0", "PKG-INFO")
    write(tmp_path, f"{SITE}/a.pth", "/src/foo\n/../../src/foo\n\udcff".encode("utf-8", "replace"))
    assert versions(find(tmp_path, "opt/venv")) == {"foo": "1.0"}
    write(tmp_path, f"{SITE}/a.pth", b"\xff\n/src/foo\n")
    assert versions(find(tmp_path, "opt/venv")) == {}


def test_two_versions_in_one_directory(tmp_path: Path) -> None:
    for version in ("2.0.0", "2.1.0"):
        info(tmp_path, f"{SITE}/numpy-{version}.dist-info", "numpy", version)
    for kind in ("idna-3.6.dist-info", "idna.egg-info"):
        info(tmp_path, f"{SITE}/{kind}", "idna", "3.6")
    info(tmp_path, f"{SITE}/six-1.0.dist-info", "six", "1.0")
    info(tmp_path, f"{SITE}/six-1.0.0.egg-info", "six", "1.0.0", "PKG-INFO")
    (doubled,) = find(tmp_path, "opt/venv").doubled
    assert "numpy-2.0.0.dist-info and numpy-2.1.0.dist-info" in doubled.what


@pytest.mark.parametrize(
    ("python", "seen"), [("python3.11", False), ("python3.9", True), (None, True)]
)
def test_packages_of_another_python(tmp_path: Path, python: str | None, seen: bool) -> None:
    info(tmp_path, "opt/venv/lib/python3.9/site-packages/numpy-1.0.dist-info", "numpy", "1.0")
    if python:
        write(tmp_path, f"opt/venv/bin/{python}", "")
        (tmp_path / "opt/venv/bin/python3").symlink_to(python)
    there = find(tmp_path, "opt/venv")
    assert bool(there.found) is seen
    assert bool(there.hidden) is not seen


def test_lib64_is_looked_into_by_its_own_python_alone(tmp_path: Path) -> None:
    info(tmp_path, "opt/venv/lib64/python3.11/site-packages/a-1.dist-info", "a", "1")
    info(tmp_path, f"{SITE}/a-2.dist-info", "a", "2")
    assert versions(find(tmp_path, "opt/venv")) == {"a": "1"}
    write(tmp_path, "opt/venv/lib/python3.11/os.py", "")
    assert versions(find(tmp_path, "opt/venv")) == {"a": "2"}
    shutil.rmtree(tmp_path / "opt/venv/lib64")
    (tmp_path / "opt/venv/lib64").symlink_to("lib")
    assert not find(tmp_path, "opt/venv").hidden


@pytest.mark.parametrize(
    ("file", "version"),
    [
        ("a-1.0.dist-info", "1.0.0"),
        ("a-1.0rc1.dist-info", "1.0.rc1"),
        ("a-1.0+cu118.dist-info", "1.0+cu118"),
        ("a-1.0_local.dist-info", "1.0+local"),
        ("a.egg-info", "7.0"),
        ("a-2023d-py3.11.egg-info", "2023d"),
    ],
)
def test_ways_to_write_one_version(tmp_path: Path, file: str, version: str) -> None:
    info(tmp_path, f"{SITE}/{file}", "a", version)
    there = find(tmp_path, "opt/venv")
    assert versions(there) == {"a": version}
    assert not there.problems
