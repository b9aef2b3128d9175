"""(e) How the work grows with the number of sets, and with that of files in the spool."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from load import Bench, scan_seconds
from plot import can_plot, plot
from runs import peak_of

from uecwatchd.sandbox.server import Sandbox

# Little beside the least that is measured, some two seconds.
SAMPLE_SECONDS = 0.02


def sets(folder: Path, plots: Path | None, *, numbers: tuple[int, ...]) -> Iterator[str]:
    yield from ("", "## Sets dropped at once (64 KiB each, embedded cloud)", "")
    yield "| sets | seconds | sets/s | peak RSS MiB | processor ms per set |"
    yield "|---|---|---|---|---|"
    rates = []
    for number in numbers:
        with tempfile.TemporaryDirectory(dir=folder) as place, Sandbox(Path(place) / "cloud") as cloud:
            bench = Bench(Path(place), cloud)
            bench.drop(number)
            seconds, peak, processor = once(bench, number)
        rates.append((float(number), number / seconds))
        each = processor / number * 1000
        yield f"| {number} | {seconds:.1f} | {number / seconds:.1f} | {peak:.0f} | {each:.0f} |"
    if plots and can_plot():
        plot(plots / "sets.svg", {"sets/s": rates}, x="sets", y="sets/s", log=True)
        yield from ("", "![sets](sets.svg)")


def once(bench: Bench, number: int) -> tuple[float, float, float]:
    """Seconds, peak RSS in MiB and processor seconds of the service until all these sets are done."""
    began = time.monotonic()
    process = bench.start("once")
    peak, ended = 0.0, 0
    while not ended:
        peak = max(peak, peak_of(process.pid))
        time.sleep(SAMPLE_SECONDS)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if bench.done() != number:
        raise RuntimeError(f"{bench.done()} of {number} sets are done, exit {process.returncode}")
    return seconds, peak, usage.ru_utime + usage.ru_stime


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
