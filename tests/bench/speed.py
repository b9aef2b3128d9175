"""How fast bundling is, beside the classic pipeline and beside what this machine can do at all.

Run by hand: `python tests/bench/speed.py [--folder DIR] [--markdown FILE]`. It takes some ten minutes and 8
GB of disk in DIR, all of it removed in the end. What else runs here shows in the seconds; compare the
ratios, all of whose parts were measured in turn within this one run.
"""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from drops import drops
from holes import holes
from materials import materials
from memory import memory
from primitives import primitives
from throughput import throughput


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments.add_argument("--markdown", type=Path, help="write the tables there as well")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="uecwatchd-speed-") as folder:
        lines = list(report(Path(folder)))
    if given.markdown:
        given.markdown.write_text("\n".join(lines) + "\n")


def report(folder: Path) -> Iterator[str]:
    for line in _lines(folder):
        print(line, flush=True)  # noqa: T201
        yield line


def _lines(folder: Path) -> Iterator[str]:
    cores = len(os.sched_getaffinity(0))
    yield f"# {' '.join(sys.argv)}"
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    yield f"{cores} processors, {_processor()}, {system}"
    images = dict(materials(folder))
    yield from throughput(images, folder)
    yield from primitives(images["dense"], cores)
    yield from drops(images, folder, cores)
    yield from holes(images["dense"], folder)
    yield from memory(folder)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
