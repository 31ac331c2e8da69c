"""Facts: what probes found in an image. Frozen data without any judgement.

Every path is absolute *inside the image* (`/opt/conda/bin/root.exe`). What an image holds may be
broken or hostile; a probe that meets such a thing does not raise, it records a `Problem` in the
fact, and a check decides what it means.
"""

from __future__ import annotations

from mlcheck.facts.commands import Banner, CommandResult, Commands, EntrypointRuns, Shell, Shells
from mlcheck.facts.deployed import Deployment, PublishedDigest, UnreadableFiles
from mlcheck.facts.elf import ElfFile, ElfFiles, Libraries, LibraryNeed
from mlcheck.facts.files import (
    File,
    Files,
    FileType,
    ImageSize,
    Problem,
    ResolvedFile,
    Script,
    Scripts,
)
from mlcheck.facts.gpu import (
    Computation,
    CudaDriver,
    CudaLibraries,
    CudaLibrary,
    Framework,
    GpuDevice,
    Gpus,
    Hint,
    Hints,
    HostGpus,
)
from mlcheck.facts.integrity import (
    CondaRecord,
    CondaRecords,
    Distribution,
    Distributions,
    FileContents,
    FileDifference,
    FilePresence,
    RecordedFile,
)
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
from mlcheck.facts.kernel_cells import CellRun, KernelSession, KernelSessions
from mlcheck.facts.layers import ImageLayer, Layers, Leftover, Secret, Waste, WasteKind
from mlcheck.facts.newenv import ArchiveLink, EnvArchive, EnvAttempt, EnvPython, EnvSession, NewEnv
from mlcheck.facts.on_host import HostCommands, HostLibraries, HostShell, InsideSetup, LoadedFiles
from mlcheck.facts.packages import (
    ImportResult,
    Imports,
    InstalledPackage,
    InstalledPackages,
    ListedPackage,
    PackageList,
    PackageSource,
)
from mlcheck.facts.root import PyRoot, RootConfig, RootProgram
from mlcheck.facts.system import Environment, OsRelease, PythonInfo, PythonProbe

__all__ = [
    "ArchiveLink",
    "Banner",
    "CellRun",
    "CommandResult",
    "Commands",
    "Computation",
    "CondaRecord",
    "CondaRecords",
    "CudaDriver",
    "CudaLibraries",
    "CudaLibrary",
    "Deployment",
    "Distribution",
    "Distributions",
    "ElfFile",
    "ElfFiles",
    "EntrypointRuns",
    "EnvArchive",
    "EnvAttempt",
    "EnvPython",
    "EnvSession",
    "Environment",
    "File",
    "FileContents",
    "FileDifference",
    "FilePresence",
    "FileType",
    "Files",
    "Framework",
    "GpuDevice",
    "Gpus",
    "Hint",
    "Hints",
    "HostCommands",
    "HostGpus",
    "HostLibraries",
    "HostShell",
    "ImageLayer",
    "ImageSize",
    "ImportResult",
    "Imports",
    "InsideSetup",
    "InstalledPackage",
    "InstalledPackages",
    "JupyterServer",
    "KernelList",
    "KernelLists",
    "KernelRun",
    "KernelRuns",
    "KernelSession",
    "KernelSessions",
    "Kernelspec",
    "Kernelspecs",
    "Layers",
    "Leftover",
    "Libraries",
    "LibraryNeed",
    "ListedPackage",
    "LoadedFiles",
    "NewEnv",
    "OsRelease",
    "PackageList",
    "PackageSource",
    "Problem",
    "PublishedDigest",
    "PyRoot",
    "PythonInfo",
    "PythonProbe",
    "RecordedFile",
    "ResolvedFile",
    "RootConfig",
    "RootProgram",
    "Script",
    "Scripts",
    "Secret",
    "Shell",
    "Shells",
    "Speech",
    "UnreadableFiles",
    "Waste",
    "WasteKind",
]
