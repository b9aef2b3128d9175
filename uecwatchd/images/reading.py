"""Ways to take the bytes of an image from a file, as a text.

It is stored with the digest of these bytes. The first word is "file", "disk" for the disk in a container, or
"prepared" for that disk with changes over it. A second one is a part of it, for example
"disk partition:1048576+2147483648" (start and size in bytes) or "file guest:/boot/vmlinuz-6.1.0" (a path
without links, in the system on that disk).
"""

from uecwatchd.types import Reading

PREPARED = "prepared"
PARTITION, GUEST = "partition:", "guest:"


def whole(reading: Reading) -> Reading:
    """Return the reading of all that the part is taken from."""
    return reading.partition(" ")[0]


def with_partition(reading: Reading, start: int, size: int) -> Reading:
    return f"{whole(reading)} {PARTITION}{start}+{size}"


def with_guest_file(reading: Reading, path: str) -> Reading:
    return f"{whole(reading)} {GUEST}{path}"


def guest_path(reading: Reading) -> str:
    """Return the path of the file in the guest; empty if the image is another part, or none."""
    part = reading.partition(" ")[2]
    return part.removeprefix(GUEST) if part.startswith(GUEST) else ""


def describe(reading: Reading, path: str) -> str:
    """Return the path of a file, and what is taken from it, if that is only a part."""
    if inside := guest_path(reading):
        return f"{inside} in {path}"
    return f"a partition of {path}" if reading != whole(reading) else path


def is_prepared(reading: Reading) -> bool:
    """Tell if the image has changes over it.

    A kernel in it has none: they are for files of the system.
    """
    return whole(reading) == PREPARED and not guest_path(reading)
