"""Notes of one attempt: stage times, bytes, request ids, and the image that was replaced."""

from dataclasses import replace

from tests.support.clock import Clock
from uecwatchd.events import Event, Kind
from uecwatchd.ledger.history import AttemptRecord, StageTime
from uecwatchd.ledger.records import Failure, SetRecord, TargetImage, TargetRecord
from uecwatchd.service.attempt.notes import MOST_REQUEST_IDS, AttemptNotes
from uecwatchd.types import SetId

TARGET = TargetRecord("near", "b", (TargetImage("kernel", "eki-1"), TargetImage("machine")))
RECORD = SetRecord(
    SetId("/s", "karmic"), "stamp", "done", 1.0, attempt=3, began=10.0, cloud="near", targets=(TARGET,)
)


def noted(*events: Event) -> AttemptRecord:
    notes = AttemptNotes(Clock(20.0))
    for event in events:
        notes.tell(event)
    return notes.record(RECORD)


def test_each_stage_takes_until_the_next_one_begins_or_the_attempt_ends() -> None:
    clock = Clock(10.0)
    notes = AttemptNotes(clock)
    for name, seconds in (("read the files", 2.5), ("publish", 0.25)):
        notes.begin_stage(name)
        clock.sleep(seconds)
    made = notes.record(replace(RECORD, began=9.0))
    assert made.stages == (StageTime("read the files", 2.5), StageTime("publish", 0.25))
    assert (made.number, made.began, made.ended, made.state, made.cloud) == (3, 9.0, 12.75, "done", "near")


def test_a_clock_that_is_set_back_makes_no_negative_time() -> None:
    clock = Clock(10.0)
    notes = AttemptNotes(clock)
    notes.begin_stage("publish")
    clock.now = 5.0
    assert notes.record(RECORD).stages == (StageTime("publish", 0.0),)


def test_ids_are_those_of_the_images_that_exist() -> None:
    assert noted().ids == {"kernel": "eki-1"}


def test_the_bytes_of_all_members_are_added_up() -> None:
    sent = [Event(Kind.UPLOADED, "s", fields={"bytes": size}) for size in (3, 4)]
    assert (
        noted(*sent, Event(Kind.UPLOADED, "found there"), Event(Kind.BUNDLED, "b", fields={"bytes": 9})).sent
        == 7
    )


def test_an_attempt_keeps_the_id_that_it_replaced() -> None:
    replaced = Event(Kind.REGISTERED, "deregistered emi-0", fields={"replaced": "emi-0"})
    assert noted(replaced, Event(Kind.DONE, "d")).replaced == "emi-0"


def test_request_ids_are_kept_once_each_and_not_without_end() -> None:
    ids = [f"r-{number}" for number in range(MOST_REQUEST_IDS + 5)]
    events = [Event(Kind.WORKING, "w", fields={"request_id": text}) for text in (*ids, *ids)]
    assert noted(*events).request_ids == tuple(ids[:MOST_REQUEST_IDS])


def test_the_problem_of_a_failed_attempt_is_one_sentence() -> None:
    failed = replace(
        RECORD, state="rejected", error=Failure("rejected", "karmic.img", "it is empty", "Copy it.")
    )
    assert AttemptNotes(Clock()).record(failed).problem == "karmic.img: it is empty"
