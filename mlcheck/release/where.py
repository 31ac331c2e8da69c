"""The machines of a release: this one, those of a batch system, or those of a scheduler of Dask."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Scheduler, Security, SpecCluster, Status, Worker
from distributed.deploy.local import nprocesses_nthreads

from mlcheck.machine import gpu, janitor
from mlcheck.model.errors import EngineError, UsageError, unforeseen
from mlcheck.release.pool import GPU, Group

# dask-jobqueue 0.9 replaces these when it is imported, and Ctrl-C would end any process with 0.
_HANDLERS = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
try:
    import dask_jobqueue
finally:
    for _number, _handler in _HANDLERS.items():
        signal.signal(_number, _handler)

LOCAL = "local"

BATCH = {
    "slurm": dask_jobqueue.SLURMCluster,
    "htcondor": dask_jobqueue.HTCondorCluster,
    "pbs": dask_jobqueue.PBSCluster,
    "sge": dask_jobqueue.SGECluster,
    "lsf": dask_jobqueue.LSFCluster,
    "oar": dask_jobqueue.OARCluster,
}
"""The batch systems that dask-jobqueue speaks to."""

GPU_SECTION = "mlcheck-gpu"
"""Name of the section of jobqueue.yaml with what is different for workers with a GPU."""

_GPU_DIRECTIVES: Mapping[str, tuple[str, ...]] = {
    "slurm": ("--gres=gpu:1",),
    "htcondor": ("request_gpus = 1",),
    "lsf": ("-gpu num=1",),
    "sge": ("-l gpu=1",),
}
"""How a GPU is asked for where the site says nothing else. PBS and OAR have no common way."""

_ADDRESS = re.compile(r"(?:tcp|tls|ws|wss|ucx|gateway)://\S+")
_BYTES_FOR_EACH = 2 << 30
_ANSWER_LIMIT_S = 30

_LOGGERS = ("distributed", "tornado.application", "asyncio", "bokeh")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The machines that a release asks for.

    Args:
        on: `local`, a name of `BATCH` or the address of a scheduler.
        workers: at a time, and those with a GPU; None: as many as there are jobs, and on this
            machine as its cores and memory allow.
        gpu_directives: lines of the batch system that ask for a GPU.
        jobs: how many there are without and with a GPU.
        logs: a directory that the workers of a batch system see too.
    """

    on: str
    workers: int | None
    gpu_workers: int | None
    gpu_directives: tuple[str, ...]
    jobs: Mapping[bool, int]
    logs: Path


def check(on: str) -> None:
    """Refuse what is no place for a release.

    Raises:
        UsageError: it is none.
    """
    if on != LOCAL and on not in BATCH and not _ADDRESS.fullmatch(on):
        raise UsageError(
            f"--on {on}: neither a batch system nor the address of a scheduler.",
            f"Known are {', '.join((LOCAL, *BATCH))}, and tcp://HOST:PORT.",
        )


@contextlib.contextmanager
def quiet(logs: Path) -> Iterator[None]:
    """Have Dask write what it says to a file while the context lasts."""
    logs.mkdir(parents=True, exist_ok=True)
    logs.chmod(0o700)  # the workers' keys lie there
    handler = logging.FileHandler(logs / "dask.log", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    before = []
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        before.append((logger, logger.handlers[:], logger.propagate, logger.level))
        logger.handlers[:], logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, handlers, propagate, level in before:
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)
        handler.close()


@contextlib.contextmanager
def groups(wanted: Wanted) -> Iterator[dict[bool, Group]]:
    """Have workers for jobs without and with a GPU while the context lasts; none remains after it.

    Raises:
        UsageError: the site's settings do not suffice.
        EngineError: no scheduler answers.
    """
    with _scratch(), contextlib.ExitStack() as stack:
        if wanted.on == LOCAL:
            yield _local(wanted, stack)
        elif wanted.on in BATCH:
            yield _of_batch(wanted, stack)
        else:
            yield _there(wanted, stack)


def scripts(wanted: Wanted) -> list[str]:
    """Return what would be submitted to the batch system, for each kind of worker.

    Raises:
        UsageError: the site's settings do not suffice.
    """
    if wanted.on not in BATCH:
        return []
    found = []
    for kind in _kinds(wanted):
        with _scratch(), _cluster(wanted, kind) as cluster:
            found.append(str(cluster.job_script()))
    return found


@contextlib.contextmanager
def _scratch() -> Iterator[None]:
    """Give Dask a directory for temporary files that is removed."""
    with (
        janitor.temporary_directory("mlcheck-dask-") as directory,
        dask.config.set({"temporary-directory": str(directory)}),
    ):
        yield


def _local(wanted: Wanted, stack: contextlib.ExitStack) -> dict[bool, Group]:
    """Workers that are threads of this process: each job is a process of its own anyway. Nobody
    else on this machine can reach their scheduler."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    able = max(1, min(cores, memory // _BYTES_FOR_EACH))
    own_gpu = gpu.host_has_driver() and wanted.jobs[True] > 0 and wanted.gpu_workers != 0
    others = wanted.jobs[False] + (0 if own_gpu else wanted.jobs[True])
    threads = min(wanted.workers or able, max(1, others))
    common = {"memory_limit": 0, "dashboard": False}
    specs = {"local": {"cls": Worker, "options": {"nthreads": threads, **common}}}
    if own_gpu:
        one = {"nthreads": wanted.gpu_workers or 1, "resources": {GPU: wanted.gpu_workers or 1}}
        specs["local-gpu"] = {"cls": Worker, "options": {**one, **common}}
    options = {"protocol": "inproc://", "dashboard": False}
    with _settings():
        cluster = stack.enter_context(
            SpecCluster(
                workers=specs,
                scheduler={"cls": Scheduler, "options": options},
                silence_logs=False,
            )
        )
        client = stack.enter_context(Client(cluster, set_as_default=False))
    if not own_gpu:
        return dict.fromkeys((False, True), Group(client))
    return {False: Group(client, gpu=False), True: Group(client, gpu=True)}


def _of_batch(wanted: Wanted, stack: contextlib.ExitStack) -> dict[bool, Group]:
    found = {}
    for kind in _kinds(wanted):
        cluster = stack.enter_context(_cluster(wanted, kind))
        client = stack.enter_context(Client(cluster, set_as_default=False))
        most = wanted.gpu_workers if kind else wanted.workers
        found[kind] = Group(client, cluster, most or sum(wanted.jobs.values()))
    any_ = next(iter(found.values()))
    return {False: found.get(False, any_), True: found.get(True, any_)}


def _kinds(wanted: Wanted) -> list[bool]:
    """Return which kinds of workers are asked for: without and with a GPU."""
    apart = wanted.jobs[True] > 0 and wanted.gpu_workers != 0
    return [kind for kind in (False, True) if kind == apart or (not kind and wanted.jobs[False])]


@contextlib.contextmanager
def _cluster(wanted: Wanted, for_gpu: bool) -> Iterator[Any]:
    section: dict[str, Any] = dask.config.get(f"jobqueue.{wanted.on}")
    how: dict[str, Any] = {}
    if for_gpu:
        own = dask.config.get(f"jobqueue.{GPU_SECTION}", {})
        section = dask.config.merge(section, own)
        how["job_extra_directives"] = _with_gpu(wanted, section, bool(own))
    if section.get("log-directory") is None:
        how["log_directory"] = str(wanted.logs)
    # Dask's web page knows no keys.
    how["scheduler_options"] = {"dashboard": False, **(section.get("scheduler-options") or {})}
    how["worker_extra_args"] = [*(section.get("worker-extra-args") or []), "--no-dashboard"]
    # If only the settings say how many workers one job has, dask-jobqueue takes them for one.
    if cores := section.get("cores"):
        how["processes"] = section.get("processes") or nprocesses_nthreads(cores)[0]
    name = GPU_SECTION if for_gpu else wanted.on
    wanted.logs.mkdir(parents=True, exist_ok=True)
    shared = os.path.expandvars(section.get("shared-temp-directory") or "")
    place = Path(shared).expanduser() if shared else wanted.logs
    # Each start of a worker reads the settings again.
    with _settings({f"jobqueue.{name}": section}), _security(place) as security:
        try:
            cluster = BATCH[wanted.on](
                config_name=name, security=security, silence_logs=False, **how
            )
        except ValueError as error:
            raise UsageError(
                f"--on {wanted.on}: {error}",
                f"Write the site's settings into ~/.config/dask/jobqueue.yaml, below "
                f"jobqueue: {wanted.on}: as dask-jobqueue's documentation has them.",
            ) from None
        except (OSError, RuntimeError) as error:
            raise EngineError(f"--on {wanted.on}: {unforeseen(error)}") from None
        with cluster:
            try:
                yield cluster
            finally:
                # Dask asserts that all that it made ends; dask-jobqueue's jobs do not say that they
                # do, and what was refused has not begun.
                for job in list(cluster._created):
                    job.status = Status.closing


@contextlib.contextmanager
def _security(place: Path) -> Iterator[Any]:
    """Have keys for one release: who reaches the port of a scheduler without one could have any
    program run.

    Args:
        place: a directory that the workers see too.
    """
    if dask.config.get("distributed.comm.tls.ca-file", None) is not None:
        yield Security(require_encryption=True)  # the site's own
        return
    made = Security.temporary()
    with janitor.temporary_directory("mlcheck-keys-", place) as directory:
        files = {}
        for name, content in (
            ("ca_file", made.tls_ca_file),
            ("worker_cert", made.tls_worker_cert),
            ("worker_key", made.tls_worker_key),
        ):
            files[name] = directory / f"{name}.pem"
            files[name].write_text(content)
        yield Security(
            require_encryption=True,
            tls_ca_file=str(files["ca_file"]),
            **{
                f"tls_{role}_{kind}": str(files[f"worker_{kind}"])
                for role in ("worker", "scheduler", "client")
                for kind in ("cert", "key")
            },
        )


def _with_gpu(wanted: Wanted, section: Mapping[str, Any], own: bool) -> Any:
    """Return the directives of a worker with a GPU."""
    given = section.get("job-extra-directives") or []
    asked = wanted.gpu_directives
    if not asked and not own:
        asked = _GPU_DIRECTIVES.get(wanted.on, ())
        if not asked:
            raise UsageError(
                f"--on {wanted.on}: how does this site give a worker a GPU?",
                f"--gpu-directive LINE says it, or a section {GPU_SECTION} of jobqueue.yaml; "
                "--gpu-workers 0 judges all images on workers without one.",
            )
    if isinstance(given, Mapping) or wanted.on == "htcondor":
        pairs = (line.partition("=") for line in asked)
        return {**dict(given), **{key.strip(): value.strip() for key, _, value in pairs}}
    return [*given, *asked]


def _there(wanted: Wanted, stack: contextlib.ExitStack) -> dict[bool, Group]:
    try:
        client = stack.enter_context(
            Client(wanted.on, timeout=_ANSWER_LIMIT_S, set_as_default=False)
        )
    except (OSError, TimeoutError, ValueError, ImportError) as error:
        raise EngineError(
            f"--on {wanted.on}: no scheduler of Dask answers there: {unforeseen(error)}",
            "`dask scheduler` prints the address of the one that it starts.",
        ) from None
    having = [one for one in client.scheduler_info()["workers"].values() if GPU in one["resources"]]
    if not having or wanted.gpu_workers == 0:
        return dict.fromkeys((False, True), Group(client))
    return {False: Group(client, gpu=False), True: Group(client, gpu=True)}


@contextlib.contextmanager
def _settings(more: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Set what a release needs of Dask: a job whose worker died is ours to try again, and a worker
    that does not hear from its scheduler any more ends."""
    ours: dict[str, Any] = {"distributed.scheduler.allowed-failures": 0}
    with dask.config.set({**ours, **(more or {})}):
        yield
