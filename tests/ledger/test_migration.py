"""Ledgers of older versions, as those versions wrote them: `fixtures/version-N.sql` is a dump of one."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest

from uecwatchd.ledger import schema
from uecwatchd.ledger.records import AppliedAttributes, Failure, SetRecord, TargetImage, TargetRecord
from uecwatchd.ledger.sql_ledger import SqlLedger
from uecwatchd.ledger.sqlite import open_ledger, read_ledger
from uecwatchd.types import FileStamp, SetId

SPOOL = Path("/spool")
FIXTURES = Path(__file__).with_name("fixtures")
TAGS = ("team", "owner", "sha256", "host", "source")
IDS = {"kernel": "eki-40D79192", "ramdisk": "eri-64D06F9E", "machine": "emi-0FAE190E"}


@pytest.fixture
def migrated(tmp_path: Path) -> Iterator[SqlLedger]:
    with closing(sqlite3.connect(tmp_path / schema.FILE_NAME)) as old:
        old.executescript((FIXTURES / "version-8.sql").read_text())
    with closing(open_ledger(tmp_path)) as book:
        yield book


def record(book: SqlLedger, name: str) -> SetRecord:
    found = book.set(SetId(str(SPOOL), name))
    assert found
    return found


def test_a_finished_set_stays_finished_with_its_ids_and_attributes(migrated: SqlLedger) -> None:
    tiny = record(migrated, "tiny")
    assert (tiny.state, tiny.stamp, tiny.owner) == ("done", "ea9ce33c28f4b62e97e02a4432ff71d2", 0)
    assert {role: tiny.image_id(role) for role in IDS} == IDS  # type: ignore[arg-type]
    assert [member.path for member in tiny.members] == ["tiny.vmlinuz", "tiny.initrd", "tiny.img"]
    assert tiny.members[2].stamp == FileStamp(65024, 2495401, 50331648, 1795935906319469485)
    assert tiny.members[2].digest == "24a1f33c8d819d81d46888f6cdd651cc6d71f13c22e1ebf4209b8253d66519ac"
    assert tiny.targets == (tiny.target,)
    assert (tiny.target.cloud, tiny.target.bucket) == ("default", "uec-images")
    assert tiny.target.fingerprint == "417d74d3ffd0558f641cd9e43a76b50c6b87553adffbe772a590df4176e77e9a"
    assert tiny.target.images[2] == TargetImage(
        "machine",
        IDS["machine"],
        "uec-images/tiny-f5d6d7355ee2ddf9.manifest.xml",
        attributes=AppliedAttributes(
            IDS["machine"], ("team", "owner", "sha256", "host", "source"), described=True
        ),
    )


def test_images_that_were_published_are_versions(migrated: SqlLedger) -> None:
    tiny = migrated.versions.of_set(SetId("/spool", "tiny"))
    assert [(one.cloud, one.image_id, one.role, one.state) for one in tiny] == [
        ("default", IDS["machine"], "machine", "current")
    ]
    assert 0 < tiny[0].published <= tiny[0].since
    names = {one.set_id.name for one in migrated.versions.of_cloud("default")}
    assert names == {"tiny"}, "what was never published is no version"


def test_a_set_without_an_attempt_has_no_target(migrated: SqlLedger) -> None:
    early = record(migrated, "early")
    assert early.targets == ()
    assert early.target == TargetRecord("")
    assert early.error == Failure("rejected", "a", "b", "c", "r", 65)


def test_a_pending_image_is_still_waited_for(migrated: SqlLedger) -> None:
    slow = record(migrated, "slow")
    assert slow.awaits_cloud
    assert slow.target.remarks == ("no tags there",)
    machine = slow.target.image("machine")
    assert (machine.pending, machine.parts, machine.attributes) == ("emi-00000099", 2, None)


def test_a_deferred_set_keeps_its_clock(migrated: SqlLedger) -> None:
    closed = record(migrated, "closed")
    assert (closed.next_retry, closed.deferrals, closed.first_failure) == (1700000100.0, 3, 1700000000.0)


def test_an_unfinished_bundle_resumes_with_its_key_and_its_name(migrated: SqlLedger) -> None:
    (half,) = migrated.unfinished("default", made_for=SetId("/spool", "half"), role="machine")
    assert half.state == "planned"
    assert half.secret_key
    assert half.secret_iv
    assert half.name_inside == half.prefix
    assert half.digest == record(migrated, "half").members[2].digest
    assert record(migrated, "half").stage == "deliver the machine image"


def test_what_people_asked_for_stays(migrated: SqlLedger) -> None:
    assert migrated.holds() == {SetId("/spool", "bad"): 1700000000.0}
    (request,) = migrated.requests()
    assert (request.set_id, request.verb) == (SetId("/spool", "half"), "retry")
    assert [(one.path, one.stamp) for one in migrated.leaving(SPOOL)] == [("old.img", (1, 2, 3, 4))]
    assert migrated.probes() == {"far": 1700000009.0}
    assert list(migrated.progress()) == [SetId("/spool", "half")]


def test_all_sets_are_read_as_they_were_and_written_the_same(migrated: SqlLedger, tmp_path: Path) -> None:
    before = migrated.sets()
    assert [one.name for one in before] == ["bad", "closed", "early", "half", "slow", "tiny"]
    migrated.put_sets(before)
    with closing(read_ledger(tmp_path) or migrated) as again:
        assert again.sets() == before


def test_columns_that_moved_keep_their_names(migrated: SqlLedger, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / schema.FILE_NAME)) as raw:
        columns = {
            table: [row[1] for row in raw.execute(f"PRAGMA table_info({table})")]
            for table in ("sets", "targets", "images")
        }
    of_target = {field.name for field in fields(TargetRecord)} - {"images"}
    assert of_target <= set(columns["targets"])
    assert {field.name for field in fields(TargetImage)} <= set(columns["images"])
    assert of_target & set(columns["sets"]) == {"cloud"}, "the one that the columns of the set are about"
