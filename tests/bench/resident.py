"""(d) Memory of the service and of the verbs with default settings, on images that do not get smaller."""

import gzip
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.load import Bench
from tests.bench.runs import GIB, MIB, Watched, watched
from uecwatchd.sandbox.server import Sandbox

MOST_MIB = 200
KERNEL_BYTES, RAMDISK_BYTES = 10 * MIB, 60 * MIB
MEMDISK = Path("/usr/lib/syslinux/memdisk")
RAMDISK_HEAD = gzip.compress(b"070701" + bytes(512))
ALONE = 'kernel = "none"\nconvert = "keep"\n'
WITH_BOOT = 'convert = "keep"\n'


def resident(folder: Path) -> Iterator[str]:
    yield from ("", "## Memory with default settings (every image 1 GiB of noise)", "")
    yield f"| what | peak RSS MiB (aim: {MOST_MIB} at most) | seconds |"
    yield "|---|---|---|"
    for title, names, boot in (
        ("an image", "a", False),
        ("two images at once", "ab", False),
        ("an image with its kernel of 10 MiB and its ramdisk of 60 MiB", "a", True),
        ("two of these at once", "ab", True),
    ):
        with tempfile.TemporaryDirectory(dir=folder) as place, Sandbox(Path(place) / "cloud") as cloud:
            bench = Bench(Path(place), cloud)
            for name in names:
                drop(bench.spool, name, boot=boot)
            yield row(f"`once`: {title}", watched(bench.start("once")))
            if bench.done() != len(names):
                raise RuntimeError(f"{bench.done()} of {len(names)} sets are done")
    with tempfile.TemporaryDirectory(dir=folder) as place, Sandbox(Path(place) / "cloud") as cloud:
        yield from by_hand(Bench(Path(place), cloud), Path(place))


def by_hand(bench: Bench, place: Path) -> Iterator[str]:
    """All the ways that one image can take."""
    drop(bench.spool, "a", boot=False)
    watched(bench.start("once"))
    yield row("`verify` of an image", watched(bench.start("verify", "a")))
    made, back = place / "made", place / "back"
    image = str(bench.spool / "a.img")
    yield row("`bundle` of an image", watched(bench.start("bundle", "--keep", image, str(made))))
    (manifest,) = made.glob("*.manifest.xml")
    yield row("`unbundle` of it", watched(bench.start("unbundle", str(manifest), str(back))))


def drop(spool: Path, name: str, *, boot: bool) -> None:
    (spool / f"{name}.toml").write_text(WITH_BOOT if boot else ALONE)
    if boot:
        noise(spool / f"{name}.vmlinuz", KERNEL_BYTES, MEMDISK.read_bytes())
        noise(spool / f"{name}.initrd", RAMDISK_BYTES, RAMDISK_HEAD)
    noise(spool / f"{name}.img", GIB)


def noise(path: Path, size: int, head: bytes = b"") -> None:
    with path.open("wb") as file:
        file.write(head)
        for _ in range(0, size, MIB):
            file.write(os.urandom(MIB))


def row(what: str, run: Watched) -> str:
    return f"| {what} | {run.peak:.0f} | {run.seconds:.1f} |"
