"""Cost of a compressed disk, beside the same disk as a raw image."""

import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from tests.bench.runs import MB, MIB, Run, in_turn, nowhere, timed
from uecwatchd.images.formats.open import open_disk

SIZE_BYTES = 256 * MIB  # bzip2 takes its time
COMMANDS: dict[str, str] = {
    "gzip": "gzip -6",
    "zstd": "zstd -q -3",
    "xz": "xz -3 -T1",
    "xz, blocks of 24 MiB": "xz -3 -T0 --block-size=24MiB",
    "bzip2": "bzip2",
}
HEADINGS = "compression | packed | first reading MB/s | bundling MB/s | of raw | in processor time"


def packed(dense: Path, folder: Path) -> Iterator[str]:
    """Read once, then bundle into nothing. Each is measured in turn with the raw image."""
    yield from ("", "## Compressed disks, 256 MiB", "")
    yield "The first reading finds size, holes and digest; bundling is the second."
    yield from ("", f"| {HEADINGS} |", f"|{'---|' * 6}")
    raw, path = folder / "part", folder / "packed"
    with dense.open("rb") as source, raw.open("wb") as target:
        target.write(source.read(SIZE_BYTES))
    yield f"| raw | 100 % | | {SIZE_BYTES / timed(raw, nowhere).seconds / MB:.0f} | | |"
    for name, command in COMMANDS.items():
        with raw.open("rb") as source, path.open("wb") as target:
            subprocess.run(shlex.split(command), stdin=source, stdout=target, check=True)
        bare, ours = in_turn(partial(timed, raw, nowhere), partial(timed, path, nowhere))
        share = path.stat().st_size / SIZE_BYTES
        yield f"| {name} | {share:.0%} | {_first_reading(path):.0f} | {_bundling(bare, ours)} |"
        path.unlink()
    raw.unlink()


def _bundling(bare: Run, ours: Run) -> str:
    speed, share = SIZE_BYTES / ours.seconds / MB, bare.seconds / ours.seconds
    return f"{speed:.0f} | {share:.0%} | {bare.processor / ours.processor:.0%}"


def _first_reading(path: Path) -> float:
    began = time.monotonic()
    with closing(open_disk(path.open("rb", buffering=0), name=path.name).source):
        return SIZE_BYTES / (time.monotonic() - began) / MB
