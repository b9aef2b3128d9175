"""Checks for installations: the folder of builds, and the programs or the unit of their worker."""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from uecwatchd.cli.check.finding import Finding, bad
from uecwatchd.cli.unit.systemd import UnitUnknown, ask
from uecwatchd.config.installation import InstallSettings
from uecwatchd.errors import NotPermitted, UecError
from uecwatchd.install.request import DISK, builds_there
from uecwatchd.ledger.state_folder import user_name
from uecwatchd.system.disk_space import check_space
from uecwatchd.system.text import format_size, shell_word

PATH_UNIT = "uecwatchd-build.path"
# The programs that every installation needs, with their packages in Debian.
PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils"}


def examine_builds(
    install: InstallSettings, *, asked_for: Collection[str] | None = None
) -> Iterator[Finding]:
    """Check that a recipe can be built. Where nobody has prepared that, it is no mistake.

    `asked_for` has the keys of the builds of all sets; None if the ledger cannot be read.
    """
    missing = {name: package for name, package in PROGRAMS.items() if shutil.which(name) is None}
    if missing:
        packages = " ".join(missing.values())
        what = f"no installation is possible: {' and '.join(missing)} not installed"
        yield Finding("ok", f"{what} (only recipes need it: apt-get install {packages})")
        return
    folder = install.builds
    try:
        there = next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110
        if install.worker == "unit" and there != folder:
            yield _no_folder(folder)
            return
        check_space(there, "the folder of builds")
    except UecError as error:
        yield bad(error)
        return
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        what = f"{folder}: this user may not write there, and recipes are built there"
        hint = f"Try: sudo install -d -o {user_name(os.geteuid())} -m 2770 {shell_word(str(folder))}"
        yield Finding("warning", what, hint)
        return
    yield from _examine_worker(install)
    if asked_for is not None:
        yield from _examine_left(folder, asked_for)


def _no_folder(folder: Path) -> Finding:
    hint = "Try: systemd-tmpfiles --create"
    return Finding("bad", f"{folder}: there is no such folder for builds", hint, NotPermitted.exit_code)


def _examine_worker(install: InstallSettings) -> Iterator[Finding]:
    if install.worker == "child":
        yield Finding("ok", f"installations: in {install.builds}, by a child process of the service")
        return
    try:
        unit = ask(PATH_UNIT)
    except UnitUnknown as error:
        yield bad(error)
        return
    if unit is None or unit.text("ActiveState") != "active":
        what = f"{PATH_UNIT}: it does not run, so that recipes wait"
        yield Finding("warning", what, f"Try: systemctl enable --now {PATH_UNIT}")
        return
    yield Finding("ok", f"installations: in {install.builds}, by {PATH_UNIT.removesuffix('.path')}.service")


def _examine_left(folder: Path, asked_for: Collection[str]) -> Iterator[Finding]:
    """Find builds without a set: the ledger was lost, or another service uses the folder too."""
    left = []
    with suppress(OSError):
        left = [key for key in builds_there(folder) if key not in asked_for]
    if not left:
        return
    size = 0
    for key in left:
        with suppress(OSError):
            size += (folder / key / DISK).stat().st_size
    what = f"{folder}: no set here has {len(left)} of its builds, with {format_size(size)} of disks"
    words = " ".join(shell_word(str(folder / key)) for key in left)
    hint = f"Unless another service uses this folder, or sets are still to be found again: rm -r {words}"
    yield Finding("warning", what, hint)
