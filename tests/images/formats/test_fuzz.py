"""Containers that are cut or changed anywhere: refused in a sentence, or read as QEMU reads them.

Never another exception, whatever the bytes are.
"""

import os
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import qemu
from tests.support.containers import CONTAINERS, Container, content_of, memory_file, vhd_sum, vhdx_sum
from tests.support.reading import opened, read, read_extents
from tests.support.sizes import KIB, MIB, SECTOR
from uecwatchd.errors import Rejected

pytestmark = pytest.mark.exhaustive

CUTS = 20
# Small enough to be read again for each change, with an end that is not zero.
DISK = (b"karmic" * 20_000 + os.urandom(30_000)).ljust(MIB, b"\0") + b"koala".ljust(8 * SECTOR, b"k")
VALUES = (0, 1, 2, 3, 7, 0x7F, 0x200, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
every_container = pytest.mark.parametrize("name", CONTAINERS)


def outcome(content: bytes) -> bytes | None:
    """Return the disk in a file, None if it is refused. Any other exception fails the test."""
    try:
        disk = opened(memory_file(content))
    except Rejected as error:
        check_sentence(error)
        return None
    with closing(disk.source) as source:
        if disk.format == "raw":
            return content
        if source.size > 64 * MIB:  # of which there can be no more than the file has
            assert sum(extent.length for extent in source.extents()) < 2 * len(content) + 64 * MIB
            return None
        try:
            found = read(source, 0, source.size)
            assert read_extents(source) == found
        except Rejected as error:  # damaged compressed data
            check_sentence(error)
            return None
        assert len(found) == source.size
        return found


def check_sentence(error: Rejected) -> None:
    assert error.what == "disk.img: it cannot be opened as a disk image"
    assert error.why
    assert error.hint.endswith(".") or "disk.img" in error.hint


@every_container
def test_a_container_that_is_cut_is_refused(name: str) -> None:
    """Only what nobody reads may be missing: what pads the last block, or the last byte of a VHD's footer."""
    content = content_of(CONTAINERS[name].make(DISK))
    magic = 0x44 if name.startswith("vdi") else 8  # before that, nothing says that it is a container
    places = {magic, 64, 511, 512, 1024, 1536, len(content) - 1, len(content) - 512, len(content) - 1024}
    draw, refused = random.Random(5), 0  # noqa: S311
    while len(places) < CUTS:
        places.add(draw.randrange(magic, len(content)))
    for place in places - set(range(magic)):
        found = outcome(content[:place])
        refused += found is None
        if found is not None and found != DISK:
            assert name.startswith("vhd-fixed"), place
            assert found == content[:place], "what is left is the start of a raw disk"
    assert refused > CUTS // 3 or name.startswith("vhd-fixed")


def header_places(name: str) -> Iterator[int]:
    """Yield the places of header fields and of the first entries of tables."""
    container = CONTAINERS[name]
    with memory_file() as file:
        layout = container.write(file, DISK, **dict(container.options))
    if name.startswith("vhd-fixed"):
        yield from range(len(DISK), len(DISK) + 90, 4)
        return
    ends = {"qcow2": 112, "vmdk": 80, "vdi": 0x1C8, "vhd": 90}
    yield from range(0, ends.get(container.format, 16), 4)
    if container.format == "vhd" and layout.tables:
        yield from range(SECTOR, SECTOR + 60, 4)
    if container.format == "vhdx":
        for start, length in ((64 * KIB, 80), (192 * KIB, 80), (2 * MIB, 192), (2 * MIB + 64 * KIB, 40)):
            yield from range(start, start + length, 4)
    if name == "vmdk-footer":
        size = len(content_of(container.make(DISK)))
        yield from range(size - 3 * SECTOR, size - 2 * SECTOR + 80, 4)
    if layout.tables:
        yield from range(layout.tables, layout.tables + 24, 4)


def with_right_sums(container: Container, content: bytes) -> bytes:
    """Return a changed container with the checksums that its changed headers need."""
    data = bytearray(content)

    def correct(place: int, length: int, summed: Callable[[bytes], bytes]) -> None:
        data[place : place + length] = summed(bytes(data[place : place + length]))

    if container.format == "vhd":
        if data.startswith(b"conectix"):
            correct(0, SECTOR, lambda footer: vhd_sum(footer, at=64))
            correct(SECTOR, 2 * SECTOR, lambda header: vhd_sum(header, at=36, length=2 * SECTOR))
        elif len(data) <= len(DISK) + SECTOR:  # a fixed one, perhaps with a short footer
            length = len(data) - len(DISK)
            correct(len(DISK), length, lambda footer: vhd_sum(footer, at=64, length=length))
    elif container.format == "vhdx":
        for place, length in ((64 * KIB, 4 * KIB), (192 * KIB, 64 * KIB)):
            correct(place, length, vhdx_sum)
            correct(
                place + (64 * KIB),
                length,
                lambda _, place=place, length=length: bytes(data[place : place + length]),
            )
    return bytes(data)


@every_container
def test_any_field_may_have_any_value(name: str, tmp_path: Path) -> None:
    """If we accept an image with a changed disk, QEMU reads the same in it."""
    container = CONTAINERS[name]
    content = content_of(container.make(DISK))
    path, raw, draw = tmp_path / "image", tmp_path / "raw", random.Random(name)  # noqa: S311
    refused = compared = 0
    for place in header_places(name):
        for value in draw.sample(VALUES, 1 if container.format == "vhdx" else 3):
            order = "<" if draw.random() < 0.5 else ">"
            changed = with_right_sums(
                container, content[:place] + struct.pack(f"{order}I", value) + content[place + 4 :]
            )
            found = outcome(changed)
            refused += found is None
            if found in (None, DISK) or container.for_qemu == "-":
                continue
            path.write_bytes(changed)
            if qemu.convert(path, raw, format=container.for_qemu or container.format):
                assert raw.read_bytes() == found, (place, value, order)
                compared += 1
    assert refused > 5


@every_container
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_noise_anywhere_is_refused_or_read(name: str, data: st.DataObject) -> None:
    container = CONTAINERS[name]
    content = bytearray(content_of(container.make(DISK)))
    places = list(header_places(name))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.sampled_from(places) | st.integers(0, len(content) - 1))
        noise = data.draw(st.binary(min_size=1, max_size=16))
        content[place : place + len(noise)] = noise
    outcome(with_right_sums(container, bytes(content)))


@settings(max_examples=100, deadline=None)
@given(
    tail=st.binary(max_size=2000),
    magic=st.sampled_from([b"QFI\xfb\0\0\0\3", b"KDMV", b"conectix", b"vhdxfile"]),
)
def test_noise_behind_a_magic_is_refused(magic: bytes, tail: bytes) -> None:
    assert outcome(magic + tail) is None
