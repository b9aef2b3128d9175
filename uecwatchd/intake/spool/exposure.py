"""Checks for files that others may have changed: by a right to write, or by a second name.

The owner of a file has created it, but others may have written its content or given it its name.
"""

import functools
import grp
import os
import pwd
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from uecwatchd.intake.spool.safe_open import user_name

HARD_LINKS = Path("/proc/sys/fs/protected_hardlinks")
# How long facts about groups and settings of the kernel are cached.
BELIEVED_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Exposure:
    """A way for others to change a file or folder, and the command for its path that ends this."""

    why: str
    command: str = ""


def exposure(status: os.stat_result, *, links_are_free: bool | None = None) -> Exposure | None:
    """Return how others than the owner, root and this user may have changed it; None if they cannot.

    `links_are_free` is True if everybody may add a second name to another user's file; by default the kernel
    is asked.
    """
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        who = "" if mode & stat.S_ISVTX else _writers(status, mode)
        why = f"mode {mode:04o} lets {who} rename and replace what is in it"
        return Exposure(why, "chmod +t") if who else None
    if not stat.S_ISREG(status.st_mode):
        return None
    if who := _writers(status, mode):
        return Exposure(f"mode {mode:04o} lets {who} write to it", "chmod go-w")
    if status.st_nlink > 1 and (_links_are_free(_moment()) if links_are_free is None else links_are_free):
        return Exposure("it has a second name, and this machine lets anybody give it one")
    return None


def _writers(status: os.stat_result, mode: int) -> str:
    if mode & stat.S_IWOTH:
        return "everybody"
    if not mode & stat.S_IWGRP:
        return ""
    name, members = _group(status.st_gid, _moment())
    others = members - {user_name(uid) for uid in (0, os.geteuid(), status.st_uid)}
    return f"the group {name}" if others or not members else ""


def _moment() -> int:
    return int(time.monotonic() / BELIEVED_SECONDS)


@functools.lru_cache(maxsize=64)
def _group(gid: int, moment: int) -> tuple[str, frozenset[str]]:
    """Return the name of a group and all its known members; `moment` limits how long this is cached."""
    del moment
    primary = frozenset(user.pw_name for user in pwd.getpwall() if user.pw_gid == gid)
    try:
        group = grp.getgrgid(gid)
    except KeyError:
        return str(gid), frozenset()
    return group.gr_name, primary | frozenset(group.gr_mem)


@functools.lru_cache(maxsize=1)
def _links_are_free(moment: int) -> bool:
    del moment
    return anybody_may_link()


def anybody_may_link() -> bool:
    """Return True if the kernel lets everybody add a second name to another user's file."""
    try:
        return HARD_LINKS.read_text().strip() == "0"
    except OSError:
        return False
