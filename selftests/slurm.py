"""Slurm with two nodes on this machine, in a directory of its own; n2 has a stand-in for a GPU.

`scripts/set_up_slurm.sh` installs it. munge's daemon, the controller and the nodes listen on ports
and sockets of their own, so that several may run side by side, and end with the test.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlcheck.machine import janitor
from selftests.waiting import eventually

PROGRAMS = ("munged", "slurmctld", "slurmd")
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
_CONF = """\
ClusterName=mlcheck
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={place}/munge/socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=1
KillWait=5
SlurmdTimeout=120
SlurmdParameters=config_overrides
GresTypes=gpu
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool.%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.%n.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.%n.log
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=8000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=8000 Gres=gpu:1
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""

_JOBQUEUE = """\
distributed:
  deploy:
    lost-worker-timeout: 1s
jobqueue:
  slurm:
    queue: {queue}
    cores: {count}
    processes: {count}
    memory: 1GB
    walltime: "01:00:00"
    interface: lo
    local-directory: {place}/dask
    death-timeout: 60
"""


def missing() -> str:
    """Why Slurm cannot be tried here; "" if it can."""
    if os.geteuid() != 0:
        return "only root starts a Slurm of its own"
    absent = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    return f"{', '.join(absent)}: not installed (scripts/set_up_slurm.sh)" if absent else ""


class Slurm:
    """A Slurm that runs.

    Args:
        place: its directory.
    """

    def __init__(self, place: Path, processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
        self.place, self._processes = place, dict(processes)

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which Slurm's programs and Dask find it."""
        return self.with_workers(1)

    def with_workers(self, count: int, queue: str = "main") -> dict[str, str]:
        """The same, with so many workers in each of Slurm's jobs."""
        settings = self.place / f"dask-{count}-{queue}.yaml"
        settings.write_text(_JOBQUEUE.format(place=self.place, count=count, queue=queue))
        conf = str(self.place / "slurm.conf")
        return {"PATH": _PATH, "SLURM_CONF": conf, "DASK_CONFIG": str(settings)}

    def run(self, *words: str) -> str:
        """What one of Slurm's programs prints."""
        return subprocess.run(
            words,
            env={**os.environ, **self.environment},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
        ).stdout

    def jobs(self) -> dict[str, tuple[str, str]]:
        """State and node of each job in the queue; a job that waits has no node."""
        lines = self.run("squeue", "--noheader", "--format=%i|%T|%N").splitlines()
        return {id_: (state, node) for id_, state, node in (line.split("|") for line in lines)}

    def is_done(self) -> bool:
        """Whether no job waits or runs; one of a node that died is completing until Slurm knows."""
        return {state for state, _ in self.jobs().values()} <= {"COMPLETING"}

    def node_state(self, node: str) -> str:
        return self.run("sinfo", "--noheader", f"--nodes={node}", "--format=%T").strip()

    def set_state(self, node: str, state: str) -> None:
        self.run("scontrol", "update", f"nodename={node}", f"state={state}", "reason=self-test")

    def end_node(self, node: str) -> None:
        """Kill the daemon of a node and all that it has started, as a power cut does."""
        process = self._processes.pop(node)
        process.kill()
        process.wait()
        end_jobs(self.place, node)


def end_jobs(place: Path, node: str) -> None:
    """Kill the jobs of a node with what watches over them, which is no child of the daemon."""
    spool = f"{place}/spool.{node}/".encode()
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if spool in (directory / "cmdline").read_bytes():
                script = int(directory.name)
                for pid in [_watcher(script), *_tree(script)]:
                    os.kill(pid, signal.SIGKILL)


def _watcher(script: int) -> int:
    """The slurmstepd of a job's script, or the script itself if it has ended."""
    status = Path(f"/proc/{script}/status").read_text()
    parent = int(status.partition("PPid:")[2].split()[0])
    name = Path(f"/proc/{parent}/comm").read_text()
    return parent if name.startswith("slurmstepd") else script


def _tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def running(place: Path) -> Iterator[Slurm]:
    """Slurm with two nodes while the context lasts; nothing of it remains but the directory."""
    host = socket.gethostname().partition(".")[0]
    user = pwd.getpwuid(os.geteuid()).pw_name
    for name in ("munge", "state", "spool.n1", "spool.n2", "dask"):
        (place / name).mkdir(parents=True)
    text = _CONF.format(host=host, place=place, user=user, ports=_free_ports(3))
    (place / "slurm.conf").write_text(text)
    (place / "gres.conf").write_text("NodeName=n2 Name=gpu File=/dev/null\n")
    (place / "munge/key").write_bytes(os.urandom(128))
    (place / "munge/key").chmod(0o400)
    munge = [f"--{name}={place}/munge/{name}" for name in ("socket", "log-file", "pid-file")]
    munge += [f"--key-file={place}/munge/key", f"--seed-file={place}/munge/seed", "--force"]
    commands = {
        "munged": ["munged", "--foreground", *munge],
        "slurmctld": ["slurmctld", "-D", "-i"],
        "n1": ["slurmd", "-D", "-N", "n1"],
        "n2": ["slurmd", "-D", "-N", "n2"],
    }
    with contextlib.ExitStack() as stack:
        processes: dict[str, subprocess.Popen[bytes]] = {}
        slurm = Slurm(place, {})
        for name, command in commands.items():
            with (place / f"{name}.out").open("wb") as log:
                process = subprocess.Popen(
                    command,
                    env={**os.environ, **slurm.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            stack.enter_context(janitor.promised(janitor.kill(process.pid)))
            stack.callback(_end, process, place, name)
            processes[name] = process
            if name == "munged":
                assert eventually((place / "munge/socket").exists), (
                    place / "munged.out"
                ).read_text()
        slurm = Slurm(place, processes)
        assert eventually(lambda: _is_up(slurm)), _logs(place)
        yield slurm


def _is_up(slurm: Slurm) -> bool:
    try:
        return all(slurm.node_state(name).startswith("idle") for name in ("n1", "n2"))
    except subprocess.SubprocessError:
        return False


def _logs(place: Path) -> str:
    return "\n".join(file.read_text(errors="replace")[-2000:] for file in place.glob("*.log"))


def _end(process: subprocess.Popen[bytes], place: Path, name: str) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    end_jobs(place, name)
