"""ROOT at work."""

from __future__ import annotations

from collections.abc import Mapping

from mlcheck.checks.system import how_it_ended
from mlcheck.facts import CommandResult, PyRoot, RootProgram
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowRun, Source, Verdict

PYROOT = Rule(
    "pyroot",
    "PyROOT imports, and a histogram that is filled with four numbers has their mean.",
    "Run it in the image: ROOT says itself what it misses.",
    "ROOT is what ml-pyroot is for, and its import proves little: cling compiles at its first "
    'use (README of usatlas/ML-Containers, "Image ml-pyroot").',
)
PROGRAM = Rule(
    "root-program",
    "A C++ program compiles and links with what root-config says, runs, and gets the libz of the "
    "image's prefix, not the incompatible one of the system.",
    "Name -lz, and the prefix's lib/ by -L and -Wl,-rpath before any directory of the system, in "
    "what root-config answers; install a C++ compiler in the prefix.",
    "Whether root-config's answer is right shows in a program that is linked by it (README of "
    'usatlas/ML-Containers, "Missing libz in root-config").',
)

EXPECTED = {"entries": 4.0, "mean": 3.0, "bin 3": 2.0}
"""Of a histogram with ten bins from 0 to 10 that was filled with 1.5, 2.5, 2.5 and 5.5."""

_PYTHON = (
    'import ROOT; h = ROOT.TH1F("h", "h", 10, 0, 10); [h.Fill(x) for x in (1.5, 2.5, 2.5, 5.5)]; '
    "print(h.GetEntries(), h.GetMean(), h.GetBinContent(3))"
)


def pyroot(fact: PyRoot, profile: Profile) -> Verdict:
    """A histogram in PyROOT, and the version that it says."""
    show = ShowRun(("python3", "-c", _PYTHON))
    source = profile.source("packages", "required", "root")
    if fact.illegal:
        return PYROOT.judged(1, [_illegal("python3", profile, show)])
    if fact.error is not None or fact.answers is None:
        found = fact.error or "no answer"
        return PYROOT.judged(1, [Finding("import ROOT", found, "imports", source, show)])
    return PYROOT.judged(len(EXPECTED), _wrong(fact.answers, source, show))


def program(fact: RootProgram, profile: Profile) -> Verdict:
    """Compile, link, run; and where libz.so.1 comes from."""
    flags = "$(root-config --cflags --libs)"
    show = ShowRun(("bash", "-c", f"cd /tmp && c++ program.cxx -o program {flags} && ./program"))
    source = profile.source("root_config", "libs")
    if fact.compiler is None:
        wanted = "one on the image's PATH"
        see = ShowRun(("c++", "--version"))
        return PROGRAM.judged(1, [Finding("C++ compiler", "there is none", wanted, source, see)])
    if fact.build is None:
        return PROGRAM.not_tried("root-config gives no answer (see root-config)")
    if fact.illegal:
        last = fact.build if fact.run is None else fact.run
        return PROGRAM.judged(1, [_illegal(last.argv[0], profile, show)])
    if fact.build.exit_code != 0 or fact.build.ended != "exited":
        found = _said(fact.build)
        return PROGRAM.judged(1, [Finding("link", found, "compiles and links", source, show)])
    findings = [
        Finding(name, "the loader does not find it", "found", source, show) for name in fact.missing
    ]
    own = f"{profile.expect.prefix}/lib/"
    libz = fact.libraries.get("libz.so.1")
    if libz is None and not fact.missing:
        text = "the program does not load it"
        findings.append(Finding("libz.so.1", text, f"the one in {own}", source, show))
    elif libz is not None and not libz.startswith(own):
        findings.append(Finding("libz.so.1", libz, f"the one in {own}", source, show))
    if not findings:
        if fact.answers is None:
            found = "not run" if fact.run is None else how_it_ended(fact.run)
            findings.append(Finding("program", found, "runs and answers", source, show))
        else:
            findings += _wrong(fact.answers, source, show)
    notes = [f"{fact.compiler}; zlib {fact.zlib} from {libz}"] if not findings else []
    return PROGRAM.judged(len(EXPECTED) + 1, findings, notes)


def _wrong(answers: Mapping[str, float], source: Source | None, show: ShowRun) -> list[Finding]:
    return [
        Finding(name, str(answers.get(name, "no answer")), str(value), source, show)
        for name, value in EXPECTED.items()
        # The mean is computed from doubles: what differs is not rounding.
        if not abs(answers.get(name, float("nan")) - value) < 1e-6
    ]


def _illegal(program: str, profile: Profile, show: ShowRun) -> Finding:
    level = needed_level(profile)
    what = f"x86-64-v{level}, which it asks for" if level is not None else "what every x86-64 has"
    return Finding(
        "SIGILL",
        f"{program} ended by an instruction that this CPU does not have",
        f"no instructions beyond {what}",
        profile.source("packages", "required", _LEVEL),
        show,
    )


_LEVEL = "_x86_64-microarch-level"


def needed_level(profile: Profile) -> int | None:
    """The microarchitecture level that the profile promises, by conda's package of that name."""
    package = profile.expect.packages.required.get(_LEVEL)
    return int(package.version) if package is not None and package.version.isdigit() else None


def _said(result: CommandResult) -> str:
    """How a compiler ended, with its first words about an error."""
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line or "undefined" in line or "cannot" in line]
    first = (telling or lines or [""])[0].strip()[:300]
    if result.ended != "exited":
        return how_it_ended(result)
    return f"exit code {result.exit_code}: {first}"
