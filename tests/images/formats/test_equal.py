"""Random images of every format, read as `qemu-img convert` reads them: the same bytes, the same size."""

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import qemu
from tests.support.containers import CONTAINERS, Container
from tests.support.reading import opened, read_disk, read_extents
from tests.support.sizes import KIB, MIB, SECTOR

pytestmark = pytest.mark.exhaustive

IMAGES = 104  # of each format
MAX_SECTORS = 6 * MIB // SECTOR
COMPRESSED_BYTES = 64 * KIB  # what qemu-io compresses at once: one cluster


@dataclass(frozen=True)
class Variant:
    """One way to make an image, and what QEMU does to it afterwards."""

    options: str = ""
    verbs: tuple[str, ...] = ("write", "write -z")
    of_raw: str = ""  # "convert", or "compress", for an image of a raw one


FORMATS: dict[str, tuple[Variant, ...]] = {
    "qcow2": (
        Variant("", ("write", "write -z", "write -c", "discard")),
        Variant("lazy_refcounts=on", ("write", "write -z", "write -z -u", "discard")),
        Variant("compat=0.10", ("write", "write -c")),
        Variant("cluster_size=512", ("write", "write -z", "discard")),
        Variant("cluster_size=4k", ("write", "write -z", "discard")),
        Variant("cluster_size=2M", ("write", "write -z")),
        Variant("extended_l2=on", ("write", "write -z", "write -z -u", "write -c", "discard")),
        Variant("extended_l2=on,cluster_size=16k", ("write", "write -z", "write -z -u", "discard")),
        Variant("preallocation=metadata", ("write", "discard")),
        Variant("preallocation=full"),
        Variant("compression_type=zstd", ("write", "write -c")),
        Variant(of_raw="compress"),
        Variant("compression_type=zstd", of_raw="compress"),
        Variant("cluster_size=4k", of_raw="compress"),
        Variant("cluster_size=2M", of_raw="compress"),
        Variant("compat=0.10", of_raw="convert"),
    ),
    "vmdk": (
        Variant("subformat=monolithicSparse", ("write",)),
        Variant("subformat=monolithicSparse,zeroed_grain=on"),
        Variant("subformat=streamOptimized", of_raw="convert"),
        Variant("subformat=monolithicSparse", of_raw="convert"),
    ),
    "vdi": (Variant("", ("write",)), Variant("static=on", ("write",)), Variant(of_raw="convert")),
    "vpc": (
        Variant("subformat=dynamic", ("write",)),
        Variant("subformat=dynamic,force_size=on", ("write",)),
        Variant("subformat=fixed", ("write",)),
        Variant("subformat=fixed,force_size=on", ("write",)),
        Variant("subformat=dynamic", of_raw="convert"),
    ),
    "vhdx": (
        Variant("subformat=dynamic", ("write",)),
        Variant("subformat=dynamic,block_size=1M", ("write",)),
        Variant("subformat=dynamic,block_size=2M,log_size=2M", ("write",)),
        Variant("subformat=fixed,block_size=1M", ("write",)),
        Variant("subformat=dynamic,block_size=1M", of_raw="convert"),
    ),
    "raw": (Variant("", ("write", "discard")), Variant("preallocation=full")),
}


def commands(draw: random.Random, size: int, verbs: tuple[str, ...]) -> Iterator[str]:
    """Yield commands that write somewhere, some of them over each other.

    The compressed clusters come first, each in a place of its own: QEMU refuses to write one over another.
    """
    chosen = draw.choices(verbs, k=draw.randrange(2, 9))
    clusters = draw.sample(range(-(-size // COMPRESSED_BYTES)), k=min(8, -(-size // COMPRESSED_BYTES)))
    for cluster in clusters[: chosen.count("write -c")]:
        offset = cluster * COMPRESSED_BYTES
        yield f"write -c -P {draw.randrange(1, 256)} {offset} {min(size - offset, COMPRESSED_BYTES)}"
    for verb in chosen:
        offset = draw.randrange(size // SECTOR) * SECTOR
        length = min(size - offset, draw.choice((1, 7, 40, 300, 2000)) * SECTOR)
        pattern = f" -P {draw.randrange(1, 256)}" if verb == "write" else ""
        if verb != "write -c":
            yield f"{verb}{pattern} {offset} {length}"


def make_raw(path: Path, draw: random.Random, size: int) -> None:
    """Make a raw image of noise, text and holes."""
    with path.open("wb") as file:
        file.truncate(size)
        for _ in range(draw.randrange(1, 7)):
            file.seek(draw.randrange(size))
            length = min(size - file.tell(), draw.randrange(1, 300 * KIB))
            noise, text = draw.randbytes(length), b"karmic koala" * (length // 12 + 1)
            file.write(draw.choice((noise, text))[:length])


def make_images(folder: Path, format: str, variants: tuple[Variant, ...]) -> list[Path]:
    draw, paths, work = random.Random(format), [], []  # noqa: S311 (not a secret)
    for number in range(IMAGES):
        variant, size = variants[number % len(variants)], draw.randrange(1, MAX_SECTORS) * SECTOR
        path, options = folder / f"{number}.{format}", [variant.options] if variant.options else []
        paths.append(path)
        if variant.of_raw:
            raw = folder / "source"
            make_raw(raw, draw, size)
            if variant.of_raw == "compress":
                qemu.convert_compressed(raw, path, options=options)
            else:
                assert qemu.convert(raw, path, format="raw", into=format, options=options)
        else:
            qemu.create(path, size, format=format, options=options)
            work.append((path, format, list(commands(draw, size, variant.verbs))))
    qemu.write(work)
    return paths


@pytest.mark.parametrize("format", FORMATS)
def test_random_images_are_read_as_qemu_reads_them(format: str, tmp_path: Path) -> None:
    raw, draw = tmp_path / "raw", random.Random(1)  # noqa: S311
    not_empty = 0
    for path in make_images(tmp_path, format, FORMATS[format]):
        assert qemu.convert(path, raw, format=format)
        expected = raw.read_bytes()
        disk = opened(path)
        with closing(disk.source):
            assert disk.format == {"vpc": "vhd"}.get(format, format), path
            assert disk.source.size == len(expected), path
            assert read_disk(disk.source, draw) == expected, path
            assert read_extents(disk.source) == expected, path
        not_empty += expected.count(0) != len(expected)
    assert not_empty > IMAGES // 2


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_hand_written_images_are_read_alike_by_us_and_by_qemu(container: Container, tmp_path: Path) -> None:
    draw = random.Random(2)  # noqa: S311
    disk = bytearray(5 * MIB + 8 * SECTOR)
    for start in (0, MIB - 100, 3 * MIB):
        disk[start : start + 70_000] = draw.randbytes(70_000)
    path = tmp_path / "image"
    with path.open("w+b", buffering=0) as file:
        container.make(bytes(disk), file)
    disk_of_image = opened(path)
    with closing(disk_of_image.source) as source:
        assert disk_of_image.format == container.format
        assert read_disk(source, draw) == disk
        assert read_extents(source) == disk
    if container.for_qemu != "-":
        assert qemu.convert(path, tmp_path / "raw", format=container.for_qemu or container.format)
        assert (tmp_path / "raw").read_bytes() == disk
