"""The reference images: true to what they claim, and untouched by the defects of others.

Tests that take `reference_image` build one first (half a minute, then kept in the user's cache).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import io
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcheck import reference
from mlcheck.model.errors import EngineError, UsageError
from mlcheck.reference import cache, cli, config, export, listing, rpmdb, tree
from mlcheck.reference.build import build
from selftests.reference_fixtures import RunInside, reference_image, run_inside

__all__ = ["reference_image", "run_inside"]  # fixtures

CONDA = "opt/conda"


def content(root: Path) -> str:
    """Hash of names, types, modes, links and bytes of everything below a directory."""
    whole = hashlib.sha256()
    for top, directories, files in os.walk(root):
        directories.sort()
        for name in sorted(files + directories):
            path = Path(top, name)
            mode = path.lstat().st_mode
            whole.update(f"{path.relative_to(root)} {mode:o}\n".encode())
            if stat.S_ISLNK(mode):
                whole.update(os.fsencode(path.readlink()))
            elif stat.S_ISREG(mode):
                whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def identity(root: Path) -> set[tuple[str, int, int, str]]:
    """Name, mode, inode and link of every file below a directory.

    Cheaper than its content, and another for a file that was written anew.
    """
    found = set()
    for top, directories, files in os.walk(root):
        for name in files + directories:
            path = Path(top, name)
            status = path.lstat()
            inode = 0 if stat.S_ISDIR(status.st_mode) else status.st_ino
            link = str(path.readlink()) if path.is_symlink() else ""
            found.add((str(path), status.st_mode, inode, link))
    return found


def records(image: Path) -> list[dict[str, object]]:
    return [json.loads(file.read_text()) for file in (image / CONDA / "conda-meta").glob("*.json")]


def site_packages(image: Path) -> Path:
    (found,) = (image / CONDA / "lib").glob("python3.*/site-packages")
    return found


# What a reference image claims


@pytest.mark.slow
def test_conda_tools_read_every_record(reference_image: Path) -> None:
    import rattler

    files = sorted((reference_image / CONDA / "conda-meta").glob("*.json"))
    for file in files:
        record = rattler.PrefixRecord.from_path(file)
        assert f"{record.name.normalized}-{record.version}-{record.build}" == file.stem
    names = {file.stem.rsplit("-", 2)[0] for file in files}
    assert {"python", "numpy", "uproot", "root", "root_base", "zlib", "zsh", "tcsh"} <= names


CHANGED_BY_BUILDERS = {
    "lib/libcrypto.so.3",
    "lib/libssl.so.3",
    "share/jupyter/kernels/python3/kernel.json",
}
"""Files that are not as their package has them, besides those directly in bin/."""


@pytest.mark.slow
def test_files_and_hashes_of_records_are_true(reference_image: Path) -> None:
    prefix = reference_image / CONDA
    compared = 0
    for record in records(reference_image):
        paths_data = record["paths_data"]
        assert isinstance(paths_data, dict)
        paths = paths_data["paths"]
        assert [entry["_path"] for entry in paths] == record["files"]
        for entry in paths:
            file = prefix / entry["_path"]
            assert file.is_file(), file
            assert file.is_symlink() == (entry["path_type"] == "softlink"), file
            if entry["path_type"] in ("pyc_file", "unix_python_entry_point"):
                assert "sha256" not in entry
            elif entry["_path"] not in CHANGED_BY_BUILDERS and "/" in entry["_path"][4:]:
                data = file.read_bytes()
                assert hashlib.sha256(data).hexdigest() == entry["sha256_in_prefix"], file
                if entry["sha256"] == entry["sha256_in_prefix"]:
                    assert len(data) == entry["size_in_bytes"], file
                compared += 1
    assert compared > 5_000


@pytest.mark.slow
def test_no_record_or_script_names_the_machine_that_built_it(reference_image: Path) -> None:
    tell_tale = str(cache.cache_root()).encode()
    for directory in ("conda-meta", "bin", "share/jupyter", "etc"):
        for file in (reference_image / CONDA / directory).rglob("*"):
            if file.is_file():
                assert tell_tale not in file.read_bytes(), file
    for file in site_packages(reference_image).glob("*.dist-info/*"):
        if file.is_file():
            assert tell_tale not in file.read_bytes(), file


@pytest.mark.slow
def test_wheel_records_are_true(reference_image: Path) -> None:
    site = site_packages(reference_image)
    for info in ("ipykernel", "jupyter_core", "pipenv", "seaborn"):
        (record,) = site.glob(f"{info}-*.dist-info/RECORD")
        for line in record.read_text().splitlines():
            path, digest, size = line.rsplit(",", 2)
            if digest:
                data = (site / path.strip('"')).read_bytes()
                expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
                assert digest == f"sha256={expected.decode()}", path
                assert int(size) == len(data), path


@pytest.mark.slow
def test_the_package_list_is_true(reference_image: Path) -> None:
    lines = (reference_image / "list-of-pkgs-inside.txt").read_text().splitlines()
    installed = {f"{record['name']} {record['version']}" for record in records(reference_image)}
    for info in site_packages(reference_image).glob("*.dist-info"):
        fields = dict(
            line.split(": ", 1)
            for line in (info / "METADATA").read_text().split("\n\n")[0].splitlines()
            if line.startswith(("Name: ", "Version: "))
        )
        installed.add(f"{fields['Name']} {fields['Version']}")
    installed.add("micromamba 2.1.0")
    system = {"bzip2.x86_64", "file.x86_64", "git.x86_64", "which.x86_64"}
    python_lines = {line.lower() for line in lines if line.split()[0] not in system}
    assert python_lines == {line.lower() for line in installed}
    assert {line.split()[0] for line in lines} >= system
    assert {"tzdata"} <= {line.split()[0] for line in lines if lines_of(lines, line) > 1}


def lines_of(lines: list[str], line: str) -> int:
    """How many lines tell of the same package."""
    return sum(other.split()[0] == line.split()[0] for other in lines)


@pytest.mark.slow
def test_nothing_is_writable_by_others(reference_image: Path) -> None:
    for top, directories, files in os.walk(reference_image):
        for name in directories + files:
            path = Path(top, name)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                continue
            inside = path.relative_to(reference_image).as_posix()
            allowed = 0o1777 if inside in ("tmp", "var/tmp") else 0o755
            if inside.startswith("opt/conda/") and stat.S_ISREG(mode):
                allowed = 0o775  # packages, as conda installs them
            assert stat.S_IMODE(mode) & ~allowed == 0, inside
            assert mode & stat.S_IROTH, inside


def test_real_rpm_reads_the_database(tmp_path: Path) -> None:
    rpm = shutil.which("rpm")
    if rpm is None:
        pytest.skip("rpm is not on this machine")
    packages = [
        rpmdb.RpmPackage("bzip2", "1.0.8", "10.el9_5", "Compression", "BSD", files=("/bin/bzip2",)),
        rpmdb.RpmPackage("which", "2.21", "29.el9", "Where commands are", "GPLv3"),
    ]
    rpmdb.write(tmp_path / "var/lib/rpm/rpmdb.sqlite", packages, 1_744_000_000)
    query = [rpm, f"--root={tmp_path}", "--dbpath=/var/lib/rpm", "-q"]
    every = subprocess.run([*query, "-a"], capture_output=True, text=True, check=True)
    assert sorted(every.stdout.split()) == [
        "bzip2-1.0.8-10.el9_5.x86_64",
        "which-2.21-29.el9.x86_64",
    ]
    owner = subprocess.run([*query, "-f", "/bin/bzip2"], capture_output=True, text=True, check=True)
    assert owner.stdout.strip() == "bzip2-1.0.8-10.el9_5.x86_64"
    assert every.stderr == ""


def test_the_list_is_in_the_order_of_sort(tmp_path: Path) -> None:
    lines = [
        "zsh 5.9",
        "_libgcc_mutex 0.1",
        "Jinja2 3.1",
        "jinja2 3.1",
        "asdf-standard 1",
        "asdf_standard 1",
        "bzip2.x86_64 1.0",
        "bzip2 1.0",
        "awkward 2",
        "_x 1",
    ]
    sort = shutil.which("sort")
    assert sort is not None
    sorted_ = subprocess.run(
        [sort, "-fu"],
        input="\n".join(lines),
        env={"LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    ours = [line.lower() for line in listing.in_order(lines)]
    assert ours == sorted_.stdout.lower().splitlines()
    assert "jinja2 3.1" in listing.in_order(lines)


# What runs in it


@pytest.mark.slow
def test_python_starts_from_the_prefix(run_inside: RunInside) -> None:
    code = (
        "import json, sys, numpy, zlib, ssl\n"
        "print(json.dumps([sys.prefix, sys.path, numpy.__file__]))"
    )
    result = run_inside(["python3", "-I", "-c", code])
    assert result.returncode == 0, result.stderr
    prefix, path, numpy = json.loads(result.stdout)
    site = f"/opt/conda/lib/python3.{sys.version_info.minor}/site-packages"
    assert prefix == "/opt/conda"
    assert site in path
    assert numpy == f"{site}/numpy/__init__.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["awkward", "uproot", "pandas", "sklearn", "plotly_express", "skhep", "lightgbm"]
)
def test_promised_packages_can_be_imported(run_inside: RunInside, module: str) -> None:
    result = run_inside(["python3", "-I", "-c", f"import {module}"])
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_root_runs_and_names_its_libraries(run_inside: RunInside) -> None:
    # On standard error, as ROOT itself.
    expected = "ROOT Version: 6.30/04\nzlib Version: 1.3.1\n"
    assert run_inside(["root"]).stderr == expected
    assert run_inside(["rootcling"]).stderr == expected
    code = "import ROOT; print(ROOT.gROOT.GetVersion())"
    assert run_inside(["python3", "-c", code]).stdout == "6.30/04\n"
    assert "-lz" in run_inside(["root-config", "--libs"]).stdout.split()


@pytest.mark.slow
def test_rpath_is_upstreams_corrected_one(reference_image: Path) -> None:
    import lief

    binary = lief.ELF.parse(str(reference_image / CONDA / "bin/root.exe"))
    assert binary is not None
    rpaths = [
        entry.rpath
        for entry in binary.dynamic_entries
        if isinstance(entry, lief.ELF.DynamicEntryRpath)
    ]
    assert rpaths == [
        "/0000000000000:$ORIGIN:$ORIGIN/../lib:/home/conda/feedstock_root/build_artifacts/"
        "root_base_1689430670413/_build_env/lib"
    ]
    assert binary.libraries == ["libCore.so", "libz.so.1"]


@pytest.mark.slow
def test_micromamba_is_one_static_program(reference_image: Path, run_inside: RunInside) -> None:
    import lief

    program = reference_image / "bin/micromamba"
    binary = lief.ELF.parse(str(program))
    assert binary is not None
    assert not binary.has_interpreter
    assert program.stat().st_ino == (reference_image / CONDA / "bin/micromamba").stat().st_ino
    assert run_inside(["micromamba", "--version"]).stdout == "2.1.0\n"


@pytest.mark.slow
def test_jupyter_sees_exactly_the_promised_kernels(run_inside: RunInside) -> None:
    result = run_inside(["jupyter", "kernelspec", "list", "--json"])
    specs = json.loads(result.stdout)["kernelspecs"]
    told = {
        name: (spec["spec"]["argv"][:2], spec["spec"]["display_name"])
        for name, spec in specs.items()
    }
    assert told == {
        "python3": (["python3-nohome", "-s"], "ML-Python3"),
        "python3-usersite": (["python3-nohome", "-m"], "ML-Python3-usersite"),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["jupyter", "lab"], ["jupyter-nbconvert"], ["ipython"], ["pipenv"]]
)
def test_wrappers_print_something(run_inside: RunInside, command: list[str]) -> None:
    result = run_inside([*command, "--version"])
    assert result.returncode == 0, result.stderr
    assert any(character.isdigit() for character in result.stdout)


@pytest.mark.slow
def test_the_kernels_python_is_the_one_beside_it(
    run_inside: RunInside, reference_image: Path
) -> None:
    foreign = "PATH=/usr/local/bin:$PATH PYTHONHOME=/nowhere PYTHONPATH=/nowhere"
    command = f"{foreign} /opt/conda/bin/python3-nohome -c 'import sys; print(sys.prefix)'"
    assert run_inside(["bash", "-c", command]).stdout == "/opt/conda\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "command"),
    [("bash", "echo $((6*7))"), ("zsh", "echo $((6*7))"), ("tcsh", "setenv A 42; echo $A")],
)
def test_shells_run_commands(run_inside: RunInside, shell: str, command: str) -> None:
    assert run_inside([f"/bin/{shell}", "-c", command]).stdout == "42\n"
    assert run_inside([f"/bin/{shell}", "-c", "exit 7"]).returncode == 7


@pytest.mark.slow
def test_the_entrypoint_becomes_the_command(run_inside: RunInside) -> None:
    result = run_inside(["/entrypoint.sh", "bash", "-c", "echo hello world; exit 7"])
    assert result.returncode == 7
    assert "/list-of-pkgs-inside.txt" in result.stdout
    assert result.stdout.endswith("\nhello world\n")
    silent = run_inside(["env", "CONTAINER_USERENV=yes", "/entrypoint.sh", "echo", "hello"])
    assert silent.stdout == "hello\n"


@pytest.mark.slow
def test_an_environment_on_top_hides_packages_of_the_image(run_inside: RunInside) -> None:
    minor = sys.version_info.minor
    script = f"""
        cd /tmp && . /create-newEnv-on-base.sh -p mine
        echo code=$?
        echo 'value = 42' > mine/lib/python3.{minor}/site-packages/seaborn.py
        python3 -c 'import sys, seaborn, numpy; print(sys.prefix, seaborn.value)'
        ls mine | paste -sd' '
    """
    result = run_inside(["bash", "-c", script])
    words = "baseEnv_dir bin conda-meta etc lib pyvenv.cfg sbin setup-UserEnv-in-container.sh share"
    assert result.stdout.splitlines()[-2:] == ["/tmp/mine 42", words], result.stderr
    assert "code=0" in result.stdout


@pytest.mark.slow
def test_help_of_the_environment_script_works_sourced_and_executed(run_inside: RunInside) -> None:
    result = run_inside(["timeout", "5", "bash", "/create-newEnv-on-base.sh", "-h"])
    assert result.returncode == 0
    assert "-p DIR" in result.stdout


@pytest.mark.slow
def test_setup_on_host_uses_a_link_without_a_colon(reference_image: Path, tmp_path: Path) -> None:
    (tmp_path / "image").symlink_to(reference_image)
    show = "&& echo $CONDA_PREFIX $JUPYTER_PATH && command -v root-config && root-config --prefix"
    bash = shutil.which("bash")
    assert bash is not None
    result = subprocess.run(
        [bash, "-c", f". {tmp_path}/image/setupMe-on-host.sh {show}"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )
    prefix = f"{tmp_path}/image/opt/conda"
    assert result.stdout.splitlines()[-3:] == [
        f"{prefix} {prefix}/share/jupyter",
        f"{prefix}/bin/root-config",
        prefix,
    ], result.stderr
    direct = subprocess.run(
        [bash, "-c", f". {reference_image}/setupMe-on-host.sh"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert direct.returncode == 1
    assert "colon" in direct.stderr


# Defects


@contextlib.contextmanager
def lean_clone(image: Path) -> Iterator[Path]:
    """A clone on the same file system, without most of Python."""
    kept = (
        *("ROOT", "ipykernel_launcher", "markupsafe", "scikit_hep", "seaborn", "site", "six"),
        *("uproot", "webcolors"),
    )
    site = site_packages(image)

    def left_out(directory: str, names: list[str]) -> list[str]:
        if Path(directory) in (site, site.parent):
            return [name for name in names if not name.startswith(kept)]
        if Path(directory).name == "zoneinfo":
            return [name for name in names if name != "Zulu"]
        return [name for name in names if name in ("lab", "labextensions")]

    with tempfile.TemporaryDirectory(prefix=".selftest-", dir=cache.cache_root()) as top:
        clone = Path(top, image.name)
        shutil.copytree(image, clone, symlinks=True, ignore=left_out, copy_function=os.link)
        yield clone


@pytest.mark.slow
def test_faults_change_their_clone_and_not_the_good_image(reference_image: Path) -> None:
    before = content(reference_image)
    unchanged = []
    for defect in reference.DEFECTS.values():
        if "ml-pyroot" in defect.images and not defect.layers:
            with lean_clone(reference_image) as clone:
                good = identity(clone)
                defect.apply(clone)
                if identity(clone) == good:
                    unchanged.append(defect.name)
    assert unchanged == []
    assert content(reference_image) == before


@pytest.mark.slow
def test_faults_can_be_planted_together(reference_image: Path) -> None:
    names = ["rpath", "list-extra-line"]
    image = build("ml-pyroot", defects=names)
    assert image.name == reference_image.name
    assert image != reference_image
    assert "ghost 1.0" in (image / "list-of-pkgs-inside.txt").read_text()
    assert b"/opt/conda/lib:$ORIGIN" in (image / CONDA / "bin/root.exe").read_bytes()
    assert build("ml-pyroot", defects=reversed(names)) == image


def test_every_fault_is_described() -> None:
    for name, defect in reference.DEFECTS.items():
        assert name == defect.name
        assert defect.images <= set(reference.NAMES)
        assert defect.images
        assert defect.caught_by
        assert defect.plants.endswith(".")


def test_unknown_names_are_explained() -> None:
    with pytest.raises(UsageError, match=r"no defect 'nope'(?s:.*)rpath-runpath"):
        build("ml-base", defects=["nope"])
    with pytest.raises(UsageError, match="ml-pyroot, not in ml-base"):
        build("ml-base", defects=["rpath"])
    with pytest.raises(UsageError, match="ml-nothing"):
        build("ml-nothing")


def test_a_tag_with_another_python_is_explained() -> None:
    tag = f"alma9-python3{sys.version_info.minor - 1}"
    with pytest.raises(UsageError, match=reference.default_tag()):
        build("ml-base", tag=tag)
    assert reference.default_tag() == f"alma9-python3{sys.version_info.minor}"


# Exports


@pytest.fixture
def small_image(tmp_path: Path) -> Path:
    """A directory with one of each thing that an image may hold."""
    image = tmp_path / "small:tag"
    tree.write(image, "/bin/program", "#!/bin/sh\n", 0o755)
    os.link(image / "bin/program", image / "bin/same")
    tree.write(image, f"/{'long' * 30}/{'name' * 30}.txt", "text\n", 0o644)
    tree.symlink(image, "/sbin", "bin")
    tree.symlink(image, "/etc/away", "/nowhere")
    os.mkfifo(image / "etc/fifo", 0o644)
    (image / "tmp").mkdir()
    (image / "tmp").chmod(0o1777)
    config.write_singularity(image, "tag")
    return image


def members(archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    return {member.name: member for member in archive.getmembers()}


def test_tar_keeps_links_modes_and_types(small_image: Path, tmp_path: Path) -> None:
    file = tmp_path / "small.tar"
    export.export_tar(small_image, file)
    with tarfile.open(file) as archive:
        found = members(archive)
        assert found["bin/same"].islnk()
        assert found["bin/same"].linkname == "bin/program"
        assert found["sbin"].issym()
        assert found["etc/away"].linkname == "/nowhere"
        assert found["etc/fifo"].isfifo()
        assert found["tmp"].mode == 0o1777
        assert {(member.uid, member.gid, member.uname) for member in found.values()} == {
            (0, 0, "root")
        }
        assert len({member.mtime for member in found.values()}) == 1
        names = {path.relative_to(small_image).as_posix() for path in small_image.rglob("*")}
        assert found.keys() == names - config.APPTAINER_LINKS.keys()
        assert "singularity" in names


def test_equal_images_make_equal_tars(small_image: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    export.export_tar(small_image, first)
    os.utime(small_image / "bin/program", (0, 0))
    export.export_tar(small_image, second)
    assert first.read_bytes() == second.read_bytes()


def test_docker_archive_has_layer_and_configuration(small_image: Path, tmp_path: Path) -> None:
    file = tmp_path / "small.tar"
    tree.replace(
        small_image,
        "/.singularity.d/env/10-docker2singularity.sh",
        '{LC_ALL:-"C.UTF-8"}',
        '{LC_ALL:-"POSIX"}',
    )
    export.export_docker_archive(small_image, file)
    with tarfile.open(file) as archive:

        def data(name: str) -> bytes:
            opened = archive.extractfile(name)
            assert opened is not None
            return opened.read()

        (manifest,) = json.loads(data("manifest.json"))
        assert manifest["RepoTags"] == ["small:tag"]
        image = data(manifest["Config"])
        assert manifest["Config"] == f"{hashlib.sha256(image).hexdigest()}.json"
        configuration = json.loads(image)
        (layer,) = (data(name) for name in manifest["Layers"])
    assert configuration["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    environment = dict(line.split("=", 1) for line in configuration["config"]["Env"])
    assert environment == {**config.ENV, "LC_ALL": "POSIX"}
    assert configuration["config"]["Entrypoint"] == ["/entrypoint.sh"]
    assert configuration["config"]["Labels"]["imageVersion"] == "tag"
    with tarfile.open(fileobj=io.BytesIO(layer)) as inner:
        assert inner.getmember("bin/same").islnk()


def test_an_export_that_fails_leaves_the_old_file(small_image: Path, tmp_path: Path) -> None:
    file = tmp_path / "out" / "small.tar"
    file.parent.mkdir()
    file.write_text("old")
    with pytest.raises(EngineError, match=r"small\.tar: No such file"):
        export.export_docker_archive(small_image / "no-such-image", file)
    assert file.read_text() == "old"
    assert list(file.parent.iterdir()) == [file]


def test_an_exported_directory_shares_no_file(small_image: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    export.export_directory(small_image, target)
    assert content(target) == content(small_image)
    assert (target / "bin/program").stat().st_ino != (small_image / "bin/program").stat().st_ino
    with pytest.raises(UsageError, match="exists"):
        export.export_directory(small_image, target)


# The command


def run_command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser.add_subparsers())
    arguments = parser.parse_args(["reference", *words])
    code: int = arguments.run(arguments)
    return code


@pytest.mark.slow
def test_build_prints_only_the_path(
    reference_image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("build", f"ml-pyroot:{reference.default_tag()}") == 0
    assert capsys.readouterr().out == f"{reference_image}\n"


def test_a_format_for_a_file_needs_an_output() -> None:
    with pytest.raises(UsageError, match="--output"):
        run_command("build", "ml-base", "--format", "tar")


def test_faults_are_listed_for_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("defects") == 0
    for_people = capsys.readouterr().out
    assert run_command("defects", "--json") == 0
    told = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert told.keys() == reference.DEFECTS.keys()
    assert told["rpath"]["caught_by"] == ["on-host-libraries", "rpath-hard-coded"]
    assert told["rpath"]["plants"] in for_people


@pytest.mark.slow
def test_the_rpm_database_of_the_image_is_whole(reference_image: Path) -> None:
    database = reference_image / "var/lib/rpm/rpmdb.sqlite"
    with contextlib.closing(sqlite3.connect(f"file:{database}?immutable=1", uri=True)) as open_:
        assert open_.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert {name for (name,) in open_.execute("SELECT key FROM Name")} >= {"git", "bzip2"}
