"""Facts about Jupyter that a profile promises: kernels and servers, started, and programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlcheck.engines import binds
from mlcheck.engines.base import Ask, OpenImage
from mlcheck.inspect.facts import Session
from mlcheck.inspect.jupyter import cells, kernelspecs, probe, run_server
from mlcheck.inspect.jupyter.facts import (
    JupyterServer,
    KernelLists,
    KernelRuns,
    KernelSessions,
    Kernelspecs,
    KernelsPrefix,
    RunServer,
    Speech,
    UsersServer,
)
from mlcheck.inspect.prefix.facts import PrefixPath, PromisedPrefix, Python3
from mlcheck.inspect.prefix.promised import filled
from mlcheck.inspect.registry import fact
from mlcheck.inspect.server.facts import Accounts
from mlcheck.model.environment import Environment
from mlcheck.model.errors import needed
from mlcheck.profile.catalog import Profile
from mlcheck.profile.schema.jupyter import Kernelspec


@fact()
def kernelspecs_there(image: OpenImage, ask: Ask) -> Kernelspecs:
    """Find the kernelspecs that Jupyter has in the image."""
    return kernelspecs.probe(image, ask)


@fact()
def kernels_prefix(prefix: PromisedPrefix | None) -> KernelsPrefix | None:
    """Root of the profile's environment, or None if it names none."""
    path = filled(prefix)
    return None if path is None else KernelsPrefix(path)


@dataclass(frozen=True, slots=True)
class KernelsToStart:
    """The promised kernels that the image has, with all that they need from outside, by name."""

    kernels: Mapping[str, Kernelspec]


@fact()
def kernels_to_start(
    image: OpenImage, profile: Profile, there: Kernelspecs, session: Session
) -> KernelsToStart:
    """Find the promised kernels that can be started."""
    promised = profile.expect.kernels()
    names = {spec.name for spec in there.specs}
    bound: set[str] = set()
    if any(kernel.mounts for kernel in promised.values()):
        bound = {bind.target for bind in binds.usable(image.rootfs, session.start.binds)}
    return KernelsToStart(
        {
            name: kernel
            for name, kernel in sorted(promised.items())
            if name in names and set(kernel.mounts) <= bound
        }
    )


@fact(runs=True)
def kernel_runs(image: OpenImage, python3: Python3, asked: KernelsToStart) -> KernelRuns:
    """Start the promised kernels in all surroundings that they must tolerate."""
    surroundings = []
    for name, kernel in asked.kernels.items():
        if kernel.language.lower() not in probe.ASKED_IN:  # `notebooks` are for all languages
            continue
        path = ("PATH",) if kernel.ignores_programs else ()
        home = () if kernel.usersite is None else ("~/.local",)
        hazards = (*path, *kernel.ignores_variables, *home)
        programs = kernel.ignores_programs
        surroundings.append(probe.Surroundings(name, hazards, programs, kernel.language))
    return probe.kernels(image, python3, surroundings)


@fact(runs=True)
def kernel_sessions(image: OpenImage, python3: Python3, asked: KernelsToStart) -> KernelSessions:
    """Start the promised kernels that source a setup file or have code to run, with both."""
    sessions = [
        cells.Session(
            name,
            kernel.setup.file.removeprefix("~/") if kernel.setup else None,
            tuple(kernel.setup.variables) if kernel.setup else (),
            {title: cell.code for title, cell in kernel.cells.items()},
        )
        for name, kernel in asked.kernels.items()
        if kernel.setup or kernel.cells
    ]
    return cells.probe(image, python3, sessions)


@fact(runs=True)
def kernel_lists(image: OpenImage, python3: Python3, profile: Profile) -> KernelLists:
    """List the kernels with those of a user and of a host present."""
    promised = profile.expect.kernelspecs
    names = sorted(profile.expect.kernels())
    if promised is None or not promised.clean or not names:
        return KernelLists(())
    return probe.kernel_lists(image, python3, names)


@fact(runs=True)
def jupyterlab(image: OpenImage, python3: Python3, profile: Profile) -> JupyterServer:
    """Start JupyterLab once."""
    promised = needed(profile.expect.jupyterlab, "the profile promises no JupyterLab")
    return probe.server(image, python3, promised.command, promised.kernel, promised.terminals)


@fact(runs=True)
def users_server(
    image: OpenImage, python3: Python3, accounts: Accounts, profile: Profile
) -> UsersServer:
    """Start JupyterLab as the image's user does."""
    promised = needed(profile.expect.jupyterlab, "the profile promises no JupyterLab")
    return probe.as_user(image, python3, promised.command, _home(image.environment, accounts))


def _home(config: Environment, accounts: Accounts) -> str:
    """Return the home of the image's user, as an engine sets HOME."""
    if config.env.get("HOME"):
        return config.env["HOME"]
    user = (config.user or "root").partition(":")[0]
    for account in accounts.accounts.values():
        if user in (account.name, str(account.uid)):
            return account.home or "/"
    return "/root" if user in ("root", "0") else "/"


@fact(runs=True)
def server_at_run(
    image: OpenImage, python3: Python3, accounts: Accounts, profile: Profile
) -> RunServer:
    """The server that the image starts by itself."""
    why = "the profile promises no server that the image starts"
    url = needed(profile.expect.run_server, why).url
    return RunServer(run_server.probe(image, python3, url, _home(image.environment, accounts)))


@fact(runs=True)
def speech(image: OpenImage, prefix: PrefixPath, profile: Profile) -> Speech:
    """Run the programs that must print their version."""
    promised = profile.expect.scripts
    return probe.speech(image, f"{prefix}/bin", promised.speaking if promised else ())
