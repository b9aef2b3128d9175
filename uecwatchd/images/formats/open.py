"""The door to disk images: any format in, one block source out.

The format is known by the first bytes, and for a fixed VHD by the last: never by the name. A file without any
of the magics is a raw image. A file with two of them is refused, because one program would see one disk in
it, and the next program another: what was checked would not be what boots. A compressed file is unpacked
while it is read, and what is in it is looked at in the same way, but not twice.

Everything else about a format is in its module. Formats that are known by name only are refused here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from io import FileIO
from typing import Self

from uecwatchd.errors import Rejected
from uecwatchd.images.block_source import BlockSource, FileSource
from uecwatchd.images.file_facts import SECTOR_BYTES
from uecwatchd.images.formats import qcow2, vdi, vhd, vhdx, vmdk
from uecwatchd.images.formats.block_map import BlockMap
from uecwatchd.images.formats.container_file import ContainerFile
from uecwatchd.images.formats.mapped_source import MappedSource
from uecwatchd.images.packed.open import (
    MAX_UNPACKED_BYTES,
    detect_packing,
    open_packed,
    open_seekable,
    open_whole,
    read_head,
)
from uecwatchd.images.packed.segments import PackedFile
from uecwatchd.images.packed.survey import Surveys
from uecwatchd.system.text import file_word

# The largest file of ext4: a node writes the disk into a file before it boots it.
MAX_DISK_BYTES = 16 << 40
# Up to the volume descriptor of an ISO 9660 file system, the farthest of the magics.
HEAD_BYTES = 34 * 1024

READERS: Mapping[str, Callable[[ContainerFile], BlockMap]] = {
    "qcow2": qcow2.open_qcow2,
    "vmdk": vmdk.open_vmdk,
    "vdi": vdi.open_vdi,
    "vhd": vhd.open_vhd,
    "vhdx": vhdx.open_vhdx,
}
REFUSALS: Mapping[str, Callable[[ContainerFile], Rejected]] = {
    "a VMDK descriptor": vmdk.refuse_descriptor,
    "LUKS": lambda file: file.refuse(
        "it is encrypted (LUKS)", "Decrypt it, and drop the disk that was in it."
    ),
}


@dataclass(frozen=True, slots=True)
class Magic:
    """The first bytes of a format, and where they are."""

    name: str
    at: int
    data: bytes


CONTAINERS = (
    Magic("qcow2", 0, qcow2.MAGIC + b"\0\0\0\2"),
    Magic("qcow2", 0, qcow2.MAGIC + b"\0\0\0\3"),
    Magic("qcow", 0, qcow2.MAGIC + b"\0\0\0\1"),
    Magic("vmdk", 0, vmdk.MAGIC),
    Magic("vdi", vdi.MAGIC_AT, vdi.MAGIC),
    Magic("vhd", 0, vhd.MAGIC),
    Magic("vhdx", 0, vhdx.MAGIC),
    Magic("LUKS", 0, b"LUKS\xba\xbe"),
    Magic("qed", 0, b"QED\0"),
    Magic("parallels", 0, b"WithoutFreeSpace"),
    Magic("parallels", 0, b"WithouFreSpacExt"),
    Magic("a VMDK of ESX", 0, b"COWD"),
    Magic("a VMDK of ESX", 0, b"\xbe\xba\xfe\xca\0\0\0\0"),
    Magic("a VMDK descriptor", 0, b"# Disk DescriptorFile"),
)
# What a raw disk has in these places. In a container they are part of a header or a table, and never these.
DISKS = (
    Magic("a boot sector", 510, b"\x55\xaa"),
    Magic("a GPT", 512, b"EFI PART"),
    Magic("a GPT", 4096, b"EFI PART"),
    Magic("ISO 9660", 0x8001, b"CD001"),
)


@dataclass(frozen=True, slots=True)
class OpenedDisk:
    """A disk that can be read, and the format of its file.

    That is "raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", the name of a compression, or "qcow2 in xz".
    """

    format: str
    source: BlockSource


@dataclass(frozen=True, slots=True)
class DiskAccess:
    """The largest disks that are opened, and what is kept from earlier readings of compressed files."""

    max_container_bytes: int = MAX_DISK_BYTES
    max_unpacked_bytes: int = MAX_UNPACKED_BYTES
    surveys: Surveys = field(default_factory=Surveys)

    @classmethod
    def limited_to(cls, max_disk_size: int | None) -> Self:
        """Return access with one limit in bytes for all disks, or with the defaults."""
        return cls(max_disk_size, max_disk_size) if max_disk_size else cls()


def open_disk(
    file: FileIO,
    *,
    name: str,
    access: DiskAccess | None = None,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int], None] = lambda _done: None,
    walk: bool = True,
) -> OpenedDisk:
    """Open the disk inside a file, of any format. The source closes `file`; an error leaves it open.

    `name` is the file's in messages. `check` is called now and then while a large map is read, or a
    compressed file for the first time, and may raise to stop; `progress` then with the number of
    compressed bytes that are done. Without `walk`, for a look at the first bytes of the disk, the map is not
    checked. Raises Rejected for an image that cannot be used, with what to do about it; OSError.
    """
    access, source = access or DiskAccess(), FileSource(file)
    container = ContainerFile(source, name, access.max_container_bytes)
    packing = detect_packing(container.read_start(HEAD_BYTES))
    if packing is None:
        return open_container(container, check=check, walk=walk)
    packed = open_packed(packing, container)
    inner = open_packed_container(packing, packed)
    if inner is None:
        whole = open_whole(
            packed,
            source.stamp,
            max_bytes=access.max_unpacked_bytes,
            surveys=access.surveys,
            check=check,
            progress=progress,
        )
        inner = replace(container, source=whole)
    disk = open_container(inner, check=check, walk=walk)
    if disk.format == "raw":
        _check_sectors(inner)
    return OpenedDisk(packing if disk.format == "raw" else f"{disk.format} in {packing}", disk.source)


def open_container(file: ContainerFile, *, check: Callable[[], None], walk: bool) -> OpenedDisk:
    """Open the disk inside a file that is not compressed, as `open_disk` does."""
    format_name = detect_format(file)
    if format_name == "raw":
        return OpenedDisk("raw", file.source)
    if refuse := REFUSALS.get(format_name):
        raise refuse(file)
    if format_name not in READERS:
        raise file.refuse_unless_converted(f"its format, {format_name}, is not read here")
    source = MappedSource(file, READERS[format_name](file), check)
    if walk:
        source.extents()
    return OpenedDisk(format_name, source)


def open_packed_container(packing: str, packed: PackedFile) -> ContainerFile | None:
    """Return the container in a compressed file, None if there is something else in it.

    Raises Rejected for one that is compressed so that it can only be read from its beginning, and for a file
    that is compressed twice; OSError.
    """
    head, file = read_head(packed, HEAD_BYTES), packed.file
    word = file_word(file.name)
    unpack = f"Try: {packing} -dc < {word} > {word}.part && mv {word}.part {word}"
    if twice := detect_packing(head):
        raise file.refuse(f"it is compressed twice: with {twice}, and then with {packing}", unpack)
    found = _names(CONTAINERS, head)
    if not found:
        return None
    source = open_seekable(packed)
    if source is None:
        why = f"there is a {found[0]} in it, which is read in any order, and it is compressed in one piece"
        raise file.refuse(why, f"{unpack}; or compress it in blocks: xz -T0")
    return replace(file, source=source)


def _check_sectors(file: ContainerFile) -> None:
    """Raise Rejected for a disk that ends inside a sector: nodes refuse the rest, or drop it."""
    if file.size % SECTOR_BYTES:
        raise file.refuse(
            f"it unpacks to {file.size} bytes, which is not a multiple of {SECTOR_BYTES}",
            f"Unpack it, make it longer (truncate -s %{SECTOR_BYTES}), and drop that.",
        )


def detect_format(file: ContainerFile) -> str:
    """Return the name of the one format of a file; "raw" if it has no magic.

    Raises Rejected for a file with two formats, or with an unfinished header, OSError.
    """
    head = file.read_start(HEAD_BYTES)
    found = _names(CONTAINERS, head)
    if not found and head.startswith(qcow2.MAGIC):
        raise _unknown_qcow2(file, head)
    if vhd.find_footer(file) is not None and "vhd" not in found:
        found = [*found, "vhd"]  # a fixed one, whose first bytes are those of its disk
    elif found:
        found = [*found, *_names(DISKS, head)]
    if len(found) > 1:
        raise file.refuse(
            f"it is {found[0]} and {found[1]} in one: which disk it has depends on the program that reads it",
            "Make it again as an image of one format, from a source that you trust.",
        )
    return found[0] if found else "raw"


def _names(magics: tuple[Magic, ...], head: bytes) -> list[str]:
    found = (magic.name for magic in magics if head.startswith(magic.data, magic.at))
    return list(dict.fromkeys(found))


def _unknown_qcow2(file: ContainerFile, head: bytes) -> Rejected:
    if file.size < qcow2.HEADER_2_BYTES:
        return file.truncated("its header", qcow2.HEADER_2_BYTES)
    version = int.from_bytes(head[4:8], "big")
    return file.refuse_unless_converted(f"it is a qcow2 of version {version}, which is not known here")
