"""(d) Memory and processor of a process that bundles, over time."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.plot import can_plot, plot
from tests.bench.runs import GIB, MIB, peak_of, processor_of

SAMPLE_SECONDS = 0.2
PAGE = os.sysconf("SC_PAGE_SIZE")
CHILD = """
import sys
from collections import deque
from uecwatchd.system import memory
from uecwatchd.bundle.bundler import Bundling, Secret
from uecwatchd.images.block_source import FileSource
memory.use_one_heap()
held = deque()
with open(sys.argv[1], "rb", buffering=0) as file:
    made = Bundling(FileSource(file), name="k", prefix="k", secret=Secret.random())
    for piece in made:
        held.append(piece)
        if len(held) > 4:
            made.release(held.popleft())
"""


@dataclass(frozen=True)
class Sample:
    seconds: float
    rss: float  # MiB, and so is the peak until then
    peak: float
    processor: float  # seconds
    files: int


def memory(folder: Path, plots: Path | None, *, sizes: tuple[int, ...] = (1, 10, 100)) -> Iterator[str]:
    """`sizes` in GiB."""
    yield ""
    yield "## Memory and processor of a process that bundles (a tenth of the image noise, 4 parts kept)"
    yield ""
    yield "| image | peak RSS MiB | open files | seconds | processor seconds |"
    yield "|---|---|---|---|---|"
    taken = {}
    for size in sizes:
        path = growing(folder / "growing.img", size * GIB)
        samples = taken[f"{size} GiB"] = sampled([sys.executable, "-c", CHILD, str(path)])
        path.unlink()
        files, peak = (max(getattr(one, name) for one in samples) for name in ("files", "peak"))
        last = samples[-1]
        yield f"| {size} GiB | {peak:.0f} | {files} | {last.seconds:.1f} | {last.processor:.1f} |"
    if plots and can_plot():
        for name, unit in (("rss", "RSS, MiB"), ("processor", "processor seconds")):
            curves = {key: [(one.seconds, getattr(one, name)) for one in taken[key]] for key in taken}
            plot(plots / f"{name}.svg", curves, x="seconds", y=unit)
            yield from ("", f"![{unit}]({name}.svg)")


def growing(path: Path, size: int) -> Path:
    noise = os.urandom(10 * MIB)  # deflate looks back 32 KiB: the same again is noise to it
    with path.open("wb") as image:
        for at in range(0, size, 100 * MIB):
            image.seek(at)
            image.write(noise)
        image.truncate(size)
    return path


def sampled(command: list[str]) -> list[Sample]:
    began, samples = time.monotonic(), []
    with subprocess.Popen(command) as child:
        while child.poll() is None:
            if sample := _sample(child.pid, time.monotonic() - began):
                samples.append(sample)
            time.sleep(SAMPLE_SECONDS)
    if child.returncode or not samples:
        raise RuntimeError(f"bundling ended with {child.returncode} after {len(samples)} samples")
    return samples


def _sample(pid: int, seconds: float) -> Sample | None:
    """None once the process has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        processor = processor_of(pid)
    except OSError:
        return None
    return Sample(seconds, pages * PAGE / MIB, peak_of(pid), processor, files) if pages else None
