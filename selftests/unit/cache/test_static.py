"""Facts that are kept: only as long as the image and the probes are the same, and exactly so."""

from __future__ import annotations

import ast
import builtins
import collections.abc
import dataclasses
import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlcheck import cache as kept
from mlcheck.cache import Static, Store, content, version
from mlcheck.cache.content import fingerprint, of_image
from mlcheck.cache.fact_json import FactJson
from mlcheck.cache.layer_facts import BY_LAYER
from mlcheck.cli import main as cli
from mlcheck.engines import select
from mlcheck.engines.archive import engine as archive
from mlcheck.engines.base import PLAINLY, OpenImage
from mlcheck.image import scan
from mlcheck.image.api import RootFS
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect import answers, digests
from mlcheck.inspect.conda import byte_code, replacements
from mlcheck.inspect.conda import probe as conda_files
from mlcheck.inspect.conda import records as conda_records
from mlcheck.inspect.deployed import probe as deployed
from mlcheck.inspect.elf import libraries
from mlcheck.inspect.elf import names as elf_names
from mlcheck.inspect.elf import paths as elf_paths
from mlcheck.inspect.elf import probe as elf
from mlcheck.inspect.environments import archive as env_archive
from mlcheck.inspect.files import contents as file_contents
from mlcheck.inspect.files import size
from mlcheck.inspect.framework import cuda
from mlcheck.inspect.jupyter import kernelspecs
from mlcheck.inspect.layers import probe as layers
from mlcheck.inspect.layers import published
from mlcheck.inspect.packages import (
    distributions,
    installed,
    package_list,
    r_packages,
    requested,
)
from mlcheck.inspect.parity import probe as parity
from mlcheck.inspect.prefix import probe as prefixes
from mlcheck.inspect.prefix import promised as promised_prefix
from mlcheck.inspect.probe_catalog import PROBES, facts_about
from mlcheck.inspect.root import probe as root_runs
from mlcheck.inspect.root import root_config
from mlcheck.inspect.server import agreements, shell_scripts, users
from mlcheck.inspect.system import probe as system
from mlcheck.inspect.system.facts import OsRelease
from mlcheck.model.environment import Environment
from mlcheck.model.image_ref import ImageRef
from selftests import archives
from selftests.checkout import CHECKOUT
from selftests.images import opened, write
from selftests.reference_fixtures import reference_image  # noqa: F401

KEPT = (
    *(conda_files.contents, conda_files.presence, conda_records.read, conda_records.without_files),
    *(cuda.probe, deployed.unreadable, distributions.probe, elf.probe, elf.probe_files),
    *(kernelspecs.from_files, parity.files, parity.tools, r_packages.probe),
    *(archive.member, archive.wanted_words, promised_prefix.probe),
    *(env_archive.probe, installed.from_files, installed.only_tellers),
    *(elf_names.probe, elf_names.programs, elf_paths.probe),
    *(
        layers.probe,
        libraries.owned,
        libraries.probe,
        published.owned,
        package_list.read,
        prefixes.at,
        prefixes.find,
    ),
    *(answers.on_path, byte_code.probe, digests.of_files, replacements.probe),
    *(root_config.from_files, root_runs.compiler_on_path),
    *(file_contents.probe, size.probe, system.files, system.os_release, system.scripts),
    *(agreements.probe, requested.read, shell_scripts.programs, shell_scripts.read_files),
    *(users.accounts, users.writability),
)
"""Every probe whose facts are kept; a test sees that none is missing."""

OF_LAYERS = tuple(way.of_layer for way in BY_LAYER.values())
"""What is kept of layers."""

RUNS: tuple[str, ...] = (
    "environment",
    "kernelspecs",
    "root-config",
    "python",
    "entrypoint",
    "shells",
    "commands",
)
RUNS = (*RUNS, "tensorflow", "torch", "cuda-driver", "imports", "new-environment", "pyroot")
RUNS = (*RUNS, "root-program", "installed")
"""Probes that run something, and the configuration, which is read in no time."""


def settled_ns() -> int:
    """As if nothing had changed for a while: new files cannot be made older than they are."""
    return time.time_ns() + 10 * content.SETTLED_NS


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache" / "facts")


def asking(image: OpenImage, store: Store) -> Static:
    """What a new process would ask with."""
    return Static(image, settled_ns(), store=Store(store.path))


# What pins the content


def pinned(path: Path) -> str | None:
    return fingerprint(path, settled_ns())


def rewrite(path: Path) -> None:
    """Another content of the same size, with all times set back that can be."""
    status = path.stat()
    path.write_bytes(path.read_bytes().swapcase())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def replace_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("../etc/other")


CHANGES: dict[str, Callable[[Path], object]] = {
    "another content, all else the same": lambda root: rewrite(root / "opt/conda/bin/tool"),
    "mode": lambda root: (root / "opt/conda/bin/tool").chmod(0o700),
    "a new name": lambda root: write(root, "opt/conda/new", ""),
    "another name": lambda root: (root / "opt/conda/bin/tool").rename(root / "tool"),
    "one less": lambda root: (root / "opt/conda/bin/tool").unlink(),
    "another target": lambda root: replace_link(root / "opt/link"),
    "an empty directory": lambda root: (root / "opt/empty").mkdir(),
    "mode of a directory": lambda root: (root / "opt").chmod(0o711),
    "mode of the root": lambda root: root.chmod(0o711),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "image"
    write(root, "opt/conda/conda-meta/history", "")
    write(root, "opt/conda/bin/tool", "#!/bin/sh\nabc\n", 0o755)
    write(root, b"etc/\xff\n\xfe".decode("utf-8", "surrogateescape"), "")
    write(root, "etc/os-release", "ID=tiny\n")
    (root / "opt/link").symlink_to("../etc/os-release")
    os.mkfifo(root / "opt/fifo")
    return root


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_of_a_directory_is_seen(tree: Path, change: Callable[[Path], object]) -> None:
    before = pinned(tree)
    assert before is not None
    # What only was read has not changed.
    (tree / "opt/conda/bin/tool").read_bytes()
    assert pinned(tree) == before
    change(tree)
    assert pinned(tree) not in (None, before)


def test_another_process_may_take_the_fingerprint(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = pinned(tree)
    files = list(DirectoryRootFS(tree).walk("/"))
    scan.look_ahead(tree)
    (ahead,) = scan.AHEAD.values()
    rootfs = DirectoryRootFS(tree)
    with monkeypatch.context() as patch:
        patch.setattr(content, "look", lambda *_: pytest.fail("was looked at here"))
        assert fingerprint(tree, settled_ns(), rootfs.remember) == expected
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", lambda *_: pytest.fail("was listed once more"))
        assert list(rootfs.walk("/")) == files
    ahead.close()
    assert scan.AHEAD == {}


def test_another_process_that_fails_is_no_loss(tree: Path) -> None:
    expected = pinned(tree)
    scan.look_ahead(tree)
    (ahead,) = scan.AHEAD.values()
    ahead._process.kill()
    rootfs = DirectoryRootFS(tree)
    assert fingerprint(tree, settled_ns(), rootfs.remember) == expected
    ahead.close()
    assert list(rootfs.walk("/")) == list(DirectoryRootFS(tree).walk("/"))
    scan.look_ahead(tree)
    write(tree, "etc/os-release", "ID=other\n")
    (ahead,) = scan.AHEAD.values()
    rootfs = DirectoryRootFS(tree)
    assert fingerprint(tree, settled_ns(), rootfs.remember) is not None
    ahead._process.kill()
    assert list(rootfs.walk("/")) == list(DirectoryRootFS(tree).walk("/"))
    ahead.close()


def test_what_changed_just_now_is_pinned_by_nothing(tree: Path) -> None:
    now = time.time_ns()
    assert fingerprint(tree, now) is None
    assert fingerprint(tree / "etc/os-release", now) is None
    assert fingerprint(tree, now + content.SETTLED_NS) is not None
    write(tree, "opt/later", "")
    # It changed after the moment from which on the image was read.
    assert fingerprint(tree, now) is None


def test_what_cannot_be_looked_at_is_pinned_by_nothing(tree: Path) -> None:
    assert pinned(tree / "nowhere") is None
    here = os.getcwd()  # noqa: PTH109
    try:
        os.chdir(tree)
        for _ in range(50):  # deeper than any path can name
            os.mkdir("d" * 200)  # noqa: PTH102
            os.chdir("d" * 200)
    finally:
        os.chdir(here)
    assert pinned(tree) is None
    shutil.rmtree(tree)


def test_a_link_in_the_image_is_not_followed(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tree / "opt/out").symlink_to(tmp_path / "outside")
    before = pinned(tree)
    (tmp_path / "outside/new").touch()
    assert pinned(tree) == before


@dataclasses.dataclass
class Standin:
    """As much of an open image as is looked at."""

    ref: ImageRef
    engine: str
    rootfs: object
    digest: str | None
    environment: Environment = Environment({}, None, None, "", "", None, None, "")  # noqa: RUF009
    notes: tuple[str, ...] = ()
    layers: None = None


def key(text: str, engine: str, digest: str | None, rootfs: object = None) -> str | None:
    image: Any = Standin(ImageRef.parse(text), engine, rootfs, digest)
    found = of_image(image, settled_ns())
    return None if found is None else found.key


@pytest.mark.parametrize(
    ("text", "engine"), [("mini:v9", "docker"), ("mini:v9", "podman"), ("x.sif", "apptainer")]
)
def test_a_digest_pins_what_the_engine_compares_with_it(text: str, engine: str) -> None:
    one, other = key(text, engine, "sha256:1"), key(text, engine, "sha256:2")
    assert one is not None
    assert other not in (None, one)
    assert key(text, engine, None) is None


def test_what_an_archive_says_of_itself_pins_nothing(tmp_path: Path) -> None:
    file = tmp_path / "image.tar"
    file.write_bytes(b"good")
    text = f"docker-archive:{file}"
    good = key(text, "archive", "sha256:1")
    assert good == key(text, "archive", "sha256:1")
    rewrite(file)
    assert key(text, "archive", "sha256:1") not in (None, good)


@pytest.mark.parametrize("kind", ["docker-archive", "oci", "oci-archive"])
def test_a_known_archive_is_not_read_again(
    kind: str, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [archives.layer(archives.member("etc/os-release", "ID=tiny\n"))]
    path = tmp_path / "image"
    if kind == "docker-archive":
        archives.docker_archive(path, layers)
    else:
        archives.write(archives.layout(layers), path, kind)
    ref = ImageRef.parse(f"{kind}:{path}")

    def found() -> tuple[OsRelease, tuple[str, ...]]:
        with select.open_image(ref, "archive") as image:
            static = asking(image, store)
            return static(system.os_release, image.rootfs), static.notes

    first, quiet = found()
    assert (first.fields, quiet) == ({"ID": "tiny"}, ())
    monkeypatch.setattr(archive, "index_layer", lambda *_: pytest.fail("was read again"))
    again, noted = found()
    assert again == first
    assert noted


def test_cvmfs_names_a_directory_after_its_content(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = tmp_path / ".flat" / "ab" / ("ab" * 32)
    flat.parent.mkdir(parents=True)
    tree.rename(flat)
    pattern = content._CVMFS_FLAT.pattern.replace("/cvmfs/[^/]+", str(tmp_path))
    monkeypatch.setattr(content, "_CVMFS_FLAT", re.compile(pattern))
    with opened(flat) as image:
        found = of_image(image, time.time_ns())
    assert found is not None
    assert f"cvmfs {'ab' * 32} " in found.key


def test_the_directory_that_was_opened_is_meant(tree: Path, tmp_path: Path) -> None:
    """And not what has its name by now, as when the link of a tag is moved."""
    link = tmp_path / "tag"
    link.symlink_to(tree)
    with opened(link) as image:
        before = of_image(image, settled_ns())
        link.unlink()
        (tmp_path / "another/etc").mkdir(parents=True)
        link.symlink_to(tmp_path / "another")
        assert of_image(image, settled_ns()) == before is not None


# What the answers depend on besides


def copied_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "mlcheck"
    shutil.copytree(version._PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(version, "_PACKAGE", package)
    return package


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        *((f"inspect/{name}.py", True) for name in ("elf/probe", "answers", "probe_catalog")),
        *(("inspect/elf/facts.py", True), ("image/rootfs.py", True)),
        *(("engines/oci/streamed.py", True), ("model/files.py", True)),
        *(("model/rule.py", False), ("model/verdict.py", False)),
        *(("report/text.py", False), ("pytest_plugin/fixtures.py", False)),
    ],
)
def test_another_probe_may_find_something_else(
    file: str, counts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copied_package(tmp_path, monkeypatch) / file
    before = version.version.__wrapped__()
    assert version.version.__wrapped__() == before
    path.write_text(path.read_text() + "#\n")
    assert (version.version.__wrapped__() != before) is counts


def test_another_library_may_find_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    before = version.version.__wrapped__()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99")
    assert version.version.__wrapped__() != before


OWN = '''
from mlcheck.inspect.system.facts import OsRelease

def answer(rootfs: object, name: str = "x") -> OsRelease:
    """A probe of somebody else's."""
    return OsRelease({name: "1"}, None)

def unsaid(rootfs: object):
    return 1

def wrong(rootfs: object) -> OsRelease:
    return 1

def runs(image: object) -> OsRelease:
    return image.run(["true"])

def outer():
    def inner(rootfs: object) -> OsRelease:
        return OsRelease({}, None)
    return inner
'''


def own(path: Path, name: str = "answer", text: str = OWN) -> Callable[..., Any]:
    """A probe in a test's own file."""
    path.write_text(text)
    namespace: dict[str, Any] = {"__name__": "own"}
    exec(compile(text, str(path), "exec"), namespace)
    found: Callable[..., Any] = namespace[name]
    return found


def test_a_probe_of_ones_own_is_kept_until_its_file_changes(
    tree: Path, tmp_path: Path, store: Store
) -> None:
    path = tmp_path / "own.py"
    with opened(tree) as image:
        first, second, third = (asking(image, store) for _ in range(3))
        for static in (first, second):
            assert static(own(path), image.rootfs) == OsRelease({"x": "1"}, None)
        assert static(own(path), image.rootfs, "y") == OsRelease({"y": "1"}, None)
        assert static(own(path), image.rootfs, name="z") == OsRelease({"z": "1"}, None)
        changed = own(path, text=OWN.replace('"1"', '"2"'))
        assert third(changed, image.rootfs) == OsRelease({"x": "2"}, None)
    assert (first.notes, bool(second.notes), third.notes) == ((), True, ())


def test_a_static_probe_cannot_run_anything(tree: Path, tmp_path: Path, store: Store) -> None:
    with opened(tree) as image, pytest.raises(AttributeError, match="run"):
        asking(image, store)(own(tmp_path / "own.py", "runs"), image)


def test_what_cannot_be_kept_is_said_to_who_writes_it(
    tree: Path, tmp_path: Path, store: Store
) -> None:
    with opened(tree) as image:
        static = asking(image, store)
        with pytest.raises(TypeError, match="type of its answer"):
            static(own(tmp_path / "own.py", "unsaid"), image.rootfs)
        with pytest.raises(TypeError, match="no function of a module"):
            static(own(tmp_path / "own.py", "outer")(), image.rootfs)
        with pytest.raises(TypeError, match="no function of a module"):
            static(lambda rootfs: 1, image.rootfs)
        with pytest.raises(TypeError, match="object is nothing"):
            static(own(tmp_path / "own.py"), image.rootfs, object())


def test_an_answer_of_another_type_than_said_is_not_kept(
    tree: Path, tmp_path: Path, store: Store
) -> None:
    with opened(tree) as image:
        for _ in range(2):
            static = asking(image, store)
            assert static(own(tmp_path / "own.py", "wrong"), image.rootfs) == 1
            assert static.notes == ()


def test_the_configuration_is_a_part_of_the_question(tree: Path, store: Store) -> None:
    """Where libraries are found depends on LD_LIBRARY_PATH, which no file may tell."""
    with opened(tree) as image:
        for value in ("/a", "/b"):
            other: Any = Standin(
                image.ref,
                image.engine,
                image.rootfs,
                None,
                dataclasses.replace(image.environment, env={"LD_LIBRARY_PATH": value}),
            )
            need = asking(other, store)(libraries.probe, other, ["libz.so.1"], []).needs[0]
            assert value in need.searched


def test_with_gpus_nothing_is_kept(
    tree: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine mounts the machine's driver among the image's files."""
    with opened(tree) as image:
        static = Static(image, settled_ns(), pinned=False, store=store)
        assert static(system.os_release, image.rootfs).fields == {"ID": "tiny"}
    assert not store.path.exists()


def test_a_change_of_the_image_is_seen(tree: Path, store: Store) -> None:
    for expected in ("tiny", "TINY"):
        with opened(tree) as image:
            for _ in range(2):
                static = asking(image, store)
                fields = static(system.os_release, image.rootfs).fields
                assert expected in (*fields, *fields.values()), fields
            assert static.notes
        rewrite(tree / "etc/os-release")


def test_an_answer_for_other_probes_is_made_only_for_them(tree: Path, store: Store) -> None:
    made = []

    def record(name: str, files: list[str]) -> None:
        text = f'{{"name": "{name}", "version": "1", "files": ["{files[0]}"]}}'
        write(tree, f"opt/conda/conda-meta/{name}.json", text)

    record("tool", ["bin/tool"])
    with opened(tree) as image:
        for _ in range(2):
            static = asking(image, store)
            recorded = static.later(conda_records.read, image.rootfs, "/opt/conda")
            made.append(recorded)
            named = static(conda_records.without_files, recorded, ["*/tool"])
            assert [file.path for file in named.files] == ["/opt/conda/bin/tool"]
            assert static(conda_files.presence, image.rootfs, recorded).missing == ()
    assert ["_once" in vars(later) for later in made] == [True, False]


# Kept is what was found


def asked_probes() -> set[str]:
    """The whole name of the probe of each `ask(elf.probe, ...)`, wherever mlcheck asks."""
    found = set()
    for file in (CHECKOUT / "mlcheck").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        home = ".".join(file.relative_to(CHECKOUT).with_suffix("").parts)
        imported = {
            alias.asname or alias.name: f"{node.module}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        # A fact, or a probe, may ask a probe of its own module.
        imported |= {node.name: home for node in tree.body if isinstance(node, ast.FunctionDef)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args:
                called = ast.unparse(node.func)
                if called.removesuffix(".later") in ("ask", "ask.static", "static"):
                    module, _, probe = ast.unparse(node.args[0]).rpartition(".")
                    if (place := imported.get(module or probe)) is not None:
                        found.add(f"{place}.{probe}")
    return found


def test_every_kept_probe_is_tried_here() -> None:
    here = {f"{probe.__module__}.{probe.__name__}" for probe in KEPT}
    assert asked_probes() == here


def values(shape: Any) -> st.SearchStrategy[Any]:
    """All values of a type. Text has surrogates, as names of files that are not UTF-8 have."""
    arguments = typing.get_args(shape)
    if isinstance(shape, type) and (dataclasses.is_dataclass(shape) or hasattr(shape, "_fields")):
        hints = typing.get_type_hints(shape)
        return st.builds(shape, **{name: values(hint) for name, hint in hints.items()})
    match typing.get_origin(shape) or shape:
        case builtins.str:
            return st.text(
                st.characters() | st.sampled_from("\udc80\udcff\ud800\ufffd"), max_size=6
            )
        case builtins.int | builtins.bool | types.NoneType:
            return st.from_type(shape)
        case builtins.float:  # seconds
            return st.floats(allow_nan=False, allow_infinity=False)
        case builtins.object:  # JSON, in the metadata of a kernelspec
            return st.none() | st.booleans() | values(str)
        case typing.Literal:
            return st.sampled_from(arguments)
        case typing.Union | types.UnionType:
            return st.one_of(*map(values, arguments))
        case builtins.frozenset:
            return st.frozensets(values(arguments[0]))
        case collections.abc.Mapping:
            return st.dictionaries(*map(values, arguments), max_size=3)
        case builtins.tuple if arguments[-1] is ...:
            return st.lists(values(arguments[0]), max_size=3).map(tuple)
        case builtins.tuple:
            return st.tuples(*map(values, arguments))
    raise AssertionError(f"no values of {shape} are known here")


@pytest.mark.slow
@pytest.mark.parametrize(
    "probe", (*KEPT, *OF_LAYERS), ids=lambda probe: f"{probe.__module__}.{probe.__name__}"
)
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_facts_go_to_json_and_back(probe: Callable[..., object], data: st.DataObject) -> None:
    shape = typing.get_type_hints(probe)["return"]
    fact = data.draw(values(shape))
    codec = FactJson[object](shape)
    again = codec.decode(codec.encode(fact))
    assert again == fact
    assert unordered(again) == unordered(fact)  # 1 is no True, and a list no tuple


def test_surrogates_do_not_become_one_character() -> None:
    fact = OsRelease({"\ud83d\ude00": "\ud83d\ude00", "\ufffd": "\U0001f600"}, "\udcff")
    codec = FactJson[OsRelease](OsRelease)
    assert codec.decode(codec.encode(fact)) == fact


def unordered(fact: object) -> str:
    """As Python writes it, but for sets, whose order means nothing."""
    return re.sub(r"frozenset\(\{.*?\}\)", lambda found: str(sorted(found[0])), repr(fact))


@pytest.fixture
def hostile(tree: Path) -> Path:
    """Names and contents that are not what anybody expects."""
    odd = b"\xff \n\x80".decode("utf-8", "surrogateescape")
    for name in (
        f"opt/conda/bin/{odd}",
        f"opt/conda/conda-meta/{odd}.json",
        f"opt/conda/lib/{odd}",
    ):
        write(tree, name, b"\x7fELF\xff\xfe")
    write(tree, f"opt/conda/bin/script{odd}", b"#!/usr/bin/\xff -\xfe\n", 0o755)
    record = '{"name": "x\\udc80", "version": "1", "files": ["bin/\\udcff", "bin/tool"]}'
    write(tree, "opt/conda/conda-meta/x.json", record)
    dist = f"opt/conda/lib/python3.11/site-packages/x{odd}.dist-info/METADATA"
    write(tree, dist, b"Name: x\xff\nVersion: \xfe\nRequires-Dist: \x80\n\n")
    write(tree, "list-of-pkgs-inside.txt", b"a 1\n\xff\xfe 2\n")
    write(tree, "etc/os-release", b"ID=\xff\nNAME='\n")
    write(tree, "opt/conda/newEnv-base.tgz", b"\x1f\x8b\xff")
    (tree / "opt/conda/bin/dangling").symlink_to(odd)
    (tree / "opt/conda/bin/fifo").symlink_to("../../fifo")
    (tree / odd).symlink_to("/opt/conda/bin/" + odd)
    write(tree, "opt/secret", "", 0o600)
    return tree


def questions(image: OpenImage, ask: Any) -> dict[str, object]:
    """All that is kept of an image."""
    odd = b"/\xff \n\x80".decode("utf-8", "surrogateescape")
    paths = ("/etc/os-release", "/nowhere", odd, "/opt/conda/bin/dangling")
    facts = facts_about(image, ask)
    found = {name: PROBES[name](facts) for name in PROBES if name not in RUNS}
    rootfs: RootFS = image.rootfs
    found["files"] = ask(system.files, rootfs, paths)
    conda = found["named prefix"] = ask(prefixes.at, rootfs, "/opt/conda")
    found["from files"] = ask(installed.from_files, rootfs, conda)
    found["shell"] = ask(answers.on_path, rootfs, "sh", "/usr/bin:/bin")
    found["compiler"] = ask(root_runs.compiler_on_path, rootfs, image.environment)
    found["script"] = ask(root_config.from_files, rootfs, image.environment)
    found["tellers"] = ask(installed.only_tellers, rootfs, image.environment)
    found["named"] = ask(elf.probe_files, rootfs, paths)
    found["unreadable"] = ask(deployed.unreadable, rootfs)
    found["cuda"] = ask(cuda.probe, image, "/opt/conda", "numpy", ["libcudart.so.12"], frozenset())
    records = ask.later(conda_records.read, rootfs, "/opt/conda")
    found["records"] = ask(conda_records.without_files, records, ["*/bin/*"])
    found["kernelspecs from files"] = ask(kernelspecs.from_files, rootfs, image.environment)
    found["all files"] = ask(parity.files, rootfs, conda)
    found["all records"] = ask(conda_records.read, rootfs, "/opt/conda")
    return found


def same_kept_as_fresh(root: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(root) as image:
        first = asking(image, store)
        fresh = questions(image, first)
        assert first.notes == ()
    monkeypatch.setattr(Store, "_write", lambda *_: pytest.fail("was not kept"))
    with opened(root) as image:
        again = asking(image, store)
        found = questions(image, again)
        assert found == fresh
        assert unordered(found) == unordered(fresh)
        assert again.notes


def test_a_hostile_image_is_kept_as_it_is(
    hostile: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    same_kept_as_fresh(hostile, store, monkeypatch)
    with opened(hostile) as image:
        assert questions(image, asking(image, store)) == questions(image, PLAINLY)


@pytest.mark.slow
def test_a_reference_image_is_kept_as_it_is(
    reference_image: Path,  # noqa: F811
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Building other images makes hard links to the files of this one, which changes their ctime.
    copy = tmp_path / reference_image.name
    try:
        shutil.copytree(reference_image, copy, symlinks=True)
        same_kept_as_fresh(copy, store, monkeypatch)
    finally:
        shutil.rmtree(copy)


# As users see it


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, which is used. The image may have changed just now."""
    monkeypatch.delenv(kept.OFF)
    monkeypatch.setenv("MLCHECK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(content, "SETTLED_NS", -(10**18))
    return tmp_path / "cache"


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    assert cli.main(words) == 0
    said = capsys.readouterr()
    return said.out, said.err


FACTS = ("--probe", "elf", "--probe", "scripts", "--probe", "os-release", "--json")


def test_facts_are_kept(tree: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, quiet = command(capsys, "facts", str(tree), *FACTS)
    again, noted = command(capsys, "facts", str(tree), *FACTS)
    assert first == again
    assert quiet == ""
    assert "files not read again: facts kept from 20" in noted
    assert "--no-cache" in noted


@pytest.mark.parametrize("way", ["--no-cache", "variable"])
@pytest.mark.parametrize("name", ["facts", "packages"])
def test_nothing_is_kept(
    name: str,
    way: str,
    tree: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [name, str(tree), "--json", *(FACTS[:-1] if name == "facts" else ())]
    plain, _ = command(capsys, *words)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    assert before
    # What is kept would be told from what is there.
    monkeypatch.setattr(FactJson, "decode", lambda *_: pytest.fail("was read from the cache"))
    if way == "variable":
        monkeypatch.setenv(kept.OFF, "1")
    else:
        monkeypatch.setenv(kept.OFF, "")
        words.append("--no-cache")
    again, noted = command(capsys, *words)
    assert again == plain
    assert "kept" not in noted
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_cache_command(tree: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "0.0 MB of at most 512 MB" in command(capsys, "cache")[0]
    command(capsys, "facts", str(tree), *FACTS)
    shown, _ = command(capsys, "cache")
    assert f"5 facts of the image {tree}" in shown
    found = json.loads(command(capsys, "cache", "--json")[0])
    assert found["facts"]["path"] == str(cache / "facts")
    assert [(one["name"], one["entries"]) for one in found["facts"]["kept"]] == [(str(tree), 5)]
    assert found["reference"] == {"path": str(cache / "reference"), "images": []}
    assert "of facts removed" in command(capsys, "cache", "clear")[0]
    assert list((cache / "facts").iterdir()) == []
    layer = cache / "reference" / ("ab" * 10) / "mini:v9"
    layer.mkdir(parents=True)
    assert "1 of mini:v9" in command(capsys, "cache")[0]
    assert "1 reference images removed" in command(capsys, "cache", "clear", "--reference")[0]
    assert not layer.parent.exists()


SUITE = """
import sys
from mlcheck.cache import content
content.SETTLED_NS = -(10**18)
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def suite(image: object, *words: str, tests: str = "is_named or rpath", code: str = SUITE) -> str:
    done = subprocess.run(
        [
            *(sys.executable, "-c", code, "-p", "no:cacheprovider", "-k", tests),
            *("--profile", "ml-pyroot:alma9-python311", f"--image={image}", *words),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "mlcheck ==" in done.stdout, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_suite_says_that_facts_were_kept(tree: Path, cache: Path) -> None:
    suite(tree, "--no-cache")
    assert not cache.exists()
    assert "facts kept from" not in suite(tree)
    assert "note    files not read again: facts kept from 20" in suite(tree)


NO_LAYER = """
from mlcheck.engines.archive import engine as archive
def index_layer(*_):
    raise AssertionError("a layer was read again")
archive.index_layer = index_layer
"""


@pytest.mark.slow
def test_all_that_a_second_run_says_of_an_archive_was_kept(
    tree: Path, cache: Path, tmp_path: Path
) -> None:
    """Also the commands by hand of what fails, which name the layer that has the file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(tree, "")
    image = archives.docker_archive(tmp_path / "image.tar", [packed.getvalue()])
    options = (f"docker-archive:{image}", "--engine=archive")
    first = suite(*options, tests="")
    again = suite(*options, tests="", code=NO_LAYER + SUITE)
    assert "readelf" in first
    assert "layer.tar" in first

    def told(output: str) -> list[str]:
        timed = re.compile(r" in [0-9.]+s |kept from")
        return [line for line in output.splitlines() if not timed.search(line)]

    assert told(again) == told(first)
