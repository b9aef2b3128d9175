"""(a) What the levels of compression are worth over a line that is not wider than it is."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import product
from pathlib import Path
from typing import get_args

from tests.bench.runs import GIB, SECRET, Run, in_turn
from uecwatchd.bundle.bundler import Bundling, PartData
from uecwatchd.bundle.upload_slots import UploadSlots, store_parts
from uecwatchd.config.records import Compression, WorkSettings
from uecwatchd.images.block_source import FileSource

LEVELS: tuple[Compression, ...] = get_args(Compression)
GBITS = (1, 10)


def links(images: dict[str, Path]) -> Iterator[str]:
    """Seconds until the last part is through. The line takes no processor time, which a real one does."""
    yield from ("", "## Levels of compression over a line (bundling and sending)", "")
    yield f"| image | line | {' | '.join(f'{level} s | leaves' for level in LEVELS)} |"
    yield f"|---|---|{'---|---|' * len(LEVELS)}"
    for name, gbits in product(("dense", "mixed, written out"), GBITS):
        runs = in_turn(*(partial(sent, images[name], level, gbits * 10**9 / 8) for level in LEVELS))
        cells = " | ".join(f"{run.seconds:.2f} | {run.made / GIB:.1%}" for run in runs)
        yield f"| {name} | {gbits} Gbit/s | {cells} |"
    yield from ("", f'The default is "{WorkSettings().compression}".')


class Line:
    """Parts go through it one behind the other, so many bytes in a second."""

    def __init__(self, rate: float) -> None:
        self._rate, self._turn, self._free = rate, threading.Lock(), 0.0

    def send(self, piece: PartData) -> None:
        with self._turn:
            self._free = max(self._free, time.monotonic()) + len(piece.data) / self._rate
            there = self._free
        time.sleep(max(0.0, there - time.monotonic()))


def sent(path: Path, level: Compression, rate: float) -> Run:
    with closing(FileSource(path.open("rb", buffering=0))) as source:
        began, before = time.monotonic(), time.process_time()
        bundling = Bundling(
            source, name="karmic.img", prefix="karmic", secret=SECRET, compression=level, sparse=False
        )
        slots = UploadSlots(WorkSettings().uploads)
        with closing(bundling):
            store_parts(bundling, Line(rate).send, slots=slots, done=bundling.release)
    return Run(time.monotonic() - began, time.process_time() - before, bundling.totals.bundled_size)
