"""Checks of this machine: configuration, spool folders and state directory."""

import os
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from uecwatchd.cli.check.finding import Finding, bad, open_to_all
from uecwatchd.config.documents import Malformed, parse_toml
from uecwatchd.config.records import Settings
from uecwatchd.config.sources import closed_file
from uecwatchd.errors import NotPermitted, UecError
from uecwatchd.intake.spool.host_mark import find_mark, wrong_user
from uecwatchd.intake.spool.safe_open import folder_descriptor, opened_by
from uecwatchd.ledger.open import examine_store, read_ledger
from uecwatchd.ledger.state_folder import user_name
from uecwatchd.system import mounts
from uecwatchd.system.disk_space import check_space
from uecwatchd.system.small_files import read_small
from uecwatchd.system.text import printable, shell_word

# A parameter, or between the user and the host of a URI.
PASSWORD_OF_DATABASE = re.compile(r"password|://[^/@]*:[^/]*@")


def examine_configuration(settings: Settings) -> Iterator[Finding]:
    """Check the configuration file. Root may have read it, before the change to the service's user."""
    if settings.source and not os.access(settings.source, os.R_OK, effective_ids=True):
        yield bad(closed_file(settings.source))
        return
    yield Finding("ok", f"configuration: {settings.source or 'built-in defaults, there is no file'}")
    if settings.source and _holds_secrets(settings.source) and (warning := open_to_all(settings.source)):
        yield warning


def _holds_secrets(source: Path) -> bool:
    try:
        tables = parse_toml(read_small(source))
    except (OSError, Malformed):  # it was changed just now, and will be read again
        return False
    addresses, fleet = tables.get("notify", {}).get("urls"), tables.get("fleet", {})
    if "password" in fleet or PASSWORD_OF_DATABASE.search(str(fleet.get("dsn", ""))):
        return True
    return bool(addresses) or any("secret_key" in table for table in tables.get("cloud", {}).values())


def examine_folder(folder: Path, *, is_shared: bool = False) -> Iterator[Finding]:
    """Check a spool folder, which `is_shared` with other hosts of the fleet or not."""
    try:
        with folder_descriptor(folder):
            check_space(folder, "the spool folder")  # first: a read-only disk would look like a missing right
    except UecError as error:
        yield bad(error)
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        hint = f"Try: {opened_by(folder)}"
        what = f"{folder}: this user may not write results there"
        yield Finding("bad", what, hint, NotPermitted.exit_code)
        return
    kind = mounts.file_system_of(folder)
    yield Finding("ok", f"spool folder: {folder} ({kind or 'file system unknown'})")
    yield from examine_share(folder) if is_shared else examine_sharing(folder, kind)


def examine_share(folder: Path) -> Iterator[Finding]:
    """Check that the other hosts with a shared folder have the same user."""
    with folder_descriptor(folder) as descriptor:
        found = find_mark(descriptor)
        wrong = wrong_user(descriptor, folder, found) if found else None
    if wrong:
        yield bad(wrong)
    elif found and found.mark:
        yield Finding("ok", f"{folder}: shared with other hosts, last with {printable(found.mark.host)}")


def examine_sharing(folder: Path, file_system: str) -> Iterator[Finding]:
    """Warn of a spool folder that other hosts can reach too."""
    if mounts.is_shared(file_system):
        what = f"{folder}: on {file_system} another host may have it, too"
        hint = "A second one is refused there. Hosts of a fleet may share it: shared = true in its policy."
        yield Finding("warning", what, hint)


def examine_state(settings: Settings, *, made: bool = False) -> Iterator[Finding]:
    """Check the state directory and the ledger.

    `made` is True if the unit creates the directory at a start.
    """
    folder = settings.state.dir
    if made and not os.path.exists(folder):  # noqa: PTH110 (that of a Path raises)
        yield Finding("ok", f"state directory: {folder} (systemd makes it when the service starts)")
        if settings.fleet.dsn:
            yield from _examine_ledger(settings)
        return
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110
    try:
        check_space(there, "the state directory")
    except UecError as error:
        yield bad(error)
        return
    if not os.access(there, os.W_OK | os.X_OK):
        user = user_name(os.geteuid()) if os.geteuid() else "uecwatchd"
        hint = f"Try: sudo install -d -o {user} -m 0700 {shell_word(str(folder))}"
        what = f"{folder}: this user may not write the state directory"
        yield Finding("bad", what, hint, NotPermitted.exit_code)
        return
    yield from _examine_ledger(settings)
    if mounts.is_shared(kind := mounts.file_system_of(there)):
        what = f"{folder}: the state directory is on {kind}, which may have no locks, or lose them"
        yield Finding(
            "warning",
            what,
            f"Set dir under [state] to a folder on a disk of this machine; spool folders may be on {kind}.",
        )


def _examine_ledger(settings: Settings) -> Iterator[Finding]:
    """Check that the ledger can be read, and a database also written."""
    try:
        where = examine_store(settings)
        ledger = read_ledger(settings)
        content = "no ledger yet"
        if ledger:
            with closing(ledger):
                content = f"a ledger of {ledger.count_sets()} sets"
    except UecError as error:
        yield bad(error)
        return
    yield Finding("ok", f"{where} ({content})")
