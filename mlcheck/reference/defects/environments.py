"""Faults of environments on top of the image's."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

from mlcheck.reference import tree
from mlcheck.reference.defects.base import Catalogue
from mlcheck.reference.python import PREFIX, VERSION

DEFECTS = Catalogue()
_SCRIPT = "/create-newEnv-on-base.sh"
_ARCHIVE = f"{PREFIX}/newEnv-base.tgz"

_UPSTREAMS_WAY = """\
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) return 0 2> /dev/null ;;
            *) shift ;;
        esac
    done
fi
"""


@DEFECTS.defect(
    "newenv-loops",
    "Executed with -h instead of sourced, create-newEnv-on-base.sh loops for ever, as upstream's.",
    "newenv-executed",
)
def _newenv_loops(image: Path) -> None:
    text = tree.at(image, _SCRIPT).read_text()
    tree.write(image, _SCRIPT, _UPSTREAMS_WAY + text)


@DEFECTS.defect(
    "newenv-default",
    "Sourced without a directory, create-newEnv-on-base.sh makes one of its own choice.",
    "newenv-usage",
)
def _newenv_default(image: Path) -> None:
    tree.replace(image, _SCRIPT, 'local top base prefix=""', 'local top base prefix="newEnv"')


@DEFECTS.defect(
    "newenv-missing-succeeds",
    "Sourced without a directory, create-newEnv-on-base.sh shows its usage and returns 0.",
    "newenv-usage",
)
def _newenv_missing_succeeds(image: Path) -> None:
    tree.replace(image, _SCRIPT, '_newenv_fail "no directory is given"; return 1', "return 3")


@DEFECTS.defect("newenv-help-mute", "create-newEnv-on-base.sh -h prints nothing.", "newenv-usage")
def _newenv_help_mute(image: Path) -> None:
    tree.replace(image, _SCRIPT, "-h | --help) _newenv_help; return 3", "-h | --help) return 3")


@DEFECTS.defect(
    "newenv-fails",
    "create-newEnv-on-base.sh makes the environment, and then ends with an error of its own.",
    "newenv-created",
)
def _newenv_fails(image: Path) -> None:
    tree.replace(
        image,
        _SCRIPT,
        'echo "Empty environment',
        '_newenv_fail "sed: no input"; return 1\n    echo "Empty environment',
    )


@DEFECTS.defect(
    "newenv-no-meta",
    "A new environment has no conda-meta, without which micromamba does not take it for one.",
    "newenv-created",
)
def _newenv_no_meta(image: Path) -> None:
    tree.replace(image, _SCRIPT, ' "$prefix/conda-meta"', "")
    tree.replace(image, _SCRIPT, '    : > "$prefix/conda-meta/history"\n', "")


@DEFECTS.defect(
    "newenv-isolated",
    "pyvenv.cfg of a new environment has include-system-site-packages = false.",
    "newenv-pyvenv",
    "newenv-path",
)
def _newenv_isolated(image: Path) -> None:
    tree.replace(image, _SCRIPT, "site-packages = true", "site-packages = false")


@DEFECTS.defect(
    "newenv-version",
    "pyvenv.cfg of a new environment tells of Python 3.8.17, which is another one's.",
    "newenv-pyvenv",
)
def _newenv_version(image: Path) -> None:
    tree.replace(image, _SCRIPT, '"version = $python"', '"version = 3.8.17"')


@DEFECTS.defect(
    "newenv-home",
    "pyvenv.cfg of a new environment leads to the image by a directory that is not there.",
    "newenv-pyvenv",
    "newenv-path",
)
def _newenv_home(image: Path) -> None:
    tree.replace(image, _SCRIPT, '"home = $base/bin"', '"home = $base/sbin/../bin"')


@DEFECTS.defect(
    "newenv-base-first",
    "A new environment is entered with the image's site-packages in PYTHONPATH, which comes first.",
    "newenv-path",
)
def _newenv_base_first(image: Path) -> None:
    line = f"export PYTHONPATH={PREFIX}/lib/python{VERSION}/site-packages\n"

    def edit(name: str, content: bytes) -> bytes:
        return content + line.encode() if name.startswith("etc/conda/activate.d/") else content

    _repack(image, edit=edit)


@DEFECTS.defect(
    "newenv-reuse",
    "setup-UserEnv-in-container.sh says that it enters the environment, and enters the image's.",
    "newenv-reuse",
)
def _newenv_reuse(image: Path) -> None:
    path = "/setup-UserEnv-in-container.sh"
    tree.replace(image, path, "CONDA_PREFIX=$_userenv_dir", f"CONDA_PREFIX={PREFIX}")


@DEFECTS.defect(
    "newenv-archive-absolute",
    "newEnv-base.tgz has an absolute link: on a host it leads to another directory.",
    "newenv-archive",
)
def _newenv_archive_absolute(image: Path) -> None:
    _repack(image, links={"bin/pip": f"{PREFIX}/bin/pip"})


@DEFECTS.defect(
    "newenv-archive-escapes",
    "newEnv-base.tgz has a link that leads out of the environment.",
    "newenv-archive",
)
def _newenv_archive_escapes(image: Path) -> None:
    _repack(image, links={"bin/pip": f"../../..{PREFIX}/bin/pip"})


@DEFECTS.defect(
    "newenv-archive-dangling",
    "newEnv-base.tgz has a link to a program that the image has no more.",
    "newenv-archive",
)
def _newenv_archive_dangling(image: Path) -> None:
    _repack(image, links={"bin/conda": "../baseEnv_dir/bin/conda"})


@DEFECTS.defect(
    "newenv-archive-no-activate",
    "newEnv-base.tgz has no script for activation.",
    "newenv-archive",
)
def _newenv_archive_no_activate(image: Path) -> None:
    _repack(image, without="etc/conda/activate.d/")


@DEFECTS.defect(
    "newenv-archive-truncated",
    "newEnv-base.tgz ends in the middle.",
    "newenv-archive",
    "newenv-created",
)
def _newenv_archive_truncated(image: Path) -> None:
    content = tree.at(image, _ARCHIVE).read_bytes()
    tree.write(image, _ARCHIVE, content[: len(content) // 2])


@DEFECTS.defect(
    "newenv-relative-only",
    "create-newEnv-on-base.sh takes an absolute directory for one below the current directory.",
    "newenv-created",
)
def _newenv_relative_only(image: Path) -> None:
    tree.replace(image, _SCRIPT, "                prefix=$2\n", "                prefix=$PWD/$2\n")
    tree.replace(image, _SCRIPT, 'mkdir -p "$prefix" || return 1', 'mkdir "$prefix" || return 1')


@DEFECTS.defect(
    "newenv-archive-no-shell",
    "The script for deactivation in newEnv-base.tgz is Python.",
    "newenv-archive",
    "newenv-created",
)
def _newenv_archive_no_shell(image: Path) -> None:
    def edit(name: str, content: bytes) -> bytes:
        return (
            b"import os\nprint(os.getcwd())\n"
            if name.startswith("etc/conda/deactivate.d/")
            else content
        )

    _repack(image, edit=edit)


def _repack(
    image: Path,
    *,
    links: dict[str, str] | None = None,
    without: str | None = None,
    edit: Callable[[str, bytes], bytes] = lambda name, content: content,
) -> None:
    """Rewrite the archive, with some links, without some members, with other content."""
    packed = io.BytesIO()
    with (
        tarfile.open(tree.at(image, _ARCHIVE)) as old,
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in old:
            if member.name in (links or {}) or (without and member.name.startswith(without)):
                continue
            file = old.extractfile(member) if member.isreg() else None
            content = edit(member.name, file.read()) if file is not None else b""
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            new.addfile(link)
    tree.write(image, _ARCHIVE, packed.getvalue())
