"""Facts about a Linux guest for its preparation, beside those that decide if it is ready."""

import posixpath
import re
from dataclasses import dataclass
from typing import Literal

from uecwatchd.errors import Rejected
from uecwatchd.images.guest.guest_facts import GuestFacts
from uecwatchd.images.guest.operating_system import identify_linux
from uecwatchd.images.guest.tree import GuestTree
from uecwatchd.images.prepare.key_hook import ROOT, GuestUser
from uecwatchd.system.text import shorten

InitSystem = Literal["systemd", "openrc", "upstart", "sysvinit", "busybox", "unknown"]

SYSTEMD = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
UNIT_FOLDERS = ("/usr/lib/systemd/system", "/lib/systemd/system")
GENERATORS = ("/usr/lib/systemd/system-generators", "/lib/systemd/system-generators")
OWN_UNITS = "/etc/systemd/system"
RC_LOCAL, RC_LOCAL_UNIT, RC_LOCAL_GENERATOR = (
    "/etc/rc.local",
    "rc-local.service",
    "systemd-rc-local-generator",
)
# The file that rc-local.service starts; distributions compile in another one than the default.
UNIT_STARTS = re.compile(r"^ExecStart=(/\S+)", re.MULTILINE)
RUNLEVELS = (
    "/etc/rc2.d",
    "/etc/rc3.d",
    "/etc/rc5.d",
    "/etc/rc.d/rc2.d",
    "/etc/rc.d/rc3.d",
    "/etc/rc.d/rc5.d",
)
RUNLEVEL_LINK = re.compile(r"S\d\d(rc[.-])?local")
LOCAL_SCRIPTS, LOCAL_SERVICE = "/etc/local.d", "/etc/runlevels/default"
MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")
MAX_TEXT_BYTES = 64 * 1024  # of a file that is changed: people write these by hand
# Users have numbers from here on; before 2011 the relatives of Red Hat began with 500.
UID_MIN, UID_MAX = 1000, 59999
LOGIN_DEFS_UID = re.compile(r"^\s*UID_MIN\s+(\d{1,5})\s*$", re.MULTILINE)
USER_NAME, HOME = re.compile(r"[a-z_][a-z0-9_.-]*"), re.compile(r"/[A-Za-z0-9_./-]+")
NO_SHELLS = ("/nologin", "/false", "/sync")
SELINUX = re.compile(r"^\s*SELINUX\s*=\s*(enforcing|permissive)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class GuestText:
    """A small text file of a guest.

    `text` keeps bytes that are not UTF-8 as surrogates. It is None if there is no such file.
    """

    path: str
    text: str | None
    mode: int


@dataclass(frozen=True, slots=True)
class GuestState:
    """Facts that `plan` decides by."""

    facts: GuestFacts
    init: InitSystem
    arch: str | None
    rc_local: GuestText
    is_rc_local_started: bool  #: if it is executable
    is_rc_local_masked: bool  #: its unit of systemd is switched off by somebody
    inittab: GuestText
    getty: str  #: the program for a serial line that is installed; empty if none is
    serial_unit: str  #: systemd's template for a serial line; empty if it is not there
    machine_ids: tuple[GuestText, ...]  #: those that are files with content
    user: GuestUser
    has_selinux: bool


def read_state(tree: GuestTree, facts: GuestFacts) -> GuestState:
    """Read what a preparation decides by. Raises Rejected for a text that is too large; UnreadableVolume."""
    init, inittab = _find_init(tree), read_text(tree, "/etc/inittab")
    rc_local = _find_rc_local(tree, init)
    texts = (read_text(tree, path) for path in MACHINE_IDS if _is_plain_file(tree, path))
    return GuestState(
        facts=facts,
        init=init,
        arch=identify_linux(tree).arch,
        rc_local=rc_local,
        is_rc_local_started=_is_started(tree, init, inittab),
        is_rc_local_masked=RC_LOCAL_UNIT in tree.names(OWN_UNITS) and not _has_unit(tree, (OWN_UNITS,)),
        inittab=inittab,
        getty=next((path for path in ("/sbin/getty", "/sbin/agetty") if tree.is_file(path)), ""),
        serial_unit=next(
            (f"{folder}/serial-getty@.service" for folder in UNIT_FOLDERS
             if tree.is_file(f"{folder}/serial-getty@.service")), ""
        ),
        machine_ids=tuple(text for text in texts if (text.text or "").strip() not in ("", "uninitialized")),
        user=find_user(tree),
        has_selinux=SELINUX.search(tree.text("/etc/selinux/config")) is not None,
    )  # fmt: skip


def read_text(tree: GuestTree, path: str) -> GuestText:
    """Return a text of a guest, with the path where it really is. Raises Rejected if it is too large."""
    found = tree.find(path)
    if found is None or found.entry.type != "file":
        return GuestText(path, None, 0)
    if found.entry.size > MAX_TEXT_BYTES:
        raise Rejected(
            f"{shorten(found.path)}: it cannot be changed",
            f"it has more than {MAX_TEXT_BYTES} bytes",
            "Prepare the image by hand, and leave prepare = true out.",
        )
    return GuestText(found.path, tree.read(path).decode("utf-8", "surrogateescape"), found.entry.mode)


def _find_init(tree: GuestTree) -> InitSystem:
    init = tree.find("/sbin/init")
    if init.path in SYSTEMD if init else any(tree.is_file(path) for path in SYSTEMD):
        return "systemd"
    if tree.names("/etc/runlevels"):
        return "openrc"
    if any(name in tree.names("/etc/init") for name in ("rc.conf", "tty1.conf")):
        return "upstart"
    inittab = tree.text("/etc/inittab")
    if re.search(r"^::sysinit:", inittab, re.MULTILINE):
        return "busybox"
    return "sysvinit" if re.search(r"^\w+:\w*:\w+:", inittab, re.MULTILINE) else "unknown"


def _find_rc_local(tree: GuestTree, init: InitSystem) -> GuestText:
    if init == "openrc":
        return read_text(tree, f"{LOCAL_SCRIPTS}/uecwatchd.start")
    path = RC_LOCAL
    if init == "systemd":
        unit = "".join(tree.text(f"{folder}/{RC_LOCAL_UNIT}") for folder in (OWN_UNITS, *UNIT_FOLDERS))
        found = UNIT_STARTS.search(unit)
        path = found[1] if found else RC_LOCAL
    elif not tree.find(RC_LOCAL) and tree.find("/etc/rc.d/rc.local"):
        path = "/etc/rc.d/rc.local"
    return read_text(tree, path)


def _is_started(tree: GuestTree, init: InitSystem, inittab: GuestText) -> bool:
    if init == "systemd":
        has_generator = any(RC_LOCAL_GENERATOR in tree.names(folder) for folder in GENERATORS)
        is_enabled = RC_LOCAL_UNIT in tree.names(f"{OWN_UNITS}/multi-user.target.wants")
        return _has_unit(tree, (OWN_UNITS, *UNIT_FOLDERS)) and (has_generator or is_enabled)
    if init == "openrc":
        return "local" in tree.names(LOCAL_SERVICE)
    lines = (line.partition("#")[0] for line in (inittab.text or "").splitlines())
    if any("rc.local" in line for line in lines):
        return True
    return any(RUNLEVEL_LINK.fullmatch(name) for folder in RUNLEVELS for name in tree.names(folder))


def _has_unit(tree: GuestTree, folders: tuple[str, ...]) -> bool:
    return any(tree.is_file(f"{folder}/{RC_LOCAL_UNIT}") for folder in folders)


def _is_plain_file(tree: GuestTree, path: str) -> bool:
    """Tell if a path is a file itself: one machine-id is often a link to the other."""
    found = tree.find(path)
    folder = tree.find(posixpath.dirname(path))
    if found is None or folder is None or found.entry.type != "file":
        return False
    return found.path == posixpath.join(folder.path, posixpath.basename(path))


def find_user(tree: GuestTree) -> GuestUser:
    """Return the user with the lowest number who can log in and has a home; root if there is none."""
    named = LOGIN_DEFS_UID.search(tree.text("/etc/login.defs"))
    lowest = int(named[1]) if named else UID_MIN
    users = dict[int, GuestUser]()
    for line in tree.text("/etc/passwd").splitlines():
        fields = line.split(":")
        if len(fields) != 7 or not fields[2].isdecimal() or not USER_NAME.fullmatch(fields[0]):
            continue
        name, home, shell = fields[0], fields[5], fields[6]
        if HOME.fullmatch(home) and not shell.endswith(NO_SHELLS):
            users[int(fields[2])] = GuestUser(name, home)
    people = (users[uid] for uid in sorted(users) if lowest <= uid <= UID_MAX)
    return next((each for each in people if _is_folder(tree, each.home)), users.get(0, ROOT))


def _is_folder(tree: GuestTree, path: str) -> bool:
    found = tree.find(path)
    return found is not None and found.entry.type == "folder"
