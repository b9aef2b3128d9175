"""All outputs say the same thing in the same words."""

from dataclasses import replace

import pytest

from uecwatchd.events import Event, Kind, Progress
from uecwatchd.ledger.records import Failure, SetBuild, SetRecord, TargetRecord
from uecwatchd.outputs.wording import (
    build_words,
    failure_event,
    failure_in_a_row,
    next_attempt,
    phrase,
    with_hint,
)
from uecwatchd.types import SetId

ERROR = Failure("deferred", "cloud default is away", "connection refused", "Wait.", "req-1")
DEFERRED = SetRecord(
    SetId("/srv/a", "karmic"),
    "s",
    "deferred",
    1.0,
    attempt=4,
    next_retry=90061.0,
    error=ERROR,
    cloud="default",
    targets=(TargetRecord("default"),),
)
WAITS_FOR_CLOUD = replace(DEFERRED, next_retry=None)


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (DEFERRED, "It is tried again at 1970-01-02 01:01:01 UTC (attempt 5)."),
        (WAITS_FOR_CLOUD, "Nothing is lost: it is tried again as soon as the cloud answers."),
        (
            replace(WAITS_FOR_CLOUD, state="halted"),
            "Nothing is lost: it is tried again as soon as the cloud can be used.",
        ),
        (
            replace(WAITS_FOR_CLOUD, state="rejected"),
            "It is tried again when its files change, or after: uecwatchd retry /srv/a/karmic",
        ),
    ],
)
def test_the_next_attempt_follows_from_the_state(record: SetRecord, sentence: str) -> None:
    assert next_attempt(record) == sentence


def test_an_event_of_a_failure_has_the_reason_in_its_sentence_and_the_hint_as_a_field() -> None:
    event = failure_event(DEFERRED)
    assert (event.kind, event.level) == (Kind.DEFERRED, "warning")
    assert event.sentence == "karmic is deferred: cloud default is away: connection refused"
    assert event.fields["hint"] == f"Wait. {next_attempt(DEFERRED)}"
    assert event.fields["request_id"] == "req-1"
    assert "stage" not in event.fields


@pytest.mark.parametrize(
    ("record", "holds", "probe_at", "words"),
    [
        (DEFERRED, (), None, "; again in 40 s (attempt 4 failed)"),
        (DEFERRED, (DEFERRED.id,), None, ". Wait."),
        (WAITS_FOR_CLOUD, (), None, ". Wait."),
        (WAITS_FOR_CLOUD, (), 90031.0, ". Wait. Cloud default is asked in 10 s."),
        (WAITS_FOR_CLOUD, (), 90001.0, ". Wait. Cloud default is asked now."),
    ],
)
def test_a_row_says_when_it_goes_on(
    record: SetRecord, holds: tuple[SetId, ...], probe_at: float | None, words: str
) -> None:
    row = failure_in_a_row(record, ERROR, now=90021.0, held=record.id in holds, probe_at=probe_at)
    assert row == f"cloud default is away: connection refused{words}"


@pytest.mark.parametrize(
    ("sentence", "hint", "whole"),
    [
        ("It is late", "", "It is late"),
        ("It is late", "Go home.", "It is late. Go home."),
        ("It is late.", "Go home.", "It is late. Go home."),
        ("It is late. Go home.", "Go home.", "It is late. Go home."),
    ],
)
def test_the_hint_is_said_once(sentence: str, hint: str, whole: str) -> None:
    assert with_hint(Event(Kind.REJECTED, sentence, fields={"hint": hint})) == whole


@pytest.mark.parametrize(
    ("progress", "speed", "text"),
    [
        (Progress(SetId("/s", "k"), "check", "", 0, 0), 0, "k: check"),
        (Progress(SetId("/s", "k"), "upload", "f", 1, 3), 0, "k: upload, 33 %"),
        (Progress(SetId("/s", "k"), "upload", "f", 3, 3, 7), 84e6, "k: upload, part 7, 100 %, 84.0 MB/s"),
        (Progress(SetId("/s", "k\n"), "upload", "", 0, 0), 0, r"k\n: upload"),
        (Progress(SetId("/s", "k"), "boot it once", "login:", 0, 0), 0, "k: boot it once, login:"),
    ],
)
def test_a_phrase_says_as_much_as_is_known(progress: Progress, speed: float, text: str) -> None:
    assert phrase(progress, speed=speed) == text


def test_an_installation_is_told_by_its_stage_its_time_and_its_last_line() -> None:
    asked = SetBuild("k", ())
    assert build_words(asked, 5.0) == "its system to be installed; the worker has not begun yet"
    begun = replace(asked, state="running", stage="second boot", stage_began=3.0)
    assert build_words(begun, 5.0) == "its system to be installed; second boot for 2 s"
    assert build_words(replace(begun, last_line="login:"), 5.0).endswith("second boot for 2 s: login:")
