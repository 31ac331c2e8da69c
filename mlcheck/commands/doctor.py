"""`mlcheck doctor`: which engines work on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import json

from mlcheck import doctor, opening
from mlcheck.report import text


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `doctor`."""
    parser = commands.add_parser(
        "doctor",
        help="say which engines work on this machine, and what helps where one does not",
        description="Try every engine for real. The exit code is 3 when none can run commands.",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    findings = doctor.examine()
    chosen = doctor.chosen(findings)
    if arguments.json:
        engines = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"engines": engines, "auto": chosen, "gpu": doctor.gpu_line()}, indent=1))
    else:
        for finding in findings:
            state = "works" if finding.usable else "cannot be used here"
            print(text.printable(f"{finding.engine}: {state}: {finding.what}"))
            for line in finding.remedy.splitlines():
                print(text.printable(f"    {line}"))
            if finding.usable:
                print(f"    opens: {', '.join(finding.kinds)}")
        print("--engine auto takes, by the kind of image:")
        for kind, name in chosen.items():
            print(f"    {kind}: {name or 'nothing: no engine for it works here'}")
        print(f"GPU: {doctor.gpu_line()}")
    able = [found for found in findings if found.usable and found.engine not in opening.ONLY_READ]
    return 0 if able else 3
