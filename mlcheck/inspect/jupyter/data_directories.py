"""The directories in which Jupyter looks for kernels, in its order.

They are those of `jupyter_path` in jupyter_core (its documentation: "Common Directories and File
Locations"), of `site` in Python, and jupyter_client's `~/.ipython/kernels`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import on_path, path_of
from mlcheck.inspect.server.users import accounts
from mlcheck.model.environment import Environment

_SYSTEM = ("/usr/local/share", "/usr/share")
_CFG_LIMIT = 64 * 1024


class Searched(NamedTuple):
    """A directory that Jupyter searches, in which "kernels" may be.

    Args:
        path: as Jupyter has it; it need not exist, and may be relative to the working directory.
        for_all: False if only one user's Jupyter searches it.
    """

    path: str
    for_all: bool


def jupyter_prefix(rootfs: RootFS, env: Mapping[str, str]) -> str:
    """Return the root of the environment whose Jupyter is on PATH, or ""."""
    if env.get("CONDA_PREFIX"):
        return env["CONDA_PREFIX"]
    python = on_path(rootfs, "python3", path_of(env))
    return python.rpartition("/")[0].rpartition("/")[0] if python else ""


def data_directories(rootfs: RootFS, environment: Environment, prefix: str) -> Iterator[Searched]:
    """Yield the directories that a Jupyter searches, the first of which has precedence.

    Those of each user follow one another: every user has one of them.

    Args:
        prefix: `sys.prefix` of that Jupyter.

    Raises:
        ProbeError: this machine forbids reading a directory or file.
    """
    env = environment.env
    homes = [env.get("HOME", ""), "/root", *(f"/home/{name}" for name in rootfs.listdir("/home"))]
    homes = [home for home in homes if home]
    platform = _is_set(env, "JUPYTER_PLATFORM_DIRS", otherwise=False)
    system = [f"{top}/jupyter" for top in (_data_dirs(env) if platform else _SYSTEM)]
    own = f"{prefix}/share/jupyter"

    def users() -> Iterator[Searched]:
        of_each = [Searched(f"{home}/.local/share/jupyter", False) for home in homes]
        if directory := env.get("JUPYTER_DATA_DIR"):
            yield Searched(directory, True)
        elif directory := env.get("XDG_DATA_HOME"):
            yield Searched(f"{directory}/jupyter", True)
        else:
            yield from of_each
        if not env.get("PYTHONNOUSERSITE") and _has_user_site(rootfs, prefix):
            base = env.get("PYTHONUSERBASE")
            yield from [Searched(f"{base}/share/jupyter", True)] if base else of_each

    if path := env.get("JUPYTER_PATH"):
        yield from (Searched(directory, True) for directory in path.split(":"))
    groups = [[*users()], [] if not prefix or own in system else [Searched(own, True)]]
    for group in reversed(groups) if _prefers_own(rootfs, environment, prefix) else groups:
        yield from group
    yield from (Searched(directory, True) for directory in system)
    if ipython := env.get("IPYTHONDIR"):
        yield Searched(ipython, True)
    else:
        yield from (Searched(f"{home}/.ipython", False) for home in homes)


def _is_set(env: Mapping[str, str], name: str, *, otherwise: bool) -> bool:
    """Return whether a variable says yes, as `envset` of jupyter_core reads it."""
    said = env.get(name)
    return (
        otherwise if said is None else said.lower() not in ("no", "n", "false", "off", "0", "0.0")
    )


def _data_dirs(env: Mapping[str, str]) -> list[str]:
    """Return the directories of XDG_DATA_DIRS, as platformdirs reads it."""
    said = env.get("XDG_DATA_DIRS", "")
    return [one for one in said.split(":") if one.strip()] if said.strip() else [*_SYSTEM]


def _prefers_own(rootfs: RootFS, environment: Environment, prefix: str) -> bool:
    """Return whether the environment's directory goes before those of users, as jupyter_core
    decides it (`prefer_environment_over_user`)."""
    env = environment.env
    conda = env.get("CONDA_PREFIX", "")
    named = env.get("CONDA_DEFAULT_ENV", "base") != "base" and prefix.startswith(conda) and conda
    is_one = _virtual(rootfs, prefix) or bool(named)
    return _is_set(
        env,
        "JUPYTER_PREFER_ENV_PATH",
        otherwise=is_one and _is_owned(rootfs, prefix, environment.user),
    )


def _is_owned(rootfs: RootFS, path: str, user: str | None) -> bool:
    """Return whether a directory belongs to the user that the image starts as; False if it starts
    as whoever runs it."""
    if user is None or (final := rootfs.resolve(path).final) is None:
        return False
    name = user.partition(":")[0] or "0"
    if name.isascii() and name.isdigit():
        return final.uid == int(name)
    account = accounts(rootfs).accounts.get(name)
    return account is not None and final.uid == account.uid


def _virtual(rootfs: RootFS, prefix: str) -> bool:
    return rootfs.resolve(f"{prefix}/pyvenv.cfg").file is not None


def _has_user_site(rootfs: RootFS, prefix: str) -> bool:
    """Return whether a Python searches its user's directory: not in a virtual environment, unless
    that has the system's packages (`site.venv`)."""
    if not _virtual(rootfs, prefix):
        return True
    try:
        text = rootfs.read(f"{prefix}/pyvenv.cfg", _CFG_LIMIT).decode("utf-8", "replace")
    except Unreadable:
        return False
    pairs = (line.partition("=") for line in text.splitlines())
    known = {key.strip().lower(): value.strip().lower() for key, _, value in pairs}
    return known.get("include-system-site-packages", "true") == "true"
