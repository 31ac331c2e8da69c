"""Shared code of the reference images' stand-in frameworks: a driver's devices, small tensors.

A real framework would compute on the GPU. This one asks the driver for the number of devices, as
real ones do, computes with numpy whatever the device is, and reports the device that was requested.
"""

import ctypes

import numpy


class Driver:
    """The CUDA driver as this process sees it.

    Attributes:
        names: names of the devices.
        error: why there are no devices; "" if there are some, or if there is no driver to ask.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.error = ""
        try:
            library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            self.error = f"libcuda.so.1 cannot be loaded: {error}"
            return
        code = library.cuInit(0)
        if code != 0:
            self.error = f"cuInit failed with error {code}"
            return
        count = ctypes.c_int(0)
        code = library.cuDeviceGetCount(ctypes.byref(count))
        if code != 0:
            self.error = f"cuDeviceGetCount failed with error {code}"
            return
        for index in range(count.value):
            device, name = ctypes.c_int(0), ctypes.create_string_buffer(128)
            library.cuDeviceGet(ctypes.byref(device), index)
            library.cuDeviceGetName(name, len(name), device)
            self.names.append(name.value.decode())


class Tensor:
    """Numbers, and the device that is said to hold them."""

    def __init__(self, data: object, device: str) -> None:
        self.data = numpy.array(data, dtype="float32")
        self.device = device

    def __matmul__(self, other: "Tensor") -> "Tensor":
        if other.device != self.device:
            raise RuntimeError(f"one tensor is on {self.device}, the other on {other.device}")
        return Tensor(self.data @ other.data, self.device)

    def __repr__(self) -> str:
        return f"Tensor({self.data.tolist()}, device={self.device})"
