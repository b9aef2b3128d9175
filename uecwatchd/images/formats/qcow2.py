"""qcow2, the format of QEMU: versions 2 and 3.

Source: QEMU, docs/interop/qcow2.txt. All numbers are big-endian. The file consists of clusters of 512 bytes
to 2 MiB. The map has two levels: the L1 table has the places of L2 tables, each one cluster long, and an L2
entry describes one cluster of the disk:

    0                   not allocated: zeros, as there is no backing file here
    bit 0               zeros, whatever the place says (version 3)
    bits 9-55           place of the cluster
    bit 62              compressed: the low bits are the place in bytes, the bits above them count the sectors
                        of 512 bytes after the first that it touches
    bit 63              the cluster is used only once: says nothing to a reader

With extended L2 entries, a second number follows each: bit n says that subcluster n, a 32nd of the cluster,
is stored, bit 32 + n that it is zero. A cluster is compressed as one piece, by deflate with a window of 4 KiB
or by zstd, as the header says for the whole image.

Internal snapshots are ignored: the L1 table in the header is that of the active state. The bit "dirty" only
says that reference counts may be wrong, which a reader does not use. What makes an image depend on something
else is refused: a backing file, an external data file, a password.

What QEMU itself does not write, and other readers answer with wrong bytes: clusters behind the end of the
file (`qemu-img convert` reads zeros there, and succeeds).
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from uecwatchd.images.file_facts import SECTOR_BYTES
from uecwatchd.images.formats.block_map import PAGE_ENTRIES, Run
from uecwatchd.images.formats.container_file import ContainerFile
from uecwatchd.images.formats.decompress import QCOW2_DEFLATE, Compression, find_zstd
from uecwatchd.images.formats.tables import big_endian

MAGIC = b"QFI\xfb"
HEADER_2_BYTES, HEADER_3_BYTES = 72, 104
COMPRESSION_AT = 104  # one byte, in a longer header of version 3
MIN_CLUSTER_BITS, MAX_CLUSTER_BITS = 9, 21
MIN_EXTENDED_BITS = 14  # a subcluster has at least a sector
SUBCLUSTERS = 32
# QEMU's own limit of an L1 table: 4 million entries, which map 2 PiB with usual clusters.
MAX_L1_BYTES = 32 * 1024 * 1024

DIRTY, CORRUPT, DATA_FILE, COMPRESSION_TYPE, EXTENDED_L2 = 1, 2, 4, 8, 16
KNOWN_FEATURES = DIRTY | CORRUPT | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2
ZLIB, ZSTD = 0, 1
NAMES_OF_CIPHERS = {1: "AES", 2: "LUKS"}

PLACE = 0x00FF_FFFF_FFFF_FE00  # bits of a place in an L1 or L2 entry
COMPRESSED, READS_AS_ZEROS = 1 << 62, 1


@dataclass(frozen=True, slots=True)
class Qcow2Header:
    """Fields of the header that a reader needs. Sizes and places in bytes."""

    version: int
    size: int
    cluster_bits: int
    l1_place: int
    l1_entries: int
    features: int  #: bits that a reader must understand
    compression: int

    @property
    def cluster_bytes(self) -> int:
        return 1 << self.cluster_bits

    @property
    def entry_bytes(self) -> int:
        return 16 if self.features & EXTENDED_L2 else 8

    @property
    def entries_per_table(self) -> int:
        return self.cluster_bytes // self.entry_bytes

    @property
    def used_l1_entries(self) -> int:
        return -(-self.size // (self.cluster_bytes * self.entries_per_table))


@dataclass(frozen=True, slots=True)
class Qcow2Map:
    """The map of a qcow2. A page is a part of one L2 table, or several small ones."""

    file: ContainerFile
    header: Qcow2Header
    compression: Compression

    @property
    def size(self) -> int:
        return self.header.size

    @property
    def block_bytes(self) -> int:
        return self.header.cluster_bytes

    @property
    def page_bytes(self) -> int:
        return PAGE_ENTRIES * self.header.cluster_bytes

    def runs(self, page: int, /) -> Iterator[Run]:
        of_a_table = self.header.entries_per_table
        first_table, first_entry = divmod(page * PAGE_ENTRIES, of_a_table)
        for index, place in enumerate(self._l1_entries(first_table), first_table):
            if place:
                start = (index * of_a_table + first_entry) * self.header.cluster_bytes
                yield from self._runs_of_table(place, first_entry, start)

    def _l1_entries(self, first: int) -> Sequence[int]:
        """Return the places of the L2 tables from one on: as many as a page needs, 0 for absent ones."""
        count = max(1, PAGE_ENTRIES // self.header.entries_per_table)
        count = min(count, self.header.used_l1_entries - first)
        entries = self.file.read(self.header.l1_place + 8 * first, 8 * count, "its L1 table")
        return [entry & PLACE for entry in big_endian("Q", entries)]

    def _runs_of_table(self, place: int, first: int, start: int) -> Iterator[Run]:
        """Yield the runs of one L2 table's entries, from the first on; `start` is its place on the disk."""
        header = self.header
        if place % header.cluster_bytes:
            raise self.file.damaged(f"its L1 table has the place {place}, which is inside a cluster")
        count = min(PAGE_ENTRIES, header.entries_per_table - first)
        self.file.check_end(place + header.cluster_bytes, "a table of its map")
        data = self.file.read(
            place + header.entry_bytes * first, header.entry_bytes * count, "a table of its map"
        )
        if data == bytes(len(data)):
            return
        entries = big_endian("Q", data)
        if header.features & EXTENDED_L2:
            yield from self._extended_runs(entries, start)
        else:
            yield from self._plain_runs(entries, start)

    def _plain_runs(self, entries: Sequence[int], start: int) -> Iterator[Run]:
        step = self.header.cluster_bytes
        for entry in entries:
            if entry & COMPRESSED:
                yield self._compressed_run(entry, start)
            elif entry & READS_AS_ZEROS:
                self._check_may_be_zeros()
            elif place := entry & PLACE:
                self._check_place(place)
                yield Run(start, step, place)
            start += step

    def _extended_runs(self, entries: Sequence[int], start: int) -> Iterator[Run]:
        step, part = self.header.cluster_bytes, self.header.cluster_bytes // SUBCLUSTERS
        for entry, bits in zip(entries[::2], entries[1::2], strict=True):
            place, stored, zeros = entry & PLACE, bits & 0xFFFF_FFFF, bits >> 32
            if entry & COMPRESSED:
                yield self._compressed_run(entry, start)
            elif stored & zeros or (stored and not place):
                raise self.file.damaged("its map has a subcluster that is stored and zero, or nowhere")
            elif stored:
                self._check_place(place)
                for first, count in _ones(stored):
                    yield Run(start + first * part, count * part, place + first * part)
            start += step

    def _check_place(self, place: int) -> None:
        if place % self.header.cluster_bytes:
            raise self.file.damaged(f"its map has the place {place}, which is inside a cluster")

    def _check_may_be_zeros(self) -> None:
        if self.header.version < 3:
            raise self.file.damaged("its map has clusters of zeros, which its version 2 does not know")

    def _compressed_run(self, entry: int, start: int) -> Run:
        """Return the run of a compressed cluster: its length is known in sectors of the file only."""
        count_at = 70 - self.header.cluster_bits
        place = entry & ((1 << count_at) - 1)
        sectors = (entry & (COMPRESSED - 1)) >> count_at
        end = (place // SECTOR_BYTES + sectors + 1) * SECTOR_BYTES
        if 0 < end - self.file.size < SECTOR_BYTES:  # the last one ends within its last sector
            end = self.file.size
        if end <= place:
            raise self.file.truncated("a compressed cluster", place + 1)
        return Run(start, self.header.cluster_bytes, place, stored=end - place)


def open_qcow2(file: ContainerFile) -> Qcow2Map:
    """Return the map of a qcow2. Raises Rejected for a header that cannot be used, OSError."""
    header = _read_header(file)
    _check_self_contained(file)
    _check_features(file, header)
    _check_sizes(file, header)
    return Qcow2Map(file, header, _find_compression(file, header))


def _read_header(file: ContainerFile) -> Qcow2Header:
    data = file.read(0, HEADER_2_BYTES, "its header")
    version, cluster_bits, size, l1_entries, l1_place = _fields(data)
    if version != 3:
        return Qcow2Header(2, size, cluster_bits, l1_place, l1_entries, 0, ZLIB)
    data = file.read(0, HEADER_3_BYTES, "its header")
    (features,), (length,) = struct.unpack_from(">Q", data, 72), struct.unpack_from(">I", data, 100)
    if length < HEADER_3_BYTES or length % 8 or length > 1 << min(cluster_bits, MAX_CLUSTER_BITS):
        raise file.damaged(f"its header says that it has {length} bytes")
    has_compression = length > COMPRESSION_AT
    compression = file.read(COMPRESSION_AT, 1, "its header")[0] if has_compression else ZLIB
    return Qcow2Header(3, size, cluster_bits, l1_place, l1_entries, features, compression)


def _fields(data: bytes) -> tuple[int, int, int, int, int]:
    version, cluster_bits, size = struct.unpack_from(">4xI12xIQ", data)
    l1_entries, l1_place = struct.unpack_from(">IQ", data, 36)
    return version, cluster_bits, size, l1_entries, l1_place


def _check_self_contained(file: ContainerFile) -> None:
    """Raise Rejected if the disk is not all in this file, and readable without a password."""
    backing_place, backing_length, cipher = struct.unpack(">QI12xI", file.read(8, 28, "its header"))
    if backing_place or backing_length:
        raise file.refuse_unless_converted(
            "it has a backing file, where a part of its disk is", when=" where that file is"
        )
    if cipher:
        name = NAMES_OF_CIPHERS.get(cipher, f"method {cipher}")
        raise file.refuse(
            f"it is encrypted ({name})",
            "Decrypt it with qemu-img convert and its secret, and drop the result.",
        )


def _check_features(file: ContainerFile, header: Qcow2Header) -> None:
    if header.features & CORRUPT:
        raise file.damaged("QEMU has marked it as corrupt")
    if header.features & DATA_FILE:
        raise file.refuse_unless_converted("its disk is in an external data file", when=" where that file is")
    if unknown := header.features & ~KNOWN_FEATURES:
        raise file.refuse_unless_converted(f"it needs a feature that is not known here (bits {unknown:#x})")
    is_zlib = header.compression == ZLIB
    if header.compression not in (ZLIB, ZSTD):
        raise file.refuse_unless_converted(f"its compression type {header.compression} is not known here")
    if is_zlib == bool(header.features & COMPRESSION_TYPE):
        raise file.damaged("its header contradicts itself about the compression")


def _check_sizes(file: ContainerFile, header: Qcow2Header) -> None:
    least = MIN_EXTENDED_BITS if header.features & EXTENDED_L2 else MIN_CLUSTER_BITS
    if not least <= header.cluster_bits <= MAX_CLUSTER_BITS:
        raise file.damaged(f"its header says that a cluster has 2^{header.cluster_bits} bytes")
    file.check_disk_size(header.size)
    if header.l1_place % header.cluster_bytes or header.l1_entries * 8 > MAX_L1_BYTES:
        raise file.damaged("its header has no possible place for the L1 table")
    if header.used_l1_entries > header.l1_entries:
        raise file.damaged("its L1 table is too short for its disk")
    file.check_end(header.l1_place + 8 * header.l1_entries, "its L1 table")


def _find_compression(file: ContainerFile, header: Qcow2Header) -> Compression:
    if header.compression == ZLIB:
        return QCOW2_DEFLATE
    try:
        return find_zstd()
    except LookupError as error:
        raise file.refuse(
            f"it is compressed with zstd, and the Python package {error.args[0]} is not installed",
            "Install uecwatchd[formats], or compress it with zlib: qemu-img convert -c -O qcow2.",
        ) from error


def _ones(bits: int) -> Iterator[tuple[int, int]]:
    """Yield the groups of ones in a number, as (lowest bit, count)."""
    first = 0
    while bits:
        skip = (bits & -bits).bit_length() - 1
        bits >>= skip
        count = (~bits & (bits + 1)).bit_length() - 1
        yield first + skip, count
        bits >>= count
        first += skip + count
