"""An fstab, and the volumes that its lines mean."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from uecwatchd.images.guest.volumes import Volume
from uecwatchd.images.partitions import Partition
from uecwatchd.system.text import unescape_octal

# A space is written as \040 there: fstab(5).
# The last digits are the partition's number: sda1, vda1, xvda1, nvme0n1p1.
DEVICE = re.compile(r"/dev/(?:[shvx]+d[a-z]+|nvme\d+n\d+p|mmcblk\d+p)(?P<number>\d+)")
WHOLE_DISK = re.compile(r"/dev/[shvx]+d[a-z]+")
MAX_LINES = 1000
DEFAULTS = ("auto", "defaults")  # of the third and the fourth field


@dataclass(frozen=True, slots=True)
class PlacedVolume:
    """A volume and its partition; None for a volume over the whole disk."""

    volume: Volume
    partition: Partition | None


@dataclass(frozen=True, slots=True)
class FstabLine:
    """One line: what to mount, where, its type and its options."""

    device: str
    point: str
    type: str
    options: tuple[str, ...]


def parse_fstab(text: str) -> tuple[FstabLine, ...]:
    """Read an fstab. Lines without a device and a mount point are ignored, as mount(8) ignores them."""
    return tuple(_lines(text.splitlines()[:MAX_LINES]))


def _lines(lines: Iterable[str]) -> Iterator[FstabLine]:
    for line in lines:
        fields = [unescape_octal(field) for field in line.split()]
        if len(fields) < 2 or fields[0].startswith("#"):
            continue
        device, point, type_, options = (*fields, *DEFAULTS[len(fields) - 2 :])[:4]
        yield FstabLine(device.replace('"', ""), point, type_, tuple(options.split(",")))


def is_meant(device: str, placed: PlacedVolume) -> bool:
    """Tell if the device of an fstab, or of `root=`, is a volume of this disk."""
    volume, partition = placed.volume, placed.partition
    tag, equals, value = device.partition("=")
    if equals:
        return bool(value) and value.casefold() in _tagged(tag, volume, partition)
    if volume.name:
        return device in (f"/dev/{volume.name}", _mapped_name(volume.name))
    if found := DEVICE.fullmatch(device):
        # A node makes a disk around an image without partitions, and the image its first one: sda1.
        return int(found["number"]) == (partition.number if partition else 1)
    by = device.removeprefix("/dev/disk/by-")
    if by != device:
        tag, _, value = by.partition("/")
        return bool(value) and value.casefold() in _tagged(tag.upper(), volume, partition)
    return partition is None and WHOLE_DISK.fullmatch(device) is not None


def _tagged(tag: str, volume: Volume, partition: Partition | None) -> tuple[str, ...]:
    values = {
        "UUID": volume.uuid,
        "LABEL": volume.label,
        "PARTUUID": partition.uuid if partition else "",
        "PARTLABEL": partition.name if partition else "",
    }
    value = values.get(tag, "")
    return (value.casefold(),) if value else ()


def _mapped_name(name: str) -> str:
    """Return the device of a logical volume: hyphens in its names are doubled."""
    return "/dev/mapper/" + "-".join(part.replace("-", "--") for part in name.split("/"))
