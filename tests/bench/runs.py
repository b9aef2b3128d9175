"""One way through one image, measured."""

import os
import resource
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from uecwatchd.bundle.bundler import Bundling, Secret
from uecwatchd.images.digests import choose_digest
from uecwatchd.images.formats.open import open_disk

MB, MIB, GIB = 10**6, 1 << 20, 1 << 30
ROUNDS = 3
# Little beside the least that is measured, half a second.
SAMPLE_SECONDS = 0.02
SECRET = Secret(b"k" * 16, b"i" * 16)


@dataclass(frozen=True)
class Run:
    """One way through one image: wall and processor seconds, and what came out, in bytes."""

    seconds: float
    processor: float
    made: int


@dataclass(frozen=True)
class Watched:
    """A process from its start to its end: wall and processor seconds, and its peak RSS in MiB."""

    seconds: float
    processor: float
    peak: float


def timed(path: Path, keep: Callable[[memoryview, int], object], threads: int | None = None) -> Run:
    """Bundle an image of any format, and pass each part to `keep`."""
    with closing(open_disk(path.open("rb", buffering=0), name=path.name).source) as source:
        began, before = time.monotonic(), time.process_time()
        bundling = Bundling(
            source,
            name="karmic.img",
            prefix="karmic",
            secret=SECRET,
            digest=choose_digest(source.size, stored=source.stored_bytes),
            threads=threads,
        )
        for piece in bundling:
            keep(piece.data, piece.part.index)
            bundling.release(piece)
    return Run(time.monotonic() - began, time.process_time() - before, bundling.totals.bundled_size)


def in_turn(*ways: Callable[[], Run]) -> list[Run]:
    """Each way so many times, one after the other; of each the run in the middle."""
    runs = [[way() for way in ways] for _ in range(ROUNDS)]
    return [sorted(each, key=lambda run: run.seconds)[ROUNDS // 2] for each in zip(*runs, strict=True)]


def nowhere(data: memoryview, index: int) -> None:
    del data, index


def processor(work: Callable[[], object]) -> float:
    """Processor seconds of this thread; the least of several times."""

    def once() -> float:
        before = time.thread_time()
        work()
        return time.thread_time() - before

    return min(once() for _ in range(ROUNDS))


def children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def processor_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watched(process: "subprocess.Popen[bytes]") -> Watched:
    """To be called right after its start. Raises RuntimeError when it ends badly."""
    began = time.monotonic()
    peak, ended = 0.0, 0
    while not ended:
        peak = max(peak, peak_of(process.pid))
        time.sleep(SAMPLE_SECONDS)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{process.args!r} has ended with {process.returncode}")
    return Watched(time.monotonic() - began, usage.ru_utime + usage.ru_stime, peak)


def peak_of(pid: int) -> float:
    """MiB; 0 once it has ended. Not `ru_maxrss`, which counts what the parent had when it forked."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return max((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), default=0.0)
