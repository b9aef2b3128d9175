"""Facts about the disk in a container, instead of the file around it: a node boots the disk."""

from dataclasses import replace
from io import FileIO

from uecwatchd.errors import Rejected
from uecwatchd.images.block_source import BlockSource
from uecwatchd.images.detect import HEAD_BYTES, identify
from uecwatchd.images.facts import ContainedDisk, Facts, Sample
from uecwatchd.images.formats.open import open_disk


def describe_contained(facts: Facts, file: FileIO, *, name: str) -> Facts:
    """Return the facts about a container with those of its disk, or with the reason for their absence.

    Only headers are read: the map is checked when the disk is. Raises OSError.
    """
    try:
        disk = open_disk(file, name=name, walk=False).source
        head = _read_head(disk)
    except Rejected as error:
        return replace(facts, unreadable=(error.why, error.hint))
    inner = identify(Sample(head, b"", disk.size))
    found = ContainedDisk(disk.size, inner)
    return replace(facts, arch=inner.arch, layout=inner.layout, inside=inner.format, disk=found)


def _read_head(disk: BlockSource) -> bytes:
    buffer = bytearray(min(HEAD_BYTES, disk.size))
    return bytes(buffer[: disk.read_into(0, memoryview(buffer))])
