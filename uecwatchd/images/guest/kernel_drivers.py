"""Drivers of a kernel: its own, its modules, and those in its ramdisk."""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from uecwatchd.images.guest.kernel_pair import KernelPair
from uecwatchd.images.guest.tree import GuestTree

# "built-in", a module, missing, or not known because the guest has no list.
Driver = Literal["built-in", "module", "missing", "unknown"]

OPTION = re.compile(r"^CONFIG_(\w+)=([ym])$", re.MULTILINE)
MODULE = re.compile(r"^(?:\S*/)?([^/\s:]+)\.ko(?:\.\w+)?\s*(?::|$)", re.MULTILINE)
# By the option of a kernel's configuration.
WATCHED = {"VIRTIO_BLK": "virtio_blk", "HOTPLUG_PCI_ACPI": "acpiphp"}
MODULE_FOLDERS = ("/lib/modules", "/usr/lib/modules")


@dataclass(frozen=True, slots=True)
class KernelDrivers:
    """The drivers of one kernel. None is a list that the guest does not have, or nobody can read."""

    options: Mapping[str, str] | None  #: "y" or "m" by option of its configuration
    built_in: frozenset[str] | None
    modules: frozenset[str] | None
    in_ramdisk: frozenset[str] | None  #: which of WATCHED it has, of those that are modules
    ramdisk_versions: frozenset[str] = frozenset()  #: of kernels that it has modules for; none if not known

    @property
    def is_modular(self) -> bool:
        """Tell if its configuration says that this kernel can load modules."""
        return self.options is not None and "MODULES" in self.options

    def find(self, option: str) -> Driver:
        """Return how a driver of WATCHED is there, from the configuration, or from the lists of modules."""
        module = WATCHED[option]
        if self.options is not None:
            return {"y": "built-in", "m": "module"}.get(self.options.get(option, ""), "missing")  # type: ignore[return-value]
        if self.built_in is not None and module in self.built_in:
            return "built-in"
        if self.modules is not None and module in self.modules:
            return "module"
        return "missing" if self.built_in is not None and self.modules is not None else "unknown"

    def is_in_ramdisk(self, option: str) -> bool | None:
        """Tell if the ramdisk has a driver as a module; None if it cannot be read."""
        return None if self.in_ramdisk is None else WATCHED[option] in self.in_ramdisk


def find_drivers(tree: GuestTree, pair: KernelPair) -> KernelDrivers:
    """Return the drivers of a kernel. Raises UnreadableVolume, OSError."""
    folder = posixpath.dirname(pair.kernel.path)
    texts = [tree.text(posixpath.join(folder, f"config-{pair.version}"))]
    texts += [tree.text(f"{modules}/{pair.version}/config") for modules in MODULE_FOLDERS]
    config = next(filter(None, texts), "")
    known = KernelDrivers(
        dict(OPTION.findall(config)) if config else None,
        _names(tree, pair.version, "modules.builtin"),
        _names(tree, pair.version, "modules.dep"),
        frozenset(),
    )
    wanted = frozenset(module for option, module in WATCHED.items() if known.find(option) == "module")
    if pair.ramdisk is None:
        return known
    found = pair.ramdisk.files.modules(pair.ramdisk.inner_path, wanted)
    if found is None:
        return replace(known, in_ramdisk=None)
    return replace(known, in_ramdisk=found.found, ramdisk_versions=found.versions)


def _names(tree: GuestTree, version: str, list_: str) -> frozenset[str] | None:
    texts = (tree.text(f"{folder}/{version}/{list_}") for folder in MODULE_FOLDERS)
    text = next(filter(None, texts), "")
    return frozenset(name.replace("-", "_") for name in MODULE.findall(text)) if text else None
