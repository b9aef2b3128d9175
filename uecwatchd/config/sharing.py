"""Shared folders: their list, their numbers, and mistakes in their settings."""

from collections.abc import Iterator
from pathlib import Path

from uecwatchd.config.records import FolderPolicy, Settings, SpoolSettings
from uecwatchd.errors import Halted
from uecwatchd.types import share_number


def shared_folders(spool: SpoolSettings) -> tuple[Path, ...]:
    """Return the spool folders that all hosts of the fleet work on, in order."""
    return tuple(folder for folder in spool.folders if spool.policy.get(folder, FolderPolicy()).shared)


def share_in(spool: SpoolSettings, folder: Path) -> int:
    """Return what the stamps of the files in a folder have for its device; 0 for the device itself."""
    return share_number(folder) if folder in shared_folders(spool) else 0


def check_shares_stay(before: SpoolSettings, after: SpoolSettings) -> None:
    """Raise Halted if another configuration has other shared folders, which needs a restart."""
    if changed := set(shared_folders(before)) ^ set(shared_folders(after)):
        what = f"{min(changed)}: it was shared and is not, or the other way round"
        hint = "Restart the service: systemctl restart uecwatchd"
        raise Halted(what, "the service knows the shared folders from its start", hint)


def find_wrong_shares(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with the shared folders, as sentences without full stop."""
    for folder in shared_folders(settings.spool):
        if not settings.fleet.dsn:
            yield f"spool.policy: {folder} is shared, which needs dsn under [fleet]"
        if settings.spool.policy[folder].source:
            yield f"spool.policy: {folder} is shared, and has a source: a bucket fills the folder of one host"
        if "\n" in str(folder):
            yield "spool.policy: a shared folder cannot have a line break in its path"
