"""Faults of the system's files, the image's configuration and its entrypoint."""

from __future__ import annotations

from pathlib import Path

from mlcheck.reference import tree
from mlcheck.reference.defects.base import Catalogue
from mlcheck.reference.python import PREFIX

DEFECTS = Catalogue()
_ENTRYPOINT = "/entrypoint.sh"
_BANNER = "/printme.sh"
_ENVIRONMENT = "/.singularity.d/env/10-docker2singularity.sh"
_OS_RELEASE = "/usr/lib/os-release"


@DEFECTS.defect("os-wrong", "/etc/os-release is that of CentOS 7.", "os-release")
def _os_wrong(image: Path) -> None:
    content = (
        'NAME="CentOS Linux"\nVERSION="7 (Core)"\nID="centos"\nID_LIKE="rhel fedora"\n'
        'VERSION_ID="7"\nPRETTY_NAME="CentOS Linux 7 (Core)"\n'
    )
    tree.write(image, _OS_RELEASE, content)


@DEFECTS.defect("os-version", "/etc/os-release says AlmaLinux 8.10.", "os-release")
def _os_version(image: Path) -> None:
    tree.replace(image, _OS_RELEASE, 'VERSION_ID="9.5"', 'VERSION_ID="8.10"')


@DEFECTS.defect("os-release-missing", "/etc/os-release is a link that leads nowhere.", "os-release")
def _os_release_missing(image: Path) -> None:
    tree.remove(image, _OS_RELEASE)


@DEFECTS.defect("env-unset", "JUPYTER_PATH is not set.", "environment")
def _env_unset(image: Path) -> None:
    line = 'export JUPYTER_PATH="${JUPYTER_PATH:-"/opt/conda/share/jupyter"}"\n'
    tree.replace(image, _ENVIRONMENT, line, "")


@DEFECTS.defect(
    "env-wrong-path", "PATH begins with /usr/local/bin, before /opt/conda/bin.", "environment"
)
def _env_wrong_path(image: Path) -> None:
    old, new = 'PATH="/opt/conda/bin:', 'PATH="/usr/local/bin:/opt/conda/bin:'
    tree.replace(image, _ENVIRONMENT, f"export {old}", f"export {new}")


@DEFECTS.defect("env-locale", "LC_ALL is POSIX instead of C.UTF-8.", "environment")
def _env_locale(image: Path) -> None:
    tree.replace(image, _ENVIRONMENT, '{LC_ALL:-"C.UTF-8"}', '{LC_ALL:-"POSIX"}')


@DEFECTS.defect(
    "file-missing",
    "/create-newEnv-on-base.sh is not there.",
    "files",
    "newenv-created",
    "newenv-usage",
)
def _file_missing(image: Path) -> None:
    tree.remove(image, "/create-newEnv-on-base.sh")


@DEFECTS.defect(
    "file-mode", "/setupMe-on-host.sh may be read by its owner alone.", "files", "deployed-readable"
)
def _file_mode(image: Path) -> None:
    tree.chmod(image, "/setupMe-on-host.sh", 0o600)


@DEFECTS.defect("file-writable", "/setupMe-on-host.sh may be written by everybody.", "files")
def _file_writable(image: Path) -> None:
    tree.chmod(image, "/setupMe-on-host.sh", 0o666)


@DEFECTS.defect(
    "file-directory",
    "/opt/conda/newEnv-base.tgz is a directory.",
    "files",
    "newenv-archive",
    "newenv-created",
)
def _file_directory(image: Path) -> None:
    tree.remove(image, f"{PREFIX}/newEnv-base.tgz")
    tree.at(image, f"{PREFIX}/newEnv-base.tgz").mkdir()


@DEFECTS.defect(
    "file-dangling",
    "/usr/local/bin/_activate_current_env.sh is a link to a file that does not exist.",
    "files",
    "newenv-created",
    "on-host-bash",
    "on-host-zsh",
    "on-host-programs",
    "on-host-libraries",
)
def _file_dangling(image: Path) -> None:
    tree.symlink(image, "/usr/local/bin/_activate_current_env.sh", "/opt/activate.sh")


@DEFECTS.defect("file-old-library", "/lib64/libssl.so.10 is not there.", "files")
def _file_old_library(image: Path) -> None:
    tree.remove(image, "/usr/lib64/libssl.so.10")


@DEFECTS.defect(
    "entrypoint-missing",
    "/entrypoint.sh is not there.",
    "entrypoint",
    "entrypoint-command",
    "files",
)
def _entrypoint_missing(image: Path) -> None:
    tree.remove(image, _ENTRYPOINT)


@DEFECTS.defect(
    "entrypoint-not-executable",
    "/entrypoint.sh has the mode 0644.",
    "entrypoint",
    "entrypoint-command",
    "files",
)
def _entrypoint_not_executable(image: Path) -> None:
    tree.chmod(image, _ENTRYPOINT, 0o644)


@DEFECTS.defect(
    "entrypoint-swallows",
    "/entrypoint.sh takes words and exit code away from the command, as upstream's does.",
    "entrypoint-command",
)
def _entrypoint_swallows(image: Path) -> None:
    content = "#!/bin/bash\n. /printme.sh\nif [ $# -gt 0 ]; then\n    bash -c $*\nfi\nexit 0\n"
    tree.write(image, _ENTRYPOINT, content, 0o755)


@DEFECTS.defect(
    "entrypoint-activates",
    "/entrypoint.sh activates the environment, which alma9 images leave to the user.",
    "entrypoint-activation",
)
def _entrypoint_activates(image: Path) -> None:
    activate = ". /usr/local/bin/_activate_current_env.sh\n"
    tree.replace(image, _ENTRYPOINT, ". /printme.sh\n", f". /printme.sh\n{activate}")


@DEFECTS.defect(
    "banner-not-printed",
    "/entrypoint.sh does not print the banner, and apptainer's script for it does nothing.",
    "entrypoint-banner",
    "files",
)
def _banner_not_printed(image: Path) -> None:
    tree.replace(image, _ENTRYPOINT, ". /printme.sh\n", "")
    # Users of apptainer get it from there.
    tree.replace(image, "/.singularity.d/env/99-printme.sh", ". /printme.sh\n", "")


@DEFECTS.defect(
    "banner-no-list", "The banner names another file than the package list.", "entrypoint-banner"
)
def _banner_no_list(image: Path) -> None:
    tree.replace(image, _BANNER, "/list-of-pkgs-inside.txt", "/list-of-packages.txt")


@DEFECTS.defect(
    "banner-wrong-hint",
    "The banner says `micromamba install` where the prefix cannot be written.",
    "entrypoint-banner",
)
def _banner_wrong_hint(image: Path) -> None:
    tree.replace(image, _BANNER, "[ -w /opt/conda ]", "[ -d /opt/conda ]")


@DEFECTS.defect(
    "banner-not-silenced", "CONTAINER_USERENV does not silence the banner.", "entrypoint-banner"
)
def _banner_not_silenced(image: Path) -> None:
    tree.replace(image, _BANNER, "${CONTAINER_USERENV:-}", "${CONTAINER_QUIET:-}")


@DEFECTS.defect("label-missing", "There is no label imageRawSize.", "configuration")
def _label_missing(image: Path) -> None:
    path = "/.singularity.d/labels.json"
    tree.replace(image, path, '"imageRawSize"', '"imageSize"')


@DEFECTS.defect(
    "entrypoint-interpreter",
    "/entrypoint.sh asks for a shell that is not there.",
    "entrypoint-command",
)
def _entrypoint_interpreter(image: Path) -> None:
    tree.replace(image, _ENTRYPOINT, "#!/bin/bash\n", "#!/usr/local/bin/bash\n")


@DEFECTS.defect(
    "os-release-files",
    "/etc/redhat-release is CentOS 7's, where os-release is AlmaLinux 9's.",
    "os-release",
)
def _os_release_files(image: Path) -> None:
    text = "CentOS Linux release 7.9.2009 (Core)\n"
    tree.write(image, "/etc/almalinux-release", text)


@DEFECTS.defect(
    "env-empty-entry",
    "LD_LIBRARY_PATH ends with a colon: its last entry is the working directory.",
    "environment",
)
def _env_empty_entry(image: Path) -> None:
    tree.replace(image, _ENVIRONMENT, ':-"/usr/lib64"}', ':-"/usr/lib64:"}')


@DEFECTS.defect("file-empty", "/create-py_newEnv-on-base.sh is empty.", "files")
def _file_empty(image: Path) -> None:
    tree.write(image, "/create-py_newEnv-on-base.sh", "")


@DEFECTS.defect("file-other-library", "/lib64/libffi.so.6 is a link to libcrypto.so.10.", "files")
def _file_other_library(image: Path) -> None:
    tree.symlink(image, "/usr/lib64/libffi.so.6", "libcrypto.so.10")


@DEFECTS.defect(
    "entrypoint-parent",
    "/entrypoint.sh stays the parent of the command, ignores SIGTERM, and ends with 0 where the "
    "command was killed.",
    "entrypoint-command",
)
def _entrypoint_parent(image: Path) -> None:
    parent = 'trap : TERM\n"$@"\ncode=$?\n[ $code -gt 128 ] && exit 0\nexit $code\n'
    tree.replace(image, _ENTRYPOINT, 'exec "$@"\n', parent)


@DEFECTS.defect(
    "entrypoint-patterns",
    "/entrypoint.sh expands patterns in the command's words, and takes its standard input.",
    "entrypoint-command",
)
def _entrypoint_patterns(image: Path) -> None:
    tree.replace(image, _ENTRYPOINT, 'exec "$@"\n', "IFS=\nexec $@ < /dev/null\n")


@DEFECTS.defect(
    "banner-of-entrypoint",
    "/entrypoint.sh prints a banner of its own, also with CONTAINER_USERENV.",
    "entrypoint-banner",
)
def _banner_of_entrypoint(image: Path) -> None:
    own = "echo 'please read the file /list-of-pkgs-inside.txt'\n"
    tree.replace(image, _ENTRYPOINT, ". /printme.sh\n", f". /printme.sh\n{own}")
