"""The command line of QEMU for a recipe: a plain PC, as the nodes of a cloud have it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from types import MappingProxyType

from uecwatchd.install.recipe import MIB, Bus, InstallRecipe
from uecwatchd.install.request import CONSOLE, CONSOLE_SOCKET, VNC_SOCKET

PROGRAM_NAME, PACKAGE = "qemu-system-x86_64", "qemu-system-x86"
# The system of a disk on virtio has its driver for that network card; all others know this Intel card, which
# Eucalyptus gives to Windows.
CARDS: Mapping[str, str] = MappingProxyType({"virtio": "virtio-net-pci"})
OTHER_CARD = "e1000"
# Newer distributions need more than the first 64-bit processors had (x86-64-v2); systems without a driver for
# virtio are from a time that knew no more, and may stumble over it.
PROCESSORS: Mapping[str, str] = MappingProxyType({"virtio": "max"})
OTHER_PROCESSOR = "qemu64"
# The first one that Windows knows (sym_hi.sys), and the one of `kvm -drive if=scsi` in its time.
SCSI_CONTROLLER = "lsi53c895a"
LOGGED = f"logfile={CONSOLE},logappend=on"
# What QEMU needs neither for itself nor for its network.
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True, slots=True)
class MachineMedia:
    """Media in a machine at its start, as paths.

    With `snapshot` the disk stays as it is: what is written to it is lost with the machine.
    """

    disk: str
    snapshot: bool = False
    cds: tuple[str, ...] = ()
    floppy: str | None = None
    answers_disk: str | None = None
    second_disk: str | None = None
    kernel: str | None = None
    initrd: str | None = None


def machine_command(
    recipe: InstallRecipe,
    media: MachineMedia,
    monitor: int,
    *,
    program: str,
    accelerator: str,
    restarts: bool,
) -> Sequence[str]:
    """Return the command of a machine. Its sockets and its console are in the current folder.

    `monitor` is the descriptor of a socket for QMP. Without `restarts` a restart ends the machine.
    """
    return [
        program,
        # The firmware writes on the serial port too: "No bootable device" is a line like any other.
        *("-machine", "pc,graphics=off", "-accel", accelerator, "-vga", "std"),
        *("-cpu", processor_of(recipe)),
        *("-m", str(recipe.memory // MIB), "-smp", str(recipe.cpus)),
        *("-nodefaults", "-no-user-config", "-sandbox", SANDBOX),
        *("-display", "none", "-vnc", f"unix:{VNC_SOCKET}"),
        *(
            "-chardev",
            f"socket,id=serial,path={CONSOLE_SOCKET},server=on,wait=off,logfile={CONSOLE},logappend=on",
        ),
        *("-serial", "chardev:serial"),
        *("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"),
        # A machine that has switched itself off stays, so that its last screen can be seen.
        *("-action", f"shutdown=pause,reboot={'reset' if restarts else 'shutdown'}"),
        *_network(recipe),
        *_drives(recipe.disk_bus, recipe, media),
        *_start(recipe, media),
    ]


def processor_of(recipe: InstallRecipe) -> str:
    """Return the model of the processor of a machine."""
    return PROCESSORS.get(recipe.disk_bus, OTHER_PROCESSOR)


def _network(recipe: InstallRecipe) -> Sequence[str]:
    if recipe.network == "none":
        return ("-nic", "none")
    return ("-nic", f"user,model={CARDS.get(recipe.disk_bus, OTHER_CARD)}")


def _drives(bus: Bus, recipe: InstallRecipe, media: MachineMedia) -> Iterator[str]:
    """Yield the drives. The firmware tries the disk before the CDs: an empty one is passed over."""
    if "scsi" in (bus, recipe.second_disk):
        yield from ("-device", f"{SCSI_CONTROLLER},id=scsi")
    places = count()  # on the first IDE channel, which is for disks; the other one is for CDs
    snapshot = ",snapshot=on" if media.snapshot else ""
    # Unmapped blocks become holes, as far as the system trims.
    disk = f"{_file(media.disk)},format=qcow2,discard=unmap{snapshot}"
    yield from _drive("disk", disk, f"{_disk_on(bus, places)},bootindex=1")
    if media.second_disk and recipe.second_disk:
        drive = f"{_file(media.second_disk)},format=qcow2"
        yield from _drive("second", drive, _disk_on(recipe.second_disk, places))
    if media.answers_disk:
        # With a snapshot instead of read-only, which IDE has for CDs alone.
        drive = f"{_file(media.answers_disk)},format=raw,snapshot=on"
        yield from _drive("answers", drive, _disk_on(bus, places))
    for number, path in enumerate(media.cds):
        device = f"ide-cd,bus=ide.1,unit={number},bootindex={number + 2}"
        yield from _drive(f"cd{number}", f"{_file(path)},format=raw,media=cdrom,readonly=on", device)
    if media.floppy:
        yield from ("-drive", f"{_file(media.floppy)},format=raw,if=floppy,snapshot=on")


def _disk_on(bus: Bus, ide_places: Iterator[int]) -> str:
    """Return the device of a disk."""
    if bus == "ide":
        return f"ide-hd,bus=ide.0,unit={next(ide_places)}"
    return "scsi-hd,bus=scsi.0" if bus == "scsi" else "virtio-blk-pci"


def _file(path: str) -> str:
    """Return a path as an option: a comma in it is written twice."""
    return f"file={path.replace(',', ',,')}"


def _drive(name: str, drive: str, device: str) -> Sequence[str]:
    kind, comma, options = device.partition(",")
    return ("-drive", f"if=none,id={name},{drive}", "-device", f"{kind},drive={name}{comma}{options}")


def _start(recipe: InstallRecipe, media: MachineMedia) -> Iterator[str]:
    if media.kernel is None:
        return
    yield from ("-kernel", media.kernel)
    if media.initrd:
        yield from ("-initrd", media.initrd)
    words = recipe.arguments.split()
    if not any(word.startswith("console=") for word in words):
        words.append("console=ttyS0")
    yield from ("-append", " ".join(words))
