"""Ends a command in a container with all that it started, by a line for a shell in that container.

A process that has called setsid(2) is no longer in the command's process group, and once its parent
has ended, it is a child of the container's first process. It is recognised by its age: it is no
older than the command, and its ancestors lead to the first process directly and not by way of
another shell. A daemon that another command starts at the same moment looks the same, and is ended
too. What an earlier command left is older.

As in `mlcheck.engines.shell`, only features of a shell that POSIX specifies are used, and no
program of the image.
"""

from __future__ import annotations

NOW = "read -r u x </proc/uptime; u=${u%.*}${u#*.}"
"""Sets $u to the time in the unit of /proc/PID/stat, which is a hundredth of a second (USER_HZ) on
every architecture that containers run on."""

_ROUNDS = 50

_SCRIPT = (
    f"g=@group; s=@since; i=0; k=' '; n=1; while [ $n = 1 ] && [ $i -lt {_ROUNDS} ]; do "
    "i=$((i+1)); n=0; a=; "
    "for p in /proc/[0-9]*; do p=${p#/proc/}; "
    # A process may have newlines in its name: the last line counts.
    'l=; while read -r x; do l=$x; done <"/proc/$p/stat" || continue; set -- ${l##*\\) }; '
    'case $1 in [ZX]|"") continue;; esac; case $2$3${20} in *[!0-9]*) continue;; esac; '
    'eval "u$p=$2 e$p=$3 b$p=${20}"; a="$a $p"; done; '
    "for p in $a; do q=$p; d=0; while :; do "
    '[ "$q" = $g ] && d=1 && break; [ "$q" = $$ ] && break; '
    'eval "r=\\$u$q e=\\$e$q b=\\$b$q"; case $r in "") n=1; break;; 0) break;; '
    "1) [ $e != 1 ] && [ $b -ge $s ] && d=1; break;; esac; q=$r; done; "
    '[ $d = 1 ] || continue; kill -9 $p; case $k in *" $p "*) ;; *) n=1; k="$k$p ";; esac; done; '
    "kill -9 -$g; done; [ $n = 0 ] || kill -9 -1"
)


def line(group: int, since: int | None) -> str:
    """Return the line that sends SIGKILL to a process group, and to what has left it.

    What has left it may go on to start processes: the line looks for them until a look finds none
    that is new. A command that is faster than that takes everything in the container with it.

    Args:
        group: its ID in the container; the shell that ran the command leads it.
        since: when the command began, as `NOW` tells it; None for the process group alone.
    """
    if since is None:
        return f"kill -9 -{group}"
    return _SCRIPT.replace("@since", str(since)).replace("@group", str(group))
