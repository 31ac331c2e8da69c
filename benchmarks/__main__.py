"""Run benchmarks and show their tables: `python -m benchmarks [NAME...]`."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import commands, data, elf, images, layers, overhead, release, static
from benchmarks.measure import Setting

ALL = {
    "elf": elf.tables,
    "static": static.tables,
    "layers": layers.tables,
    "images": images.tables,
    "release": release.tables,
    "commands": commands.tables,
    "overhead": overhead.tables,
}


def main() -> None:
    """Run the benchmarks that were asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; all")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is downloaded")
    parser.add_argument("--markdown", action="store_true", help="as in docs/performance.md")
    parser.add_argument("--rounds", type=int, help="of which the median is taken (3; quick: 1)")
    parser.add_argument(
        "--image",
        type=Path,
        metavar="DIR",
        help="root of an image with the prefix in opt/conda, instead of the one from PyPI",
    )
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in ALL:
            parser.error(f"there is no benchmark {name!r}; there are {', '.join(ALL)}")
    # The contents of the directory are removed with this process, also after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    # Archives of gigabytes, for which /tmp may be too small.
    with tempfile.TemporaryDirectory(prefix="work-", dir=data.cache()) as temporary:
        work = Path(temporary)
        if arguments.image:
            image = arguments.image.resolve()
        elif arguments.quick:
            image = data.small_image(work)
        else:
            image = data.real_image()
        print(_machine(), flush=True)
        for name in arguments.names or ALL:
            place = work / name
            place.mkdir()
            rounds = arguments.rounds or (1 if arguments.quick else 3)
            for table in ALL[name](Setting(image, place, rounds, arguments.quick)):
                print(table.markdown(name) if arguments.markdown else table.text(), flush=True)


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return (
        f"{time.strftime('%Y-%m-%d')}: {_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"{platform.freedesktop_os_release()['PRETTY_NAME']}, Linux {platform.release()}, Python "
        f"{platform.python_version()}; load {load:.1f} at the start\n"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
