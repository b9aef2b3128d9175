"""Which names a bundle's files and objects may have, and how ours are made."""

import re

from uecwatchd.images.facts import Role

STEM_LIMIT = 64  # with mark, token and ".part.NNNNN" a key stays far below the 255 characters of bucket/key

MARKS: dict[Role, str] = {"machine": "image-", "kernel": "vmlinuz-", "ramdisk": "initrd-"}
# Eucalyptus takes a manifest whose name begins like this for a kernel, a ramdisk, a Windows machine.
TELLING = ("vmlinuz", "initrd", "windows")

_UNPORTABLE = re.compile(r"[^A-Za-z0-9._-]+")


def is_plain(name: str) -> bool:
    """Whether a name from outside can be a file's name in a folder of ours, and nothing else."""
    return name not in ("", ".", "..") and "/" not in name and name.isprintable()


def portable(name: str) -> str:
    """`name` in the characters that every server takes in an object's key, at most `STEM_LIMIT` of them."""
    return _portable(name) or "image"


def bundle_prefix(kind: Role, name: str, *, token: str) -> str:
    """What the names of a bundle's objects begin with: PREFIX.manifest.xml, PREFIX.part.0, and so on.

    `token` makes it unique, since a registered manifest must never be overwritten. Kernels and ramdisks are
    named as servers expect them, and machines are not named like either. `name` may be empty.
    """
    stem, mark = _portable(name), MARKS[kind]
    whole = f"{stem}-{token}" if stem else token
    if kind == "machine":
        return mark + whole if not stem or stem.lower().startswith(TELLING) else whole
    return whole if whole.startswith(mark) else mark + whole


def manifest_name(prefix: str) -> str:
    return f"{prefix}.manifest.xml"


def part_name(prefix: str, index: int) -> str:
    return f"{parts_prefix(prefix)}{index}"


def parts_prefix(prefix: str) -> str:
    """What the names of all parts of a bundle begin with, and of nothing else."""
    return f"{prefix}.part."


def _portable(name: str) -> str:
    return _UNPORTABLE.sub("-", name)[:STEM_LIMIT].strip("-.")
