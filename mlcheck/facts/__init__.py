"""Facts: what probes found in an image. Frozen data without any judgement.

Every path is absolute *inside the image* (`/opt/conda/bin/root.exe`). What an image holds may be
broken or hostile; a probe that meets such a thing does not raise, it records a `Problem` in the
fact, and a check decides what it means.
"""

from __future__ import annotations

from mlcheck.facts.commands import CommandResult, Commands, EntrypointRuns, Shell, Shells
from mlcheck.facts.elf import ElfFile, ElfFiles, Libraries, LibraryNeed
from mlcheck.facts.files import File, Files, FileType, Problem, ResolvedFile, Script, Scripts
from mlcheck.facts.jupyter import (
    JupyterServer,
    KernelList,
    KernelLists,
    KernelRun,
    KernelRuns,
    Kernelspec,
    Kernelspecs,
    Speech,
)
from mlcheck.facts.packages import (
    ImportResult,
    Imports,
    InstalledPackage,
    InstalledPackages,
    ListedPackage,
    PackageList,
    PackageSource,
)
from mlcheck.facts.root import RootConfig
from mlcheck.facts.system import Environment, OsRelease, PythonInfo, PythonProbe

__all__ = [
    "CommandResult",
    "Commands",
    "ElfFile",
    "ElfFiles",
    "EntrypointRuns",
    "Environment",
    "File",
    "FileType",
    "Files",
    "ImportResult",
    "Imports",
    "InstalledPackage",
    "InstalledPackages",
    "JupyterServer",
    "KernelList",
    "KernelLists",
    "KernelRun",
    "KernelRuns",
    "Kernelspec",
    "Kernelspecs",
    "Libraries",
    "LibraryNeed",
    "ListedPackage",
    "OsRelease",
    "PackageList",
    "PackageSource",
    "Problem",
    "PythonInfo",
    "PythonProbe",
    "ResolvedFile",
    "RootConfig",
    "Script",
    "Scripts",
    "Shell",
    "Shells",
    "Speech",
]
