"""Stand-in for TensorFlow in a reference image: enough of its interface to be judged.

Its library is a real ELF file that needs the same CUDA libraries as TensorFlow, so that a missing
one breaks the import. It asks the CUDA driver for devices. The numbers come from numpy.
"""

import contextlib
import ctypes
import pathlib
import sys
from types import SimpleNamespace

from tensorflow._build import CUDA_VERSION, VERSION
from tensorflow._standin import Driver, Tensor

ctypes.CDLL(str(pathlib.Path(__file__).parent / "libtensorflow_framework.so.2"))

__version__ = VERSION
_HERE = "/job:localhost/replica:0/task:0/device:"
_state = SimpleNamespace(device=None, soft=True, gpus=None, visible=None)


class PhysicalDevice:
    def __init__(self, name: str, device_type: str) -> None:
        self.name = name
        self.device_type = device_type

    def __repr__(self) -> str:
        return f"PhysicalDevice(name='{self.name}', device_type='{self.device_type}')"


def _gpus() -> list:
    if _state.gpus is None:
        driver = Driver() if CUDA_VERSION else None
        if driver is not None and driver.error:
            print(f"stand-in for TensorFlow: no GPU: {driver.error}", file=sys.stderr)
        count = len(driver.names) if driver is not None else 0
        _state.gpus = [PhysicalDevice(f"/physical_device:GPU:{n}", "GPU") for n in range(count)]
    return _state.gpus


def _list_devices(device_type: object = None) -> list:
    cpus = [PhysicalDevice("/physical_device:CPU:0", "CPU")]
    return {"CPU": cpus, "GPU": _gpus(), None: cpus + _gpus()}.get(device_type, [])


def _set_soft(enabled: bool) -> None:
    _state.soft = enabled


@contextlib.contextmanager
def device(name: str) -> object:
    """Place the computations of the body on the device `name` ("/GPU:0")."""
    before, _state.device = _state.device, name.lstrip("/").removeprefix("device:")
    try:
        yield
    finally:
        _state.device = before


def _place() -> str:
    wanted = _state.device or ("GPU:0" if _gpus() else "CPU:0")
    kind, _, number = wanted.partition(":")
    if int(number or 0) < len(_list_devices(kind)):
        return f"{_HERE}{kind}:{number or 0}"
    if not _state.soft:
        raise RuntimeError(f"there is no device {wanted}")
    return f"{_HERE}CPU:0"


class _Eager(Tensor):
    def numpy(self) -> object:
        return self.data


def constant(value: object) -> _Eager:
    return _Eager(value, _place())


def reduce_sum(tensor: Tensor) -> _Eager:
    return _Eager(tensor.data.sum(), _place())


def matmul(a: Tensor, b: Tensor) -> _Eager:
    return _Eager(a.data @ b.data, _place())


config = SimpleNamespace(
    list_physical_devices=_list_devices,
    list_logical_devices=_list_devices,
    set_soft_device_placement=_set_soft,
)
test = SimpleNamespace(
    is_built_with_cuda=lambda: CUDA_VERSION is not None,
    gpu_device_name=lambda: "/device:GPU:0" if _gpus() else "",
)
sysconfig = SimpleNamespace(
    get_build_info=lambda: (
        {"is_cuda_build": True, "cuda_version": CUDA_VERSION}
        if CUDA_VERSION
        else {"is_cuda_build": False}
    )
)
