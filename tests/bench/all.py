"""Every benchmark, in one run, on this machine.

Run by hand: `python -m tests.bench.all [--folder DIR] [--results DIR] [--quick]`. It takes a quarter of an
hour and 20 GB of disk in DIR, all of it removed in the end. The tables are printed, and written with their
plots to `RESULTS.md` in the folder of results; `--quick` leaves the longest of each out, and writes nothing
unless a folder is given.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.containers import containers
from tests.bench.drops import drops
from tests.bench.holes import holes
from tests.bench.links import links
from tests.bench.machine import machine
from tests.bench.materials import materials
from tests.bench.memory import memory
from tests.bench.packed import packed
from tests.bench.plot import can_plot
from tests.bench.primitives import primitives
from tests.bench.resident import resident
from tests.bench.scaling import files, sets
from tests.bench.startup import startup
from tests.bench.throughput import throughput

READING = """
Other work on the machine shows in the seconds. Compare the ratios: their parts were measured in turn
within this one run. Do not compare the seconds of two runs.
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="to work in")
    arguments.add_argument("--results", type=Path, help="for what came out")
    arguments.add_argument("--quick", action="store_true", help="leave the longest of each out")
    given = arguments.parse_args()
    results = given.results or (None if given.quick else Path(__file__).parent)
    if results:
        results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="uecwatchd-bench-") as folder:
        lines = list(printed(report(Path(folder), results, quick=given.quick)))
    if results:
        (results / "RESULTS.md").write_text("\n".join(lines) + "\n")


def printed(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        print(line, flush=True)  # noqa: T201
        yield line


def report(folder: Path, plots: Path | None, *, quick: bool) -> Iterator[str]:
    cores, least = len(os.sched_getaffinity(0)), -1 if quick else None
    command = f"python -m tests.bench.all{' --quick' if quick else ''}"
    yield from ("# What was measured", "", f"`{command}`, {datetime.now(UTC):%Y-%m-%d}", "")
    yield from machine()
    yield READING.rstrip()
    if not can_plot():
        yield from ("", "Without plots, which need `pip install .[bench]`.")
    images = dict(materials(folder))
    yield from throughput(images, folder)
    yield from links(images)
    yield from primitives(images["dense"], cores)
    yield from drops(images, folder, cores)
    yield from holes(images["dense"], folder)
    yield from containers(images["dense"], folder, cores)
    yield from packed(images["dense"], folder)
    yield from memory(folder, plots, sizes=(1, 10, 100)[:least])
    yield from resident(folder)
    yield from startup(folder)
    yield from sets(folder, plots, numbers=(1, 10, 100, 1000)[:least])
    yield from files(folder, plots, numbers=(10, 100, 1000, 10_000, 100_000)[:least])


if __name__ == "__main__":
    main()
