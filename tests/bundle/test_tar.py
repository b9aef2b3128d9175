import subprocess
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uecwatchd.bundle.damage import Damaged
from uecwatchd.bundle.tar import RECORD, TarMember, TarReader, header, read_member, trailer
from uecwatchd.images.digests import FlatDigest
from uecwatchd.system.extents import Extent

GIB = 1024**3
MANY = 5000  # blocks of a map


def read(block: bytes, *more: bytes) -> TarMember:
    return read_member(TarReader(iter((block, *more)), FlatDigest("sha1")))


def resummed(block: bytearray) -> bytes:
    """A header with the checksum that its bytes should have."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def edited(at: int, new: bytes, *, block: bytes | None = None) -> bytes:
    changed = bytearray(block or header("k.img", size=512))
    changed[at : at + len(new)] = new
    return resummed(changed)


def sparse(stored: int, size: int, *entries: tuple[int, int], extended: int = 0) -> bytes:
    block = bytearray(header("k.img", size=stored))
    block[156:157] = b"S"
    for at, (offset, length) in enumerate(entries):
        block[386 + 24 * at : 410 + 24 * at] = b"%011o\0%011o\0" % (offset, length)
    block[482], block[483:495] = extended, b"%011o\0" % size
    return resummed(block)


@given(size=st.integers(0, 10**15))
def test_any_size_is_written_so_that_it_is_read_back(size: int) -> None:
    assert read(header("k.img", size=size)) == TarMember("k.img", size, (Extent(0, size),))
    assert tarfile.TarInfo.frombuf(header("k.img", size=size), "ascii", "strict").size == size


def test_a_size_from_8_gib_on_is_written_in_base_256() -> None:
    assert header("k.img", size=8 * GIB - 1)[124:136] == b"77777777777\0"
    assert header("k.img", size=8 * GIB)[124:136] == b"\x80" + bytes(6) + b"\x02" + bytes(4)


@pytest.mark.parametrize(
    "size", [0, 1, 511, 512, 513, 8 * 1024, 10240, 20 * 512 * 7 - 1536, 20 * 512 * 7 - 1535]
)
def test_the_archive_is_what_gnu_tar_would_write_to_the_byte(tmp_path: Path, size: int) -> None:
    (tmp_path / "k.img").write_bytes(b"u" * size)
    owner = ("--numeric-owner", "--owner=0", "--group=0", "--mode=0644", "--mtime=@0")
    command = ["tar", "--format=gnu", *owner, "-cf-", "k.img"]
    theirs = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout
    assert header("k.img", size=size) + b"u" * size + trailer(size) == theirs
    assert len(theirs) % RECORD == 0


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (b"x", "a PAX header"),
        (b"g", "a PAX header"),
        (b"L", "a GNU long name"),
        (b"1", "a hard link"),
        (b"2", "a symbolic link"),
        (b"5", "a directory"),
        (b"3", "a member of type b'3'"),
    ],
)
def test_only_a_regular_file_may_be_inside(kind: bytes, said: str) -> None:
    with pytest.raises(Damaged) as caught:
        read(edited(156, kind))
    assert caught.value.why == f"its archive begins with {said}, not with a regular file"


@pytest.mark.parametrize(
    "name", [b"../k.img", b"/etc/shadow", b"a/k.img", b"..", b".", b"k\nimg", b"\x1b[2J"], ids=repr
)
def test_a_name_that_leads_out_of_the_folder_is_refused(name: bytes) -> None:
    with pytest.raises(Damaged, match="not a plain file name"):
        read(edited(0, name + bytes(100 - len(name))))


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(Damaged, match="not a plain file name"):
        read(edited(0, bytes(100)))


def test_a_name_that_is_not_text_is_refused() -> None:
    with pytest.raises(Damaged, match="not text"):
        read(edited(0, b"\xff\xfe"))


def test_a_folder_in_a_posix_header_is_refused() -> None:
    posix = edited(257, b"ustar\x0000")
    assert read(posix).name == "k.img"
    with pytest.raises(Damaged, match="not a plain file name"):
        read(edited(345, b"etc", block=posix))


def test_a_header_whose_checksum_is_wrong_is_not_a_tar_archive() -> None:
    block = bytearray(header("k.img", size=512))
    block[0] ^= 1
    with pytest.raises(Damaged, match="there is no tar archive inside"):
        read(bytes(block))


def test_an_unknown_magic_is_not_a_tar_archive() -> None:
    with pytest.raises(Damaged, match="there is no tar archive inside"):
        read(edited(257, b"oldtar"))


@pytest.mark.parametrize(
    "field", [b"0000000000x\0", b"-0000000001\0", b"\xff" * 12, bytes(12), b"12 34" + bytes(7)]
)
def test_a_size_that_is_not_a_plain_number_is_refused(field: bytes) -> None:
    with pytest.raises(Damaged, match="not a number"):
        read(edited(124, field))


def test_an_archive_of_less_than_one_block_is_refused() -> None:
    with pytest.raises(Damaged, match="ends before"):
        read(header("k.img", size=0)[:511])


def test_a_sparse_map_continues_in_blocks_of_21_entries() -> None:
    entries = [(n * 1000, 10) for n in range(4 + 21 + 2)]
    packed = [b"%011o\0%011o\0" % entry for entry in entries]
    second = b"".join(packed[4:25]) + b"\1" + bytes(7)
    third = b"".join(packed[25:]).ljust(512, b"\0")
    found = read(sparse(270, 30_000, *entries[:4], extended=1), second, third)
    assert (found.name, found.size) == ("k.img", 30_000)
    assert list(found.extents) == [Extent(*entry) for entry in entries]


def test_memory_stays_bounded_however_long_a_sparse_map_is() -> None:
    def blocks() -> Iterator[bytes]:
        yield sparse(0, MANY, extended=1)
        for number in range(MANY):
            yield b"%011o\0%011o\0" % (number, 0) * 21 + (b"\1" if number < MANY - 1 else b"\0") + bytes(7)

    tracemalloc.start()
    found = read_member(TarReader(blocks(), FlatDigest("sha1")))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(1 for _ in found.extents) == 21 * MANY
    assert peak < 20 * 21 * MANY


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (sparse(20, 9000, (4096, 10), (0, 10)), "runs backwards"),
        (sparse(20, 9000, (0, 10), (9, 10)), "runs backwards"),
        (sparse(10, 9000, (8995, 10)), "does not fit the sizes"),
        (sparse(20, 9000, (0, 10)), "does not fit the sizes"),
        (sparse(0, 9000, (0, 10)), "does not fit the sizes"),
        (edited(386, b"\x80" + b"\xff" * 11, block=sparse(10, 9000, (0, 10))), "does not fit the sizes"),
    ],
    ids=["backwards", "overlap", "past the end", "too little stored", "too much stored", "beyond all sizes"],
)
def test_an_inconsistent_sparse_map_is_refused(block: bytes, why: str) -> None:
    with pytest.raises(Damaged, match=why):
        read(block)


def test_a_sparse_map_without_end_is_refused() -> None:
    endless = bytes(504) + b"\1" + bytes(7)
    with pytest.raises(Damaged, match="more than 1048576 entries"):
        read(sparse(0, 0, extended=1), *[endless] * 60_000)


def test_a_sparse_file_is_understood_only_in_the_gnu_format() -> None:
    with pytest.raises(Damaged, match="not with a regular file"):
        read(edited(257, b"ustar\x0000", block=sparse(0, 9000)))
