"""(e) How the work grows with the number of sets, and with that of files in the spool."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.load import Bench, scan_seconds
from tests.bench.plot import can_plot, plot
from tests.bench.runs import Watched, watched
from uecwatchd.sandbox.server import Sandbox


def sets(folder: Path, plots: Path | None, *, numbers: tuple[int, ...]) -> Iterator[str]:
    yield from ("", "## Sets dropped at once (64 KiB each, embedded cloud)", "")
    yield "| sets | seconds | sets/s | peak RSS MiB | processor ms per set |"
    yield "|---|---|---|---|---|"
    rates = []
    for number in numbers:
        with tempfile.TemporaryDirectory(dir=folder) as place, Sandbox(Path(place) / "cloud") as cloud:
            bench = Bench(Path(place), cloud)
            bench.drop(number)
            run = once(bench, number)
        rates.append((float(number), number / run.seconds))
        each = run.processor / number * 1000
        yield f"| {number} | {run.seconds:.1f} | {rates[-1][1]:.1f} | {run.peak:.0f} | {each:.0f} |"
    if plots and can_plot():
        plot(plots / "sets.svg", {"sets/s": rates}, x="sets", y="sets/s", log=True)
        yield from ("", "![sets](sets.svg)")


def once(bench: Bench, number: int) -> Watched:
    """The service, until all these sets are done."""
    run = watched(bench.start("once"))
    if bench.done() != number:
        raise RuntimeError(f"{bench.done()} of {number} sets are done")
    return run


def files(folder: Path, plots: Path | None, *, numbers: tuple[int, ...]) -> Iterator[str]:
    yield from ("", "## Files in the spool", "", "| files | first scan s | unchanged s |", "|---|---|---|")
    curves: dict[str, list[tuple[float, float]]] = {"first scan": [], "unchanged": []}
    for number in numbers:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            first, again = scan_seconds(Path(place), number)
        curves["first scan"].append((number, first))
        curves["unchanged"].append((number, again))
        yield f"| {number:,} | {first:.4f} | {again:.4f} |"
    if plots and can_plot():
        plot(plots / "files.svg", curves, x="files", y="seconds", log=True)
        yield from ("", "![files](files.svg)")
