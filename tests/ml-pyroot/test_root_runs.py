"""ROOT at work: in Python, and in a program that is compiled in the image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from mlcheck.inspect.root.facts import PyRoot, RootProgram
from mlcheck.model.command import CommandResult
from mlcheck.model.rule import rule
from mlcheck.model.verdict import Finding, ShowRun, Source, Verdict, judged, not_tried
from mlcheck.profile.catalog import Profile
from mlcheck.profile.schema.contents import CPU_LEVEL

_EXPECTED = {"entries": 4.0, "mean": 3.0, "bin 3": 2.0}
"""Of a histogram with ten bins from 0 to 10 that was filled with 1.5, 2.5, 2.5 and 5.5."""
_CLING = {"sum by cling": 12.0}
"""Of the same numbers in a std::vector."""
_SHADOWED = (
    "root-config names the prefix's lib/, but the linker writes it as RUNPATH, and the image's "
    "LD_LIBRARY_PATH goes before that. Add -Wl,--disable-new-dtags to what root-config answers, so "
    "that it is an RPATH, or take the system's directory out of LD_LIBRARY_PATH."
)
_PYTHON = (
    'import ROOT; h = ROOT.TH1F("h", "h", 10, 0, 10); [h.Fill(x) for x in (1.5, 2.5, 2.5, 5.5)]; '
    "print(h.GetEntries(), h.GetMean(), h.GetBinContent(3)); "
    'print(ROOT.gInterpreter.Declare("#include <vector>"))'
)

_BY_HAND = (
    r"cd /tmp && printf '#include <TH1F.h>\n#include <zlib.h>\nint main() "
    r"{ TH1F h; return h.GetEntries() != 0 || !zlibVersion(); }\n' > program.cxx && "
    "${CXX:-c++} program.cxx -o program $(root-config --cflags --libs) && "
    "./program && ldd program | grep libz"
)


@rule("pyroot", slow=True)
def test_pyroot(pyroot: PyRoot, profile: Profile) -> Verdict:
    """PyROOT imports, a histogram that is filled with four numbers has their mean, and cling
    compiles a function that includes a C++ header.

    Why: ROOT is what ml-pyroot is for, and its import proves little: cling compiles at its first
    use (README of usatlas/ML-Containers, "Image ml-pyroot").

    Fix: Run it in the image: ROOT says itself what it misses. cling takes the headers of C++ that
    the compiler named `c++` has.
    """
    show = ShowRun(("python3", "-c", _PYTHON))
    source = profile.source("packages", "required", "root")
    if pyroot.illegal:
        return judged(1, [_illegal("python3", profile, show)])
    if pyroot.error is not None or pyroot.answers is None:
        found = pyroot.error or "no answer"
        return judged(1, [Finding("import ROOT", found, "imports", source, show)])
    findings = _wrong(pyroot.answers, _EXPECTED, source, show)
    if _CLING.keys() <= pyroot.answers.keys():
        findings += _wrong(pyroot.answers, _CLING, source, show)
    else:
        found = _first_error(pyroot.run) or "compiles nothing"
        wanted = "compiles a function that includes <vector>"
        findings.append(Finding("cling", found, wanted, source, show))
    return judged(len(_EXPECTED) + len(_CLING), findings)


@rule("root-program", slow=True)
def test_root_program(built: RootProgram, profile: Profile) -> Verdict:
    """A C++ program compiles and links with what root-config says, runs, and gets the libz of the
    image's prefix, not the incompatible one of the system.

    Why: Whether root-config's answer is right shows in a program that is linked by it (README of
    usatlas/ML-Containers, "Missing libz in root-config").

    Fix: Name -lz, and the prefix's lib/ by -L and -Wl,-rpath before any directory of the system, in
    what root-config answers; where the image sets LD_LIBRARY_PATH, which goes before a RUNPATH,
    also -Wl,--disable-new-dtags. Install a C++ compiler in the prefix.
    """
    show = ShowRun(("bash", "-c", _BY_HAND))
    source = profile.source("root_config", "libs")
    if built.compiler is None:
        wanted = "one on the image's PATH"
        see = ShowRun(("c++", "--version"))
        return judged(1, [Finding("C++ compiler", "there is none", wanted, source, see)])
    if built.build is None:
        return not_tried("root-config gives no answer (see root-config)")
    if built.illegal:
        last = built.build if built.run is None else built.run
        return judged(1, [_illegal(last.argv[0], profile, show)])
    if built.build.exit_code != 0 or built.build.ended != "exited":
        found = _said(built.build)
        return judged(1, [Finding("link", found, "compiles and links", source, show)])
    findings = [
        Finding(name, "the loader does not find it", "found", source, show)
        for name in built.missing
    ]
    own = f"{profile.expect.prefix}/lib/"
    remedy = ""
    libz = built.libraries.get("libz.so.1")
    if libz is None and not built.missing:
        text = "the program does not load it"
        findings.append(Finding("libz.so.1", text, f"the one in {own}", source, show))
    elif libz is not None and not libz.startswith((own, f"{built.own}/")):
        findings.append(Finding("libz.so.1", libz, f"the one in {own}", source, show))
        if built.shadowed:
            remedy = _SHADOWED
    if not findings:
        if built.answers is None:
            found = "not run" if built.run is None else built.run.how_it_ended
            findings.append(Finding("program", found, "runs and answers", source, show))
        else:
            findings += _wrong(built.answers, _EXPECTED, source, show)
    notes = [f"{built.compiler}; zlib {built.zlib} from {libz}"] if not findings else []
    return dataclasses.replace(judged(len(_EXPECTED) + 1, findings, notes), remedy=remedy)


def _wrong(
    answers: Mapping[str, float],
    expected: Mapping[str, float],
    source: Source | None,
    show: ShowRun,
) -> list[Finding]:
    return [
        Finding(name, str(answers.get(name, "no answer")), str(value), source, show)
        for name, value in expected.items()
        # The mean is computed from doubles: what differs is not rounding.
        if not abs(answers.get(name, float("nan")) - value) < 1e-6
    ]


def _illegal(program: str, profile: Profile, show: ShowRun) -> Finding:
    level = profile.expect.packages.cpu_level
    what = f"x86-64-v{level}, which it asks for" if level is not None else "what every x86-64 has"
    return Finding(
        "SIGILL",
        f"{program} ended by an instruction that this CPU does not have",
        f"no instructions beyond {what}",
        profile.source("packages", "required", CPU_LEVEL),
        show,
    )


def _said(result: CommandResult) -> str:
    """How a compiler ended, with its first words about an error."""
    if result.ended != "exited":
        return result.how_it_ended
    return f"exit code {result.exit_code}: {_first_error(result)}"


def _first_error(result: CommandResult) -> str:
    """A compiler's first words about an error, else its first words."""
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line or "undefined" in line or "cannot" in line]
    return (telling or lines or [""])[0].strip()[:300]
