"""A pytest plugin: docker as on a machine with two GPUs, with stand-ins for what NVIDIA brings.

Where mlcheck asks docker for GPUs, docker gets what NVIDIA's container toolkit makes of such a
request: device files (each is /dev/null) and a directory of the machine with libcuda.so.1.
MLCHECK_STANDIN_LIBRARIES names that directory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mlcheck.engines.oci.client import Client
from mlcheck.machine import gpu
from mlcheck.model.host_gpus import GpuDevice, HostGpus

UUIDS = tuple(bytes(range(16 * n, 16 * n + 16)).hex() for n in range(2))

_create = Client.create_container


def _with_standins(self: Client, *args: Any, **options: Any) -> Any:
    host = options["host_config"]
    if host.pop("DeviceRequests", None):
        host["Devices"] = [
            {"PathOnHost": "/dev/null", "PathInContainer": f"/dev/{name}", "CgroupPermissions": "r"}
            for name in ("nvidia0", "nvidia1", "nvidiactl")
        ]
        libraries = os.environ["MLCHECK_STANDIN_LIBRARIES"]
        host["Binds"] = [f"{libraries}:/usr/local/nvidia/lib64:ro"]
    return _create(self, *args, **options)


def _host(root: Path = Path()) -> HostGpus:
    listed = tuple(GpuDevice("stand-in GPU", uuid) for uuid in UUIDS)
    return HostGpus("550.54.15", ("0000:01:00.0",), listed)


def pytest_configure() -> None:
    Client.create_container = _with_standins
    gpu.host = _host
    gpu.host_has_driver = lambda: True
