"""Capabilities that no command in an image has, capabilities(7).

Those that are left are what the sandbox, where they mean least, leaves too: CHOWN, DAC_OVERRIDE,
FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE, SYS_CHROOT. So is NET_RAW in a network that
leads nowhere: without it, a program whose file asks for it (ping) cannot be executed at all.
"""

from __future__ import annotations

DROPPED = (
    *("AUDIT_CONTROL", "AUDIT_WRITE", "BLOCK_SUSPEND", "DAC_READ_SEARCH", "IPC_LOCK", "IPC_OWNER"),
    *("LEASE", "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN"),
    *("NET_BROADCAST", "SETFCAP", "SETPCAP", "SYS_ADMIN", "SYS_BOOT", "SYS_MODULE", "SYS_NICE"),
    *("SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG"),
    *("SYSLOG", "WAKE_ALARM"),
)
"""Named one by one: podman gives what is added to "none" to every user, as if they were root."""

OF_DOCKER = ("AUDIT_WRITE", "MKNOD", "SETFCAP", "SETPCAP")
"""Those of them that docker gives to a container. Since 23.0 it refuses a container that is to lose
what this machine does not have."""

NEWER = ("AUDIT_READ", "BPF", "CHECKPOINT_RESTORE", "PERFMON")
"""Those that not every engine knows, and that no engine gives unless asked."""
