"""Names of a bundle's files and objects."""

import re

from uecwatchd.types import Role

STEM_LIMIT = 64  # with mark, token and ".part.NNNNN" a key stays far below the 255 characters of bucket/key

MARKS: dict[Role, str] = {"machine": "image-", "kernel": "vmlinuz-", "ramdisk": "initrd-"}
# With such a prefix Eucalyptus registers a manifest as a kernel, a ramdisk, a Windows machine.
TELLING = ("vmlinuz", "initrd", "windows")

_UNPORTABLE = re.compile(r"[^A-Za-z0-9._-]+")


def is_plain_name(name: str) -> bool:
    """Return True if a name from outside is a plain file name, without a path."""
    return name not in ("", ".", "..") and "/" not in name and name.isprintable()


def portable_name(name: str) -> str:
    """Return `name` with only characters that every server accepts in a key, at most `STEM_LIMIT` of them."""
    return _portable(name) or "image"


def bundle_prefix(kind: Role, name: str, *, token: str) -> str:
    """Return the prefix of a bundle's objects: PREFIX.manifest.xml, PREFIX.part.0, and so on.

    `token` makes it unique, because a registered manifest must never be overwritten. Kernels and ramdisks get
    the names that servers expect, and machines never get such a name. `name` may be empty.
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
    """Return the common prefix of all parts of a bundle, which no other object has."""
    return f"{prefix}.part."


def _portable(name: str) -> str:
    return _UNPORTABLE.sub("-", name)[:STEM_LIMIT].strip("-.")
