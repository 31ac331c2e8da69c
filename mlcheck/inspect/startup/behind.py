"""Commands that are put behind an entrypoint, and tell what becomes of them.

They are for `sh`, or for Python in an image without a shell: each uses nothing but what is built
in, and stands on one line, so that a token in it can be found in /proc.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlcheck.image.api import RootFS
from mlcheck.inspect.answers import on_path, path_of
from mlcheck.inspect.startup.facts import Heard, Stopped
from mlcheck.model.command import CommandResult
from mlcheck.model.environment import Environment

WORDS = (
    *("", "two  words", " blanks ", "*", "/*", "?[a-z]*", "$HOME", "${X-y}", "`echo no`"),
    *("back\\slash", "it's", 'a "word"', "~", "{a,b}", "a;b&c|d>e", "#", "!", "ü", "--", "-n", ""),
)
"""Words that a shell changes unless it is told not to."""

_TELL = {
    "sh": (
        "printf '\\n%s\\n' TOKEN; "
        "for word do printf 'word <%s>\\n' \"$word\"; done; "
        "IFS= read -r line; printf 'line <%s>\\nend\\n' \"$line\""
    ),
    "python": (
        "import sys; w = sys.stdout.buffer.write; w(b'\\nTOKEN\\n'); "
        "[w(b'word <' + a.encode('utf-8', 'surrogateescape') + b'>\\n') for a in sys.argv[1:]]; "
        "w(b'line <' + sys.stdin.buffer.readline().rstrip(b'\\n') + b'>\\nend\\n')"
    ),
}
_END = {"sh": "exit {code}", "python": "import os; os._exit({code})"}
_KILL = {"sh": "kill -KILL $$; exit 9", "python": "import os; os.kill(os.getpid(), 9); os._exit(9)"}

# An entrypoint may start its command before it handles signals; nobody stops it in that moment.
#
# The entrypoint is the topmost process above this one that has the token among its arguments. 4000
# is SIGTERM in the masks of /proc/PID/status. A shell handles it between commands, also if these
# fail because there is no program `sleep`.
_STOP = {
    "sh": (
        "sleep 0.5 2>/dev/null; "
        "t=TOKEN; trap \"printf '\\n%s caught\\n' $t; exit 0\" TERM; top=$$; p=$$; "
        "while IFS= read -r s < /proc/$p/stat; do set -- ${s##*) }; p=$2; "
        '[ "$p" -gt 0 ] || break; c=; IFS= read -r c < /proc/$p/cmdline; '
        "case $c in *$t*) top=$p;; esac; done; "
        "i=0; g=0; while read -r k v; do case $k in SigIgn:) i=${v#????????????};; "
        "SigCgt:) g=${v#????????????};; esac; done < /proc/$top/status; "
        "who=parent; [ $top = $$ ] && who=replaced; how=default; "
        "[ $((0x$g & 0x4000)) = 0 ] || how=handled; [ $((0x$i & 0x4000)) = 0 ] || how=ignored; "
        "printf '\\n%s %s %s\\n' $t $who $how; [ $how = ignored ] && exit 0; "
        "kill -TERM $top; while :; do sleep 0.05; done 2>/dev/null"
    ),
    "python": (
        "import os, signal, time; time.sleep(0.5); "
        "t = 'TOKEN'; say = lambda *a: print('\\n' + t, *a, flush=True); "
        "signal.getsignal(15) == signal.SIG_IGN or "
        "signal.signal(15, lambda *a: (say('caught'), os._exit(0))); "
        "r = lambda p, n: open('/proc/%s/%s' % (p, n), 'rb').read().decode('latin-1'); "
        "up = lambda p: r(p, 'stat').rpartition(')')[2].split()[1]; "
        "line = [str(os.getpid())]; "
        "[line.append(up(line[-1])) for _ in range(99) if up(line[-1]) != '0']; "
        "top = [p for p in line if t in r(p, 'cmdline')][-1]; "
        "m = dict(l.split(':\\t') for l in r(top, 'status').splitlines() if l[:3] == 'Sig'); "
        "i, g = (int(m['Sig' + n], 16) & 0x4000 for n in ('Ign', 'Cgt')); "
        "say('replaced' if top == line[0] else 'parent', "
        "'ignored' if i else 'handled' if g else 'default'); "
        "i and os._exit(0); os.kill(int(top), 15); [time.sleep(0.05) for _ in iter(int, 1)]"
    ),
}


@dataclass(frozen=True, slots=True)
class Speaker:
    """Runs such commands: the words before a text, and its language."""

    words: tuple[str, ...]
    language: str

    def tell(self, token: str) -> tuple[str, ...]:
        """Make the command that tells its words and its input."""
        return (*self._run(_TELL[self.language].replace("TOKEN", token)), *WORDS)

    def end(self, code: int) -> tuple[str, ...]:
        """Make the command that ends with an exit code."""
        return self._run(_END[self.language].format(code=code))

    def kill(self) -> tuple[str, ...]:
        """Make the command that kills itself."""
        return self._run(_KILL[self.language])

    def stop(self, token: str) -> tuple[str, ...]:
        """Make the command that sends SIGTERM to the entrypoint."""
        return self._run(_STOP[self.language].replace("TOKEN", token))

    def _run(self, text: str) -> tuple[str, ...]:
        # sh calls the first word behind the text $0.
        return (*self.words, text, *(("sh",) if self.language == "sh" else ()))


def speaker(rootfs: RootFS, config: Environment) -> Speaker:
    """Choose the shell of an image, or its Python if it has none.

    Raises:
        ProbeError: this machine forbids looking.
    """
    path = path_of(config.env)
    for name in ("sh", "/bin/sh", "bash", "/bin/bash", "dash", "ash"):
        if on_path(rootfs, name, path) is not None:
            return Speaker((name, "-c"), "sh")
    for name in ("python3", "python"):
        if on_path(rootfs, name, path) is not None:
            return Speaker((name, "-c"), "python")
    return Speaker(("sh", "-c"), "sh")


def heard(result: CommandResult, token: str) -> Heard:
    """Parse what the command of `Speaker.tell` said."""
    _, found, said = result.stdout.partition(f"\n{token}\n")
    told, ended, more = said.partition(">\nend\n")
    lines = f"{told}>".split("\n")
    if not found or not ended or not lines[-1].startswith("line <"):
        return Heard(result, WORDS, None, None, "")
    words = tuple(line[6:-1] for line in lines[:-1])
    return Heard(result, WORDS, words, lines[-1][6:-1], more)


def stopped(result: CommandResult, token: str) -> Stopped:
    """Parse what the command of `Speaker.stop` said."""
    lines = result.stdout.split("\n")
    said = next((line.split()[1:] for line in lines if line.startswith(f"{token} ")), [])
    match said:
        case ["replaced" | "parent" as who, "ignored" | "handled" | "default" as how]:
            caught = f"{token} caught" in lines
            return Stopped(result, who == "replaced", how == "ignored", how == "handled", caught)
    return Stopped(result, None, False, False, False)
