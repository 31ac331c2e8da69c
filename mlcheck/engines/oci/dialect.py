"""The differences between docker and podman. Both speak docker's HTTP API.

Each difference is a value in a `Dialect`; no other code depends on which engine it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlcheck.engines import capabilities
from mlcheck.model.image_ref import Kind


@dataclass(frozen=True, slots=True)
class Dialect:
    """The properties of one engine.

    Args:
        name: name of the engine, and of its command.
        label: its name for people.
        server: the server's name in the headers of its answers.
        host_variable: the environment variable with the server's address.
        sockets: its usual sockets, with $VARIABLES.
        contexts: True if the docker command's contexts define the server's address.
        service: the command, without the address, that starts a server if there is none.
        gpu: the request for all GPUs, in the form of HostConfig.DeviceRequests.
        gpu_since: first version of the server that does not silently ignore that request.
        gpu_option: the same for a person who types `run`.
        dropped: capabilities that its containers do not get.
        no_name_servers: options of a container without a network that keep this machine's name
            servers out of its `/etc/resolv.conf`.
        tmpfs: options for a directory in memory that is empty whatever the image has there.
        also_writable: further directories in memory that it puts into a read-only container, and
            to which it would set no limit.
        monitor: name, and an argument, of the processes that it leaves for minutes after each
            command that was started through its API (`exit_command_delay` in containers.conf(5)).
        exports: True if its archives of single files follow symlinks and do not contain owners, so
            that facts have to come from an export of the whole container.
        names_tell: True if it accepts the layer digests that an image claims without
            verifying them, but names the layers' directories after the true ones (docker
            refuses such an image).
        formats: the kinds of archives that it loads.
        own_api: path of its own API; "" for docker's.
        insecure, certificates: places where its administrator allows plain HTTP, and puts
            certificates of registries.
        missing, stopped, forbidden, old: remedies: nothing is installed, no server runs, access to
            the socket is denied, the server is too old.
    """

    name: str
    label: str
    server: str
    host_variable: str
    sockets: tuple[str, ...]
    contexts: bool
    service: tuple[str, ...] | None
    gpu: Mapping[str, Any] = field(hash=False)
    gpu_since: tuple[int, int] | None
    gpu_option: tuple[str, ...]
    dropped: tuple[str, ...]
    no_name_servers: Mapping[str, Any] = field(hash=False)
    tmpfs: str
    also_writable: tuple[str, ...]
    monitor: tuple[str, str] | None
    exports: bool
    names_tell: bool
    formats: tuple[Kind, ...]
    own_api: str
    insecure: str
    certificates: str
    missing: str
    stopped: str
    forbidden: str
    old: str


DOCKER = Dialect(
    name="docker",
    label="docker",
    server="Docker",
    host_variable="DOCKER_HOST",
    sockets=("/var/run/docker.sock", "$XDG_RUNTIME_DIR/docker.sock"),
    contexts=True,
    service=None,
    gpu={"Driver": "", "Count": -1, "Capabilities": [["gpu"]]},
    gpu_since=None,
    gpu_option=("--gpus", "all"),
    dropped=capabilities.OF_DOCKER,
    no_name_servers={"dns": ["127.0.0.1"], "dns_search": ["."]},
    tmpfs="rw,exec,nosuid,nodev,mode=1777",
    also_writable=(),
    monitor=None,
    exports=False,
    names_tell=False,
    formats=("docker-archive",),
    own_api="",
    insecure='"insecure-registries" in /etc/docker/daemon.json',
    certificates="/etc/docker/certs.d",
    missing="Install docker, or use another engine: `mlcheck doctor` lists them.",
    stopped="Start it: sudo systemctl start docker (rootless: systemctl --user start docker).",
    forbidden="Join its group (sudo usermod -aG docker $USER, then log in again), "
    "or use rootless docker or podman.",
    old="Install Docker 20.10 or newer.",
)

PODMAN = Dialect(
    name="podman",
    label="podman",
    server="Libpod",
    host_variable="CONTAINER_HOST",
    sockets=("/run/podman/podman.sock", "$XDG_RUNTIME_DIR/podman/podman.sock"),
    contexts=False,
    service=("podman", "system", "service", "--time=0"),
    # https://docs.podman.io/en/latest/markdown/podman-run.1.html#device-host-device-container-device-permissions
    gpu={"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]},
    gpu_since=(5, 4),
    gpu_option=("--device", "nvidia.com/gpu=all"),
    dropped=capabilities.DROPPED,
    no_name_servers={},  # it has none there anyway
    tmpfs="rw,exec,nosuid,nodev,mode=1777,notmpcopyup",
    also_writable=("/run", "/var/tmp"),  # noqa: S108 - the container's
    monitor=("conmon", "--exec-process-spec"),
    exports=True,
    names_tell=True,
    formats=("docker-archive", "oci-archive", "oci"),
    # The one like docker's resolves short names at docker.io only.
    own_api="v4.0.0/libpod",
    insecure='"insecure = true" for it in /etc/containers/registries.conf',
    certificates="/etc/containers/certs.d",
    missing="Install podman, or use another engine: `mlcheck doctor` lists them.",
    stopped="Unset CONTAINER_HOST, or start what listens there: "
    "systemctl --user start podman.socket.",
    forbidden="Unset CONTAINER_HOST to use podman as yourself; it needs no daemon.",
    old="Install podman 4.0 or newer.",
)
