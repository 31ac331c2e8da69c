"""Names of processor architectures."""

from __future__ import annotations

from typing import NamedTuple


class Architecture(NamedTuple):
    """One architecture, with its name in each naming scheme.

    Args:
        machine: name in uname(2).
        oci: GOARCH, as images name it:
            https://github.com/opencontainers/image-spec/blob/main/config.md#properties.
        sif: https://github.com/apptainer/sif/blob/main/pkg/sif/sif.go.
        elf: e_machine: https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html.
    """

    machine: str
    oci: str
    sif: bytes
    elf: int


ARCHITECTURES = (
    Architecture("x86_64", "amd64", b"02", 62),
    Architecture("aarch64", "arm64", b"04", 183),
    Architecture("i686", "386", b"01", 3),
    Architecture("armv7l", "arm", b"03", 40),
    Architecture("ppc64le", "ppc64le", b"06", 21),
    Architecture("ppc64", "ppc64", b"05", 21),
    Architecture("mips", "mips", b"07", 8),
    Architecture("s390x", "s390x", b"12", 22),
    Architecture("riscv64", "riscv64", b"13", 243),
)

OCI_NAMES = {one.machine: one.oci for one in ARCHITECTURES}
MACHINE_NAMES = {one.oci: one.machine for one in ARCHITECTURES}
