"""The filter of system calls: each architecture's refusals, and that the kernel takes it."""

from __future__ import annotations

import errno
import struct
import subprocess
import sys

import pytest

from mlcheck.machine import seccomp

_ALLOWED = 0x7FFF0000
_REFUSED, _UNKNOWN = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS


def answer(machine: str, architecture: int, number: int, argument: int = 0) -> int:
    """What the kernel would return for a system call: the few instructions that the filter uses."""
    program = seccomp.program(machine)
    assert program is not None
    lines = list(struct.iter_unpack("=HBBI", program))
    data = struct.pack("=IIQQ", number, architecture, 0, argument)
    at = value = 0
    while True:
        code, if_true, if_false, constant = lines[at]
        at += 1
        match code:
            case 0x20:
                (value,) = struct.unpack_from("=I", data, constant)
            case 0x15:
                at += if_true if value == constant else if_false
            case 0x35:
                at += if_true if value >= constant else if_false
            case _:
                assert code == 0x06
                return int(constant)


@pytest.mark.parametrize(
    ("machine", "architecture", "socket", "refused", "allowed"),
    [
        # Numbers of linux/unistd.h: keyctl, bpf, io_uring_setup; read, openat, clone3.
        ("x86_64", 0xC000003E, 41, (250, 321, 425), (0, 257, 435)),
        ("x86_64", 0x40000003, 359, (288, 357, 425), (3, 295, 435)),
        ("aarch64", 0xC00000B7, 198, (219, 280, 425), (63, 56, 435)),
        ("aarch64", 0x40000028, 281, (311, 386, 425), (3, 322, 435)),
    ],
)
def test_what_is_refused(
    machine: str,
    architecture: int,
    socket: int,
    refused: tuple[int, ...],
    allowed: tuple[int, ...],
) -> None:
    assert {answer(machine, architecture, number) for number in refused} == {_REFUSED}
    assert {answer(machine, architecture, number) for number in allowed} == {_ALLOWED}
    families = {family: answer(machine, architecture, socket, family) for family in (1, 2, 10, 40)}
    assert families == {1: _ALLOWED, 2: _ALLOWED, 10: _ALLOWED, 40: _REFUSED}


def test_there_is_no_way_around_it() -> None:
    assert answer("x86_64", 0x40000003, 102, 1) == _UNKNOWN, "socketcall(2) for a socket"
    assert answer("x86_64", 0x40000003, 102, 3) == _ALLOWED
    assert answer("x86_64", 0xC000003E, 0x40000000 | 250) == _UNKNOWN, "x32"
    # The upper half of an int argument is not looked at by the kernel either.
    assert answer("x86_64", 0xC000003E, 41, 1 << 32 | 40) == _REFUSED
    assert answer("x86_64", 0xC00000B7, 63) == _UNKNOWN, "another architecture"
    assert seccomp.program("s390x") is None


def test_the_kernel_takes_it() -> None:
    code = (
        "import socket\nfrom mlcheck.machine import seccomp\nseccomp.confine()\n"
        "socket.socket(socket.AF_INET).close()\n"
        "try: socket.socket(40, socket.SOCK_STREAM)\nexcept PermissionError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
