"""Stand-in for torch in a reference image: enough of its interface to be judged.

Its libraries are real ELF files that need the same CUDA libraries as torch, so that a missing one
breaks the import. It asks the CUDA driver for devices. The numbers come from numpy.
"""

import ctypes
import pathlib
import warnings
from types import SimpleNamespace

from torch._build import CUDA_VERSION, VERSION
from torch._standin import Driver, Tensor

for _name in ("libtorch_cpu.so", *(("libtorch_cuda.so",) if CUDA_VERSION else ())):
    ctypes.CDLL(str(pathlib.Path(__file__).parent / "lib" / _name))

__version__ = VERSION
version = SimpleNamespace(cuda=CUDA_VERSION)
_state = SimpleNamespace(names=None)


def _names() -> list:
    if _state.names is None:
        driver = Driver() if CUDA_VERSION else None
        if driver is not None and driver.error:
            warnings.warn(f"stand-in for torch: no GPU: {driver.error}", stacklevel=3)
        _state.names = driver.names if driver is not None else []
    return _state.names


cuda = SimpleNamespace(
    is_available=lambda: bool(_names()),
    device_count=lambda: len(_names()),
    get_device_name=lambda index=0: _names()[index],
    synchronize=lambda: None,
)


class _Tensor(Tensor):
    def to(self, device: str) -> "_Tensor":
        return tensor(self.data, device=device)

    def cpu(self) -> "_Tensor":
        return self.to("cpu")

    def tolist(self) -> list:
        return self.data.tolist()

    def __matmul__(self, other: Tensor) -> "_Tensor":
        done = super().__matmul__(other)
        return _Tensor(done.data, done.device)


def tensor(data: object, device: str = "cpu") -> _Tensor:
    if device.startswith("cuda"):
        index = int(device.partition(":")[2] or 0)
        if index >= len(_names()):
            raise RuntimeError(f"there is no device {device}")
        device = f"cuda:{index}"
    return _Tensor(data, device)
