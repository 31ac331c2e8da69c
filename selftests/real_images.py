"""Images of real parts, built by docker: packages of this machine's Debian, and what PyPI gives
for JupyterLab, installed by pip in the image itself."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from selftests import images

KINDS = ("venv", "usr-local", "no-shell", "small")
WAYS = ("docker", "podman", "apptainer", "archive", "directory")
NUMPY, OLDER_NUMPY = "2.3.5", "2.2.6"

_SYSTEM = (
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "findutils", "grep", "libc-bin"),
    *("libstdc++6", "python3", "python3-venv", "sed", "util-linux"),
)
_LEFT_OUT = ("/usr/share/doc/", "/usr/share/locale/", "/usr/share/man/")
_SHELLS = ("bash", "dash", "rbash", "sh")
_VENV = "/opt/venv"
_ENV = {
    "venv": f"PATH={_VENV}/bin:/usr/local/bin:/usr/bin:/bin",
    "usr-local": "PATH=/usr/local/bin:/usr/bin:/bin",
    "no-shell": f"PATH={_VENV}/bin:/usr/bin",
    "small": "PATH=/bin",
}
_CMD = {
    "venv": ["jupyter", "lab"],
    "usr-local": ["jupyter", "lab"],
    "no-shell": ["python", "--version"],
    "small": ["/bin/busybox", "true"],
}


def output(*argv: str | Path, stdin: bytes = b"") -> str:
    """What a program prints that must succeed."""
    done = subprocess.run(argv, input=stdin, capture_output=True, check=False)
    said = done.stdout.decode()
    assert done.returncode == 0, f"{argv}: {said} {done.stderr.decode(errors='replace')}"
    return said


@dataclass(frozen=True)
class RealImages:
    """The images of one run of the self-tests, each built by whoever asks first.

    Args:
        place: a directory of this run, which all workers of pytest-xdist share.
        name: names the run among the images of docker and podman.
    """

    place: Path
    name: str

    def image(self, kind: str) -> str:
        """The name of a good image in docker's store; `kind` is one of `KINDS`."""
        return self._built(kind, lambda name: self._build(kind, name))

    def broken(self) -> str:
        """The image "venv" with another numpy, which has an absolute RPATH; with a kernel of a
        Python that is not there, and a jupyter with such a first line."""

        def build(name: str) -> None:
            container = f"{self.name}-broken"
            numpy = f"install --quiet --no-index --find-links /wheels numpy=={OLDER_NUMPY}"
            script = (
                f"{_VENV}/bin/python -m pip {numpy}\n"
                f"sed -i s/python/no-such-python/ {_VENV}/share/jupyter/kernels/*/kernel.json\n"
                f"sed -i '1s|.*|#!{_VENV}/bin/no-such-python|' {_VENV}/bin/jupyter\n"
                f"find {_VENV} -name '_multiarray_umath.*.so'"
            )
            with self._container(container, self.image("venv"), ["sh", "-ec", script]) as said:
                library, here = said.strip(), self.place / "umath.so"
                output("docker", "cp", f"{container}:{library}", here)
                output("patchelf", "--force-rpath", "--set-rpath", f"{_VENV}/lib", here)
                output("docker", "cp", here, f"{container}:{library}")
                self._commit(container, "venv", name)

        return self._built("broken", build)

    def stored(self, image: str, way: str) -> tuple[str, str]:
        """The option and the name by which mlcheck opens an image of docker's store this way."""
        kind = image.rpartition("/")[2].removesuffix(":v1")
        archive = self.place / f"{kind}.tar"
        if way == "docker":
            return "--engine=docker", image
        with self.once(archive.name) as missing:
            if missing:
                output("docker", "save", "-o", archive, image)
        if way == "podman":
            with self.once(f"{kind}-podman") as missing:
                if missing:
                    output("podman", "load", "-i", archive)
            return "--engine=podman", image
        if way == "archive":
            return "--engine=archive", f"docker-archive:{archive}"
        with self.once(f"{kind}-{way}") as missing:
            made = self.place / (f"{kind}.sif" if way == "apptainer" else f"{kind}:v1")
            options = ["--sandbox"] if way == "directory" else []
            # Not compressed: that takes a minute.
            options += ["--mksquashfs-args=-noI -noD -noF -noX"] if way == "apptainer" else []
            if missing:
                # A colon in the name would be taken for the end of a scheme.
                first = self.place / f"{kind}-{way}"
                images.build_sif(f"docker-archive:{archive}", first, *options)
                first.rename(made)
        return f"--engine={'apptainer' if way == 'apptainer' else 'sandbox'}", str(made)

    def remove(self) -> None:
        """Remove what was built; the next who asks has it built anew."""
        for engine in ("docker", "podman"):
            prefix = "localhost/" if engine == "podman" else ""
            listed = output(engine, "images", "--format", "{{.Repository}}:{{.Tag}}").split()
            mine = [name for name in listed if f"{self.name}/" in name.removeprefix(prefix)]
            if mine:
                output(engine, "rmi", "-f", *mine)
        shutil.rmtree(self.place)

    @contextmanager
    def once(self, what: str) -> Iterator[bool]:
        """Whether it has to be made, which one worker does while others wait."""
        self.place.mkdir(exist_ok=True)
        with (self.place / f"{what}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = self.place / f"{what}.done"
            yield not done.exists()
            done.touch()

    def _built(self, kind: str, build: Callable[[str], None]) -> str:
        name = f"{self.name}/{kind}:v1"
        with self.once(kind) as missing:
            if missing:
                build(name)
        return name

    def _build(self, kind: str, name: str) -> None:
        wheels = self._wheels()
        pip = f"/wheels/{next(wheels.glob('pip-*.whl')).name}/pip"
        install = [pip, "install", "--quiet", "--no-index", "--find-links", "/wheels", "pip"]
        install.append(f"numpy=={NUMPY}")
        python = f"{_VENV}/bin/python"
        make_venv = ["/usr/bin/python3", "-m", "venv", "--without-pip", _VENV]
        if kind == "small":
            root = self.place / "small"
            for directory in ("usr/bin", "usr/lib", "usr/lib64", "etc", "proc", "dev", "tmp"):
                (root / directory).mkdir(parents=True)
            for directory in ("bin", "lib", "lib64"):
                (root / directory).symlink_to(f"usr/{directory}")
            images.copy_programs(root, ["busybox"])
            for applet in ("sh", "cat", "ls", "env", "true", "setsid", "id"):
                (root / "usr/bin" / applet).symlink_to("busybox")
            images.write(root, "etc/os-release", 'ID=small\nVERSION_ID="1"\n')
            tar = self.place / "small-root.tar"
            output("tar", "-C", root, "--owner=0", "--group=0", "-cf", tar, ".")
            self._import(tar, kind, name)
        elif kind == "no-shell":
            base = self._base(shells=False)
            self._committed(base, f"{name}-venv", make_venv)
            self._committed(f"{name}-venv", name, [python, *install], kind)
        elif kind == "usr-local":
            command = ["/usr/bin/python3", *install, "jupyterlab", "--break-system-packages"]
            self._committed(self._base(shells=True), name, command, kind)
        else:
            words = " ".join([python, *install, "jupyterlab"])
            script = f"{' '.join(make_venv)} && exec {words}"
            self._committed(self._base(shells=True), name, ["sh", "-c", script], kind)

    def _base(self, *, shells: bool) -> str:
        def build(name: str) -> None:
            tar = self.place / f"base-{shells}.tar"
            _debian(tar, shells=shells)
            self._import(tar, "venv", name)

        return self._built("debian" if shells else "debian-no-shell", build)

    def _wheels(self) -> Path:
        """What PyPI gives for JupyterLab, two versions of numpy, and pip itself."""
        directory = self.place / "wheels"
        with self.once("wheels") as missing:
            if missing:
                options = ["--quiet", "--only-binary", ":all:", "--dest", str(directory)]
                download = [sys.executable, "-m", "pip", "download", *options]
                output(*download, "jupyterlab", "pip", f"numpy=={NUMPY}")
                output(*download, "--no-deps", f"numpy=={OLDER_NUMPY}")
        return directory

    def _import(self, tar: Path, kind: str, name: str) -> None:
        output("docker", "import", *_changes(kind), tar, name)

    def _committed(self, base: str, name: str, command: list[str], kind: str = "venv") -> None:
        """Run a command in a container, and make an image of what it left."""
        container = name.replace("/", "-").replace(":", "-")
        with self._container(container, base, command):
            self._commit(container, kind, name)

    @contextmanager
    def _container(self, name: str, base: str, command: list[str]) -> Iterator[str]:
        """A container in which a command has run, with the wheels at hand; what it printed."""
        wheels = f"--volume={self._wheels()}:/wheels:ro"
        run = ["docker", "run", "--network=none", f"--name={name}", wheels]
        try:
            yield output(*run, base, *command)
        finally:
            subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)

    def _commit(self, container: str, kind: str, name: str) -> None:
        output("docker", "commit", *_changes(kind), container, name)


def _changes(kind: str) -> list[str]:
    return [f"--change=ENV {_ENV[kind]}", f"--change=CMD {json.dumps(_CMD[kind])}"]


def _needed() -> list[str]:
    """Debian's packages for a small system with Python, and what they need."""
    kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    without = [f"--no-{kind}" for kind in kinds]
    asked = output("apt-cache", "depends", "--recurse", "--installed", *without, *_SYSTEM)
    names = {line for line in asked.splitlines() if line[:1].isalnum()}
    listed = output("dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}\n").splitlines()
    return sorted({line.split()[0] for line in listed if line.split()[1] == "ii"} & names)


def _debian(path: Path, *, shells: bool) -> None:
    """Write an archive of a small Debian with Python, as its packages are installed here."""
    packages = _needed()
    listed = {Path(line) for line in output("dpkg-query", "-L", *packages).splitlines()}
    # Debian names /bin/sh what lies in /usr/bin.
    files = {file.parent.resolve() / file.name for file in listed if file.name}
    if not shells:
        files -= {Path("/usr/bin", name) for name in _SHELLS}
    with tarfile.open(path, "w") as tar:
        for file in sorted(files):
            if os.path.lexists(file) and not str(file).startswith(_LEFT_OUT):
                tar.add(file, recursive=False, filter=_of_root)
        for name in ("passwd", "group"):
            tar.add(f"/usr/share/base-passwd/{name}.master", f"etc/{name}", filter=_of_root)
        for name in packages:
            for file in Path("/var/lib/dpkg/info").glob(f"{name}*"):
                if file.stem.partition(":")[0] == name and file.suffix in (".list", ".md5sums"):
                    tar.add(file, filter=_of_root)
        status = output("dpkg-query", "-s", *packages).encode()
        member = tarfile.TarInfo("var/lib/dpkg/status")
        member.size = len(status)
        tar.addfile(member, io.BytesIO(status))


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
