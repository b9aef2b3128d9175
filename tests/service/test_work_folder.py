"""Files that are made for a set stay as long as the set needs them."""

from dataclasses import replace
from pathlib import Path

import pytest

from uecwatchd.ledger.records import SetRecord, State
from uecwatchd.service.policy import GONE
from uecwatchd.service.work_folder import drop_older_work, drop_work, sweep_work, work_folder
from uecwatchd.types import SetId

RECORD = SetRecord(SetId("/spool", "karmic"), "stamp", "deferred", 0.0)


def lay(state: Path, record: SetRecord = RECORD) -> Path:
    folder = work_folder(state, record.id, record.stamp)
    folder.mkdir(parents=True)
    (folder / "karmic.img").write_bytes(b"image")
    return folder


@pytest.mark.parametrize("state", ["waiting", "queued", "working", "deferred", "halted"])
def test_a_set_that_goes_on_keeps_what_was_made_for_it(tmp_path: Path, state: State) -> None:
    folder = lay(tmp_path)
    sweep_work(tmp_path, [replace(RECORD, state=state)], running=(), gone=GONE)
    assert folder.is_dir()


@pytest.mark.parametrize(
    "records",
    [
        [replace(RECORD, state="done")],
        [replace(RECORD, state="rejected")],
        [replace(RECORD, reason=GONE)],
        [replace(RECORD, stamp="of other files")],
        [],
    ],
    ids=["done", "rejected", "files removed", "files changed", "forgotten"],
)
def test_what_no_set_needs_is_removed_unless_the_set_is_at_work(
    tmp_path: Path, records: list[SetRecord]
) -> None:
    folder = lay(tmp_path)
    sweep_work(tmp_path, records, running={RECORD.id}, gone=GONE)
    assert folder.is_dir()
    sweep_work(tmp_path, records, running=(), gone=GONE)
    assert not folder.exists()


def test_a_sweep_without_a_work_folder_makes_none(tmp_path: Path) -> None:
    sweep_work(tmp_path, [RECORD], running=(), gone=GONE)
    assert list(tmp_path.iterdir()) == []


def test_what_was_made_of_older_files_goes_before_new_space_is_needed(tmp_path: Path) -> None:
    older, other = lay(tmp_path), lay(tmp_path, replace(RECORD, id=SetId("/spool", "lucid")))
    newer = lay(tmp_path, replace(RECORD, stamp="newer"))
    drop_older_work(tmp_path, SetId("/spool", "karmic"), "newer")
    assert [older.exists(), newer.exists(), other.exists()] == [False, True, True]
    drop_work(tmp_path, SetId("/spool", "karmic"))
    assert [newer.exists(), other.exists()] == [False, True]
