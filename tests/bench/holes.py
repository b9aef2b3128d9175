"""Cost of holes, beside the same data without one."""

import statistics
from collections.abc import Iterator
from pathlib import Path

from tests.bench.runs import GIB, MIB, ROUNDS, nowhere, timed


def holes(dense: Path, folder: Path) -> Iterator[str]:
    yield ""
    yield "## Holes"
    yield ""
    yield "| image | seconds | to the same data without a hole |"
    yield "|---|---|---|"
    base = statistics.median(timed(dense, nowhere).seconds for _ in range(ROUNDS))
    yield f"| 1 GiB, dense | {base:.2f} | 1 |"
    for name, size in (("100 GiB", 100 * GIB), ("1 TiB", 1024 * GIB)):
        path = scattered(dense, folder / "sparse.img", size)
        seconds = statistics.median(timed(path, nowhere).seconds for _ in range(ROUNDS))
        yield f"| {name} with that GiB in it, in 1,024 places | {seconds:.2f} | {seconds / base:.2f} |"
        path.unlink()
    zeros = folder / "zeros.img"
    with zeros.open("wb") as image:
        for _ in range(1024):
            image.write(bytes(MIB))
    seconds = statistics.median(timed(zeros, nowhere).seconds for _ in range(ROUNDS))
    yield f"| 1 GiB of zeros, written out | {seconds:.2f} | {seconds / base:.2f} |"
    zeros.unlink()


def scattered(dense: Path, path: Path, size: int) -> Path:
    with dense.open("rb") as source, path.open("wb") as image:
        for index in range(1024):
            image.seek(size // 1024 * index)
            image.write(source.read(MIB))
        image.truncate(size)
    return path
