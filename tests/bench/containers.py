"""Cost of a disk inside a container, beside the same disk as a raw image."""

import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

from tests.bench.runs import GIB, MB, MIB, ROUNDS, Run, in_turn, nowhere, timed
from uecwatchd.images.block_source import BlockSource
from uecwatchd.images.formats.open import open_disk

# Ways to make them: QEMU's name of the format, and its options.
CONTAINERS: dict[str, tuple[str, ...]] = {
    "qcow2": ("qcow2",),
    "qcow2, zlib": ("qcow2", "-c"),
    "qcow2, zstd": ("qcow2", "-c", "-o", "compression_type=zstd"),
    "VMDK": ("vmdk",),
    "VMDK, streamOptimized": ("vmdk", "-o", "subformat=streamOptimized"),
    "VDI": ("vdi",),
    "VHD": ("vpc", "-o", "force_size=on"),
    "VHDX": ("vhdx",),
}
HEADINGS = "format | bundling MB/s | of raw | in processor time | reading MB/s | in 2 threads | opening ms"


def containers(raw: Path, folder: Path, cores: int) -> Iterator[str]:
    """Bundle into nothing, and read alone. Each container is measured in turn with the raw image."""
    yield from ("", "## Disks in containers, 1 GiB", "")
    yield "The goals: an uncompressed qcow2 at 90 % of raw, a qcow2 of zlib at 150 MB/s on 2 processors."
    yield from ("", f"| {HEADINGS} |", f"|{'---|' * 7}")
    yield f"| raw | {GIB / timed(raw, nowhere).seconds / MB:.0f} | | | {_reading(raw)} | |"
    for name, (format_name, *options) in CONTAINERS.items():
        path = folder / "container"
        command = ["qemu-img", "convert", "-f", "raw", "-O", format_name, *options, str(raw), str(path)]
        subprocess.run(command, check=True)
        bare, ours = in_turn(partial(timed, raw, nowhere), partial(timed, path, nowhere))
        yield f"| {name} | {_bundling(bare, ours)} | {_reading(path)} | {_opening(path):.0f} |"
        path.unlink()
    yield from ("", f"Bundling takes {cores} processors, reading one for each thread.")


def _bundling(bare: Run, ours: Run) -> str:
    speed, share = GIB / ours.seconds / MB, bare.seconds / ours.seconds
    return f"{speed:.0f} | {share:.0%} | {bare.processor / ours.processor:.0%}"


def _reading(path: Path) -> str:
    with closing(open_disk(path.open("rb", buffering=0), name=path.name).source) as source:
        speeds = (statistics.median(_read(source, threads) for _ in range(ROUNDS)) for threads in (1, 2))
        return " | ".join(f"{speed:.0f}" for speed in speeds)


def _read(source: BlockSource, threads: int) -> float:
    """Read all of a disk, each thread every so manyth MiB of it. MB/s."""

    def read_share(first: int) -> None:
        buffer = memoryview(bytearray(MIB))
        for start in range(first * MIB, source.size, threads * MIB):
            done = 0
            while count := source.read_into(start + done, buffer[done : source.size - start]):
                done += count

    began = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read_share, range(threads)))
    return source.size / (time.monotonic() - began) / MB


def _opening(path: Path) -> float:
    """Milliseconds to check the whole map."""

    def once() -> float:
        began = time.monotonic()
        open_disk(path.open("rb", buffering=0), name=path.name).source.close()
        return 1000 * (time.monotonic() - began)

    return min(once() for _ in range(ROUNDS))
