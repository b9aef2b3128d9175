"""Details of the formats beside plain blocks: states, sizes, long maps, and layouts QEMU does not write."""

import os
import random
import struct
import subprocess
import sys
import zlib
from contextlib import closing
from io import FileIO
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import qemu
from tests.support.containers import (
    CONTAINERS,
    Container,
    content_of,
    memory_file,
    vhd_footer,
    vhdx_sum,
    write_vhd,
)
from tests.support.reading import disk_of, opened, read, read_disk, read_extents
from tests.support.sizes import GIB, KIB, MIB, SECTOR
from uecwatchd.images.detect import HEAD_BYTES, TAIL_BYTES, detect
from uecwatchd.images.formats.block_map import Run, join_runs
from uecwatchd.images.formats.container_file import ContainerFile
from uecwatchd.images.formats.crc32c import crc32c
from uecwatchd.images.formats.open import MAX_DISK_BYTES
from uecwatchd.images.formats.qcow2 import open_qcow2

DISK = os.urandom(200_000).ljust(3 * MIB, b"\0") + os.urandom(MIB)


def image(folder: Path, name: str, disk: bytes = DISK) -> Path:
    path = folder / "image"
    with path.open("w+b", buffering=0) as file:
        CONTAINERS[name].make(disk, file)
    return path


def patch(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), data, place)


# --- runs ---


def as_bytes(runs: list[Run], size: int) -> dict[int, int]:
    """Return the place of each byte of a disk."""
    found = {run.start + n: run.place + n for run in runs for n in range(run.length)}
    return {byte: place for byte, place in found.items() if byte < size}


@given(blocks=st.lists(st.integers(-1, 6), max_size=12), size=st.integers(1, 50))
def test_joined_runs_map_the_same_blocks_as_single_ones(blocks: list[int], size: int) -> None:
    runs = [Run(4 * index, 4, 4 * place) for index, place in enumerate(blocks) if place >= 0]
    joined = list(join_runs(runs, size))
    assert as_bytes(joined, size) == as_bytes(runs, size)
    assert all(run.start + run.length <= size for run in joined)
    for before, after in pairwise(joined):
        assert before.start + before.length < after.start or before.place + before.length != after.place


def test_compressed_blocks_stay_single() -> None:
    runs = [Run(0, 4, 0), Run(4, 4, 4, stored=2), Run(8, 4, 6, stored=2), Run(12, 4, 12), Run(16, 4, 16)]
    assert list(join_runs(runs, 18)) == [*runs[:3], Run(12, 6, 12)]


def test_blocks_adjacent_in_disk_and_file_are_one_run(tmp_path: Path) -> None:
    path = image(tmp_path, "qcow2", os.urandom(4 * MIB))
    with FileIO(path) as file:
        blocks = open_qcow2(ContainerFile.of(file, "image", MAX_DISK_BYTES))
        assert len(list(join_runs(blocks.runs(0), blocks.size))) == 1


# --- qcow2 ---


def test_the_active_state_of_an_image_with_snapshots_is_read(tmp_path: Path) -> None:
    path, raw = tmp_path / "image", tmp_path / "raw"
    qemu.create(path, 4 * MIB, format="qcow2")
    qemu.write([(path, "qcow2", ["write -P 1 0 2M"])])
    subprocess.run(["qemu-img", "snapshot", "-c", "before", path], check=True)
    qemu.write([(path, "qcow2", ["write -P 2 1M 2M", "write -z 0 64k"])])
    assert qemu.convert(path, raw, format="qcow2")
    assert disk_of(path) == raw.read_bytes()


def test_reference_counts_that_are_behind_do_not_matter_to_a_reader(tmp_path: Path) -> None:
    path = image(tmp_path, "qcow2")
    patch(path, 72, struct.pack(">Q", 1))  # dirty
    assert disk_of(path) == DISK


def test_an_image_that_was_allocated_in_advance_is_as_sparse_as_its_file(tmp_path: Path) -> None:
    path = tmp_path / "image"
    qemu.create(path, 64 * MIB, format="qcow2", options=["preallocation=metadata"])
    qemu.write([(path, "qcow2", ["write -P 7 32M 64k"])])
    with closing(opened(path).source) as source:
        assert source.stored_bytes < MIB
        found = read_extents(source)
    assert found.strip(b"\0") == b"\7" * 64 * KIB
    assert found.index(7) == 32 * MIB


def test_zstd_needs_a_package_and_the_error_names_it(tmp_path: Path) -> None:
    path = image(tmp_path, "qcow2-zstd")
    program = (
        "import sys; sys.modules['zstandard'] = None\n"
        "from tests.support.reading import opened; from pathlib import Path\n"
        "from uecwatchd.errors import Rejected\n"
        "try: opened(Path(sys.argv[1]))\n"
        "except Rejected as error: sys.exit(str(error))"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert "the Python package zstandard is not installed" in done.stderr
    assert "Install uecwatchd[formats]" in done.stderr


def test_a_compressed_cluster_becomes_no_more_than_a_cluster(tmp_path: Path) -> None:
    """A bomb inside of one cluster: 512 bytes of it would become half a megabyte."""
    path, raw = image(tmp_path, "qcow2-zlib", b"\1" * 64 * KIB), tmp_path / "raw"
    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    bomb = packer.compress(b"\2" * (480 * KIB)) + packer.flush()
    assert len(bomb) <= SECTOR
    patch(path, 4 * 64 * KIB, bomb.ljust(SECTOR, b"\0"))
    patch(path, 3 * 64 * KIB, struct.pack(">Q", 1 << 62 | 4 * 64 * KIB))
    assert disk_of(path) == b"\2" * 64 * KIB
    assert qemu.convert(path, raw, format="qcow2")
    assert raw.read_bytes() == b"\2" * 64 * KIB


# --- VHD ---


@pytest.mark.parametrize("creator", [b"vpc ", b"vs  ", b"qemu", b"qem2", b"win ", b"d2v ", b"tap\0", b"CTXS"])
@pytest.mark.parametrize("geometry", [(30, 4, 17), (65535, 16, 255)], ids=["usual", "largest"])
def test_the_program_that_made_a_vhd_decides_about_its_size(
    creator: bytes, geometry: tuple[int, int, int], tmp_path: Path
) -> None:
    disk, path = os.urandom(2 * MIB), tmp_path / "image"
    path.write_bytes(disk + vhd_footer(len(disk), kind=2, creator=creator, geometry=geometry))
    assert qemu.convert(path, tmp_path / "raw", format="vpc")
    assert disk_of(path) == (tmp_path / "raw").read_bytes()


def test_virtualbox_counts_bytes(tmp_path: Path) -> None:
    disk, path = os.urandom(2 * MIB), tmp_path / "image"
    path.write_bytes(disk + vhd_footer(len(disk), kind=2, creator=b"vbox", geometry=(30, 4, 17)))
    assert disk_of(path) == disk


# --- VHDX ---


@pytest.mark.parametrize("broken", [64 * KIB, 128 * KIB, 192 * KIB, 256 * KIB])
def test_one_intact_copy_of_a_table_is_enough(broken: int, tmp_path: Path) -> None:
    path = image(tmp_path, "vhdx")
    patch(path, broken + 100, b"x")
    assert disk_of(path) == DISK


def test_the_header_with_the_higher_number_counts(tmp_path: Path) -> None:
    """The older of the two may say that the log is in use."""
    path = image(tmp_path, "vhdx")
    older = bytearray(path.read_bytes()[64 * KIB :][: 4 * KIB])
    older[48:64] = b"l" * 16
    patch(path, 64 * KIB, vhdx_sum(bytes(older)))
    assert disk_of(path) == DISK


def test_crc32c_is_that_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283


# --- long maps ---

FAR = [
    ("qcow2", ""),
    ("qcow2", "cluster_size=2M"),
    ("qcow2", "cluster_size=4k"),
    ("qcow2", "extended_l2=on"),
    ("vmdk", ""),
    ("vdi", ""),
    ("vpc", "force_size=on"),
    ("vhdx", "block_size=1M"),
]


@pytest.mark.parametrize(("format", "options"), FAR, ids=lambda value: value or "default")
def test_all_pages_of_a_long_map_are_found(format: str, options: str, tmp_path: Path) -> None:
    path, places = tmp_path / "image", {1: 0, 2: 5 * GIB - 3 * KIB, 3: 17 * GIB + 512, 4: 40 * GIB - 64 * KIB}
    qemu.create(path, 40 * GIB, format=format, options=[options] if options else [])
    qemu.write([(path, format, [f"write -P {value} {at} 64k" for value, at in places.items()])])
    with closing(opened(path).source) as source:
        for value, at in places.items():
            assert read(source, at, 64 * KIB) == bytes([value]) * 64 * KIB
            assert not any(read(source, max(0, at - 512), min(at, 512)))
            inside = [each for each in source.extents() if each.offset <= at < each.offset + each.length]
            assert len(inside) == 1
        assert source.stored_bytes <= 16 * MIB
        assert source.size == 40 * GIB


READS_A_LONG_MAP = """
import random, re, sys
from pathlib import Path
from tests.support.reading import opened, read

def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

before = peak()
source = opened(Path(sys.argv[1])).source
draw = random.Random(3)
for _ in range(100):
    read(source, draw.randrange(source.size), 512)
print(peak() - before)
"""


def test_a_long_map_takes_little_memory(tmp_path: Path) -> None:
    """A place for each of 250,000 blocks, no two of them neighbours: as records they would take 50 MB."""
    blocks, table, path = 250_000, 512, image(tmp_path, "vdi", bytes(SECTOR))
    patch(path, 0x154, struct.pack("<II", table, 16 * MIB))
    patch(path, 0x170, struct.pack("<Q", blocks * MIB))
    patch(path, 0x180, struct.pack("<I", blocks))
    order = list(range(blocks))
    order[::2], order[1::2] = order[1::2], order[::2]
    patch(path, table, struct.pack(f"<{blocks}I", *order))
    os.truncate(path, (16 + blocks) * MIB)
    done = subprocess.run(
        [sys.executable, "-c", READS_A_LONG_MAP, path], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 32 * MIB


def test_vhd_blocks_of_any_size_are_read() -> None:
    for block in (64 * KIB, 256 * KIB, 4 * MIB):
        write_vhd(file := memory_file(), DISK, block=block)
        assert disk_of(file) == DISK


def test_pieces_of_any_length_add_up_to_the_whole() -> None:
    draw = random.Random(4)  # noqa: S311
    for container in CONTAINERS.values():
        with closing(opened(container.make(DISK)).source) as source:
            assert read_disk(source, draw) == DISK


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_every_format_that_can_be_opened_is_detected(container: Container) -> None:
    content = content_of(container.make(DISK))
    facts = detect(content[:HEAD_BYTES], content[-TAIL_BYTES:], size=len(content))
    assert facts.format == container.format
