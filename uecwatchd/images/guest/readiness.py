"""Is a guest ready for a cloud? Rules over the facts, without a look at the image.

An error stops the instance from booting, or from being reached, or gives a secret away. A warning is likely
to be noticed later. A note is good to know. Each has a key, which stays the same, and a remedy.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from uecwatchd.errors import problem
from uecwatchd.images.guest.guest_facts import GuestFacts, Leftover, LeftoverKind
from uecwatchd.images.guest.module_versions import judge_modules
from uecwatchd.images.guest.summary import ReadinessFinding, Severity, in_order
from uecwatchd.system.text import shell_word, shorten

# More files of one kind are not listed.
MAX_LISTED = 3


def judge(facts: GuestFacts) -> tuple[ReadinessFinding, ...]:
    """Return what is wrong with a guest, errors first."""
    return in_order(finding for rule in RULES for finding in rule(facts))


def _kernel(facts: GuestFacts) -> Iterator[ReadinessFinding]:
    if facts.no_pair is None:
        return
    error = facts.no_pair
    severity: Severity = "warning" if facts.boot_ways else "error"
    yield ReadinessFinding("kernel", severity, f"{problem(error)}.", error.hint)


def _boot_way(facts: GuestFacts) -> Iterator[ReadinessFinding]:
    if not facts.boot_ways:
        sentence = "It does not boot by itself: the cloud has to start its kernel."
        remedy = "For a cloud that starts whole disks, install a boot loader: grub-install, then update-grub."
        yield ReadinessFinding("boot-loader", "note", sentence, remedy)


def _disk_driver(facts: GuestFacts) -> Iterator[ReadinessFinding]:
    """Check that the kernel finds a virtio disk before it has mounted the root."""
    if facts.drivers is None or facts.pair is None:
        return
    version, state = facts.pair.version, facts.drivers.find("VIRTIO_BLK")
    if state == "missing":
        sentence = f"Kernel {version} has no driver for virtio disks, so it finds no root on most clouds."
        yield ReadinessFinding("virtio", "error", sentence, "Install a kernel with virtio_blk.")
    elif state == "module" and facts.drivers.is_in_ramdisk("VIRTIO_BLK") is False:
        where = "its ramdisk does not have it" if facts.pair.ramdisk else "there is no ramdisk"
        sentence = f"The driver for virtio disks of kernel {version} is a module, and {where}."
        remedy = "In the guest: echo virtio_blk >> /etc/initramfs-tools/modules, then update-initramfs -u"
        yield ReadinessFinding("virtio", "error", sentence, remedy)


def _modules(facts: GuestFacts) -> Iterator[ReadinessFinding]:
    if facts.drivers is None or facts.pair is None or facts.pair.kernel_facts.version is None:
        return
    yield from judge_modules(
        facts.pair.kernel_facts.version,
        in_system=facts.module_versions,
        in_ramdisk=facts.drivers.ramdisk_versions,
        is_modular=facts.drivers.is_modular,
    )


def _hotplug(facts: GuestFacts) -> Iterator[ReadinessFinding]:
    """Check that a volume that is attached to a running instance appears."""
    if facts.drivers is None:
        return
    state = facts.drivers.find("HOTPLUG_PCI_ACPI")
    if state == "missing":
        sentence = (
            "Its kernel has no driver for PCI hot-plug, so volumes that are attached later do not appear."
        )
        yield ReadinessFinding("hotplug", "warning", sentence, "Install a kernel with acpiphp.")
    elif state == "module" and not (facts.loads_acpiphp or facts.drivers.is_in_ramdisk("HOTPLUG_PCI_ACPI")):
        sentence = "Nothing loads the module acpiphp, so volumes that are attached later do not appear."
        yield ReadinessFinding("hotplug", "warning", sentence, "In the guest: echo acpiphp >> /etc/modules")


def _fstab(facts: GuestFacts) -> Iterator[ReadinessFinding]:
    root, uuid = facts.fstab.root, facts.root.volume.uuid
    remedy = (
        f"In the guest's /etc/fstab, name the root UUID={uuid}."
        if uuid
        else "Correct /etc/fstab in the guest."
    )
    if root is None:
        sentence = "Its fstab has no line for the root, which may stay read-only."
        yield ReadinessFinding("fstab-root", "warning", sentence, remedy)
    elif not facts.fstab.is_root_there:
        sentence = f"Its fstab has {shorten(root.device)} as the root, which is not on this disk."
        yield ReadinessFinding("fstab-root", "error", sentence, remedy)
    elif root.device.startswith(("/dev/hd", "/dev/sd")):
        sentence = f"Its fstab has {shorten(root.device)} as the root; on a virtio disk it has another name."
        yield ReadinessFinding("fstab-root", "warning", sentence, remedy)
    for line in facts.fstab.lost[:MAX_LISTED]:
        sentence = (
            f"Its fstab wants {shorten(line.device)} for {shorten(line.point)}, which is not on this disk."
        )
        lost_remedy = "Remove the line, or add the option nofail: the boot waits for it."
        yield ReadinessFinding("fstab-mount", "warning", sentence, lost_remedy)


def _network(facts: GuestFacts) -> Iterator[ReadinessFinding]:
    for path in facts.net_rules:
        sentence = f"{path} binds eth0 to the network card of another machine, so the instance has no eth0."
        yield ReadinessFinding("net-rules", "error", sentence, f"In the guest: rm {path}")


def _key_fetch(facts: GuestFacts) -> Iterator[ReadinessFinding]:
    started = (script for script in facts.key_scripts if script.is_executable and script.is_reached)
    if facts.key_services or any(not one.program or one.program in facts.programs for one in started):
        return
    if not facts.key_scripts:
        sentence = "Nothing in it fetches the user's SSH key at boot, so nobody can log in with a key."
        remedy = (
            "Install cloud-init, or add lines to /etc/rc.local that fetch it from http://169.254.169.254/."
        )
        yield ReadinessFinding("key-fetch", "warning", sentence, remedy)
        return
    script = facts.key_scripts[0]
    path = shell_word(script.path)
    if not script.is_executable:
        sentence, remedy = "it is not executable", f"In the guest: chmod +x {path}"
    elif not script.is_reached:
        sentence, remedy = "it ends with an exit before that line", "Move the lines before the exit."
    else:
        sentence = f"it uses {script.program}, which is not installed"
        remedy = f"In the guest: apt-get install {script.program}"
    yield ReadinessFinding(
        "key-fetch", "warning", f"{script.path} would fetch the user's SSH key, but {sentence}.", remedy
    )


def _ssh(facts: GuestFacts) -> Iterator[ReadinessFinding]:
    if not {"sshd", "dropbear"} & facts.programs:
        sentence = "It has no SSH server, so nobody can log in over the network."
        yield ReadinessFinding("sshd", "warning", sentence, "In the guest: apt-get install openssh-server")


def _console(facts: GuestFacts) -> Iterator[ReadinessFinding]:
    if not facts.has_console:
        sentence = "Nothing writes to the serial console, so the cloud's console output may be empty."
        remedy = "In the guest: systemctl enable serial-getty@ttyS0, and console=ttyS0 for the kernel."
        yield ReadinessFinding("console", "note", sentence, remedy)


def _machine_id(facts: GuestFacts) -> Iterator[ReadinessFinding]:
    if facts.has_machine_id:
        sentence = "Its machine-id is set, so all instances have the same, and may get the same address."
        yield ReadinessFinding(
            "machine-id", "warning", sentence, "In the guest: truncate -s 0 /etc/machine-id"
        )


@dataclass(frozen=True, slots=True)
class LeftoverRule:
    """Finding about leftovers of one kind. `reason` follows the list of files."""

    key: str
    severity: Severity
    reason: str


LEFTOVERS: dict[LeftoverKind, LeftoverRule] = {
    "credentials": LeftoverRule("credentials", "error", "everybody who starts the image gets these secrets"),
    "host key": LeftoverRule("host-keys", "warning", "all instances have the same SSH host keys"),
    "authorized keys": LeftoverRule("authorized-keys", "warning", "their owners can log in to each instance"),
    "history": LeftoverRule("history", "note", "they show what was typed on the original"),
}


def _leftovers(facts: GuestFacts) -> Iterator[ReadinessFinding]:
    for kind, rule in LEFTOVERS.items():
        found = [leftover for leftover in facts.leftovers if leftover.kind == kind]
        # cloud-init deletes them at the first boot, and makes new ones.
        is_replaced = kind == "host key" and any("cloud-init" in service for service in facts.key_services)
        if found and not is_replaced:
            words = " ".join(shell_word(leftover.path) for leftover in found)
            yield ReadinessFinding(
                rule.key, rule.severity, f"{_listed(found)}: {rule.reason}.", f"In the guest: rm {words}"
            )


def _listed(found: list[Leftover]) -> str:
    paths = [shorten(leftover.path) for leftover in found[:MAX_LISTED]]
    more = len(found) - len(paths)
    return ", ".join(paths) + (f" and {more} more" if more else "")


RULES: tuple[Callable[[GuestFacts], Iterator[ReadinessFinding]], ...] = (
    _kernel,
    _boot_way,
    _disk_driver,
    _modules,
    _hotplug,
    _fstab,
    _network,
    _key_fetch,
    _ssh,
    _console,
    _machine_id,
    _leftovers,
)
