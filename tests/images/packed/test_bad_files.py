"""Compressed files that cannot be used: each is refused with its own sentence and hint."""

import contextlib
import gzip
import lzma
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.containers import memory_file
from tests.support.packed import KIB, KINDS, MIB, compress, make_disk, opened
from uecwatchd.errors import Rejected
from uecwatchd.images.block_source import read_exactly
from uecwatchd.images.detect import HEAD_BYTES, detect
from uecwatchd.images.formats.contained import describe_packed
from uecwatchd.images.formats.open import DiskAccess, open_disk
from uecwatchd.images.packed.zstd import MAX_EMPTY
from uecwatchd.images.suitability import reason_unsuitable

DISK = make_disk(MIB)
WHOLE = {kind: compress(DISK, command) for kind, command in KINDS.items()}
SMALL = {kind: compress(DISK[: 64 * KIB], command) for kind, command in KINDS.items()}
PLACES = st.floats(0, 1, exclude_max=True)  # as a share of the file


def refusal(packed: bytes, *, limit: int | None = None) -> Rejected:
    with pytest.raises(Rejected) as caught, opened(packed, limit=limit):
        pass
    assert caught.value.what == "web.img.xx: it cannot be opened as a disk image"
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_anywhere_is_refused_as_truncated(kind: str) -> None:
    whole = WHOLE[kind]
    places = {20 + at * (len(whole) - 20) // 18 for at in range(18)} | {len(whole) - 1, len(whole) - 5}
    for place in sorted(places):
        error = refusal(whole[:place])
        assert "truncated" in error.why, place
        assert error.hint.startswith("Copy it again")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [b"x", b"garbage" * 1000, b"\0\0\0\1", b"\x1f\x8b\x08" + bytes(40)])
def test_what_follows_the_end_is_refused(kind: str, more: bytes) -> None:
    error = refusal(WHOLE[kind] + more)
    if kind == "gzip" and more.startswith(b"\x1f"):  # it looks like another member, and has no content
        assert "damaged" in error.why or "truncated" in error.why
        return
    assert f"{len(more)} byte" in error.why
    assert "follow the end of its" in error.why
    assert error.hint.startswith("If what follows does not belong to it, cut it off")


@pytest.mark.parametrize(
    ("kind", "place"), [("gzip", -8), ("gzip", -2), ("bzip2", -3), ("xz", -60), ("zstd", -1), ("xz", -20)]
)
def test_a_wrong_checksum_is_refused(kind: str, place: int) -> None:
    packed = bytearray(WHOLE[kind])
    packed[place] ^= 0x55
    error = refusal(bytes(packed))
    assert "damaged" in error.why
    assert error.hint == "Copy it again; if it stays so, compress the image again."


@pytest.mark.parametrize("kind", KINDS)
def test_damage_in_the_middle_is_refused(kind: str) -> None:
    packed = bytearray(WHOLE[kind])
    packed[len(packed) // 2] ^= 0x55
    assert "damaged" in refusal(bytes(packed)).why


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_unpacks_to_more_than_the_limit_is_refused(kind: str) -> None:
    assert not refused(WHOLE[kind], limit=MIB)
    error = refusal(WHOLE[kind], limit=MIB - 512)
    assert "unpacks to" in error.why
    assert "max_disk_size under [work]" in error.hint


def refused(packed: bytes, *, limit: int) -> bool:
    try:
        with opened(packed, limit=limit):
            return False
    except Rejected:
        return True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [8 * MIB + 512])
def test_a_bomb_is_stopped_at_the_piece_that_crosses_the_limit(kind: str, limit: int) -> None:
    """Each piece has 1 MiB at most; an xz says its size before anything is unpacked."""
    pieces = 0

    def check() -> None:
        nonlocal pieces
        pieces += 1

    with memory_file(compress(b"", f"head -c 40M /dev/zero | {KINDS[kind]}")) as file:
        with pytest.raises(Rejected) as caught:
            open_disk(file, name="web", access=DiskAccess.limited_to(limit), check=check)
        assert "unpacks to" in caught.value.why
        assert pieces <= (20 if kind != "bzip2" else 40), "of which some are short"


def test_an_xz_whose_index_says_less_than_its_block_has_is_refused() -> None:
    """The size is known from the index, so it must be true."""
    packed = bytearray(compress(bytes(MIB), "xz -0 -T1 --check=none"))
    index = len(packed) - 12 - (int.from_bytes(packed[-8:-4], "little") + 1) * 4
    at = packed.index(b"\x80\x80\x40", index)  # 1 MiB as a number of seven bits a byte
    packed[at : at + 3] = b"\x80\x80\x20"
    packed[-16:-12] = zlib.crc32(packed[index:-16]).to_bytes(4, "little")
    assert "more in it than the index says" in refusal(bytes(packed)).why


@pytest.mark.parametrize("kind", KINDS)
@given(
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3)
)
@settings(max_examples=20, deadline=None)
def test_a_file_with_any_bytes_changed_is_refused_or_means_the_same(
    kind: str, places: list[tuple[float, int]]
) -> None:
    packed = bytearray(SMALL[kind])
    for place, bits in places:
        packed[int(place * len(packed))] ^= bits
    with contextlib.suppress(Rejected), opened(bytes(packed)) as disk:
        if disk.format == kind:
            assert read_exactly(disk.source, 0, 2 * MIB) == DISK[: 64 * KIB]


def xz_index(records: list[tuple[int, int]]) -> bytes:
    """Return index and footer, with numbers below 128."""
    index = bytes([0, len(records)]) + bytes(number for record in records for number in record)
    index = index.ljust(-(-len(index) // 4) * 4, b"\0")
    index += zlib.crc32(index).to_bytes(4, "little")
    size = (len(index) // 4 - 1).to_bytes(4, "little") + b"\0\1"
    return index + zlib.crc32(size).to_bytes(4, "little") + size + b"YZ"


@pytest.mark.parametrize("records", [[(0, 0)], [(0, 5)], [(4, 0), (4, 0)], [(100, 1)]])
def test_an_index_with_blocks_that_cannot_be_is_refused(records: list[tuple[int, int]]) -> None:
    header = b"\xfd7zXZ\0\0\1" + zlib.crc32(b"\0\1").to_bytes(4, "little")
    assert "its index" in refusal(header + bytes(8) + xz_index(records)).why


@pytest.mark.parametrize(
    ("packed", "why"),
    [
        (b"\x50\x2a\x4d\x18\0\0\0\0" * (MAX_EMPTY + 1), "frames with nothing in them"),
        (b"\x28\xb5\x2f\xfd\x00\x58" + bytes(3) * (MAX_EMPTY + 1), "blocks with nothing in them"),
    ],
    ids=["frames", "blocks"],
)
def test_a_zstd_of_nothing_without_end_is_refused(packed: bytes, why: str) -> None:
    assert why in refusal(WHOLE["zstd"] + packed).why


@pytest.mark.parametrize("kind", ["gzip", "xz"])
def test_zeros_without_end_behind_a_stream_are_refused(kind: str) -> None:
    with memory_file(WHOLE[kind]) as file:
        os.ftruncate(file.fileno(), 1 << 40)
        with pytest.raises(Rejected):
            open_disk(file, name="web")


def test_a_file_that_needs_too_much_memory_is_refused() -> None:
    huge = lzma.compress(DISK, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 512 * MIB}])
    error = refusal(huge)
    assert "more than 96 MiB of memory" in error.why
    assert "xz -6" in error.hint
    parameters = zstandard.ZstdCompressionParameters(window_log=29, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    long = packer.compress(DISK) + packer.flush()
    assert "more than 128 MiB of memory" in refusal(long).why


@pytest.mark.parametrize(("outer", "inner"), [*zip(KINDS, reversed(KINDS), strict=True)])
def test_a_file_that_is_compressed_twice_is_refused(outer: str, inner: str) -> None:
    error = refusal(compress(WHOLE[inner], KINDS[outer]))
    assert error.why == f"it is compressed twice: with {inner}, and then with {outer}"
    assert f"{outer} -dc < web.img.xx" in error.hint


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_with_nothing_in_it_is_refused(kind: str) -> None:
    assert refusal(compress(b"", KINDS[kind])).why == "there is nothing in it"


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_ends_inside_a_sector_is_refused(kind: str) -> None:
    error = refusal(compress(DISK + b"x", KINDS[kind]))
    assert error.why == f"it unpacks to {MIB + 1} bytes, which is not a multiple of 512"


def test_thousands_of_empty_members_can_be_stopped() -> None:
    class AskedToStop(Exception):
        pass

    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 100:
            raise AskedToStop

    with memory_file(gzip.compress(b"") * 10_000) as file, pytest.raises(AskedToStop):
        open_disk(file, name="web", check=check)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_while_it_is_read_is_no_longer_the_same(kind: str) -> None:
    packed = compress(os.urandom(2 * MIB), KINDS[kind])
    with memory_file(packed) as file:
        source = open_disk(file, name="web").source
        assert source.is_unchanged()
        os.ftruncate(file.fileno(), 64 * KIB)
        assert not source.is_unchanged()
        assert len(read_exactly(source, 0, source.size)) < source.size, "and it is no error of the image"


@pytest.mark.parametrize("kind", KINDS)
def test_a_tar_in_it_stays_an_archive(kind: str, tmp_path: Path) -> None:
    (tmp_path / "web.img").write_bytes(DISK)
    path = tmp_path / "packed"
    path.write_bytes(compress(b"", f"tar -c web.img | {KINDS[kind]}", tmp_path))
    with path.open("rb", buffering=0) as file:
        head = file.read(HEAD_BYTES)
        facts = describe_packed(detect(head, b"", size=path.stat().st_size), file, name="packed")
    assert (facts.format, facts.inside, facts.disk) == (kind, "tar", None)
    found = reason_unsuitable("machine", facts, size=1)
    assert found
    assert "tar archive inside" in found[0]


def test_a_zstd_without_its_package_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "web.img.zst").write_bytes(WHOLE["zstd"])
    script = (
        "import sys; sys.modules['zstandard'] = None\n"
        "from uecwatchd.images.formats.open import open_disk\n"
        "open_disk(open(sys.argv[1], 'rb', buffering=0), name='web.img.zst')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "web.img.zst"], capture_output=True, text=True, check=False
    )
    assert "the package zstandard is not installed" in done.stderr


def test_the_default_limit_of_compressed_files_is_lower_than_that_of_containers() -> None:
    default = DiskAccess.limited_to(None)
    assert default.max_unpacked_bytes < default.max_container_bytes
    limited = DiskAccess.limited_to(MIB)
    assert (limited.max_unpacked_bytes, limited.max_container_bytes) == (MIB, MIB)
