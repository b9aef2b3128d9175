"""The operating system of a guest: its name and version, and its architecture."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from uecwatchd.images.detect import detect
from uecwatchd.images.guest.tree import GuestTree
from uecwatchd.system.text import shorten
from uecwatchd.types import Arch

OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
# Systems from before os-release(5), 2012: a file whose first line is the name, or the whole version.
OLD_RELEASES: Mapping[str, str] = {
    "/etc/redhat-release": "rhel",
    "/etc/SuSE-release": "suse",
    "/etc/alpine-release": "alpine",
    "/etc/arch-release": "arch",
    "/etc/gentoo-release": "gentoo",
    "/etc/slackware-version": "slackware",
}
# Programs that each system has, compiled for its processor.
PROGRAMS = ("/bin/sh", "/sbin/init", "/usr/bin/env", "/bin/busybox", "/usr/lib/systemd/systemd", "/bin/ls")
PROGRAM_BYTES = 4096


@dataclass(frozen=True, slots=True)
class OperatingSystem:
    """System by os-release(5): a word, a version, and a name for people; each may be empty."""

    id: str
    version: str
    name: str
    arch: Arch | None


def identify_linux(tree: GuestTree) -> OperatingSystem:
    """Return the system in a tree. Raises UnreadableVolume, OSError."""
    arch = _find_arch(tree)
    for path in OS_RELEASE:
        if text := tree.text(path):
            fields = parse_os_release(text)
            id_, version = fields.get("ID", "linux"), fields.get("VERSION_ID", "")
            name = fields.get("PRETTY_NAME") or fields.get("NAME") or id_
            return OperatingSystem(shorten(id_), shorten(version), shorten(name), arch)
    return _identify_old(tree, arch)


def parse_os_release(text: str) -> Mapping[str, str]:
    """Read lines of KEY=value, quoted as for a shell."""
    fields = dict[str, str]()
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            try:
                fields[key] = " ".join(shlex.split(value))
            except ValueError:  # a quote without its end
                fields[key] = value.strip("\"'")
    return fields


def _identify_old(tree: GuestTree, arch: Arch | None) -> OperatingSystem:
    """Return a system from before os-release: Ubuntu has lsb-release, Debian a version alone."""
    lsb = parse_os_release(tree.text("/etc/lsb-release"))
    if lsb.get("DISTRIB_ID"):
        id_, version = lsb["DISTRIB_ID"].lower(), lsb.get("DISTRIB_RELEASE", "")
        name = lsb.get("DISTRIB_DESCRIPTION") or f"{lsb['DISTRIB_ID']} {version}"
        return OperatingSystem(shorten(id_), shorten(version), shorten(name), arch)
    if version := tree.text("/etc/debian_version").strip():
        return OperatingSystem("debian", shorten(version), shorten(f"Debian {version}"), arch)
    for path, id_ in OLD_RELEASES.items():
        if tree.is_file(path):
            name = (tree.text(path).splitlines() or [""])[0].strip()
            return OperatingSystem(id_, "", shorten(name) or id_, arch)
    return OperatingSystem("linux", "", "Linux", arch)


def _find_arch(tree: GuestTree) -> Arch | None:
    for path in PROGRAMS:
        head = tree.read(path, PROGRAM_BYTES)
        facts = detect(head, b"", size=len(head))
        if facts.format == "elf" and facts.arch:
            return facts.arch
    return None
