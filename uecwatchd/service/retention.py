"""Archiving and deletion of finished sets, and of old records and result files.

Files that leave are recorded before the first is moved, so that half a set after a crash is not another set.
"""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from uecwatchd.intake.sets.records import Assembly, ImageSet
from uecwatchd.intake.spool import archive, scan
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import Leaving, SetRecord
from uecwatchd.outputs import result_files
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.policy import GONE, is_done
from uecwatchd.service.set_states import SetStates

# Each takes several writes to the disk, and nobody waits for it.
FORGETTING_SECONDS = 1.0


def leaving_of(
    listing: scan.Listing,
    assembly: Assembly,
    records: Mapping[str, SetRecord],
    *,
    held: Collection[str],
    way: Literal["archive", "delete"],
) -> list[Leaving]:
    """Return the files of finished sets, without files that other sets use or wait with."""
    done = [found for found in assembly.ready if is_done(found, records.get(found.name))]
    done = [found for found in done if found.name not in held]
    paths = _of_these_alone(assembly, done)
    return [Leaving(str(listing.folder), path, listing.entries[path].stamp, way) for path in paths]


def _of_these_alone(assembly: Assembly, done: list[ImageSet]) -> Iterable[str]:
    others = [found for found in assembly.ready if found not in done]
    needed = {path for found in others for path in found.files}
    needed |= {path for one in assembly.waiting for path in one.files}
    needed |= {path for one in assembly.refused for path in one.files}
    return dict.fromkeys(
        path for found in done for path in found.files if path not in needed | set(found.shared)
    )


def see_off(folder: Path, ledger: Ledger, conditions: Conditions, *, now: float) -> None:
    """Archive or delete recorded files, from now or before a crash; report failures, and keep them."""
    leaving = ledger.leaving(folder)
    for one in leaving:
        files = [(one.path, one.stamp)]
        with conditions.guard(("leaving", str(folder), one.path), one.path):
            if one.way == "delete":
                archive.discard(folder, files)
            else:
                archive.archive(folder, files, when=datetime.fromtimestamp(now, UTC))
    if leaving and not any(conditions.lasts(("leaving", str(folder), one.path)) for one in leaving):
        ledger.drop_leaving(folder)


def without_leaving(listing: scan.Listing, leaving: Iterable[Leaving]) -> scan.Listing:
    """Return the listing without leaving files: half a set must not be taken for another one."""
    gone = {(one.path, one.stamp) for one in leaving}
    entries = {path: entry for path, entry in listing.entries.items() if (path, entry.stamp) not in gone}
    return replace(listing, entries=entries) if gone else listing


def forget_in_time(
    records: Iterable[SetRecord], *, states: SetStates, conditions: Conditions, now: float, linger: float
) -> bool:
    """Remove result files of sets without files after a while: users cannot remove them themselves.

    Slow work is left to the next scan. Returns True if a name may have become free for somebody else's files.
    """
    gone = list(records)
    freed = [replace(record, reason=GONE, since=now) for record in gone if record.reason != GONE]
    states.put_all(freed)
    end = time.monotonic() + FORGETTING_SECONDS
    for record in gone:
        if record.reason == GONE and now - record.since >= linger and time.monotonic() < end:
            with conditions.guard(("set", *record.id), record.name):
                result_files.clear(record)
                states.drop(record)
                freed.append(record)
    return bool(freed)
