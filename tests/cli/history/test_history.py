"""The past of a set, from the ledger: its story, the attempts at it, and what replaced its image."""

import json
import random
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.host import Host
from tests.support.spool_files import drop_image
from uecwatchd.cli.history.attempts import with_replacements
from uecwatchd.cli.history.text import attempt_lines, attempt_table, entry_lines
from uecwatchd.cli.set_names import Ambiguous, NoSuchSet, find_past_set
from uecwatchd.ledger.history import AttemptRecord, StageTime, StoryEntry
from uecwatchd.ledger.records import MemberRecord, SetRecord
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.types import FileStamp, SetId

KARMIC, OTHER = SetId("/s", "karmic"), SetId("/t", "karmic")
ATTEMPT = AttemptRecord(
    KARMIC,
    1,
    began=1256858000.0,
    ended=1256858099.4,
    state="done",
    cloud="c",
    stages=(StageTime("inspect", 0.25), StageTime("deliver", 99.15), StageTime("publish", 0.09)),
    ids={"machine": "emi-1", "kernel": "eki-1"},
    sent=10 << 20,
    request_ids=("r-1", "r-2"),
)
ENTRY = StoryEntry(KARMIC, 1256858000.0, "found", "info", "karmic: found")


# --- the story --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "lines"),
    [
        (ENTRY, ["2009-10-29 23:13:20Z  karmic: found"]),
        (
            replace(ENTRY, level="error", sentence="karmic is rejected: no.", fields={"hint": "Copy it."}),
            ["2009-10-29 23:13:20Z  error: karmic is rejected: no. Copy it."],
        ),
        (
            replace(ENTRY, fields={"request_id": "r-1", "traceback": "one\ntwo"}),
            [
                "2009-10-29 23:13:20Z  karmic: found",
                f"{'':22}The cloud's request id: r-1",
                f"{'':22}one",
                f"{'':22}two",
            ],
        ),
    ],
    ids=["plain", "hint", "request id and traceback"],
)
def test_an_entry_is_a_sentence_with_its_time_and_hint(entry: StoryEntry, lines: list[str]) -> None:
    assert list(entry_lines(entry)) == lines


# --- attempts ---------------------------------------------------------------------------------------------


def test_an_image_is_replaced_by_the_later_attempt_that_deregistered_it() -> None:
    again = replace(ATTEMPT, number=2)
    newer = replace(ATTEMPT, number=1, ids={"machine": "emi-2", "kernel": "eki-1"}, replaced="emi-1")
    newest = replace(newer, number=1, ids={"machine": "emi-3"}, replaced="emi-2", state="deferred")
    found = with_replacements([ATTEMPT, again, newer, newest])
    assert [past.replaced_by for past in found] == ["emi-2", "emi-2", "emi-3", ""]


@pytest.mark.parametrize("other", [{"set_id": OTHER}, {"cloud": "d"}], ids=["set", "cloud"])
def test_an_image_of_another_set_or_cloud_is_not_replaced(other: dict[str, object]) -> None:
    newer = replace(ATTEMPT, ids={"machine": "emi-2"}, replaced="emi-1")
    assert [past.replaced_by for past in with_replacements([replace(ATTEMPT, **other), newer])] == ["", ""]


def test_an_attempt_is_shown_with_all_that_is_known_of_it() -> None:
    newer = replace(ATTEMPT, ids={"machine": "emi-2"}, replaced="emi-1")
    past, _ = with_replacements([ATTEMPT, newer])
    assert list(attempt_lines(past)) == [
        "karmic, attempt 1: done, began 2009-10-29 23:13:20 UTC, took 99 s",
        "  on cloud c: machine emi-1, kernel eki-1",
        "  sent 10 MiB",
        "  replaced by emi-2",
        "  stages: inspect 0.2 s, deliver 99 s, 1 of less than 0.1 s each",
        "  the cloud's request ids: r-1, r-2",
    ]


def test_attempts_at_all_sets_have_one_line_each_and_their_folder_if_there_are_several() -> None:
    failed = replace(ATTEMPT, set_id=OTHER, state="rejected", problem="it is\nempty", ids={}, ended=0.0)
    one, other = with_replacements([ATTEMPT, failed])
    assert list(attempt_table([one])) == [
        "SET     ATTEMPT  BEGAN (UTC)          TOOK      OUTCOME",
        "karmic  1        2009-10-29 23:13:20  99 s      done      emi-1",
    ]
    assert list(attempt_table([one, other]))[2] == (
        r"/t/karmic  1        2009-10-29 23:13:20  0.0 s     rejected  it is\nempty"
    )


# --- which set is meant -----------------------------------------------------------------------------------

MEMBER = MemberRecord("kernel", "vmlinuz-2.6.31", 1, FileStamp(1, 2, 3, 4))
RECORD = SetRecord(KARMIC, "stamp", "done", 1.0, members=(MEMBER,))


@pytest.mark.parametrize(
    "words", ["karmic", "./karmic", "/s/karmic", "vmlinuz-2.6.31", "/s/vmlinuz-2.6.31", "karmic.img"]
)
def test_a_set_is_named_by_itself_or_by_a_file(words: str) -> None:
    assert find_past_set(words, [KARMIC], [RECORD]) == KARMIC


def test_a_name_in_two_folders_needs_its_folder() -> None:
    with pytest.raises(Ambiguous, match="Say /s/karmic or /t/karmic") as caught:
        find_past_set("karmic", [OTHER], [RECORD])
    assert caught.value.exit_code == 64
    assert find_past_set("/t/karmic.img", [OTHER], [RECORD]) == OTHER


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(NoSuchSet, match=r"did you mean karmic"):
        find_past_set("karmik", [KARMIC], [])


# --- the verbs --------------------------------------------------------------------------------------------


@pytest.fixture
def registered(host: Host) -> Host:
    """A host with one finished set of one image."""
    drop_image(host.spool, "karmic", random.Random(1).randbytes(4096))  # noqa: S311
    assert host.run("once").returncode == 0
    return host


def test_the_story_and_the_attempt_of_a_set_have_the_ids_of_the_clouds_answers(registered: Host) -> None:
    emi = (registered.spool / "karmic.emi").read_text().strip()
    story = json.loads(registered.ask("log", "karmic", "--json")[0])
    (attempt,) = json.loads(registered.ask("history", "karmic", "--json")[0])
    (told,) = (entry for entry in story if entry["kind"] == "registered")
    assert told["fields"]["emi"] == emi
    assert told["fields"]["request_id"]
    assert attempt["request_ids"] == [told["fields"]["request_id"]]
    assert (attempt["outcome"], attempt["ids"]["machine"], attempt["sent"] > 0) == ("done", emi, True)
    assert attempt["stages"]
    assert f"karmic is {emi}" in registered.ask("log", "karmic.img")[0]
    assert f"machine {emi}" in registered.ask("history", "karmic")[0]
    assert emi in registered.ask("history")[0]


def test_a_history_outlives_its_record_until_it_is_forgotten(registered: Host) -> None:
    for path in registered.spool.glob("karmic*"):
        path.unlink()
    with closing(open_ledger(registered.state)) as ledger:
        ledger.drop_set(SetId(str(registered.spool), "karmic"))
    assert "karmic is emi-" in registered.ask("log", "karmic")[0]
    assert "attempt 1: done" in registered.ask("history", "karmic")[0]
    assert "The history of karmic is forgotten" in registered.ask("forget", "karmic")[1]
    for verb in ("log", "history"):
        assert "there is no history of it" in registered.ask(verb, "karmic", code=66)[1]


@pytest.mark.parametrize("verb", ["log", "history"])
def test_a_set_without_a_history_is_answered_with_a_sentence(host: Host, verb: str, tmp_path: Path) -> None:
    assert host.ask("history") == ("", "No attempt is over yet.\n")
    assert "there is no history of it" in host.ask(verb, "karmic", code=66)[1]
    with closing(open_ledger(host.state)) as ledger:
        ledger.put_set(replace(RECORD, id=SetId(str(host.spool), RECORD.name)))
    data, talk = host.ask(verb, "karmic")
    assert (data, "karmic" in talk, "yet" in talk) == ("", True, True)
    assert json.loads(host.ask(verb, "karmic", "--json")[0]) == []
