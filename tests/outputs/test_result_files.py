import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from uecwatchd.events import Event, Kind, Progress
from uecwatchd.ledger.records import Failure, MemberRecord, SetRecord, TargetImage, TargetRecord
from uecwatchd.outputs import result_files, wording
from uecwatchd.outputs.progress import ProgressTracker
from uecwatchd.types import ContentDigest, FileStamp, SetId

KARMIC = SetId("/spool", "karmic")
MEMBERS = tuple(
    MemberRecord(
        role,
        f"karmic.{role}",
        512,
        FileStamp(1, 2, 3, 4),
        ContentDigest("ab" * 32),
    )  # type: ignore[arg-type]
    for role in ("kernel", "ramdisk", "machine")
)
TARGET = TargetRecord(
    "c",
    images=tuple(
        TargetImage(role, f"{prefix}-1", f"b/{role}")  # type: ignore[arg-type]
        for role, prefix in (("kernel", "eki"), ("ramdisk", "eri"), ("machine", "emi"))
    ),
)


@pytest.fixture
def record(tmp_path: Path) -> SetRecord:
    return SetRecord(
        SetId(str(tmp_path), "karmic"),
        "s",
        "done",
        1.0,
        attempt=1,
        members=MEMBERS,
        cloud="c",
        targets=(TARGET,),
    )


def names(folder: Path) -> list[str]:
    """In the order in which they came to be."""
    return [p.name for p in sorted(folder.iterdir(), key=lambda path: path.stat().st_ctime_ns)]


def test_ids_are_written_after_everything_else(record: SetRecord, tmp_path: Path) -> None:
    log = result_files.LogFile(SetId(str(tmp_path), "karmic"))
    log.begin(1, started=0.0)
    log.tell(Event(Kind.DONE, "karmic is emi-1"))
    result_files.publish(record)
    order = ["karmic.uec.json", "karmic.eki", "karmic.eri", "karmic.emi"]
    assert [name for name in names(tmp_path) if name != "karmic.uec.log"] == order
    assert (tmp_path / "karmic.emi").read_text() == "emi-1\n"


@pytest.mark.parametrize("suffix", [".uec.log", ".uec.json", ".emi"])
def test_an_output_that_cannot_be_written_does_not_prevent_the_others(
    record: SetRecord, tmp_path: Path, suffix: str
) -> None:
    (tmp_path / f"karmic{suffix}").symlink_to("/etc/motd")
    (taken,) = result_files.publish(record)
    assert taken.what == f"karmic{suffix}: cannot write it"
    written = {path.name for path in tmp_path.iterdir() if path.is_file() and not path.is_symlink()}
    expected = {"karmic.uec.log", "karmic.uec.json", "karmic.eki", "karmic.eri", "karmic.emi"}
    assert written == expected - {f"karmic{suffix}"}


def test_a_failure_is_three_paragraphs_and_goes_when_it_is_over(record: SetRecord, tmp_path: Path) -> None:
    error = Failure("deferred", "cloud default is away", "connection refused", "Wait.", "req-1")
    late = replace(record, state="deferred", error=error, next_retry=90061.0, attempt=4)
    result_files.publish(late)
    paragraphs = (tmp_path / "karmic.uec.error").read_text().split("\n\n")
    assert paragraphs == [
        "cloud default is away.",
        "Why: connection refused.\nThe cloud's request id: req-1",
        "Wait.\nIt is tried again at 1970-01-02 01:01:01 UTC (attempt 5).\n",
    ]
    result_files.publish(record)
    assert not (tmp_path / "karmic.uec.error").exists()


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("karmic", "uecwatchd retry /srv/a/karmic"),
        ("it's a", "uecwatchd retry '/srv/a/it'\"'\"'s a'"),
        ("x\n\udcff'\\", "uecwatchd retry $'/srv/a/x\\x0a\\xff\\x27\\x5c'"),
    ],
    ids=["plain", "quoted", "unprintable"],
)
def test_a_hint_names_the_set_with_its_folder_as_a_shell_takes_it(name: str, command: str) -> None:
    report = wording.command("retry", SetId("/srv/a", name))
    assert report == command
    words = subprocess.run(
        ["bash", "-c", f'uecwatchd() {{ printf %s "$2"; }}; {report}'], capture_output=True, check=True
    )
    assert words.stdout == os.fsencode(f"/srv/a/{name}")
    rejected = SetRecord(
        SetId("/srv/a", name), "s", "rejected", 1.0, error=Failure("rejected", "x", "y", "Z.")
    )
    assert command in result_files.write_failures([rejected]).decode()


def test_ids_are_taken_away_from_the_last_to_the_first(record: SetRecord, tmp_path: Path) -> None:
    result_files.publish(record)
    result_files.retract(record)
    assert sorted(names(tmp_path)) == ["karmic.uec.json", "karmic.uec.log"]
    assert list(result_files.ID_SUFFIXES.values()) == [".emi", ".eri", ".eki"]


def test_the_json_comes_back_as_it_was_written(record: SetRecord) -> None:
    report = result_files.read_report(result_files.write_report(record))
    assert report == json.loads(json.dumps(result_files.as_json(record)))
    assert report["ids"] == {"machine": "emi-1", "ramdisk": "eri-1", "kernel": "eki-1"}
    assert report["since"] == "1970-01-01T00:00:01Z"


@pytest.mark.parametrize("data", [b"", b"[]", b'{"version": 2}', b"\xff"])
def test_a_malformed_report_is_not_read(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        result_files.read_report(data)


def test_progress_is_written_now_and_then(record: SetRecord, tmp_path: Path) -> None:
    now = [0.0]
    tracker = ProgressTracker(clock=lambda: now[0])
    with result_files.progress_in_report(tracker, record):
        tracker.progress(Progress(record.id, "upload", "karmic.img", 100, 512, 1))
        assert not (tmp_path / "karmic.uec.json").exists()
        now[0] = result_files.PROGRESS_EVERY_SECONDS
        tracker.progress(Progress(record.id, "upload", "karmic.img", 400, 512, 3))
    now[0] *= 2
    tracker.progress(Progress(record.id, "upload", "karmic.img", 500, 512, 4))
    report = result_files.read_report((tmp_path / "karmic.uec.json").read_bytes())
    assert report["progress"] == {
        "stage": "upload",
        "file": "karmic.img",
        "part": 3,
        "done": 400,
        "total": 512,
        "rate": 60,
        "seconds_left": 2,
    }


def test_a_name_cannot_forge_lines_or_control_a_terminal(record: SetRecord, tmp_path: Path) -> None:
    nasty = "x\n2026-01-01 00:00:00  forged is emi-DEADBEEF\x1b[2J"
    result_files.LogFile(SetId(str(tmp_path), "karmic")).tell(Event(Kind.DONE, f"{nasty} is emi-1"))
    result_files.publish(replace(record, state="rejected", error=Failure("rejected", nasty, nasty, nasty)))
    for name in ("karmic.uec.log", "karmic.uec.error"):
        text = (tmp_path / name).read_text()
        assert "\x1b" not in text
        assert not any(line.startswith("2026-01-01") for line in text.splitlines())


def test_all_outputs_of_a_set_can_be_removed(record: SetRecord, tmp_path: Path) -> None:
    result_files.publish(record)
    result_files.clear(record)
    assert names(tmp_path) == []


def test_other_files_stay_when_outputs_are_removed(record: SetRecord, tmp_path: Path) -> None:
    result_files.publish(record)
    (tmp_path / "karmic.eri").unlink()
    (tmp_path / "karmic.eri").symlink_to("/etc/motd")
    result_files.clear(record)
    assert names(tmp_path) == ["karmic.eri"]
