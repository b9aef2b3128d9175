"""Removes files of finished sets, if the configuration says so, and outputs of sets that have vanished.

Files that are leaving are noted in the ledger before the first one is moved. So a half of a set that is left
after a crash is not taken for another set.
"""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from uecwatchd.intake.sets.records import FolderSets
from uecwatchd.intake.spool import archive, scan
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import LeavingFile, Removal, SetRecord
from uecwatchd.outputs import result_files
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.policy import GONE, is_over
from uecwatchd.service.set_states import SetStates

# Each costs the disk several waits, and nobody waits for it.
CLEARING_SECONDS = 1.0


def files_to_retire(
    listing: scan.Listing,
    assembly: FolderSets,
    records: Mapping[str, SetRecord],
    *,
    held: Collection[str],
    removal: Removal,
) -> list[LeavingFile]:
    """Return the files of finished sets, without those that other sets need."""
    done = [found for found in assembly.ready if is_over(found, records.get(found.name))]
    done = [found for found in done if found.name not in held]
    others = [found for found in assembly.ready if found not in done]
    needed = {path for found in others for path in found.files}
    needed |= {path for one in assembly.waiting for path in one.files}
    needed |= {path for one in assembly.refused for path in one.files}
    own = (path for found in done for path in found.files if path not in needed | set(found.shared))
    return [
        LeavingFile(str(listing.folder), path, listing.stamp(path), removal) for path in dict.fromkeys(own)
    ]


def remove_leaving(
    folder: Path, ledger: Ledger, conditions: Conditions, *, now: float
) -> tuple[LeavingFile, ...]:
    """Archive or delete the files that are noted as leaving, now or before a crash.

    A file that cannot be moved is reported, and all stay noted: these are returned.
    """
    leaving = ledger.leaving(folder)
    for one in leaving:
        files = [(one.path, one.stamp)]
        with conditions.guard(("leaving", str(folder), one.path), one.path):
            if one.way == "delete":
                archive.discard(folder, files)
            else:
                archive.archive(folder, files, when=datetime.fromtimestamp(now, UTC))
    if not leaving or any(conditions.lasts(("leaving", str(folder), one.path)) for one in leaving):
        return leaving
    ledger.drop_leaving(folder)
    return ()


def without_leaving(listing: scan.Listing, leaving: Iterable[LeavingFile]) -> scan.Listing:
    """Leave out files that are leaving: a half of a set is not another set."""
    gone = {(one.path, one.stamp) for one in leaving}
    if not gone:
        return listing
    entries, boot_files = (
        {path: entry for path, entry in every.items() if (path, entry.stamp) not in gone}
        for every in (listing.entries, listing.boot_files)
    )
    return replace(listing, entries=entries, boot_files=boot_files)


def clear_vanished(
    records: Iterable[SetRecord], *, states: SetStates, conditions: Conditions, now: float, linger: float
) -> bool:
    """Clear outputs of sets whose files are gone for `linger` seconds: users cannot remove them.

    If it takes too long, the rest is left to the next scan. Returns True if a name may be free now that files
    of another owner wait for.
    """
    gone = list(records)
    freed = [replace(record, reason=GONE, since=now) for record in gone if record.reason != GONE]
    states.put_all(freed)
    end = time.monotonic() + CLEARING_SECONDS
    for record in gone:
        if record.reason == GONE and now - record.since >= linger and time.monotonic() < end:
            with conditions.guard(("set", *record.id), record.name):
                result_files.clear(record)
                states.drop(record)
                freed.append(record)
    return bool(freed)
