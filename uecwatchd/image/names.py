"""What a file's name says: the last resort for a role, and what pairs a kernel with its ramdisk."""

import re
import unicodedata
from collections.abc import Mapping

from uecwatchd.image.content import Arch, Role

RAMDISK_NAME = re.compile(r"(?<![a-z0-9])(initrd|initramfs|ramdisk)")
KERNEL_NAME = re.compile(r"vmlinu[xz]|(?<![a-z0-9])(bzimage|kernel|memdisk)")
MACHINE_NAME = re.compile(r"\.(img|image|raw|ami|disk|qcow2?|vmdk|vhdx?|vdi|ext[234])$")
COMPRESSED_NAME = re.compile(r"\.(gz|xz|lzma|bz2|zst|lz4|lzo)$")
VERSION_NAME = re.compile(
    r"(?<![a-z0-9])(?:vmlinu[xz]|bzimage|kernel|initrd(?:\.img)?|initramfs|ramdisk)[-_](\d.*)"
)
ARCH_WORDS: Mapping[str, Arch] = {
    "amd64": "x86_64", "x86_64": "x86_64", "x86-64": "x86_64", "x64": "x86_64",
    "i386": "i386", "i486": "i386", "i586": "i386", "i686": "i386",
}  # fmt: skip
ARCH_NAME = re.compile(rf"(?<![a-z0-9])({'|'.join(ARCH_WORDS)})(?![a-z0-9])")


def folded(name: str) -> str:
    """Return a name as file systems compare it that know no case and one spelling of each accent (NFC)."""
    return name.lower() if name.isascii() else composed(composed(name).casefold())


def composed(name: str) -> str:
    """Return a name with each accent in its letter (NFC): macOS writes them apart."""
    return unicodedata.normalize("NFC", name)


def role_by_name(name: str) -> Role | None:
    """`initrd.img-2.6.31` names an image and a ramdisk; `kernel-initramfs` a kernel too: ramdisks first."""
    plain = COMPRESSED_NAME.sub("", name.lower())
    roles: Mapping[Role, re.Pattern[str]] = {
        "ramdisk": RAMDISK_NAME,
        "kernel": KERNEL_NAME,
        "machine": MACHINE_NAME,
    }
    return next((role for role, pattern in roles.items() if pattern.search(plain)), None)


def arch_by_name(name: str) -> Arch | None:
    """None too where a name speaks of both."""
    arches = {ARCH_WORDS[word] for word in ARCH_NAME.findall(name.lower())}
    return arches.pop() if len(arches) == 1 else None


def version_by_name(name: str) -> str | None:
    """What pairs a kernel with its ramdisk: `2.6.28-11-server` of initrd.img-2.6.28-11-server."""
    plain = COMPRESSED_NAME.sub("", name)
    found = VERSION_NAME.search(plain)
    return found[1].removesuffix(".img") if found else None
