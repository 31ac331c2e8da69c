"""The first process of a sandbox: makes the image its root, then serves commands.

Started by `mlcheck.engines.sandbox.engine` as PID 1 of new user, mount, PID, IPC, UTS and (unless
it may use the network) network namespaces. Its arguments are the image's directory, or a JSON list
of [source, target] of which the root is composed; a JSON list of [source, target] of what is bound;
"network" or "no-network"; a JSON list of the most bytes of memory and the most processes; and a PID
file descriptor of the caller where the kernel has those. Its standard input is a socket, over which
`mlcheck.engines.sandbox.server` communicates.

Only the standard library is used, and all of it is imported before the image becomes the root:
from then on no file of the host can be reached.
"""

# pathlib knows no file descriptors, and imports parts of itself late.
# ruff: noqa: PTH102, PTH103, PTH123, PTH208, PTH211

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import re
import resource
import signal
import socket
import stat
import struct
import sys

from mlcheck.engines.sandbox.server import Server
from mlcheck.machine import keyring, pid_limit, seccomp

_NEW_ROOT = "/tmp"  # noqa: S108 -- only a mount point, in a mount namespace of our own
_TMP_SIZE = "1g"
_SHM_SIZE = "256m"
_MOST_ENTRIES = 1000

# linux/mount.h
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND = 1, 2, 4, 8, 32, 4096
_REC, _PRIVATE, _DETACH = 16384, 1 << 18, 2
_KEPT_FLAGS = {"ro": _RDONLY, "nosuid": _NOSUID, "nodev": _NODEV, "noexec": _NOEXEC}

# linux/prctl.h
_SET_PDEATHSIG, _SET_DUMPABLE, _CAPBSET_DROP, _CAP_AMBIENT = 1, 4, 24, 47
_CAP_AMBIENT_CLEAR_ALL = 4

# linux/capability.h. Those of an ordinary container that have a meaning with one mapped user:
# CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE, SYS_CHROOT.
_KEPT_CAPABILITIES = (0, 1, 3, 4, 5, 6, 7, 10, 18)

# Files of /proc about the whole machine, which an ordinary container does not show either.
_MASKED = "kcore keys key-users kmsg kpagecgroup kpagecount kpageflags sched_debug timer_list"

_libc = ctypes.CDLL(None, use_errno=True)


def _call(what: str, name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _mount(source: str, target: str, fstype: str | None, flags: int, data: str = "") -> None:
    _call(
        f"mounting {target}",
        "mount",
        os.fsencode(source),
        os.fsencode(target),
        fstype and fstype.encode(),
        ctypes.c_ulong(flags),
        data.encode(),
    )


def _prctl(option: int, *values: int) -> None:
    _call(f"prctl {option}", "prctl", option, *(ctypes.c_ulong(value) for value in values))


def _bind(fd: int, target: str) -> None:
    """Bind the file or directory of `fd`, with all mounts below it, on `target`."""
    _mount(f"/proc/self/fd/{fd}", target, None, _BIND | _REC)


def _remount(target: str, flags: int) -> None:
    _mount("none", target, None, _REMOUNT | _BIND | flags)


def _lock_down_binds() -> None:
    """Make every mount below the new root read-only, nosuid, nodev.

    A mount that comes from outside the user namespace keeps the flags it has: the kernel
    refuses a remount that leaves one out.
    """
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mounts = [line.split(" ") for line in file]
    # The new root is the last mount there; the list has every mount after its parent.
    below = {next(fields[0] for fields in reversed(mounts) if fields[4] == _NEW_ROOT)}
    for number, parent, _, _, path, options, *_ in mounts:
        if parent in below:
            below.add(number)
            target = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), path)
            kept = sum(_KEPT_FLAGS.get(option, 0) for option in options.split(","))
            try:
                _remount(target, kept | _RDONLY | _NOSUID | _NODEV)
            except OSError as error:
                # In a directory that this user may not enter, nor may anything in the sandbox; or
                # unmounted, and its directory removed, since the list was read.
                if error.errno not in (errno.EACCES, errno.ENOENT):
                    raise


def _bind_image(image: str, binds: list[tuple[str, str]]) -> None:
    """Put the top-level entries of the image into the new root, and directories of this machine
    on directories of the image."""
    sources = [(os.open(source, os.O_PATH | os.O_DIRECTORY), target) for source, target in binds]
    root = os.open(image, os.O_RDONLY | os.O_DIRECTORY)
    # From here on the path of the image may be hidden: it can lie below /tmp.
    _mount("tmpfs", _NEW_ROOT, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    names = sorted(set(os.listdir(root)) - {"proc", "dev", "tmp"})
    if len(names) > _MOST_ENTRIES:
        raise OSError(errno.E2BIG, f"the image has more than {_MOST_ENTRIES} entries at its root")
    for name in names:
        target = f"{_NEW_ROOT}/{name}"
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=root)
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(name, dir_fd=root), target)
        elif stat.S_ISDIR(mode):
            os.mkdir(target)
            _bind(fd, target)
        elif stat.S_ISREG(mode):
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
            _bind(fd, target)
        os.close(fd)
    os.close(root)
    for fd, path in sources:
        at = _directory_inside(path)
        _bind(fd, f"/proc/self/fd/{at}")
        os.close(at)
        os.close(fd)
    _lock_down_binds()


def _directory_inside(path: str) -> int:
    """Open a directory of the new root without following any link: a link of the image could lead
    out of it."""
    at = os.open(_NEW_ROOT, os.O_PATH | os.O_DIRECTORY)
    for name in path.strip("/").split("/"):
        below = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
        os.close(at)
        at = below
    return at


def _bind_each(binds: list[tuple[str, str]]) -> None:
    """Put files, links and directories of this machine into the new root, each at its target.

    No target lies below another one. A link is made anew, so that it leads inside the new root.
    """
    sources = [(os.open(source, os.O_PATH | os.O_NOFOLLOW), target) for source, target in binds]
    _mount("tmpfs", _NEW_ROOT, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    for fd, path in sources:
        target = f"{_NEW_ROOT}{path}"
        os.makedirs(target.rpartition("/")[0], exist_ok=True)
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink("", dir_fd=fd), target)
        elif stat.S_ISDIR(mode):
            os.mkdir(target)
            _bind(fd, target)
        elif stat.S_ISREG(mode):
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            _bind(fd, target)
        os.close(fd)
    _lock_down_binds()


def _make_dev() -> None:
    dev = f"{_NEW_ROOT}/dev"
    os.mkdir(dev)
    _mount("tmpfs", dev, "tmpfs", _NOSUID | _NOEXEC, "size=64k,mode=755")
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(f"/dev/{name}", os.O_PATH | os.O_NOFOLLOW)
            os.close(os.open(f"{dev}/{name}", os.O_CREAT | os.O_WRONLY, 0o600))
            _bind(fd, f"{dev}/{name}")
            os.close(fd)
    for name in ("pts", "shm"):
        os.mkdir(f"{dev}/{name}")
    quiet = _NOSUID | _NOEXEC
    _mount("devpts", f"{dev}/pts", "devpts", quiet, "newinstance,ptmxmode=0666,mode=620")
    _mount("tmpfs", f"{dev}/shm", "tmpfs", quiet | _NODEV, f"size={_SHM_SIZE},mode=1777")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd"}
    links |= {name: f"/proc/self/fd/{n}" for n, name in enumerate(("stdin", "stdout", "stderr"))}
    for name, target in links.items():
        os.symlink(target, f"{dev}/{name}")
    _remount(dev, _RDONLY | quiet)


def _make_proc() -> None:
    proc = f"{_NEW_ROOT}/proc"
    os.mkdir(proc)
    quiet = _NOSUID | _NODEV | _NOEXEC
    _mount("proc", proc, "proc", quiet)
    # No user namespace below this one: no command can regain capabilities there. Not every kernel
    # has this; then only the flags locked by the kernel protect the mounts.
    with contextlib.suppress(OSError), open(f"{proc}/sys/user/max_user_namespaces", "w") as file:
        file.write("0")
    null = os.open("/dev/null", os.O_PATH)
    for name in _MASKED.split():
        with contextlib.suppress(FileNotFoundError):
            _bind(null, f"{proc}/{name}")
    os.close(null)
    # If root started the sandbox, commands run as root of the host, and files such as
    # /proc/sys/kernel/core_pattern check the user alone: only mounting them read-only protects
    # them.
    _remount(proc, _RDONLY | quiet)


def _resolv_conf() -> int | None:
    """Return the host's list of name servers, for a sandbox with network."""
    with contextlib.suppress(OSError):
        return os.open(os.path.realpath("/etc/resolv.conf"), os.O_PATH | os.O_NOFOLLOW)
    return None


def _enter(resolv_conf: int | None) -> None:
    """Make the new root the only one."""
    os.chdir(_NEW_ROOT)
    _call("pivot_root", "pivot_root", b".", b".")
    if resolv_conf is not None:
        # Here the image's own links cannot redirect this mount to a place outside.
        with contextlib.suppress(FileNotFoundError):
            _bind(resolv_conf, "/etc/resolv.conf")
            _remount("/etc/resolv.conf", _RDONLY | _NOSUID | _NODEV | _NOEXEC)
    _call("detaching the old root", "umount2", b".", _DETACH)
    os.chdir("/")


def _lo_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as lo:
        set_flags, up_and_running = 0x8914, 0x1 | 0x40  # SIOCSIFFLAGS, linux/if.h
        fcntl.ioctl(lo, set_flags, struct.pack("16sH22x", b"lo", up_and_running))


def _drop_privileges() -> None:
    keyring.join_own()
    # One byte, not zero: this prevents core_pattern's programs on the host too (core(5)).
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    with contextlib.suppress(OSError):  # not in Linux < 4.3
        _prctl(_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    with contextlib.suppress(OSError):  # EINVAL after the last capability
        for capability in range(64):
            if capability not in _KEPT_CAPABILITIES:
                _prctl(_CAPBSET_DROP, capability, 0, 0, 0)
    kept = sum(1 << capability for capability in _KEPT_CAPABILITIES)
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    _call("capset", "capset", header, struct.pack("=6I", kept, kept, 0, 0, 0, 0))
    # Commands run as the same user: none may inspect or trace this process.
    _prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    seccomp.confine()


def _set_up(root: str, binds: str, network: bool) -> None:
    os.umask(0o022)
    _prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for number in signal.valid_signals():
        # As PID 1, a process gets only the signals that it handles, such as Python's SIGINT.
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _mount("none", "/", None, _REC | _PRIVATE)
    resolv_conf = _resolv_conf() if network else None
    # An absolute path, or JSON.
    if root.startswith("["):
        _bind_each(json.loads(root))
    else:
        _bind_image(root, json.loads(binds))
    _make_dev()
    _make_proc()
    tmp = f"{_NEW_ROOT}/tmp"  # noqa: S108
    os.mkdir(tmp)
    _mount("tmpfs", tmp, "tmpfs", _NOSUID | _NODEV, f"size={_TMP_SIZE},mode=1777")
    _remount(_NEW_ROOT, _RDONLY | _NOSUID | _NODEV)
    _enter(resolv_conf)
    socket.sethostname("localhost")
    if not network:
        _lo_up()


def main() -> None:
    root, binds, network, limits, *pidfd = sys.argv[1:]
    control = socket.socket(fileno=os.dup(0))
    caller = None
    if pidfd:
        caller = os.dup(int(pidfd[0]))
        os.close(int(pidfd[0]))
    most_memory, most_processes = json.loads(limits)
    try:
        pid_limit.limit_own(most_processes)
        _set_up(root, binds, network == "network")
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        _drop_privileges()
    except OSError as error:
        sys.exit(f"{error.strerror}" + (f": {error.filename}" if error.filename else ""))
    Server(control, caller, most_memory, most_processes).serve()
