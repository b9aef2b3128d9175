"""Rows of `status`: one for every name in a spool folder, with the state of the work on it."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.host import Host
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.cli.status.rows import LedgerFacts, Row, about, rows, unseen
from uecwatchd.cli.status.text import details, row_json, table
from uecwatchd.demo.material import RealSet
from uecwatchd.intake.sets import assemble
from uecwatchd.intake.sets.records import Rules
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool import scan
from uecwatchd.ledger.records import (
    Failure,
    MemberRecord,
    ProgressRecord,
    SetRecord,
    TargetImage,
    TargetRecord,
)
from uecwatchd.outputs.wording import duration
from uecwatchd.types import ContentDigest, FileStamp, SetId

NEEDS_KERNEL = {"default": frozenset({"kernel"})}
RULES = Rules(
    settle=5.0,
    defaults=Sidecar(bucket="b", clouds=("default",)),
    needs=NEEDS_KERNEL,  # type: ignore[arg-type]
    windows_needs=NEEDS_KERNEL,  # type: ignore[arg-type]
    disk_alone=frozenset(),
)
MEMBER = MemberRecord("machine", "karmic.img", 512, FileStamp(1, 2, 3, 4), ContentDigest("ab" * 32))
TARGET = TargetRecord("c", images=(TargetImage("machine", "emi-1", "b/k"),))
NOW = 10_000.0


def seen(folder: Path, known: LedgerFacts, *, now: float = NOW) -> tuple[Row, ...]:
    listing = scan.scan(folder, now=now, seen=0.0)
    return rows(listing, assemble.assemble(listing, rules=RULES), known)


# --- every name -------------------------------------------------------------------------------------------

STEMS = ("karmic", "a b", "ü", "done", ".hidden", "vmlinuz-1", "initrd.img-1", "x\n")
ENDINGS = (
    *("", ".img", ".vmlinuz", ".initrd", ".toml", ".json", ".sha256", ".txt", ".part", ".emi", ".uec.json"),
    *(".uec.log", ".eki", ".qcow2", "~"),
)
CONTENTS = (b"", b"text\n", b'kernel = "vmlinuz-1"\n', b"\x00" * 1024, b"\x1f\x8b" + b"x" * 600)
NAMES = st.builds(lambda stem, ending: stem + ending, st.sampled_from(STEMS), st.sampled_from(ENDINGS))
KINDS = st.sampled_from(["file", "folder", "link", "pipe"])
FOLDERS = st.dictionaries(NAMES, st.tuples(KINDS, st.sampled_from(CONTENTS)), max_size=8)


def make(folder: Path, name: str, kind: str, content: bytes) -> None:
    path = folder / name
    if kind == "folder":
        path.mkdir()
        (path / "disk.img").write_bytes(content)
    elif kind == "link":
        path.symlink_to("/etc/motd")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(content)


@settings(max_examples=150, deadline=None)
@given(FOLDERS)
def test_every_name_has_one_row_or_belongs_to_a_set_that_has(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, tuple[str, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    for name, (kind, content) in files.items():
        make(folder, name, kind, content)
    found, names = seen(folder, LedgerFacts(NOW)), {path.name for path in folder.iterdir()}
    own = [row.name for row in found if not row.is_set]
    of_sets = {path for row in found if row.is_set for path in (*row.files, *row.outputs)}
    assert len(own) == len(set(own))
    assert not of_sets & set(own)
    assert names <= of_sets | set(own)
    assert all(row.detail for row in found)
    assert all(about(found, name) for name in names)


@pytest.fixture
def mixed(tmp_path: Path) -> tuple[Row, ...]:
    """The rows of a folder in which there is something of everything."""
    for name in ("karmic.toml", "notes.txt", ".karmic.img.Xy12", "karmic.emi", "lucid.emi", "vmlinuz-1"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "karmic.toml").write_text('machine = "karmic.img"')
    return seen(tmp_path, LedgerFacts(NOW))


@pytest.mark.parametrize(
    ("name", "state", "words"),
    [
        ("karmic", "waiting", "for karmic.img (named in karmic.toml)"),
        ("karmic.toml", "waiting", "karmic.toml is a file of the set karmic."),
        ("karmic.emi", "waiting", "karmic.emi is a result file of the set karmic."),
        ("lucid.emi", "ignored", "named like an output of the service, and there is no set lucid"),
        (".karmic.img.Xy12", "ignored", "its name matches .*"),
        ("notes.txt", "misfit", "not a disk image, kernel, ramdisk, or sidecar"),
        ("vmlinuz-1", "misfit", "a kernel that no machine image has taken"),
    ],
)
def test_status_of_a_file_name_shows_its_set(
    mixed: tuple[Row, ...], name: str, state: str, words: str
) -> None:
    (row,) = about(mixed, name)
    assert row.state == state
    assert words in "\n".join(details(row, asked=name))
    assert about(mixed, f"{row.folder}/{name}") == about(mixed, f"{name}/") == (row,)
    assert about(mixed, f"/elsewhere/{name}") == ()


@pytest.mark.parametrize(
    "asked",
    [
        "{spool}/karmic",
        "{spool}//karmic/",
        "karmic/",
        "./karmic",
        "karmic/disk.img",
        "{spool}/karmic/disk.img",
    ],
)
def test_a_set_that_is_a_folder_is_found_by_any_path_to_it(tmp_path: Path, asked: str) -> None:
    (tmp_path / "karmic").mkdir()
    (tmp_path / "karmic" / "disk.img").write_bytes(b"x" * 600)
    (row,) = about(seen(tmp_path, LedgerFacts(NOW)), asked.format(spool=tmp_path))
    assert row.name == "karmic"


def test_a_name_that_would_break_a_line_is_one_row_in_line_with_the_others(tmp_path: Path) -> None:
    for name in (b"a\nb.txt", b"tab\t.txt", b"kar\xffmic.txt", b"\x1b[31mred.txt", b"plain.txt"):
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))).write_bytes(b"x")
    found = seen(tmp_path, LedgerFacts(NOW))
    lines = table([("", found)])
    assert len(lines) == 6
    assert all(line.isprintable() for line in lines)
    assert len({re.search("STATE|misfit|ignored", line).start() for line in lines}) == 1  # type: ignore[union-attr]
    for line in lines[1:]:
        assert len(about(found, line.split()[0])) == 1, "what the table shows can be asked for"


# --- what is known of the work ----------------------------------------------------------------------------


@pytest.fixture
def waiting(tmp_path: Path) -> Path:
    (tmp_path / "karmic.toml").write_text('machine = "karmic.img"')
    return tmp_path


def record_of(folder: Path, **changes: Any) -> SetRecord:
    record = SetRecord(
        SetId(str(folder), "karmic"),
        "stamp",
        "working",
        NOW,
        attempt=2,
        members=(MEMBER,),
        cloud="c",
        targets=(TARGET,),
    )
    return replace(record, **changes)


def row_with(folder: Path, **known: Any) -> Row:
    (row,) = seen(folder, LedgerFacts(NOW, **known))
    return row


def test_progress_is_shown_with_rate_and_time_left_while_a_daemon_runs(waiting: Path) -> None:
    key = (str(waiting), "karmic")
    progress = ProgressRecord(key, "upload the machine", "karmic.img", 250, 1000, 37, NOW - 100, NOW - 50)
    known = {"records": (record_of(waiting, stage="deliver the machine image"),), "progress": {key: progress}}
    row = row_with(waiting, alive=True, **known)
    assert row.state == "working"
    assert row.detail == ("upload the machine: karmic.img, part 37, 25 %, 0.0 MB/s, 2 min left (attempt 2)")
    assert row_json(row)["progress"] == {
        "stage": "upload the machine",
        "file": "karmic.img",
        "part": 37,
        "done": 250,
        "total": 1000,
        "rate": 5,
        "seconds_left": 150,
    }
    broken_off = row_with(waiting, alive=False, **known)
    assert broken_off.state == "waiting", "what a killed daemon has left is not shown as if it went on"
    assert row_json(broken_off)["progress"] is None


def test_a_stage_without_a_measure_is_shown_by_its_name(waiting: Path) -> None:
    key = (str(waiting), "karmic")
    progress = ProgressRecord(key, "publish", "", 0, 0, 0, NOW, NOW)
    row = row_with(waiting, alive=True, records=(record_of(waiting),), progress={key: progress})
    assert row.detail == "publish (attempt 2)"


@pytest.mark.parametrize(
    ("state", "more", "words"),
    [
        ("deferred", {"next_retry": NOW + 90}, "the cloud: away; again in 90 s (attempt 2 failed)"),
        ("deferred", {"next_retry": NOW - 1}, "the cloud: away; again now (attempt 2 failed)"),
        ("rejected", {}, "the cloud: away. Wait for it."),
        ("halted", {}, "the cloud: away. Wait for it."),
        ("done", {"error": None}, "emi-1"),
        ("queued", {"error": None, "stage": "publish"}, "stopped at: publish (attempt 2)"),
        ("working", {"error": None, "stage": "publish"}, "stopped at: publish (attempt 2)"),
    ],
)
def test_a_set_is_shown_in_the_state_that_the_ledger_has(
    tmp_path: Path, small_set: RealSet, state: str, more: dict[str, Any], words: str
) -> None:
    for made, ending in (
        (small_set.machine, "img"),
        (small_set.kernel, "vmlinuz"),
        (small_set.ramdisk, "initrd"),
    ):
        (tmp_path / f"karmic.{ending}").symlink_to(made)
    listing = scan.scan(tmp_path, now=NOW, seen=0.0)
    (refused,) = assemble.assemble(listing, rules=RULES).refused
    error = Failure(state, "the cloud", "away", "Wait for it.", "req-7")
    record = replace(record_of(tmp_path, state=state, error=error, stamp=refused.stamp), **more)
    row = row_with(tmp_path, records=(record,))
    assert row.detail == words
    shown = "\n".join(details(row, asked="karmic"))
    assert "attempt 2" in shown
    if record.error:
        assert all(shown.count(word) == 1 for word in ("the cloud: away", "Wait for it.", "req-7"))
        assert "tried again" in shown
        assert row_json(row)["hint"] == "Wait for it."
    changed = row_with(tmp_path, records=(replace(record, stamp="other"),))
    assert changed.state == "rejected", "its files are others now, and those are refused"


def test_a_waiting_set_has_the_time_and_the_reason_that_the_daemon_knows(waiting: Path) -> None:
    reason = "karmic.img (named in karmic.toml)"
    record = record_of(waiting, state="waiting", reason=f"{reason} (more)", since=0.0)
    assert (
        row_with(waiting, records=(record,)).detail == f"for {reason} (more), since 1970-01-01 00:00:00 UTC"
    )
    assert row_with(waiting, records=(replace(record, reason="x"),)).detail == f"for {reason}"


def test_a_held_set_has_the_time_of_the_hold_and_its_other_state(waiting: Path) -> None:
    holds = {(str(waiting), "karmic"): 0.0, (str(waiting), "lucid"): 60.0}
    karmic, lucid = seen(waiting, LedgerFacts(NOW, holds=holds))
    assert (karmic.state, lucid.state) == ("held", "held")
    assert karmic.detail.startswith("since 1970-01-01 00:00:00 UTC; waiting: for karmic.img")
    assert lucid.detail == "since 1970-01-01 00:01:00 UTC; there is nothing with this name yet"
    assert row_json(lucid)["held_since"] == "1970-01-01T00:01:00Z"
    at_work = row_with(
        waiting, alive=True, holds={(str(waiting), "karmic"): 0.0}, records=(record_of(waiting),)
    )
    assert at_work.state == "working"
    assert at_work.detail.endswith("held: stops before its next part")


@pytest.mark.parametrize("meanwhile", ["asked", "held"])
def test_a_set_that_is_held_or_asked_for_again_has_no_time_of_its_next_attempt(
    waiting: Path, meanwhile: str
) -> None:
    error = Failure("deferred", "the cloud", "away", "Wait.")
    record = record_of(waiting, state="deferred", error=error, next_retry=NOW + 90)
    key = (str(waiting), "karmic")
    row = row_with(
        waiting,
        records=(record,),
        **({"asked": {key: "retry"}} if meanwhile == "asked" else {"holds": {key: NOW}}),
    )
    shown = "\n".join(details(row, asked="karmic"))
    assert row.state == {"asked": "queued", "held": "held"}[meanwhile]
    assert "It is tried again" not in shown
    assert "again in" not in shown
    assert row_json(row)["next_retry"] is None
    assert row.detail == "to be tried again, on request" or meanwhile == "held"


@pytest.mark.parametrize(
    ("state", "changes", "words"),
    [
        ("halted", {}, "the cloud: away. Wait. Cloud c is asked in 40 s."),
        ("deferred", {}, "the cloud: away. Wait. Cloud c is asked in 40 s."),
        ("deferred", {"now": NOW + 41}, "the cloud: away. Wait. Cloud c is asked now."),
        ("halted", {"alive": False}, "the cloud: away. Wait."),
        ("halted", {"probes": {"other": NOW}}, "the cloud: away. Wait."),
    ],
    ids=["halted", "away", "at this moment", "no daemon", "another cloud"],
)
def test_a_set_that_waits_for_its_cloud_tells_when_that_is_asked(
    tmp_path: Path, state: str, changes: dict[str, Any], words: str
) -> None:
    (tmp_path / "karmic.toml").write_text("nonsense")
    listing = scan.scan(tmp_path, now=NOW, seen=0.0)
    (refused,) = assemble.assemble(listing, rules=RULES).refused
    error = Failure(state, "the cloud", "away", "Wait.")
    record = record_of(tmp_path, state=state, error=error, stamp=refused.stamp)
    known = replace(LedgerFacts(NOW, alive=True, records=(record,), probes={"c": NOW + 40}), **changes)
    (row,) = seen(tmp_path, known)
    assert row.detail == words
    asked = row_json(row)["cloud_asked"]
    assert asked == ("1970-01-01T02:47:20Z" if "is asked" in words else None)


def test_sets_in_a_missing_folder_are_shown_from_the_ledger(tmp_path: Path) -> None:
    folder = str(tmp_path)
    known = LedgerFacts(
        NOW, records=(record_of(tmp_path),), holds={(folder, "karmic"): 0.0, (folder, "lucid"): 60.0}
    )
    karmic, lucid = unseen(folder, known, why="its folder is gone")
    assert (karmic.state, lucid.state) == ("held", "held")
    assert karmic.detail == "since 1970-01-01 00:00:00 UTC; working: its folder is gone"
    assert lucid.detail == "since 1970-01-01 00:01:00 UTC; its folder is gone"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (3.4, "3 s"), (119, "119 s"), (150, "2 min"), (7100, "118 min"), (12_300, "3 h 25 min")],
)
def test_a_duration_is_given_in_seconds_then_minutes_then_hours(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_table_has_a_line_for_each_row(waiting: Path) -> None:
    (waiting / "notes.txt").write_text("hello")
    first, *others = table([("", seen(waiting, LedgerFacts(NOW)))])
    assert first.split() == ["SET", "STATE"]
    assert [line.split()[:2] for line in others] == [["karmic", "waiting"], ["notes.txt", "misfit"]]


# --- the verb ---------------------------------------------------------------------------------------------


def test_a_file_that_may_still_be_written_is_shown_with_the_remaining_seconds(host: Host) -> None:
    host.configure(host.config.read_text().replace("settle = 0.3", "settle = 50"))
    (host.spool / "karmic.toml").write_text('machine = "karmic.img"')
    found = {row["name"]: row for row in json.loads(host.ask("status", "--json")[0])}
    assert 40 < found["karmic"]["seconds_to_go"] <= 50
    assert found["karmic"]["detail"].startswith("for karmic.toml to be unchanged for 50 s (")
    assert found["karmic"]["detail"].endswith(" s to go)")
    assert not host.state.exists(), "a look makes nothing"


def test_status_shows_the_progress_of_a_live_daemon_and_of_no_killed_one(
    host: Host, small_set: RealSet
) -> None:
    host.drop_set(small_set, "k")
    with (host.spool / "k.img").open("ab") as image:
        image.write(os.urandom(20 << 20))
    host.configure(host.config.read_text() + "[work]\nuploads = 1\n")
    host.cloud.faults.arm("slow", 2.0)
    process = host.start("run")
    try:
        shown: list[dict[str, Any]] = []

        def uploading() -> bool:
            shown[:] = json.loads(host.ask("status", "--json")[0])
            progress = shown[0]["progress"] if shown else None
            return bool(progress) and progress["file"] == "k.img" and bool(progress["rate"])

        until(uploading, "progress")
        (row,) = shown
        assert row["state"] == "working"
        assert 0 < row["progress"]["done"] <= row["progress"]["total"]
        assert row["progress"]["rate"] > 0
        assert row["progress"]["seconds_left"] >= 0
        assert host.ask("status")[1] == ""
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_SECONDS)
    data, talk = host.ask("status")
    assert "stopped at: deliver the machine image (attempt 1)" in data
    assert f"No daemon is running on {host.state}" in talk


def test_sets_in_an_unreadable_folder_are_still_shown(host: Host, small_set: RealSet) -> None:
    (host.spool / "karmic.toml").write_text('machine = "karmic.img"')
    host.run("once")
    host.spool.rename(host.folder / "away")
    data, talk = host.ask("status", code=75)
    assert "its folder cannot be scanned" in data
    assert "cannot open the spool folder" in talk
