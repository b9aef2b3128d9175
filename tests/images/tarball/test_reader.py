"""Archives of real programs are read as they unpack them, and hostile ones are refused with a sentence."""

import bz2
import gzip
import io
import lzma
import random
import re
import subprocess
import tarfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from io import FileIO
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from uecwatchd.errors import Rejected, Stopped
from uecwatchd.images.tarball.packed_stream import open_stream
from uecwatchd.images.tarball.reader import TarballLimits, TarballReader

MIB = 1 << 20
LONG_NAME = "n" * 180
USUAL = TarballLimits()
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.compress,
    "several gzip": lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
    "padded gzip": lambda data: gzip.compress(data) + bytes(700),
    "xz": lzma.compress,
    "several xz": lambda data: lzma.compress(data[:1000]) + lzma.compress(data[1000:]),
    "bzip2": bz2.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
SPARSE = ["--sparse"]
GNU_TAR: dict[str, Sequence[str]] = {
    "gnu": ["--format=gnu"],
    "pax": ["--format=pax"],
    "ustar": ["--format=ustar"],
    "v7": ["--format=v7"],
    "gnu, sparse": ["--format=gnu", *SPARSE],
    "oldgnu, sparse": ["--format=oldgnu", *SPARSE],
    **{
        f"pax, sparse {version}": ["--format=pax", *SPARSE, f"--sparse-version={version}"]
        for version in ("0.0", "0.1", "1.0")
    },
}


def read(
    path: Path, limits: TarballLimits = USUAL, check: Callable[[int], None] = lambda _: None
) -> dict[str, bytes]:
    """Return the content of each file in an archive."""
    contents = {}
    with FileIO(path) as file:
        reader = TarballReader(open_stream(file, name=path.name, check=check), name=path.name, limits=limits)
        for member in reader.files():
            content = bytearray(member.size)
            for offset, piece in reader.data(member):
                content[offset : offset + len(piece)] = piece
            contents[member.name] = bytes(content)
    return contents


def refusal(path: Path, limits: TarballLimits = USUAL) -> str:
    with pytest.raises(Rejected) as caught:
        read(path, limits)
    return str(caught.value)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of many holes, a dense one, an empty one, and one with a name for old formats."""
    folder = tmp_path_factory.mktemp("files")
    noise = random.Random(1)  # noqa: S311 (only not to be compressible)
    with (folder / "sparse.img").open("wb") as file:
        for number in range(60):  # more than one block of an old map has
            file.seek(number * 200_000)
            file.write(noise.randbytes(3000))
        file.truncate(13 * MIB)
    (folder / "dense.img").write_bytes(noise.randbytes(70_001))
    (folder / "empty").touch()
    (folder / "inner").mkdir()
    (folder / "inner" / "vmlinuz").write_bytes(b"kernel")
    return folder


@pytest.mark.parametrize("options", GNU_TAR.values(), ids=GNU_TAR)
def test_what_gnu_tar_packs_is_what_is_read(tmp_path: Path, files: Path, options: Sequence[str]) -> None:
    archive = tmp_path / "a.tar"
    subprocess.run(["tar", "-C", files, *options, "-cf", archive, "."], check=True)
    expected = {
        str(path.relative_to(files)): path.read_bytes() for path in files.rglob("*") if path.is_file()
    }
    assert read(archive) == expected
    with FileIO(archive) as file:
        members = {
            one.name: one
            for one in TarballReader(open_stream(file, name="a.tar", check=bool), name="a.tar").files()
        }
    if "--sparse" in options:
        assert members["sparse.img"].stored_bytes < MIB
        assert members["sparse.img"].size == 13 * MIB


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_an_archive_is_read_through_each_compression(tmp_path: Path, files: Path, pack: Callable) -> None:
    plain = subprocess.run(["tar", "-C", files, "-cSf", "-", "."], check=True, capture_output=True).stdout
    (tmp_path / "a").write_bytes(pack(plain))
    assert read(tmp_path / "a")["dense.img"] == (files / "dense.img").read_bytes()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_long_and_foreign_names_are_read_in_each_form(tmp_path: Path, form: int) -> None:
    names = (
        [f"folder/{LONG_NAME[:90]}/x", "é" * 40] if form == tarfile.USTAR_FORMAT else [LONG_NAME, "é" * 120]
    )
    made = archive_of(dict.fromkeys(names, b"x"), form=form)
    (tmp_path / "a.tar").write_bytes(made)
    assert sorted(read(tmp_path / "a.tar")) == sorted(names)


def archive_of(files: dict[str, bytes], *, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in files.items():
            tar.addfile(entry(name, size=len(data)), io.BytesIO(data))
    return buffer.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, *, size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


def of_entries(*entries: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for one in entries:
            tar.addfile(one, io.BytesIO(bytes(one.size)))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry("x", tarfile.SYMTYPE, link="/etc/shadow")], "x in it is a symbolic link"),
        ([entry("x", tarfile.LNKTYPE, link="y")], "x in it is a link"),
        ([entry("x", tarfile.CHRTYPE)], "x in it is a device"),
        ([entry("x", tarfile.BLKTYPE)], "x in it is a device"),
        ([entry("x", tarfile.FIFOTYPE)], "x in it is a named pipe"),
        ([entry("x", b"M")], "x in it is an entry of type"),
        ([entry("/etc/passwd", size=1)], "leads out of the archive"),
        ([entry("../x", size=1)], "leads out of the archive"),
        ([entry("a/../../x", size=1)], "leads out of the archive"),
        ([entry("a/..", tarfile.DIRTYPE)], "leads out of the archive"),
        ([entry("a\nb", size=1)], "has control characters"),
        ([entry("a\x1b[2Jb", size=1)], "has control characters"),
        ([entry("./", size=0)], "is empty"),
        ([entry("n" * 256, size=1)], "255 bytes of a file's name"),
        ([entry("/".join(["n" * 99] * 11), size=1)], "more than 1024 bytes with its folders"),
        ([entry("a", size=1), entry("a", size=1)], "it has a twice"),
        ([entry("a", size=1), entry("./a", size=1)], "it has a twice"),
        ([entry("a", size=1), entry("a/b", size=1)], "as a file and a folder"),
        ([entry("a/b", size=1), entry("a", size=1)], "as a file and a folder"),
        ([entry(f"f{n}", size=1) for n in range(5)], "more than 4 files"),
        ([entry(f"d{n}", tarfile.DIRTYPE) for n in range(40)], "more than 4 files"),
        ([entry("a", size=MIB), entry("b", size=1)], "more than 1 MiB"),
    ],
)
def test_an_archive_against_the_rules_is_refused(
    tmp_path: Path, entries: list[tarfile.TarInfo], words: str
) -> None:
    (tmp_path / "a.tar").write_bytes(of_entries(*entries))
    limits = TarballLimits(files=4, stored_bytes=MIB)
    assert words in refusal(tmp_path / "a.tar", limits)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(of_entries(entry("a\udcffb", size=1)))
    assert "is not UTF-8" in refusal(tmp_path / "a.tar")


@pytest.mark.parametrize("pack", [PACKERS[name] for name in ("", "gzip", "xz", "bzip2", "zstd")])
def test_an_archive_that_was_cut_anywhere_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    noise = random.Random(2).randbytes(5000)  # noqa: S311
    whole = pack(archive_of({"a.img": noise, "b.img": b"x" * 900}))
    place, end = tmp_path / "a.tar", len(whole)
    if pack is bytes:  # the zeros behind the last file are padding, apart from the first block of them
        end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    for cut in [*range(0, end, 487), end - 1, end - 9]:
        place.write_bytes(whole[:cut])
        if not (pack is PACKERS["zstd"] and cut > end - 512):
            assert re.search("end is missing|has no end|it is truncated", refusal(place)), cut


def test_what_follows_the_end_of_an_archive_is_refused(tmp_path: Path) -> None:
    whole = archive_of({"a.img": b"x"})
    for behind in (whole, b"x", bytes(2 * MIB)):
        (tmp_path / "a.tar").write_bytes(gzip.compress(whole + behind))
        assert "there is more behind its end" in refusal(tmp_path / "a.tar")


@pytest.mark.parametrize(
    "compress", [gzip.compress, partial(lzma.compress, preset=0), bz2.compress], ids=["gzip", "xz", "bzip2"]
)
def test_a_bomb_is_not_read_further_than_the_limit(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    header, zeros = entry("x").tobuf(tarfile.USTAR_FORMAT), bytes(24 * MIB)
    bombs = {
        "more than 1 MiB": of_entries(entry("a.img", size=24 * MIB)),
        "more behind its end": archive_of({"a": b""}) + zeros,
        "it has x twice": header * 40_000,
        "more than 100 files": entry("d", tarfile.DIRTYPE).tobuf(tarfile.USTAR_FORMAT) * 40_000,
    }
    for words, bomb in bombs.items():
        (tmp_path / "a.tar").write_bytes(compress(bomb))
        began = time.process_time()
        assert words in refusal(tmp_path / "a.tar", TarballLimits(stored_bytes=MIB))
        assert time.process_time() - began < 1


def test_a_file_larger_than_any_disk_is_refused_although_it_is_nothing_but_holes(tmp_path: Path) -> None:
    info = entry("x")
    info.pax_headers = {"GNU.sparse.size": str(1 << 50), "GNU.sparse.map": f"{1 << 50},0"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    assert "it is too large" in refusal(tmp_path / "a.tar")


def test_what_busybox_packs_is_what_is_read(tmp_path: Path, files: Path) -> None:
    subprocess.run(["busybox", "tar", "-C", files, "-cf", tmp_path / "a.tar", "."], check=True)
    assert read(tmp_path / "a.tar")["inner/vmlinuz"] == b"kernel"


def test_headers_of_any_length_are_not_taken_into_memory(tmp_path: Path) -> None:
    for kind in (b"x", b"g", b"L", b"K"):
        header = entry("x", kind, size=1 << 40).tobuf(tarfile.GNU_FORMAT)
        (tmp_path / "a.tar").write_bytes(header + bytes(MIB))
        assert "header in it is too long" in refusal(tmp_path / "a.tar")


@pytest.mark.parametrize(
    "records",
    [
        {"GNU.sparse.realsize": "100", "GNU.sparse.map": "0,5,3,5"},
        {"GNU.sparse.realsize": "100", "GNU.sparse.map": "0,5,99,5"},
        {"GNU.sparse.realsize": "100", "GNU.sparse.map": "0,5"},
        {"GNU.sparse.realsize": "100", "GNU.sparse.map": "0,5,x,5"},
        {"GNU.sparse.realsize": "100", "GNU.sparse.map": "0,5,6"},
        {"GNU.sparse.realsize": str(1 << 63), "GNU.sparse.map": "0,10"},
        {"GNU.sparse.realsize": "-1", "GNU.sparse.map": "0,10"},
        {"GNU.sparse.realsize": "9" * 5000, "GNU.sparse.map": "0,10"},
        {"GNU.sparse.realsize": "100", "GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
        {"size": "-1"},
        {"size": "9" * 30},
    ],
)
def test_a_map_that_cannot_be_is_refused(tmp_path: Path, records: dict[str, str]) -> None:
    info = entry("x", size=10)
    info.pax_headers = records
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(b"0123456789"))
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    assert "cannot be unpacked" in refusal(tmp_path / "a.tar")


def test_a_stop_is_obeyed_while_an_archive_is_read(tmp_path: Path) -> None:
    def stop(_done: int) -> None:
        raise Stopped("karmic", "stopped", "It continues.")

    (tmp_path / "a.tar").write_bytes(archive_of({"a": b"x"}))
    with pytest.raises(Stopped):
        read(tmp_path / "a.tar", check=stop)


SMALL = {
    form: archive_of({"a.img": b"x" * 600, "é" * 60: b""}, form=form)[:4096]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)
}


@given(
    st.sampled_from(sorted(SMALL)), st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=8)
)
def test_no_damage_is_an_internal_error(tmp_path_factory, form: int, damage: list[tuple[int, int]]) -> None:
    data = bytearray(SMALL[form])
    for at, byte in damage:
        data[at % len(data)] = byte
    for start in range(0, len(data), 512):  # with the right checksum, so that more than it is tested
        block = data[start : start + 512]
        if block[257:262] == b"ustar":
            total = sum(block[:148]) + 8 * 32 + sum(block[156:])
            data[start + 148 : start + 156] = b"%06o\0 " % total
    path = tmp_path_factory.getbasetemp() / "damaged.tar"
    path.write_bytes(data)
    try:
        contents = read(path, TarballLimits(stored_bytes=MIB))
    except Rejected:
        return
    except MemoryError:
        raise AssertionError("a size in a header became memory") from None
    assert len(contents) <= 2
