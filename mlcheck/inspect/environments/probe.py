"""An environment on top of the image's, made and used as the README of ML-Containers shows.

All of it happens in a directory of its own below the image's /tmp.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
from collections.abc import Mapping

from mlcheck.engines.base import OpenImage
from mlcheck.image.api import Unreadable
from mlcheck.inspect.answers import TOKEN_BYTES, command_result, load_json
from mlcheck.inspect.environments.facts import EnvAttempt, EnvPython, EnvSession, NewEnv
from mlcheck.inspect.prefix.facts import PrefixPath
from mlcheck.inspect.registry import fact
from mlcheck.model.command import CommandResult
from mlcheck.model.errors import needed
from mlcheck.profile.catalog import Profile

PACKAGE = "six"
"""Every published image has it, it is one module, and many packages need it."""

VERSION = "9999.0"
"""The version that is installed on top."""

NAME = "myEnv"
NONE_PROMISED = "the profile promises no environments on top of the image's"
SESSION_LIMIT_S = 120.0
ATTEMPT_LIMIT_S = 10.0
OUTPUT_LIMIT = 4 * 1024 * 1024
_MOST_ENTRIES = 1000

# Programs for the image's Python, 3.8 or later. Each prints one line of JSON.
_STATE = """\
import json, os, sys
package, where = None, None
try:
    from importlib import metadata
    package = metadata.version({package!r})
    where = __import__({package!r}).__file__
except Exception:
    pass
print(json.dumps({{
    "executable": sys.executable, "prefix": sys.prefix,
    "version": "%d.%d.%d" % sys.version_info[:3],
    "path": [entry for entry in sys.path if entry], "package": package, "module": where,
}}))
"""
_WHEEL = """\
import os, sys, zipfile
name, version, directory = sys.argv[1:]
info = "%s-%s.dist-info" % (name, version)
with zipfile.ZipFile("%s/%s-%s-py3-none-any.whl" % (directory, name, version), "w") as wheel:
    wheel.writestr(name + ".py", "__version__ = %r\\n" % version)
    wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: %s\\nVersion: %s\\n"
                   % (name, version))
    wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nGenerator: mlcheck\\n"
                   "Root-Is-Purelib: true\\nTag: py3-none-any\\n")
    files = (name + ".py", info + "/METADATA", info + "/WHEEL", info + "/RECORD")
    wheel.writestr(info + "/RECORD", "".join("%s,,\\n" % file for file in files))
"""
_CONTENT = """\
import json, os, sys
top, entries, cfg = sys.argv[1], {}, None
for name in sorted(os.listdir(top))[:1000]:
    path = os.path.join(top, name)
    entries[name] = ("link " + os.readlink(path) if os.path.islink(path)
                     else "directory" if os.path.isdir(path) else "file")
try:
    with open(os.path.join(top, "pyvenv.cfg"), encoding="utf-8") as file:
        cfg = file.read(65536)
except (OSError, ValueError):
    pass
print(json.dumps({"entries": entries, "pyvenv": cfg}))
"""

# `. script` without arguments would get those of the session, which has none.
_SESSION = """\
_mlcheck() {{ printf '\\n{token} %s\\n' "$*"; }}
mkdir -p {work} && cd {work} || exit 97
{before}
_mlcheck start "$(date +%s%N)"
. {command}
_mlcheck code "$?" "$(date +%s%N)"
_mlcheck conda-prefix "${{CONDA_PREFIX-}}"
cd {work} || exit 97
{after}
_mlcheck end
"""
_ASK_STATE = '_mlcheck python "$(python3 -c {state})"\n'
_TIME_PYTHON = """\
{python} -I -c pass
_mlcheck python-start "$(date +%s%N)"
{python} -I -c pass
_mlcheck python-end "$(date +%s%N)"
"""
_INSTALL = """\
{python} -I -c {wheel} {package} {version} {work}
python3 -m pip install --quiet --no-index --no-deps --no-cache-dir \\
    --disable-pip-version-check {work}/{package}-{version}-py3-none-any.whl > {work}/pip.log 2>&1
_mlcheck pip "$?" "$(tail -c 2000 {work}/pip.log | tail -n 1)"
"""
# As conda does when an environment is left.
_LEAVE = """\
for _mlcheck_script in {directory}/etc/conda/deactivate.d/*.sh; do
    [ -e "$_mlcheck_script" ] || continue
    . "$_mlcheck_script" > /dev/null 2> {work}/leave.log
    _mlcheck leave "$?" "$_mlcheck_script" "$(tail -n 1 {work}/leave.log)"
done
"""


@fact(apart=True)
def new_environment(image: OpenImage, profile: Profile, prefix: PrefixPath) -> NewEnv:
    """Make an environment on top of the image's."""
    expected = needed(profile.expect.new_env, NONE_PROMISED)
    return probe(image, expected.script, expected.reuse, prefix)


def probe(image: OpenImage, script: str, reuse: str, prefix: str) -> NewEnv:
    """Make an environment, install into it, use it again, and try uses that must create nothing.

    Args:
        script: path of the script to source.
        reuse: name of the script, in the environment, by which a new session enters it.
        prefix: the image's own.

    Raises:
        EngineError: the engine could not run commands.
    """
    work = f"/tmp/mlcheck-newenv-{secrets.token_hex(8)}"  # noqa: S108 - of the image
    try:
        return _Trial(image, script, reuse, prefix, work).all()
    finally:
        image.run(["rm", "-rf", work], limit_s=60)


class _Trial:
    """One directory with its sessions."""

    def __init__(self, image: OpenImage, script: str, reuse: str, prefix: str, work: str) -> None:
        self.image, self.script, self.reuse, self.prefix = image, script, reuse, prefix
        self.work, self.directory = work, f"{work}/{NAME}"
        # apptainer sets this: upstream's scripts keep it, and refuse to enter without it.
        container = f"{work}/image.sif"
        self.env = {"HOME": work, "SINGULARITY_CONTAINER": container}
        self.env["APPTAINER_CONTAINER"] = container
        self.python = shlex.quote(f"{prefix}/bin/python3")
        self.ask = _ASK_STATE.format(state=shlex.quote(_STATE.format(package=PACKAGE)))

    def all(self) -> NewEnv:
        script = shlex.quote(self.script)
        install = _INSTALL.format(
            python=self.python,
            wheel=shlex.quote(_WHEEL),
            package=PACKAGE,
            version=VERSION,
            work=self.work,
        )
        create, said = self._session(
            f"{script} -p {NAME}",
            before=_TIME_PYTHON.format(python=self.python),
            after=self.ask + install + self.ask,
        )
        reuse, _ = self._session(
            shlex.quote(f"{self.directory}/{self.reuse}"), before="", after=self.ask
        )
        entries, pyvenv = self._content()
        own = f"{NAME}/{self.reuse}"
        again, left = self._session(
            shlex.quote(own),
            before=f". {shlex.quote(own)} > /dev/null 2>&1\n",
            after=self.ask + _LEAVE.format(directory=self.directory, work=self.work),
        )
        elsewhere = f"{self.work}/elsewhere"
        absolute, _ = self._session(
            f"{script} -p {elsewhere}/{NAME}",
            before=f"mkdir -p {elsewhere}/here; cd {elsewhere}/here\n",
            after=self.ask,
        )
        return NewEnv(
            script=self.script,
            directory=self.directory,
            base=self.prefix,
            package=PACKAGE,
            installed=VERSION,
            create=create,
            reuse=reuse,
            entries=entries,
            pyvenv=pyvenv,
            pip=_pip(said, create.result),
            seconds=_seconds(said, "start", "code"),
            python_start_s=_seconds(said, "python-start", "python-end"),
            absolute=absolute,
            absolute_directory=f"{elsewhere}/{NAME}",
            again=again,
            leaving=_leaving(left),
            help=self._attempt(f". {script} -h"),
            missing=self._attempt(f". {script}"),
            executed=self._attempt(f"bash {script} -h"),
        )

    def _session(
        self, command: str, *, before: str, after: str
    ) -> tuple[EnvSession, list[tuple[str, str]]]:
        token = secrets.token_hex(TOKEN_BYTES)
        program = _SESSION.format(
            token=token, work=self.work, before=before, command=command, after=after
        )
        result = self._bash(program, SESSION_LIMIT_S)
        said = _said(result.stdout, token)
        pythons = tuple(_python(answer) for key, answer in said if key == "python")
        code = _word(said, "code", 0)
        session = EnvSession(
            result=result,
            code=int(code) if code.isdigit() else None,
            conda_prefix=next((text for key, text in said if key == "conda-prefix"), ""),
            pythons=pythons,
        )
        return session, said

    def _attempt(self, command: str) -> EnvAttempt:
        token = secrets.token_hex(TOKEN_BYTES)
        empty = f"{self.work}/attempt-{token}"
        program = (
            f"mkdir -p {empty} && cd {empty} || exit 97\n"
            f"{command}\nprintf '\\n{token} code %s\\n' \"$?\"\n"
        )
        result = self._bash(program, ATTEMPT_LIMIT_S)
        code = _word(_said(result.stdout, token), "code", 0)
        listed = self.image.run(["ls", "-A", empty], limit_s=20, output_limit=OUTPUT_LIMIT)
        made = listed.stdout.decode("utf-8", "replace").splitlines()[:_MOST_ENTRIES]
        output = result.stdout.partition(f"\n{token} ")[0] + result.stderr
        return EnvAttempt(
            result, int(code) if code.isdigit() else None, output, tuple(made), ATTEMPT_LIMIT_S
        )

    def _bash(self, program: str, limit_s: float) -> CommandResult:
        return command_result(
            self.image.run(
                ["/bin/bash", "--norc", "--noprofile", "-c", program],
                env=self.env,
                cwd="/tmp",  # noqa: S108 - of the image
                limit_s=limit_s,
                output_limit=OUTPUT_LIMIT,
            )
        )

    def _content(self) -> tuple[Mapping[str, str], Mapping[str, str] | None]:
        """Return the entries at the top of the environment, and its pyvenv.cfg."""
        argv = [f"{self.prefix}/bin/python3", "-I", "-c", _CONTENT, self.directory]
        done = command_result(self.image.run(argv, limit_s=60, output_limit=OUTPUT_LIMIT))
        try:
            answer = load_json(done.stdout.encode(), "content")
        except Unreadable:
            return {}, None
        if not isinstance(answer, dict) or not isinstance(answer.get("entries"), dict):
            return {}, None
        entries = {name: str(kind) for name, kind in answer["entries"].items()}
        text = answer.get("pyvenv")
        return entries, _pyvenv(text) if isinstance(text, str) else None


def _said(stdout: str, token: str) -> list[tuple[str, str]]:
    """Parse the lines that the session itself printed: key and the rest."""
    lines = [line.removeprefix(f"{token} ") for line in stdout.split("\n") if token in line[:64]]
    return [(key, rest) for key, _, rest in (line.partition(" ") for line in lines)]


def _word(said: list[tuple[str, str]], key: str, index: int) -> str:
    words = next((rest.split() for name, rest in said if name == key), [])
    return words[index] if len(words) > index else ""


def _seconds(said: list[tuple[str, str]], start: str, end: str) -> float | None:
    """Return the seconds between two marks; the time is the last word of each."""
    times = [
        _word(said, key, index) for key, index in ((start, 0), (end, 1 if end == "code" else 0))
    ]
    if not all(re.fullmatch(r"\d{1,20}", time) for time in times):
        return None
    return (int(times[1]) - int(times[0])) / 1e9


def _pip(said: list[tuple[str, str]], session: CommandResult) -> CommandResult | None:
    answer = next((rest for key, rest in said if key == "pip"), None)
    if answer is None:
        return None
    code, _, text = answer.partition(" ")
    argv = ("python3", "-m", "pip", "install", f"{PACKAGE}-{VERSION}-py3-none-any.whl")
    number = int(code) if code.isdigit() else None
    return CommandResult(argv, number, text[:2000], "", "exited", session.seconds)


def _leaving(said: list[tuple[str, str]]) -> dict[str, str]:
    """Map scripts to the complaints of bash itself; a script may end with another code than 0."""
    found = {}
    for code, path, line in (
        [*rest.split(" ", 2), "", ""][:3] for key, rest in said if key == "leave"
    ):
        own = line.startswith(f"{path}: line ")
        found[path] = (
            line.removeprefix(f"{path}: ")[:300]
            if own
            else "cannot be run"
            if code in ("126", "127")
            else ""
        )
    return found


def _python(answer: str) -> EnvPython | None:
    try:
        found = json.loads(answer)
        path = found["path"]
        texts = [found[key] for key in ("executable", "prefix", "version")]
        maybe = [found[key] for key in ("package", "module")]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(path, list) or not all(isinstance(text, str) for text in (*texts, *path)):
        return None
    if not all(text is None or isinstance(text, str) for text in maybe):
        return None
    return EnvPython(texts[0], texts[1], texts[2], tuple(path), maybe[0], maybe[1])


def _pyvenv(text: str) -> dict[str, str]:
    """Parse keys and values as site.py does: the key in small letters, without surrounding
    blanks."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}
