"""Facts about the disk in a container or a compressed file, instead of the file around it.

A node boots the disk.
"""

from dataclasses import replace
from io import FileIO

from uecwatchd.errors import Rejected
from uecwatchd.images.block_source import read_exactly
from uecwatchd.images.detect import ARCHIVES, HEAD_BYTES, RAMDISK_FILE_SYSTEMS, identify
from uecwatchd.images.file_facts import ContainedDisk, Facts, Sample
from uecwatchd.images.formats.container_file import ContainerFile
from uecwatchd.images.formats.open import MAX_DISK_BYTES, open_container, open_disk, open_packed_container
from uecwatchd.images.packed.open import known_size, open_packed, read_head
from uecwatchd.images.packed.segments import PackedFile


def describe_contained(facts: Facts, file: FileIO, *, name: str) -> Facts:
    """Return the facts about a container with those of its disk, or with the reason for their absence.

    Only headers are read: the map is checked when the disk is. Raises OSError.
    """
    try:
        disk = open_disk(file, name=name, walk=False).source
        head = read_exactly(disk, 0, HEAD_BYTES)
    except Rejected as error:
        return replace(facts, unreadable=(error.why, error.hint))
    inner = identify(Sample(head, b"", disk.size))
    found = ContainedDisk(disk.size, inner)
    return replace(facts, arch=inner.arch, layout=inner.layout, inside=inner.format, disk=found)


def describe_packed(facts: Facts, file: FileIO, *, name: str) -> Facts:
    """Return the facts about a compressed file with those of the disk in it.

    Only its first bytes are unpacked, and its index read. A ramdisk, an archive and what else is no disk has
    its format only. Raises OSError.
    """
    packed_file = ContainerFile.of(file, name, MAX_DISK_BYTES)
    try:
        packed = open_packed(facts.format, packed_file)
        container = open_packed_container(facts.format, packed)
        return _describe_disk(facts, packed) if container is None else _describe_container(facts, container)
    except Rejected as error:
        return replace(facts, unreadable=(error.why, error.hint))


def _describe_disk(facts: Facts, packed: PackedFile) -> Facts:
    head, size = read_head(packed, HEAD_BYTES), known_size(packed)
    inner = identify(Sample(head, b"", len(head) if size is None else size))
    # An ext2 in it is either an old initrd or a disk: only its name can tell.
    role = None if inner.format in RAMDISK_FILE_SYSTEMS else inner.role
    known = replace(facts, role=role, arch=inner.arch, version=inner.version, inside=inner.format)
    if role in ("kernel", "ramdisk") or inner.format in ARCHIVES:
        return known
    return replace(known, layout=inner.layout, disk=ContainedDisk(size, inner))


def _describe_container(facts: Facts, container: ContainerFile) -> Facts:
    opened = open_container(container, check=lambda: None, walk=False)
    disk = opened.source
    inner = identify(Sample(read_exactly(disk, 0, HEAD_BYTES), b"", disk.size))
    return replace(
        facts,
        role="machine",
        arch=inner.arch,
        layout=inner.layout,
        inside=opened.format,
        disk=ContainedDisk(disk.size, inner),
    )
