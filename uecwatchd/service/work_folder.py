"""Work folders: members that are made for a set, such as the files of an archive, until it is done.

    <work folder>/sets/<set>/<stamp>/<path of the member>

`<set>` is a digest of the set's id, and `<stamp>` the stamp of its files. So a finished file there was made
of the very files that the set has now, and is used again after a crash or a failure of the cloud. What no
set needs any more is removed: at the end of its attempt, and otherwise by the next scan.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.standing import by_cloud
from uecwatchd.system.made_files import list_folder, remove_folder
from uecwatchd.types import SetId

FOLDER = "sets"
WHAT = "the work folder"  # as in a sentence, and in the names of failpoints
# States of sets that need no made files: they are done, or their files have to change.
FINAL_STATES = ("done", "rejected")


def folder_of_set(base: Path, set_id: SetId) -> Path:
    return base / FOLDER / hashlib.sha256(str(set_id).encode()).hexdigest()[:32]


def work_folder(base: Path, set_id: SetId, stamp: str) -> Path:
    """Return the work folder of a set with these files. It may not exist."""
    return folder_of_set(base, set_id) / stamp


def drop_older_work(base: Path, set_id: SetId, stamp: str) -> None:
    """Remove what was made of other files for a set. Raises Deferred."""
    _remove_all_but(folder_of_set(base, set_id), {stamp})


def drop_work(base: Path, set_id: SetId) -> None:
    """Remove all that was made for a set, if there is anything. Raises Deferred."""
    remove_folder(folder_of_set(base, set_id), what=WHAT)


def sweep_work(base: Path, records: Iterable[SetRecord], *, running: Collection[SetId], gone: str) -> None:
    """Remove what no set needs: those done, changed, forgotten or with the reason `gone`.

    Raises Deferred.
    """
    if not list_folder(base / FOLDER):
        return
    kept = {folder_of_set(base, set_id).name for set_id in running}
    unfinished: Mapping[str, str] = {
        folder_of_set(base, record.id).name: record.stamp
        for record in records
        if record.reason != gone and any(one.state not in FINAL_STATES for one in by_cloud(record))
    }
    _remove_all_but(base / FOLDER, kept | unfinished.keys())
    for name in unfinished.keys() - kept:
        _remove_all_but(base / FOLDER / name, {unfinished[name]})


def _remove_all_but(folder: Path, kept: Collection[str]) -> None:
    for each in list_folder(folder):
        if each.name not in kept:
            remove_folder(each, what=WHAT)
