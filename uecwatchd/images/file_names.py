"""Facts from a file name: a role as the last resort, and the version to pair kernel and ramdisk."""

import re
import unicodedata
from collections.abc import Mapping

from uecwatchd.types import Arch, Role

RAMDISK_NAME = re.compile(r"(?<![a-z0-9])(initrd|initramfs|ramdisk)")
KERNEL_NAME = re.compile(r"vmlinu[xz]|(?<![a-z0-9])(bzimage|kernel|memdisk)")
MACHINE_NAME = re.compile(r"\.(img|image|raw|ami|disk|qcow2?|vmdk|vhdx?|vdi|ext[234])$")
# A ramdisk's name may look like an image, or like a kernel.
ROLE_NAMES: Mapping[Role, re.Pattern[str]] = {
    "ramdisk": RAMDISK_NAME,
    "kernel": KERNEL_NAME,
    "machine": MACHINE_NAME,
}
COMPRESSED_NAME = re.compile(r"\.(gz|xz|lzma|bz2|zst|lz4|lzo)$")
VERSION_NAME = re.compile(
    r"(?<![a-z0-9])(?:vmlinu[xz]|bzimage|kernel|initrd(?:\.img)?|initramfs|ramdisk)[-_](\d.*)"
)
# Words at the start of the name of a kernel or ramdisk, or after the name of its image:
# "web-vmlinuz-virtual".
BOOT_WORDS = r"vmlinu[xz]|bzimage|kernel|memdisk|loader|initrd|initramfs|ramdisk|floppy"
BOOT_NAME = re.compile(rf"(?:{BOOT_WORDS})(?:\.img)?(?:[-_.](?P<rest>.+))?", re.IGNORECASE)
BOOT_WORD_INSIDE = re.compile(rf"[-_.](?=(?:{BOOT_WORDS})(?:[-_.]|$))", re.IGNORECASE)
FILE_ENDING = re.compile(r"\.(img|cpio|bin|image|efi|signed|gz|xz|lzma|bz2|zst|lz4|lzo)$", re.IGNORECASE)
NUMBERED = re.compile(r"(?<![a-z0-9])\d+\.\d+", re.IGNORECASE)
# Kernels and ramdisks for emergencies, for crash dumps, or set aside by an update.
SPARE_NAME = re.compile(
    r"(?<![a-z0-9])(rescue|fallback|recovery)(?![a-z0-9])|kdump|\.(old|bak|orig|save|dpkg-\w+)(-dkms)?$",
    re.IGNORECASE,
)
LOADER_NAME = re.compile(r"[-_.]loader$", re.IGNORECASE)
MICROCODE_NAME = re.compile(
    r"(?<![a-z0-9])(intel|amd|early)[-_](ucode|uc|microcode)(?![a-z0-9])", re.IGNORECASE
)
# A word may be followed by a version, as in Docker's arm64v8, and by the byte order. Not "arm", "alpha" or
# "arc" alone: in names of images they often mean other things.
_LITTLE, _BIG = r"[-_]?(?:le|el)", r"(?:[-_]?(?:be|eb))?"
ARCH_WORDS: Mapping[str, Arch] = {
    r"(?:amd64|x86[-_]64|x64)(?:v[1-4])?": "x86_64",
    r"i[3-6]86": "i386",
    r"(?:arm[-_]?64|aarch64|aa64)(?:v[89][a-z]?|[-_]?le)?|armv[89]a?|(?<=linux[-_])arm[-_]v8": "arm64",
    r"(?:arm(?:(?:32|eabi)[-_]?)?|(?<=linux[-_])arm[-_])v(?:[4-7][a-z]*|8l)"
    r"|arm(?:32|hfp?|el|eabi(?:hf)?)|aarch32": "arm",
    rf"(?:ppc|powerpc)64{_LITTLE}": "ppc64le", rf"(?:ppc|powerpc)64{_BIG}": "ppc64", "ppc|powerpc": "ppc",
    r"riscv64[a-z]*": "riscv64", r"riscv32[a-z]*": "riscv32",
    "s390x": "s390x", "s390": "s390", "ia64": "ia64", r"loong(?:arch)?64": "loongarch64",
    rf"mips(?:isa)?64(?:r[1-6])?{_LITTLE}": "mips64el", rf"mips(?:isa)?64(?:r[1-6])?{_BIG}": "mips64",
    rf"mips(?:isa32)?(?:r[1-6])?{_LITTLE}": "mipsel", rf"mips(?:isa32)?(?:r[1-6])?{_BIG}": "mips",
    "hppa|parisc": "parisc",
}  # fmt: skip
ARCH_NAME = re.compile(rf"(?<![a-z0-9])(?:{'|'.join(f'({word})' for word in ARCH_WORDS)})(?![a-z0-9])")


# Names of lists of sums: karmic.img.sha256, SHA256SUMS, sha256sum.txt, Fedora-41-CHECKSUM, and so on.
SUMS_NAME = re.compile(
    r"(?:(?P<target>.+?)[-_.])?(?:sha-?256(?:[-_.]?sums?)?|checksums?)(?:\.sha-?256.*)?(?:\.txt)?",
    re.IGNORECASE,
)
# Sums of other kinds, and signatures.
_OTHER_SUMS = (
    r"(?:md5|sha-?1|sha-?224|sha-?384|sha-?512(?:[-_]?256)?|sha-?3(?:[-_]?\d{3})?|b[23]|blake(?:2[bs]?|3)"
    r"|crc32c?|xxh(?:ash)?(?:3|32|64|128)?|rmd160|ripemd160|whirlpool|sm3)"
)
OTHER_PROOF = re.compile(
    rf"(?:(?P<target>.+?)[-_.])?{_OTHER_SUMS}[-_.]?sums?(?:\.txt)?"
    rf"|(?P<file>.+)\.(?:{_OTHER_SUMS}(?:\.txt)?|sfv|asc|sig|sign|gpg|pgp|minisig|p7s"
    r"|zsync|torrent|metalink|meta4)",
    re.IGNORECASE,
)


def checksums_target(name: str) -> str | None:
    """Return the file or set of a list of sums, by its name; "" if its lines name the files.

    Returns None if this is not the name of a list of SHA-256 sums.
    """
    found = SUMS_NAME.fullmatch(name)
    return (found["target"] or "") if found else None


def proof_target(name: str) -> str | None:
    """Return the same for sums of another kind, and for a signature."""
    found = OTHER_PROOF.fullmatch(name)
    return (found["target"] or found["file"] or "") if found else None


def fold_name(name: str) -> str:
    """Return a name for comparison without case, and with one spelling of each accent (NFC)."""
    return name.lower() if name.isascii() else compose_accents(compose_accents(name).casefold())


def compose_accents(name: str) -> str:
    """Return a name with each accent in its letter (NFC): macOS writes them separately."""
    return unicodedata.normalize("NFC", name)


def role_by_name(name: str) -> Role | None:
    """Return the role that a name says.

    `initrd.img-2.6.31` also looks like an image, and `kernel-initramfs` like a kernel, so ramdisks come
    first.
    """
    plain = COMPRESSED_NAME.sub("", name.lower())
    return next((role for role, pattern in ROLE_NAMES.items() if pattern.search(plain)), None)


def arch_by_name(name: str) -> Arch | None:
    """Return the architecture in a name; None if it has none or several."""
    arches = arches_by_name(name)
    return next(iter(arches)) if len(arches) == 1 else None


def arches_by_name(name: str) -> frozenset[Arch]:
    arches = tuple(ARCH_WORDS.values())
    return frozenset(arches[(found.lastindex or 1) - 1] for found in ARCH_NAME.finditer(name.lower()))


def version_by_name(name: str) -> str | None:
    """Return the version that pairs a kernel with its ramdisk.

    It is `2.6.28-11-server` for initrd.img-2.6.28-11-server.
    """
    found = VERSION_NAME.search(strip_endings(name))
    return found[1] if found else None


def pairing_by_name(name: str) -> str:
    """Return the common part in the names of a kernel and its ramdisk, with or without a version.

    It is `linux` for initramfs-linux.img, and empty for a bare vmlinuz.
    """
    found = BOOT_NAME.fullmatch(strip_endings(name))
    return version_by_name(name) or (found["rest"] if found and found["rest"] else "")


def flavour_by_name(name: str) -> str:
    """Return the part after the last boot word: `virtual` in web-vmlinuz-virtual."""
    starts = [found.end() for found in BOOT_WORD_INSIDE.finditer(name)]
    return pairing_by_name(name[starts[-1] :] if starts else name)


def strip_endings(name: str) -> str:
    while (plain := FILE_ENDING.sub("", name)) not in (name, ""):
        name = plain
    return name


def is_versioned(pairing: str) -> bool:
    return pairing[:1].isdigit() or NUMBERED.search(pairing) is not None


def is_loader(name: str) -> bool:
    """Return True for the loader in a published set, which starts a kernel inside the image."""
    return LOADER_NAME.search(strip_endings(name)) is not None


def is_spare(name: str) -> bool:
    """Return True for a kernel or ramdisk that is used only if a sidecar names it."""
    plain = COMPRESSED_NAME.sub("", name).removesuffix(".img")
    return (SPARE_NAME.search(plain) or MICROCODE_NAME.search(plain)) is not None


def stems_by_name(name: str) -> list[str]:
    """Return the images that a kernel, ramdisk, loader or floppy may be for, in the style of published sets.

    The longest stem comes first: `lucid` for lucid-vmlinuz-virtual, lucid.initrd.gz and initrd-lucid.img.
    """
    before = [name[: found.start()] for found in BOOT_WORD_INSIDE.finditer(name) if found.start()]
    behind = BOOT_NAME.fullmatch(strip_endings(name))
    return [*reversed(before), *([behind["rest"]] if behind and behind["rest"] else [])]
