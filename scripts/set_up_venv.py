"""Make the virtual environment `.venv` with this project and one of its extras.

It needs only Python 3.11 or newer. Debian's python3 package has no ensurepip; pip then comes from
Debian's package of it. A second run does nothing until pyproject.toml changes.

Usage: python3 scripts/set_up_venv.py EXTRA
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"


def main(extra: str) -> None:
    """Bring `.venv` up to date with one extra.

    Raises:
        SystemExit: Python is too old, or something cannot be fetched; with a message.
    """
    if sys.version_info < (3, 11):  # noqa: UP036 - the message is for older versions
        sys.exit(
            f"mlcheck needs Python 3.11 or newer; {sys.executable} is "
            f"{sys.version.split()[0]}. Name another one: make PYTHON=python3.12"
        )
    stamp = VENV / f".complete-{extra}"
    wanted = hashlib.sha256(
        (ROOT / "pyproject.toml").read_bytes() + sys.version.encode()
    ).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted and PYTHON.exists():
        return
    print(f"Setting up .venv with mlcheck and its extra {extra} ...", flush=True)
    start = time.monotonic()
    bare = importlib.util.find_spec("ensurepip") is None
    if not PYTHON.exists() or not _has_pip():
        venv.EnvBuilder(symlinks=True, with_pip=not bare, clear=True).create(VENV)
    if bare and not _has_pip():
        _install_pip()
    _pip("install", "--quiet", "--editable", f"{ROOT}[{extra}]")
    stamp.write_text(wanted)
    print(f"Set up .venv in {time.monotonic() - start:.0f} s.", flush=True)


def _has_pip() -> bool:
    return any((VENV / "lib").glob("python3*/site-packages/pip/__main__.py"))


def _pip(*arguments: str, pip: str = "pip") -> None:
    command = [str(PYTHON), *(["-m", "pip"] if pip == "pip" else [pip]), *arguments]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if subprocess.run(command, env=environment, check=False).returncode:
        sys.exit(
            f"Setting up .venv failed; pip's message is above. The command was:\n"
            f"  {' '.join(command)}\n"
            "It needs the package index: behind a proxy or with a mirror of your own, set "
            "HTTPS_PROXY or PIP_INDEX_URL as for pip."
        )


def _install_pip() -> None:
    """Extract pip's wheel from Debian's package of it, without installing that package.

    This works as an ordinary user: apt keeps its lists and caches in the directory given.
    """
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        sys.exit(f"{sys.executable} has no ensurepip; install it (Debian: python3-venv).")
    with tempfile.TemporaryDirectory() as directory:
        for name in ("lists/partial", "archives/partial"):
            (Path(directory) / name).mkdir(parents=True)
        apt = ["apt-get", "-qq", "-o", f"Dir::State::lists={directory}/lists"]
        apt += ["-o", f"Dir::Cache={directory}", "-o", "APT::Sandbox::User=root"]
        steps = (
            [*apt, "update"],
            [*apt, "download", "python3-pip-whl"],
            ["sh", "-c", "dpkg-deb -x python3-pip-whl_*.deb ."],
        )
        for step in steps:
            if subprocess.run(step, cwd=directory, check=False).returncode:
                sys.exit(
                    f"{sys.executable} has no ensurepip, and pip could not be fetched from "
                    "Debian's packages (apt's message is above). With root: apt install "
                    "python3-venv."
                )
        wheel = max(Path(directory).glob("usr/share/python-wheels/pip-*.whl"))
        _pip("install", "--quiet", "--no-index", str(wheel), pip=f"{wheel}/pip")


if __name__ == "__main__":
    main(sys.argv[1])
