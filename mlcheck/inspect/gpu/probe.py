"""Query the CUDA driver inside an image, step by step.

The names and the order are those of the CUDA driver API: cuInit, cuDriverGetVersion,
cuDeviceGetCount, cuDeviceGet, cuDeviceGetName, cuDeviceGetUuid. Each answer is printed before the
next step, so that a library that crashes leaves the earlier answers.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from mlcheck.engines.base import OpenImage
from mlcheck.inspect.answers import TOKEN_BYTES, command_result, how_it_ended, shortened
from mlcheck.inspect.framework import probe as framework
from mlcheck.inspect.framework.probe import VISIBLE, answers
from mlcheck.inspect.gpu.facts import CudaDriver, Gpus
from mlcheck.model.host_gpus import GpuDevice, HostGpus

LIMIT_S = 120.0
OUTPUT_LIMIT = 1024 * 1024
MOST = 256
"""Maximum number of devices of one machine; more are not believed."""

_VARIABLES = (VISIBLE, "NVIDIA_DRIVER_CAPABILITIES")

# For Python 3.6 and later. Never libcuda.so, which is for linking: programs load libcuda.so.1.
_PROGRAM = """\
import ctypes, errno, glob, json, os, sys
token, dev = sys.argv[1:3]
def tell(**said):
    os.write(1, ("\\n" + token + " " + json.dumps(said) + "\\n").encode())
nodes = {}
for path in sorted(glob.glob(dev + "/nvidia[0-9]*"))[:300] + [dev + "/nvidiactl"]:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        nodes[path] = ""
    except OSError as error:
        nodes[path] = os.strerror(error.errno)
tell(nodes=nodes)
try:
    cuda = ctypes.CDLL("libcuda.so.1")
except OSError as error:
    tell(library_error=str(error))
    os._exit(0)
path = None
with open("/proc/self/maps") as maps:
    for line in maps:
        name = line.rstrip("\\n").split(None, 5)[5:]
        if name and os.path.basename(name[0]).startswith("libcuda.so"):
            path = name[0]
mounted = False
with open("/proc/self/mountinfo") as mounts:
    for line in mounts:
        point = line.split()[4]
        if path and point.count("/") > 1 and (path + "/").startswith(point + "/"):
            mounted = True
tell(library=path or "libcuda.so.1", from_image=not mounted)
code = cuda.cuInit(0)
tell(init=code)
number = ctypes.c_int(0)
if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0:
    tell(version=number.value)
if code == 0:
    number = ctypes.c_int(0)
    code = cuda.cuDeviceGetCount(ctypes.byref(number))
    tell(count_code=code, count=number.value)
    if code == 0:
        get_uuid = getattr(cuda, "cuDeviceGetUuid_v2", None) or cuda.cuDeviceGetUuid
        devices = []
        for index in range(min(number.value, 300)):
            device, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
            uuid = ctypes.create_string_buffer(16)
            if cuda.cuDeviceGet(ctypes.byref(device), index) == 0:
                cuda.cuDeviceGetName(name, 256, device)
                known = get_uuid(uuid, device) == 0
                text = name.value.decode("utf-8", "replace")
                devices.append([text, uuid.raw.hex() if known else ""])
        tell(devices=devices)
tell(done=True)
os._exit(0)
"""


def driver(
    image: OpenImage, *, visible: str | None = None, dev: str = "/dev", python: str = "python3"
) -> CudaDriver:
    """Query the driver inside.

    Args:
        visible: value for CUDA_VISIBLE_DEVICES, or None to leave it as in the image.
        dev: the directory of the device files.

    Raises:
        EngineError: the engine could not start Python.
    """
    token = secrets.token_hex(TOKEN_BYTES)
    result = command_result(
        image.run(
            [python, "-I", "-c", _PROGRAM, token, dev],
            env={} if visible is None else {VISIBLE: visible},
            limit_s=LIMIT_S,
            output_limit=OUTPUT_LIMIT,
        )
    )
    said = answers(result.stdout, token)
    ended = "" if said.get("done") is True else f"{python} {how_it_ended(result, LIMIT_S)}"
    return _fact(said, ended)


def climb(
    image: OpenImage, host: HostGpus, module: str, *, required: bool = False, dev: str = "/dev"
) -> Gpus:
    """Climb all rungs; no step is taken above one that does not hold.

    Args:
        module: of the framework.

    Raises:
        EngineError: the engine could not start Python.
    """
    env = image.environment.env
    variables = {name: env[name] for name in _VARIABLES if name in env}
    found = driver(image, dev=dev)
    if not found.count:
        return Gpus(host, "", required, found, variables=variables)
    return Gpus(
        host,
        "",
        required,
        found,
        framework.probe(image, module, gpu=True),
        driver(image, visible="", dev=dev),
        framework.probe(image, module, visible=""),
        variables,
    )


def _fact(said: Mapping[str, Any], ended: str) -> CudaDriver:
    nodes = said.get("nodes")
    devices = said.get("devices")
    return CudaDriver(
        nodes={str(path): str(why) for path, why in nodes.items()}
        if isinstance(nodes, dict)
        else None,
        library=_text(said.get("library")),
        library_error=_text(said.get("library_error")),
        from_image=said.get("from_image") is True,
        init=_number(said.get("init")),
        version=_number(said.get("version")),
        count=_number(said.get("count")),
        count_code=_number(said.get("count_code")),
        devices=tuple(_device(device) for device in devices[:MOST])
        if isinstance(devices, list)
        else (),
        ended=ended,
    )


def _device(said: object) -> GpuDevice:
    match said:
        case [str(name), str(uuid)]:
            return GpuDevice(name, uuid)
    return GpuDevice(shortened(json.dumps(said)), "")


def _text(value: object) -> str | None:
    return value[:2000] if isinstance(value, str) else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
