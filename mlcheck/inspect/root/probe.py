"""ROOT at work: a histogram in PyROOT, and a C++ program built with root-config."""

from __future__ import annotations

import itertools
import re
import secrets
import shlex
from collections.abc import Sequence

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import (
    TOKEN_BYTES,
    command_result,
    framed,
    how_it_ended,
    load_json,
    on_path,
    path_of,
)
from mlcheck.inspect.elf.loader_trace import loaded
from mlcheck.inspect.root.facts import PyRoot, RootProgram
from mlcheck.inspect.system import cpu
from mlcheck.model.command import CommandResult
from mlcheck.model.environment import Environment

LIMIT_S = 300.0
"""Seconds for PyROOT, which compiles headers when it first starts, and for a compiler."""

OUTPUT_LIMIT = 4 * 1024 * 1024

COMPILERS = ("x86_64-conda-linux-gnu-g++", "x86_64-conda_cos6-linux-gnu-g++", "g++", "c++")
"""Compilers to try if CXX is not set: conda's own first."""

# The same histogram in both languages; the rules pyroot and root-program know its contents.
_PYROOT = """\
import json, os
answer = {{}}
try:
    import ROOT
    h = ROOT.TH1F("mlcheck", "mlcheck", 10, 0.0, 10.0)
    for x in (1.5, 2.5, 2.5, 5.5):
        h.Fill(x)
    answer["answers"] = {{"entries": float(h.GetEntries()), "mean": float(h.GetMean()),
                         "bin 3": float(h.GetBinContent(3))}}
    answer["version"] = str(ROOT.gROOT.GetVersion())
    if ROOT.gInterpreter.Declare({declared!r}):
        answer["answers"]["sum by cling"] = float(ROOT.mlcheck_sum())
except BaseException as error:
    answer["error"] = (type(error).__name__ + ": " + str(error))[:1000]
os.write(1, ("\\n{token} " + json.dumps(answer) + "\\n").encode("utf-8", "replace"))
os._exit(0)
"""
# A histogram comes from a dictionary that was compiled with ROOT: cling compiles this.
_DECLARED = """\
#include <vector>
double mlcheck_sum()
{
    std::vector<double> values{1.5, 2.5, 2.5, 5.5};
    double sum = 0;
    for (double value : values)
        sum += value;
    return sum;
}
"""
_PROGRAM = """\
#include <TH1F.h>
#include <zlib.h>
#include <cstdio>

int main()
{
    TH1F h("mlcheck", "mlcheck", 10, 0.0, 10.0);
    h.SetDirectory(nullptr);
    h.Fill(1.5);
    h.Fill(2.5);
    h.Fill(2.5);
    h.Fill(5.5);
    std::printf("entries=%g mean=%g bin3=%g zlib=%s\\n", h.GetEntries(), h.GetMean(),
                h.GetBinContent(3), zlibVersion());
    return 0;
}
"""
_ANSWER = re.compile(
    r"entries=(?P<entries>[0-9.e+-]{1,30}) mean=(?P<mean>[0-9.e+-]{1,30}) "
    r"bin3=(?P<bin3>[0-9.e+-]{1,30}) zlib=(?P<zlib>\S{1,40})"
)


def pyroot(image: OpenImage, level: int | None) -> PyRoot:
    """Fill a histogram in PyROOT, and let cling compile a function.

    Args:
        level: the microarchitecture level that the image needs, or None if it does not state one.

    Raises:
        EngineError: the engine could not run it.
        ProbeError: this machine's CPU is below that level.
    """
    token = secrets.token_hex(TOKEN_BYTES)
    result = _run(image, ["python3", "-c", _PYROOT.format(token=token, declared=_DECLARED)])
    illegal = cpu.is_images_fault(image, result, level)
    try:
        answer = load_json(framed(result.stdout, token).encode(), "its answer")
    except Unreadable:
        answer = None
    if not isinstance(answer, dict):
        return PyRoot(result, None, "", f"python3 {how_it_ended(result, LIMIT_S)}", illegal)
    answers = answer.get("answers")
    if not isinstance(answers, dict):
        return PyRoot(result, None, "", str(answer.get("error")), illegal)
    numbers = {name: value for name, value in answers.items() if isinstance(value, float)}
    return PyRoot(result, numbers, str(answer.get("version", ""))[:100], None, illegal)


def program(image: OpenImage, static: Ask, prefix: str, level: int | None) -> RootProgram:
    """Compile, link and run a program that uses ROOT and zlib.

    Args:
        prefix: the environment that has ROOT.
        level: as for `pyroot`.

    Raises:
        EngineError: the engine could not run it.
        ProbeError: this machine's CPU is below that level.
    """
    compiler = static(compiler_on_path, image.rootfs, image.environment)
    if compiler is None:
        return RootProgram(None, None, None, None, None, "", {})
    flags = _run(image, ["root-config", "--cflags", "--libs"])
    if flags.exit_code != 0 or flags.ended != "exited":
        return RootProgram(compiler, flags, None, None, None, "", {})
    try:
        words = shlex.split(flags.stdout)
    except ValueError:
        words = flags.stdout.split()
    work = f"/tmp/mlcheck-root-{secrets.token_hex(8)}"  # noqa: S108 - of the image
    try:
        return _build(image, prefix, level, compiler, flags, words, work)
    finally:
        image.run(["rm", "-rf", work], limit_s=60)


def _build(
    image: OpenImage,
    prefix: str,
    level: int | None,
    compiler: str,
    flags: CommandResult,
    words: list[str],
    work: str,
) -> RootProgram:
    source, output = f"{work}/program.cxx", f"{work}/program"
    write = ["sh", "-c", f"mkdir {work} && cat > {source}"]
    written = command_result(image.run(write, stdin=_PROGRAM.encode(), limit_s=20))
    if written.exit_code != 0:
        return RootProgram(compiler, flags, written, None, None, "", {})
    build = _run(image, [compiler, source, "-o", output, *words], work)
    illegal = cpu.is_images_fault(image, build, level)
    if build.exit_code != 0 or build.ended != "exited":
        return RootProgram(compiler, flags, build, None, None, "", {}, illegal=illegal)
    trace = image.run([output], env={"LD_TRACE_LOADED_OBJECTS": "1"}, limit_s=60)
    found, missing = loaded(trace.stdout.decode("utf-8", "replace"))
    libraries = {soname: image.rootfs.resolve(path).final_path for soname, path in found.items()}
    run = _run(image, [output], work)
    illegal = cpu.is_images_fault(image, run, level)
    match = _ANSWER.fullmatch(run.stdout.strip()) if run.exit_code == 0 else None
    answers = None
    if match is not None:
        answers = {
            name: _number(match[group])
            for name, group in (("entries", "entries"), ("mean", "mean"), ("bin 3", "bin3"))
        }
    zlib = match["zlib"] if match is not None else ""
    own = image.rootfs.resolve(f"{prefix}/lib").final_path
    shadowed = _is_shadowed(image, words, f"{prefix}/lib", found.get("libz.so.1", ""))
    return RootProgram(
        *(compiler, flags, build, run, answers, zlib, libraries, missing),
        own=own,
        shadowed=shadowed,
        illegal=illegal,
    )


def _is_shadowed(image: OpenImage, words: Sequence[str], own: str, libz: str) -> bool:
    """Return whether LD_LIBRARY_PATH decides about libz, although the flags name the prefix."""
    searched = image.environment.env.get("LD_LIBRARY_PATH", "").replace(";", ":").split(":")
    directory = libz.rpartition("/")[0]
    # gcc hands on to the linker what stands behind -Wl and commas.
    parts = [part for word in words for part in word.replace("=", ",").split(",")]
    flags = [part for part in parts if part != "-Wl"]
    named = ("-rpath", own) in itertools.pairwise(flag.rstrip("/") for flag in flags)
    old = "--disable-new-dtags" in flags
    resolved = {image.rootfs.resolve(place).final_path for place in searched if place}
    return named and not old and image.rootfs.resolve(directory or "/").final_path in resolved


def compiler_on_path(rootfs: RootFS, environment: Environment) -> str | None:
    """Return the C++ compiler of the image."""
    env = environment.env
    for name in (env.get("CXX", ""), *COMPILERS):
        if name and (path := on_path(rootfs, name, path_of(env))) is not None:
            return path
    return None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _run(image: OpenImage, argv: list[str], home: str = "/tmp") -> CommandResult:  # noqa: S108
    return command_result(
        image.run(argv, env={"HOME": home}, limit_s=LIMIT_S, output_limit=OUTPUT_LIMIT)
    )
