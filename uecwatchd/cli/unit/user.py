"""Change from root to the service's user.

Files that root creates in the service's folders would be closed to the service, and root can see more than
the service may.
"""

import ctypes
import grp
import os
import pwd
from collections.abc import Iterable
from pathlib import Path

from uecwatchd.cli.unit.systemd import Unit
from uecwatchd.errors import Halted

# <linux/capability.h>, <linux/prctl.h>
CAPABILITY_VERSION_3 = 0x2008_0522
CAP_LEASE = 1 << 28
PR_SET_KEEPCAPS = 8


def take_user(unit: Unit | None, state: Path) -> None:
    """Change from root to the unit's user; without a unit, to the owner of the state directory."""
    if os.geteuid() != 0:
        return
    if unit is None or unit.settings.get("DynamicUser"):
        _become_owner(state)
    elif unit.text("User") not in ("", "root", "0"):
        os.umask(int(unit.settings.get("UMask", 0o022)))
        become(_entry(unit), group=unit.text("Group"), groups=unit.listed("SupplementaryGroups"))


def _become_owner(state: Path) -> None:
    try:
        status = state.stat()
    except OSError:
        return
    if status.st_uid == 0:
        return
    try:
        entry = pwd.getpwuid(status.st_uid)
    except KeyError:  # its name is only known elsewhere, for example on the host of a container
        entry = pwd.struct_passwd(("", "", status.st_uid, status.st_gid, "", "", ""))
    become(entry)


def _entry(unit: Unit) -> pwd.struct_passwd:
    user = unit.text("User")
    try:
        return pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError:
        why = f"there is no user {user} on this machine, and its service is to run as that one"
        raise Halted(unit.name, why, "Try: systemd-sysusers") from None


def become(entry: pwd.struct_passwd, *, group: str = "", groups: Iterable[str] = ()) -> None:
    """Change to another user permanently, and keep one capability of root, as the service does.

    With it we can ask if a process has a file open for writing: otherwise a verb could take a file that the
    service would still wait for.
    """
    main = _group(group) if group else entry.pw_gid
    more = [_group(name) for name in groups]
    ctypes.CDLL(None).prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    groups_of_user = os.getgrouplist(entry.pw_name, entry.pw_gid) if entry.pw_name else []
    os.setgroups(sorted({*groups_of_user, *more}))
    os.setgid(main)
    os.setuid(entry.pw_uid)
    _keep_only(CAP_LEASE)
    if entry.pw_name:
        os.environ.update(HOME=entry.pw_dir, USER=entry.pw_name, LOGNAME=entry.pw_name)


def _group(name: str) -> int:
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        why = f"there is no group {name} on this machine, which the unit names"
        raise Halted("the service's unit", why, "Try: systemd-sysusers") from None


def _keep_only(capabilities: int) -> None:
    """Set the effective and permitted capabilities of this thread and its children.

    If the kernel does not have them, we continue without.
    """
    words = ctypes.c_uint32 * 6
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    # Effective, permitted, inheritable; then the same for capabilities above 31.
    capset = ctypes.CDLL(None).capset
    if capset(header, words(capabilities, capabilities, 0, 0, 0, 0)) != 0:
        capset(header, words())
