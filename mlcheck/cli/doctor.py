"""`mlcheck doctor`: find out which engines work on this machine."""

from __future__ import annotations

import argparse
import dataclasses

from mlcheck.cli import common
from mlcheck.engines import doctor, installed
from mlcheck.report import text


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `doctor`."""
    common.add_command(
        commands,
        "doctor",
        _run,
        help="say which engines work on this machine, and how to fix the others",
        description="Try every engine for real. The exit code is 3 if none can run commands.",
        epilog="examples:\n  mlcheck doctor\n  mlcheck doctor --json",
    )


_ABILITIES = {
    "store": "store",
    "files": "files are read",
    "gpus": "GPUs",
    "users": "users",
    "limits": "limits",
}
"""The words before what an engine can do; its version is in the line before."""


def _run(arguments: argparse.Namespace) -> int:
    findings = doctor.examine()
    chosen = doctor.chosen(findings)
    if arguments.json:
        engines = [dataclasses.asdict(finding) for finding in findings]
        common.print_json({"engines": engines, "auto": chosen, "gpu": doctor.gpu_line()})
    else:
        for finding in findings:
            states = {True: ("green", "works"), False: ("red", "cannot be used here")}
            state = common.painted(*states[finding.usable])
            print(f"{finding.engine}: {state}: {text.line(finding.what)}")
            for line in finding.remedy.splitlines():
                print(text.line(f"    {line}"))
            if finding.usable:
                print(f"    opens: {', '.join(finding.kinds)}")
            for ability, word in _ABILITIES.items() if finding.can else ():
                if told := getattr(finding.can, ability):
                    print(text.line(f"    {word}: {told}"))
        print("--engine auto takes, by the kind of image:")
        for kind, name in chosen.items():
            print(f"    {kind}: {name or 'nothing: no engine for it works here'}")
        print(f"GPU: {doctor.gpu_line()}")
    able = [found.engine for found in findings if found.usable]
    return 0 if any(not installed.declaration(name).only_reads for name in able) else 3
