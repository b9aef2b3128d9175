"""One look into an image: what it is, and if it is ready for a cloud."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from uecwatchd.errors import Rejected, problem
from uecwatchd.images.block_source import BlockSource
from uecwatchd.images.guest.boot_firmware import BootWay, find_boot_ways
from uecwatchd.images.guest.disk import (
    GuestDisk,
    LinuxSystem,
    SeveralSystems,
    describe_place,
    find_linux,
    read_disk,
)
from uecwatchd.images.guest.fstab import PlacedVolume
from uecwatchd.images.guest.guest_facts import gather_facts
from uecwatchd.images.guest.kernel_pair import GuestKernel, KernelPair, NoKernelPair, find_kernels
from uecwatchd.images.guest.operating_system import OperatingSystem, identify_linux
from uecwatchd.images.guest.readiness import judge
from uecwatchd.images.guest.summary import ImageSummary, ReadinessFinding, is_ready
from uecwatchd.images.guest.volumes import UnreadableVolume, VolumeReader
from uecwatchd.images.guest.windows import WindowsSystem, find_windows
from uecwatchd.images.guest.windows_readiness import judge_windows

INSTALL_HINT = "Install it: pip install 'uecwatchd[guest]'"
UNREAD_HINT = "If the system is not in it, nothing has to be done."
NEEDED_HINT = "If the system is in it: put it on ext4, XFS or btrfs, and do not encrypt it."


@dataclass(frozen=True, slots=True)
class Inspection:
    """Result of looking into an image. `system` is None if the image has none that is known here."""

    disk: GuestDisk
    system: OperatingSystem | None = None
    boot_ways: tuple[BootWay, ...] = ()
    kernels: tuple[GuestKernel, ...] = ()
    pair: KernelPair | None = None
    no_pair: NoKernelPair | None = None  #: why a Linux system has none
    root: PlacedVolume | None = None  #: of a Linux system
    module_versions: tuple[str, ...] = ()  #: of kernels that it has modules for
    trouble: Rejected | None = None  #: why it is not known which system is meant
    windows: WindowsSystem | None = None
    findings: tuple[ReadinessFinding, ...] = ()
    remarks: tuple[str, ...] = ()  #: about the image or this machine, without a remedy

    @property
    def is_ready(self) -> bool:
        return is_ready(self.findings)

    def summary(self) -> ImageSummary:
        system, pair = self.system, self.pair
        return ImageSummary(
            layout=self.disk.layout,
            table=self.disk.table.scheme if self.disk.table else "",
            system=system.name if system else "",
            system_id=system.id if system else "",
            version=system.version if system else "",
            arch=(system.arch if system else None) or (pair.kernel_facts.arch if pair else None),
            boots_by=tuple(self.boot_ways),
            kernel=pair.version if pair else "",
            findings=self.findings,
            remarks=self.remarks,
            windows_partition=self.windows.partition if self.windows else None,
            windows_folder=self.windows.folder if self.windows else "",
        )


def inspect_image(source: BlockSource, *, name: str, check: Callable[[], None] = lambda: None) -> Inspection:
    """Look into an image. `name` is its name in messages; `check` may raise to stop.

    Raises Rejected if its partitions cannot be read, or its files only in order; OSError.
    """
    with VolumeReader(source, name=name, check=check) as reader:
        disk = read_disk(source, reader)
        found = Inspection(disk, boot_ways=find_boot_ways(source, disk))
        try:
            found = _inspect_system(found)
        except (UnreadableVolume, SeveralSystems) as error:
            finding = ReadinessFinding("system", "error", f"{problem(error)}.", error.hint)
            found = replace(found, findings=(finding,), trouble=error)
        table = disk.table.remark if disk.table else ""
        return replace(found, remarks=tuple(filter(None, (table, reader.remark))))


def _inspect_system(found: Inspection) -> Inspection:
    linux = find_linux(found.disk)
    unread = tuple(_unread_volumes(found.disk, is_needed=linux is None))
    if linux is not None:
        return _inspect_linux(found, linux, unread)
    windows = find_windows(found.disk)
    if windows is not None:
        findings = (*judge_windows(windows), *unread)
        return replace(found, system=windows.system, windows=windows, findings=findings)
    none = ReadinessFinding(
        "system",
        "error",
        "There is no operating system in it that is known here.",
        "Install one in it, or drop it with its kernel and ramdisk, and a sidecar that names them.",
    )
    return replace(found, findings=unread or (none,))


def _inspect_linux(found: Inspection, linux: LinuxSystem, unread: tuple[ReadinessFinding, ...]) -> Inspection:
    facts = gather_facts(found.disk, linux, found.boot_ways)
    return replace(
        found,
        system=identify_linux(linux.tree),
        kernels=find_kernels(linux.tree),
        pair=facts.pair,
        no_pair=facts.no_pair,
        root=linux.root,
        module_versions=facts.module_versions,
        findings=(*judge(facts), *unread),
    )


def _unread_volumes(disk: GuestDisk, *, is_needed: bool) -> Iterator[ReadinessFinding]:
    """Yield volumes that could not be read: an error if there is no system in another one."""
    for placed in disk.volumes:
        if problem := placed.volume.problem:
            hint = NEEDED_HINT if is_needed else UNREAD_HINT
            hint = INSTALL_HINT if "not installed" in problem else hint
            sentence = f"{describe_place(placed).capitalize()} could not be read: {problem}."
            yield ReadinessFinding("file-system", "error" if is_needed else "note", sentence, hint)
