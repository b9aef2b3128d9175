"""Facts about a Linux guest, for the rules in `readiness`."""

import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from uecwatchd.images.guest.boot_firmware import BootWay
from uecwatchd.images.guest.disk import GuestDisk, LinuxSystem
from uecwatchd.images.guest.fstab import FstabLine, PlacedVolume, is_meant
from uecwatchd.images.guest.kernel_drivers import MODULE_FOLDERS, KernelDrivers, find_drivers
from uecwatchd.images.guest.kernel_pair import (
    KernelPair,
    NoKernelPair,
    check_architecture,
    find_kernel_pair,
)
from uecwatchd.images.guest.operating_system import identify_linux
from uecwatchd.images.guest.tree import GuestTree

LeftoverKind = Literal["host key", "authorized keys", "history", "credentials"]

METADATA_ADDRESS = "169.254.169.254"
PROGRAM_FOLDERS = ("/bin", "/usr/bin", "/sbin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")
PROGRAMS = ("curl", "wget", "sshd", "dropbear", "cloud-init")
RC_LOCAL = ("/etc/rc.local", "/etc/rc.d/rc.local")
# Where a script that fetches a key may be, apart from rc.local.
SCRIPT_FOLDERS = (
    "/etc/init.d",
    "/etc/local.d",
    "/etc/network/if-up.d",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/etc/init",
)
MAX_SCRIPTS = 200
SCRIPT_BYTES = 64 * 1024
# Services that fetch keys, by a file that is there if they are enabled.
KEY_SERVICES = (
    "/etc/systemd/system/cloud-init.target.wants/cloud-init.service",
    "/etc/systemd/system/multi-user.target.wants/cloud-init.service",
    "/usr/lib/systemd/system-generators/cloud-init-generator",
    "/lib/systemd/system-generators/cloud-init-generator",
    "/etc/init/cloud-init.conf",
    "/etc/runlevels/boot/cloud-init",
    "/etc/runlevels/default/tiny-cloud-final",
    "/etc/rc2.d/S20cloud-init",
    "/etc/init.d/ec2-get-credentials",
    "/etc/init.d/ec2-init",
    "/usr/lib/dracut/modules.d/30ignition/module-setup.sh",
    "/usr/bin/afterburn",
    "/usr/sbin/waagent",
)
CLOUD_INIT_OFF = "/etc/cloud/cloud-init.disabled"
NET_RULES = ("/etc/udev/rules.d/70-persistent-net.rules", "/etc/udev/rules.d/z25_persistent-net.rules")
MODULE_LISTS = ("/etc/modules", "/etc/modules-load.d", "/etc/initramfs-tools/modules", "/etc/rc.modules")
BOOT_CONFIGS = (
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/boot/grub/menu.lst",
    "/boot/grub/grub.conf",
    "/etc/default/grub",
    "/boot/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
    "/etc/kernel/cmdline",
    "/boot/syslinux/syslinux.cfg",
)
SERIAL = re.compile(r"console=(?:tty(?:S|AMA)|hvc)\d")
INITTAB_SERIAL = re.compile(r"^[^#\n]*(?:tty(?:S|AMA)|hvc)\d", re.MULTILINE)
GETTY_FILES = ("/etc/init/ttyS0.conf", "/etc/init/hvc0.conf")
GETTY_FOLDERS = ("/etc/systemd/system/getty.target.wants", "/etc/systemd/system/multi-user.target.wants")
MAX_HOMES = 64
HISTORIES = (".bash_history", ".zsh_history", ".ash_history", ".history", ".mysql_history", ".psql_history")
SECRETS = (
    ".aws/credentials", ".boto", ".s3cfg", ".netrc", ".git-credentials", ".docker/config.json",
    ".euca/eucarc", "eucarc", ".eucarc", "openrc",
    ".ssh/id_rsa", ".ssh/id_dsa", ".ssh/id_ecdsa", ".ssh/id_ed25519",
)  # fmt: skip
SECRET_FOLDERS = ("", ".euca", ".aws", "euca", "credentials")
PRIVATE_KEY = b"PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class KeyScript:
    """A script that asks the metadata service: rc.local with the lines of a manual, for instance."""

    path: str
    is_executable: bool
    is_reached: bool  #: the line is before an `exit`
    program: str  #: "curl", "wget", or empty


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that belongs to one machine or one person, and should not be in an image."""

    kind: LeftoverKind
    path: str


@dataclass(frozen=True, slots=True)
class FstabFacts:
    """The fstab, compared with the disk."""

    root: FstabLine | None  #: the line for "/"
    is_root_there: bool  #: it means the volume that has the root
    lost: tuple[FstabLine, ...]  #: lines for volumes that are not on this disk, and that the system waits for


@dataclass(frozen=True, slots=True)
class GuestFacts:
    """Facts about a Linux guest for `readiness`."""

    boot_ways: tuple[BootWay, ...]
    pair: KernelPair | None
    no_pair: NoKernelPair | None  #: why there is no pair
    drivers: KernelDrivers | None  #: of the pair's kernel
    module_versions: tuple[str, ...]  #: of kernels that the system has modules for
    root: PlacedVolume
    fstab: FstabFacts
    key_services: tuple[str, ...]
    key_scripts: tuple[KeyScript, ...]
    programs: frozenset[str]  #: those of PROGRAMS that are installed
    net_rules: tuple[str, ...]  #: files that bind a name to the address of a network card
    loads_acpiphp: bool
    has_console: bool
    has_machine_id: bool
    leftovers: tuple[Leftover, ...]


def gather_facts(disk: GuestDisk, system: LinuxSystem, boot_ways: tuple[BootWay, ...]) -> GuestFacts:
    """Read what matters from a guest. Raises UnreadableVolume, OSError."""
    tree, pair, no_pair = system.tree, None, None
    programs = frozenset(
        name for name in PROGRAMS if any(tree.is_file(f"{folder}/{name}") for folder in PROGRAM_FOLDERS)
    )
    try:
        pair = find_kernel_pair(tree)
        check_architecture(pair, identify_linux(tree).arch)
    except NoKernelPair as error:
        pair, no_pair = None, error
    return GuestFacts(
        boot_ways=boot_ways,
        pair=pair,
        no_pair=no_pair,
        drivers=find_drivers(tree, pair) if pair else None,
        module_versions=tuple(sorted({name for folder in MODULE_FOLDERS for name in tree.names(folder)})),
        root=system.root,
        fstab=_compare_fstab(disk, system),
        key_services=tuple(_key_services(tree)),
        key_scripts=tuple(_key_scripts(tree, programs)),
        programs=programs,
        net_rules=tuple(path for path in NET_RULES if _has_lines(tree.text(path))),
        loads_acpiphp=any("acpiphp" in text for text in _texts(tree, (*MODULE_LISTS, *RC_LOCAL))),
        has_console=_has_console(tree),
        has_machine_id=tree.text("/etc/machine-id").strip() not in ("", "uninitialized"),
        leftovers=tuple(_leftovers(tree)),
    )


# --- fstab ---


def _compare_fstab(disk: GuestDisk, system: LinuxSystem) -> FstabFacts:
    root = next((line for line in system.fstab if line.point == "/"), None)
    lost = [line for line in system.fstab if line is not root and _is_lost(line, disk)]
    return FstabFacts(root, root is not None and is_meant(root.device, system.root), tuple(lost))


def _is_lost(line: FstabLine, disk: GuestDisk) -> bool:
    """Tell if a system waits for a volume that is not there. Devices by number may come from the cloud."""
    is_named = line.device.startswith(("UUID=", "LABEL=", "PARTUUID=", "/dev/disk/by-", "/dev/mapper/"))
    if not is_named or {"noauto", "nofail", "nobootwait"} & set(line.options):
        return False
    return not any(is_meant(line.device, placed) for placed in disk.volumes)


# --- keys ---


def _key_services(tree: GuestTree) -> Iterator[str]:
    for path in KEY_SERVICES:
        if "cloud-init" in path and tree.find(CLOUD_INIT_OFF):
            continue
        # A service is enabled by a link, which may lead to a unit of another name.
        if posixpath.basename(path) in tree.names(posixpath.dirname(path)):
            yield path


def _key_scripts(tree: GuestTree, installed: frozenset[str]) -> Iterator[KeyScript]:
    others = (posixpath.join(folder, name) for folder in SCRIPT_FOLDERS for name in tree.names(folder))
    for path, _ in zip((*RC_LOCAL, *others), range(MAX_SCRIPTS), strict=False):
        text = tree.read(path, SCRIPT_BYTES).decode("utf-8", "replace")
        found = tree.find(path) if METADATA_ADDRESS in text else None
        if found and (script := _read_script(found.path, text, found.entry.mode, installed)):
            yield script


def _read_script(path: str, text: str, mode: int, installed: frozenset[str]) -> KeyScript | None:
    """Return what a script does with the metadata service; None if it only mentions it in a comment.

    Of several programs in it, one that is installed counts: the script may choose.
    """
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    asking = [number for number, line in enumerate(lines) if METADATA_ADDRESS in line]
    if not asking:
        return None
    ends = [number for number, line in enumerate(lines) if re.fullmatch(r"exit(\s+\d+)?", line)]
    is_reached = not ends or path not in RC_LOCAL or asking[0] < ends[0]
    named = [name for name in ("curl", "wget") if re.search(rf"\b{name}\b", "\n".join(lines))]
    program = next((name for name in named if name in installed), named[0] if named else "")
    return KeyScript(path, bool(mode & 0o111), is_reached, program)


# --- the rest ---


def _has_lines(text: str) -> bool:
    """Tell if a configuration says something: it has a line that is no comment."""
    return any(line.strip() and not line.strip().startswith("#") for line in text.splitlines())


def _texts(tree: GuestTree, paths: Iterable[str]) -> Iterator[str]:
    """Yield the lines without comments of files, and of the files in folders."""
    for path in paths:
        inside = [posixpath.join(path, name) for name in tree.names(path)[:MAX_SCRIPTS]]
        for text in map(tree.text, inside or [path]):
            yield "\n".join(line.partition("#")[0] for line in text.splitlines())


def _has_console(tree: GuestTree) -> bool:
    if any(SERIAL.search(text) for text in _texts(tree, BOOT_CONFIGS)):
        return True
    if any(tree.is_file(path) for path in GETTY_FILES) or INITTAB_SERIAL.search(tree.text("/etc/inittab")):
        return True
    names = (name for folder in GETTY_FOLDERS for name in tree.names(folder))
    return any(name.startswith("serial-getty@") for name in names)


def _leftovers(tree: GuestTree) -> Iterator[Leftover]:
    for name in tree.names("/etc/ssh"):
        if re.fullmatch(r"ssh_host_\w*key", name):
            yield Leftover("host key", f"/etc/ssh/{name}")
    homes = ["/root", *(f"/home/{name}" for name in tree.names("/home")[:MAX_HOMES])]
    for home in homes:
        if _has_lines(tree.text(f"{home}/.ssh/authorized_keys")):
            yield Leftover("authorized keys", f"{home}/.ssh/authorized_keys")
        names = set(tree.names(home))
        for name in HISTORIES:
            if name in names and tree.text(f"{home}/{name}"):
                yield Leftover("history", f"{home}/{name}")
        for path in _secrets(tree, home, names):
            yield Leftover("credentials", path)


def _secrets(tree: GuestTree, home: str, names: set[str]) -> Iterator[str]:
    for name in SECRETS:
        if name.partition("/")[0] in names and tree.is_file(f"{home}/{name}"):
            yield f"{home}/{name}"
    for folder in SECRET_FOLDERS:
        if folder and folder not in names:
            continue
        place = posixpath.join(home, folder).rstrip("/")
        for name in tree.names(place):
            if name.endswith(".pem") and PRIVATE_KEY in tree.read(f"{place}/{name}", SCRIPT_BYTES):
                yield f"{place}/{name}"
