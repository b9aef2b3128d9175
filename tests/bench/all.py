"""Every benchmark, in one run, on this machine.

Run by hand: `python -m tests.bench.all [--folder DIR] [--results DIR] [--quick]`. It takes a quarter of an
hour and 20 GB of disk in DIR, all of it removed in the end. The tables are printed, and written with their
plots to `RESULTS.md` in the folder of results; `--quick` leaves the longest of each out, and `--only` takes
some of the tables. These two write nothing unless a folder is given.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.clouds import clouds
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


TABLES = (
    "throughput", "links", "primitives", "drops", "clouds", "holes", "containers",
    "packed", "memory", "resident", "startup", "sets", "files",
)  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="to work in")
    arguments.add_argument("--results", type=Path, help="for what came out")
    arguments.add_argument("--quick", action="store_true", help="leave the longest of each out")
    arguments.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, help="some of the tables")
    given = arguments.parse_args()
    is_whole = not given.quick and tuple(given.only) == TABLES
    results = given.results or (Path(__file__).parent if is_whole else None)
    if results:
        results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="uecwatchd-bench-") as folder:
        lines = list(printed(report(Path(folder), results, given.only, quick=given.quick)))
    if results:
        (results / "RESULTS.md").write_text("\n".join(lines) + "\n")


def printed(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        print(line, flush=True)  # noqa: T201
        yield line


def report(folder: Path, plots: Path | None, only: Sequence[str], *, quick: bool) -> Iterator[str]:
    command = f"python -m tests.bench.all{' --quick' if quick else ''}"
    some = "" if tuple(only) == TABLES else f" --only {' '.join(only)}"
    yield from ("# What was measured", "", f"`{command}{some}`, {datetime.now(UTC):%Y-%m-%d}", "")
    yield from machine()
    yield READING.rstrip()
    if not can_plot():
        yield from ("", "Without plots, which need `pip install .[bench]`.")
    for name, table in tables(folder, plots, quick=quick):
        if name in only:
            yield from table()


def tables(
    folder: Path, plots: Path | None, *, quick: bool
) -> Iterator[tuple[str, Callable[[], Iterator[str]]]]:
    """Yield each table by its name."""
    cores, least = len(os.sched_getaffinity(0)), -1 if quick else None
    images = dict(materials(folder))
    dense = images["dense"]
    yield "throughput", lambda: throughput(images, folder)
    yield "links", lambda: links(images)
    yield "primitives", lambda: primitives(dense, cores)
    yield "drops", lambda: drops(images, folder, cores)
    yield "clouds", lambda: clouds(images, folder)
    yield "holes", lambda: holes(dense, folder)
    yield "containers", lambda: containers(dense, folder, cores)
    yield "packed", lambda: packed(dense, folder)
    yield "memory", lambda: memory(folder, plots, sizes=(1, 10, 100)[:least])
    yield "resident", lambda: resident(folder)
    yield "startup", lambda: startup(folder)
    yield "sets", lambda: sets(folder, plots, numbers=(1, 10, 100, 1000)[:least])
    yield "files", lambda: files(folder, plots, numbers=(10, 100, 1000, 10_000, 100_000)[:least])


if __name__ == "__main__":
    main()
