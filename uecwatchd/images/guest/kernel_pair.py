"""The kernel and ramdisk that a guest would boot: the newest pair of its own.

Names are read as for files that are dropped: a kernel and a ramdisk belong together if they have the same
version, or the same word, in their names. Kernels for emergencies and crash dumps do not count.
"""

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from uecwatchd.errors import Rejected
from uecwatchd.images import file_names
from uecwatchd.images.detect import HEAD_BYTES, detect
from uecwatchd.images.file_facts import Facts, Reason
from uecwatchd.images.guest.tree import GuestFile, GuestTree
from uecwatchd.images.guest.versions import VersionOrder, release_numbers, version_order
from uecwatchd.images.suitability import COMPRESSORS, reason_unsuitable
from uecwatchd.types import Arch, Role

# Where distributions have them; the root has links to them, or on a small system the files.
FOLDERS = ("/boot", "/")
# Far more than any: a kernel with debug symbols, a ramdisk with all firmware.
MAX_BYTES = 1 << 30
NAME_HINT = "Drop the kernel and the ramdisk that are meant beside the image, and name them in its sidecar."


class NoKernelPair(Rejected):
    """An image without a usable kernel, or with several possible ones."""


@dataclass(frozen=True, slots=True)
class GuestKernel:
    """A kernel in a guest. `version` is that of its header, as `uname -r` prints it, else of its name."""

    file: GuestFile
    facts: Facts
    version: str
    pairing: str  #: what its ramdisk has in its name too

    @property
    def order(self) -> VersionOrder:
        return version_order(self.version)


@dataclass(frozen=True, slots=True)
class KernelPair:
    """A kernel, and its ramdisk; None if it needs none. With the facts about the content of each."""

    version: str
    kernel: GuestFile
    kernel_facts: Facts
    ramdisk: GuestFile | None
    ramdisk_facts: Facts | None = None


def find_kernels(tree: GuestTree) -> tuple[GuestKernel, ...]:
    """Return the kernels of a guest, the newest first. Raises UnreadableVolume, OSError."""
    found = dict[str, GuestKernel]()
    for folder in FOLDERS:
        for file, name in _boot_files(tree, folder, "kernel"):
            found.setdefault(file.path, _describe(file, name))
    return tuple(sorted(found.values(), key=lambda kernel: kernel.order, reverse=True))


def find_kernel_pair(tree: GuestTree) -> KernelPair:
    """Return the newest kernel that has a ramdisk; if none has one, the newest.

    Raises NoKernelPair, UnreadableVolume, OSError.
    """
    kernels = _without_packed(find_kernels(tree))
    if not kernels:
        raise NoKernelPair(
            "the image has no kernel",
            "there is none in its folder /boot",
            "Install a kernel in it, or drop a kernel and a ramdisk beside it.",
        )
    paired = [(kernel, ramdisk) for kernel in kernels if (ramdisk := _ramdisk_for(tree, kernel))]
    kernel, ramdisk = paired[0] if paired else (kernels[0], None)
    _check_only_one(kernel, [each for each, _ in paired] or kernels)
    _check_bootable(kernel)
    for file in filter(None, (kernel.file, ramdisk)):
        if file.entry.size > MAX_BYTES:
            raise NoKernelPair(file.path, "it is larger than a kernel or a ramdisk can be", NAME_HINT)
    if ramdisk is None:
        return KernelPair(kernel.version, kernel.file, kernel.facts, None)
    return KernelPair(kernel.version, kernel.file, kernel.facts, ramdisk, _ramdisk_facts(ramdisk))


def check_architecture(pair: KernelPair, programs: Arch | None) -> None:
    """Raise NoKernelPair for a kernel that cannot start the guest's programs."""
    if not can_start(pair.kernel_facts.arch, programs):
        raise NoKernelPair(
            f"{pair.kernel.path}: the kernel in the image is for {pair.kernel_facts.arch}",
            f"its programs are for {programs}",
            NAME_HINT,
        )


def can_start(kernel: Arch | None, programs: Arch | None) -> bool:
    """Tell if a kernel starts programs, as far as both are known. One for x86_64 starts those for i386."""
    return None in (kernel, programs) or kernel == programs or (kernel, programs) == ("x86_64", "i386")


def _ramdisk_facts(ramdisk: GuestFile) -> Facts:
    """Return the facts about a ramdisk. Raises NoKernelPair if it is something else."""
    head = ramdisk.files.read(ramdisk.inner_path, 0, HEAD_BYTES)
    facts = detect(head, b"", size=ramdisk.entry.size)
    if reason := reason_unsuitable("ramdisk", facts, size=ramdisk.entry.size, name=ramdisk.path):
        raise NoKernelPair(f"{ramdisk.path}: the ramdisk in the image cannot be used", *reason)
    return facts


def _boot_files(tree: GuestTree, folder: str, role: Role) -> Iterator[tuple[GuestFile, str]]:
    """Yield files with the name of a role, and the names to read a version from.

    A link has the name of the file that it leads to: Debian's /vmlinuz is the newest kernel in /boot.
    """
    for name in tree.names(folder):
        if file_names.role_by_name(name) != role or file_names.is_spare(name):
            continue
        file = tree.find(posixpath.join(folder, name))
        if file is None or file.entry.type != "file" or not file.entry.size:
            continue
        own = posixpath.basename(file.path)
        is_boot_name = file_names.role_by_name(own) == role
        if not (is_boot_name and file_names.is_spare(own)):
            yield file, own if is_boot_name else name


def _describe(file: GuestFile, name: str) -> GuestKernel:
    head = file.files.read(file.inner_path, 0, HEAD_BYTES)
    facts = detect(head, b"", size=file.entry.size)
    pairing = file_names.pairing_by_name(name)
    return GuestKernel(file, facts, facts.version or pairing, pairing)


def _ramdisk_for(tree: GuestTree, kernel: GuestKernel) -> GuestFile | None:
    folder = posixpath.dirname(kernel.file.path)
    found = {
        file.path: file
        for file, name in _boot_files(tree, folder, "ramdisk")
        if file_names.pairing_by_name(name) == kernel.pairing
    }
    if len(found) > 1:
        raise NoKernelPair(
            f"two ramdisks of version {kernel.pairing or 'unknown'}",
            f"{' and '.join(sorted(found))} could both be meant",
            NAME_HINT,
        )
    return next(iter(found.values()), None)


def _without_packed(kernels: Sequence[GuestKernel]) -> list[GuestKernel]:
    """Leave out packed kernels beside a bootable one of the same release.

    SUSE installs `vmlinux-VERSION.gz` for debuggers beside `vmlinuz-VERSION`.
    """
    started = {release_numbers(each.version) for each in kernels if _reason_unbootable(each) is None}
    return [
        each
        for each in kernels
        if each.facts.format not in COMPRESSORS or release_numbers(each.version) not in started
    ]


def _check_only_one(kernel: GuestKernel, others: Iterable[GuestKernel]) -> None:
    """Raise NoKernelPair if there is another kernel of the same release, of another flavour perhaps."""
    release = release_numbers(kernel.version)
    same = [other.file.path for other in others if release_numbers(other.version) == release]
    if len(same) > 1:
        raise NoKernelPair(
            f"two kernels of version {release or 'unknown'}",
            f"{' and '.join(sorted(same))} could both be meant",
            NAME_HINT,
        )


def _check_bootable(kernel: GuestKernel) -> None:
    """Raise NoKernelPair for a kernel that a node cannot start by itself, as it starts an image's kernel."""
    if reason := _reason_unbootable(kernel):
        raise NoKernelPair(f"{kernel.file.path}: the kernel in the image cannot be started", *reason)


def _reason_unbootable(kernel: GuestKernel) -> Reason | None:
    path, facts = kernel.file.path, kernel.facts
    if reason := reason_unsuitable("kernel", facts, size=kernel.file.entry.size, name=path):
        return reason
    if facts.format == "pe":
        return "it is compressed for EFI, and nodes start kernels without EFI", _unpack_hint(path)
    if facts.format in COMPRESSORS:
        return f"it is {facts.format}-compressed, and nodes do not unpack a kernel", _unpack_hint(path)
    return None


def _unpack_hint(path: str) -> str:
    return f"Unpack {posixpath.basename(path)}, and drop it beside the image with its ramdisk."
