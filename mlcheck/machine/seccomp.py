"""A filter of the system calls that no command of an image may make, seccomp(2).

Refused is what no namespace contains: sockets of virtual machines (AF_VSOCK), keyrings, and the
parts of the kernel in which most holes are found (bpf, io_uring, userfaultfd, perf events). The
filter of a newer docker refuses the same. Only the standard library is used: the sandbox's first
process has nothing else, and libseccomp is not on every machine.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import NamedTuple

_AF_VSOCK = 40
_SYS_SOCKET = 1
"""The first argument of socketcall(2) for socket(2)."""
_X32 = 0x40000000

# linux/prctl.h, linux/seccomp.h
_SET_SECCOMP, _SET_NO_NEW_PRIVS = 22, 38
_MODE_FILTER = 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000

# Offsets in struct seccomp_data; of an argument, the lower half on these machines.
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16

# linux/bpf_common.h: load a word, jump if equal, jump if greater or equal, return.
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06


class _Numbers(NamedTuple):
    """The numbers of one architecture's system calls.

    Args:
        architecture: AUDIT_ARCH_…, linux/audit.h.
        refused: add_key, request_key, keyctl, perf_event_open, bpf, userfaultfd.
        socketcall: None if there is none. Its other arguments lie in memory, where no filter sees
            them: a program of 32 bits that makes its sockets by it gets none.
    """

    architecture: int
    refused: tuple[int, ...]
    socket: int
    socketcall: int | None = None


_IO_URING = (425, 426, 427)
_OF_32_BITS = {
    "x86_64": _Numbers(0x40000003, (286, 287, 288, 336, 357, 374), 359, 102),
    "aarch64": _Numbers(0x40000028, (309, 310, 311, 364, 386, 388), 281),
}
_NATIVE = {
    "x86_64": _Numbers(0xC000003E, (248, 249, 250, 298, 321, 323), 41),
    "aarch64": _Numbers(0xC00000B7, (217, 218, 219, 241, 280, 282), 198),
}

_libc = ctypes.CDLL(None, use_errno=True)


def program(machine: str) -> bytes | None:
    """Return the filter for a machine, as instructions of classic BPF; None if there is none."""
    if machine not in _NATIVE:
        return None
    lines = [_line(_LOAD, _ARCHITECTURE)]
    for numbers in (_NATIVE[machine], _OF_32_BITS[machine]):
        block = _block(numbers)
        lines += [_line(_EQUAL, numbers.architecture, 0, len(block)), *block]
    lines.append(_refusal(errno.ENOSYS))
    return b"".join(lines)


def _block(numbers: _Numbers) -> list[bytes]:
    lines = [_line(_LOAD, _NUMBER), _line(_AT_LEAST, _X32, 0, 1), _refusal(errno.ENOSYS)]
    for number in (*numbers.refused, *_IO_URING):
        lines += [_line(_EQUAL, number, 0, 1), _refusal(errno.EPERM)]
    first_arguments = [(numbers.socket, _AF_VSOCK, errno.EPERM)]
    if numbers.socketcall is not None:
        first_arguments.append((numbers.socketcall, _SYS_SOCKET, errno.ENOSYS))
    for call, argument, error in first_arguments:
        lines += [
            _line(_EQUAL, call, 0, 4),
            _line(_LOAD, _ARGUMENT),
            _line(_EQUAL, argument, 0, 1),
            _refusal(error),
            _line(_RETURN, _ALLOW),
        ]
    return [*lines, _line(_RETURN, _ALLOW)]


def _line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _refusal(error: int) -> bytes:
    return _line(_RETURN, _ERRNO | error)


def confine() -> None:
    """Take new privileges and what `program` refuses from the calling thread, and from the programs
    that it starts, for ever.

    Raises:
        OSError: the kernel refuses it, and has seccomp.
    """
    _prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    instructions = program(platform.machine())
    if instructions is None:
        return
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    length = len(instructions) // 8
    filter_program = struct.pack("@HP", length, ctypes.addressof(buffer))
    address = ctypes.create_string_buffer(filter_program, len(filter_program))
    try:
        _prctl(_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(address), 0, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a kernel without CONFIG_SECCOMP_FILTER
            raise


def _prctl(option: int, *values: int) -> None:
    if _libc.prctl(option, *(ctypes.c_ulong(value) for value in values)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl {option}: {os.strerror(code)}")
