"""Dask's workers as the machines that judge.

Dask is given as many jobs as its workers have threads free, and no queue: a worker that dies takes
only what it was judging with it, and the longest job that waits goes to whoever is free first.
"""

from __future__ import annotations

import dataclasses
import queue
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dask
from dask.utils import parse_timedelta
from distributed import Client, Future, KilledWorker, Status, get_worker
from distributed.comm import get_address_host

import mlcheck
from mlcheck.model.errors import EngineError, unforeseen
from mlcheck.release import attempt
from mlcheck.release.attempt import Attempt
from mlcheck.release.jobs import Job
from mlcheck.release.work import Lost

GPU = "GPU"
"""Dask's resource of a worker that has a GPU: `dask worker --resources GPU=1`."""

_RESUME = "`mlcheck release --resume` judges the rest."


@dataclass
class Group:
    """Workers of one kind.

    Args:
        client: of their scheduler.
        cluster: asks a batch system for them; None if they are there.
        most: workers to ask for.
        gpu: True if only those of its workers count that have the resource of a GPU, False if only
            those that have not, None if all do.
        running: the jobs that Dask has, by id.
        seen: when a worker of each job of the batch system was last there.
        taken: True once the batch system has taken a job.
    """

    client: Client
    cluster: Any = None
    most: int = 0
    gpu: bool | None = None
    running: dict[str, Future] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    taken: bool = False

    def workers(self) -> dict[str, dict[str, Any]]:
        """Return what the scheduler knows of each worker of the group, by address."""
        try:
            known = self.client.scheduler_info()["workers"]
        except (OSError, TimeoutError, RuntimeError) as error:
            raise EngineError(f"Dask's scheduler is gone: {unforeseen(error)}", _RESUME) from None
        if self.cluster is not None:
            ours = {name for names in self._names().values() for name in names}
            # Who was let go may still be there for a moment.
            return {address: one for address, one in known.items() if str(one["name"]) in ours}
        if self.gpu is None:
            return dict(known)
        having = {address: one for address, one in known.items() if one["resources"].get(GPU)}
        if self.gpu:
            return having
        # Without one worker of their own, others may have those with a GPU.
        return {address: one for address, one in known.items() if address not in having} or having

    def threads(self) -> int:
        """Return how many jobs its workers judge at a time."""
        return sum(
            min(int(one["nthreads"]), int(one["resources"][GPU]))
            if self.gpu
            else int(one["nthreads"])
            for one in self.workers().values()
        )

    def keep(self, unfinished: int) -> None:
        """Ask for the workers that are missing, also in place of dead ones; let idle ones go.

        Raises:
            EngineError: the batch system takes no job.
        """
        if self.cluster is None:
            return
        wanted = min(self.most, unfinished)
        per_job = max(1, len(self.cluster.new_spec.get("group", ())))
        jobs = -(-wanted // per_job)
        try:
            if per_job > 1 and (lost := self._lost()):
                self.cluster.sync(self.cluster.scale_down, lost)
            idle = []
            if jobs > len(self.cluster.worker_spec):
                self.cluster.scale(wanted)
            else:
                idle = self._idle()[: len(self.cluster.worker_spec) - jobs]
            # Also starts each worker anew that has got lost.
            self.cluster.sync(self.cluster.scale_down, idle)
            self._check_taken()
        except (RuntimeError, OSError, ValueError) as error:
            raise EngineError(
                f"the batch system takes no job: {unforeseen(error)}",
                "`mlcheck release --dry-run` shows the script; ~/.config/dask/jobqueue.yaml has "
                "the site's settings.",
            ) from None

    def _check_taken(self) -> None:
        """Raise what the batch system says if it has never taken a job. Dask only logs that; later,
        and for some of the jobs, it may be a limit or a moment's trouble, and is tried again."""
        jobs = list(self.cluster.workers.values())
        self.taken = self.taken or any(job.status != Status.created for job in jobs)
        if jobs and not self.taken:
            self.cluster.sync(_submitted, jobs[0])

    def _lost(self) -> list[str]:
        """Return the jobs of the batch system whose workers were there and have been gone for a
        while. Dask notices that by itself of jobs with one worker."""
        there = {str(one["name"]) for one in self.client.scheduler_info()["workers"].values()}
        limit_s = parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout"))
        now = time.monotonic()
        lost = []
        for name, names in self._names().items():
            if names & there:
                self.seen[name] = now
            elif now - self.seen.get(name, now) > limit_s:
                del self.seen[name]
                lost.append(name)
        return lost

    def _idle(self) -> list[str]:
        """Return the jobs of the batch system that judge nothing; first those without a worker."""
        known = self.client.scheduler_info()["workers"]
        tasks = self.client.processing()
        there = {str(one["name"]) for one in known.values()}
        busy = {str(one["name"]) for address, one in known.items() if tasks.get(address)}
        found: list[tuple[bool, str]] = []
        for name, names in self._names().items():
            if not names & busy:
                found.append((bool(names & there), name))
        return [name for _, name in sorted(found, key=lambda one: one[0])]

    def _names(self) -> dict[str, set[str]]:
        """Return the names of the workers of each job of the batch system."""
        return {
            name: {f"{name}{suffix}" for suffix in spec.get("group", [""])}
            for name, spec in self.cluster.worker_spec.items()
        }


class DaskPool:
    """Groups of Dask's workers as a `mlcheck.release.work.Pool`.

    Args:
        groups: those for jobs without and with a GPU; both may be the same.
        words: the words of `mlcheck check` for a job.
        limit_s: seconds that an attempt may take.
    """

    def __init__(
        self, groups: Mapping[bool, Group], words: Mapping[Job, Sequence[str]], limit_s: float
    ) -> None:
        self._groups, self._words, self._limit_s = groups, words, limit_s
        self._ended: queue.SimpleQueue[Future] = queue.SimpleQueue()

    def keep(self, unfinished: Sequence[Job]) -> None:
        """Have workers for these jobs.

        Raises:
            EngineError: the batch system takes no job.
        """
        counts: dict[int, int] = {}
        for job in unfinished:
            key = id(self._groups[job.gpu])
            counts[key] = counts.get(key, 0) + 1
        for group in {id(one): one for one in self._groups.values()}.values():
            group.keep(counts.get(id(group), 0))

    def free(self, gpu: bool) -> int:
        """Return how many jobs can be started now.

        Raises:
            EngineError: the scheduler is gone.
        """
        group = self._groups[gpu]
        return max(0, group.threads() - len(group.running))

    def start(self, job: Job, tried: Collection[str]) -> str:
        """Start a job, and return its id."""
        group = self._groups[job.gpu]
        preferred: list[str] | None = None
        if tried or group.gpu is False or group.cluster is not None:
            workers = group.workers()
            fresh = [address for address in workers if _place(workers[address]) not in tried]
            preferred = fresh or list(workers)
        id_ = f"{job.slug}-{uuid.uuid4().hex[:8]}"
        future = group.client.submit(
            _judge,
            id_,
            list(self._words[job]),
            self._limit_s,
            mlcheck.__version__,
            key=id_,
            pure=False,
            resources={GPU: 1} if group.gpu else None,
            workers=preferred,
            allow_other_workers=preferred is not None,
        )
        group.running[id_] = future
        future.add_done_callback(self._ended.put)
        return id_

    def ended(self, limit_s: float) -> list[tuple[str, Attempt | Lost]]:
        """Wait until jobs end, and return their ids and answers."""
        found = []
        try:
            future = self._ended.get(timeout=limit_s)
            while True:
                found.append((str(future.key), _answer(future)))
                for group in self._groups.values():
                    group.running.pop(str(future.key), None)
                future.release()
                future = self._ended.get_nowait()
        except queue.Empty:
            return found

    def places(self) -> dict[str, str]:
        """Return the worker of each running job, by the id of the job."""
        found: dict[str, str] = {}
        for group in {id(one): one for one in self._groups.values()}.values():
            if not group.running:
                continue
            workers = group.workers()
            for address, keys in group.client.processing().items():
                if address in workers:
                    found |= {str(key): _place(workers[address]) for key in keys}
        return found

    def cancel(self) -> None:
        """End what runs."""
        for group in self._groups.values():
            if group.running:
                group.client.cancel(list(group.running.values()), force=True)


async def _submitted(job: Any) -> None:
    await job


def _place(worker: Mapping[str, Any]) -> str:
    return f"{worker['name']} ({worker['host']})" if worker.get("host") else str(worker["name"])


def _answer(future: Future) -> Attempt | Lost:
    if future.status == "finished":
        answer = future.result()
        assert isinstance(answer, Attempt)
        return answer
    error = future.exception() if future.status == "error" else None
    if isinstance(error, KilledWorker):
        place = _place({"name": error.last_worker.name, "host": error.last_worker.host})
        return Lost(f"the worker {place} died, or its machine or its time ended")
    if isinstance(error, ImportError):
        return Lost(
            f"the worker has no mlcheck, or another version of it: {unforeseen(error)}", again=False
        )
    if error is None:
        return Lost(f"the scheduler gave it up ({future.status})")
    return Lost(f"the worker failed: {unforeseen(error)}")


_WORKING = (Status.init, Status.starting, Status.running, Status.paused)


def _judge(id_: str, words: Sequence[str], limit_s: float, version: str) -> Attempt:
    """Judge on a worker, until it is done or nobody wants the answer any more."""
    worker = get_worker()

    def stopped() -> bool:
        task = worker.state.tasks.get(id_)
        gone = task is None or task.state == "cancelled"
        return gone or worker.status not in _WORKING

    place = _place({"name": worker.name, "host": get_address_host(worker.address)})
    return dataclasses.replace(attempt.judge(words, limit_s, stopped, version), place=place)
