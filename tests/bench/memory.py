"""(d) Memory of a process that bundles."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from runs import GIB, MIB


def memory(folder: Path) -> Iterator[str]:
    yield ""
    yield "## Memory of a process that bundles, by the size of the image (a tenth of it noise, 4 parts kept)"
    yield ""
    yield "| image | peak RSS | open files | seconds |"
    yield "|---|---|---|---|"
    for size in (GIB, 10 * GIB):
        path = folder / "growing.img"
        with path.open("wb") as image:
            for at in range(0, size, 100 * MIB):
                image.seek(at)
                image.write(os.urandom(10 * MIB))
            image.truncate(size)
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(path)], check=True, capture_output=True, text=True
        )
        peak, files, seconds = child.stdout.split()
        yield f"| {size // GIB} GiB | {int(peak) // 1024} MiB | {files} | {float(seconds):.2f} |"
        path.unlink()


CHILD = """
import os, sys, time
from collections import deque
from uecwatchd.bundle.stream import Bundling, Secret
from uecwatchd.extents import stored
began, most, held = time.monotonic(), 0, deque()
with open(sys.argv[1], "rb", buffering=0) as source:
    size = os.fstat(source.fileno()).st_size
    extents = stored(source.fileno(), size)
    made = Bundling(source, name="k", size=size, prefix="k", secret=Secret.random(), extents=extents)
    for piece in made:
        held.append(piece)
        if len(held) > 4:
            made.give_back(held.popleft())
        most = max(most, len(os.listdir("/proc/self/fd")))
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak, most, time.monotonic() - began)
"""
