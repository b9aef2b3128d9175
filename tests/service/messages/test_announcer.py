"""The announcer writes what is due into the outbox, with the note that it was announced."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.clock import Clock
from tests.support.listener import Recorder
from uecwatchd.config.records import NotifySettings
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.outbox import NO_SET, Announced
from uecwatchd.ledger.records import Failure, SetRecord
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.messages.announcer import LOOK_SECONDS, MOST_FORGOTTEN, MOST_WAITING, Announcer
from uecwatchd.service.messages.due import cloud_key
from uecwatchd.system.clocks import Clocks
from uecwatchd.types import SetId

ON, OFF = NotifySettings(command=("/bin/true",)), NotifySettings()
BEGUN = 1000.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(open_ledger(tmp_path / "state")) as book:
        yield book


@pytest.fixture
def clock() -> Clock:
    return Clock(BEGUN)


@pytest.fixture
def announcer(ledger: Ledger, listener: Recorder, clock: Clock) -> Announcer:
    made = Announcer(
        ON, ledger=ledger, conditions=Conditions(listener), clocks=Clocks(now=clock, monotonic=clock)
    )
    made.update([])
    clock.now += 1
    return made


def rejected(number: int, *, since: float = BEGUN + 1) -> SetRecord:
    error = Failure("rejected", "a", "b", "c")
    return SetRecord(SetId("/spool", f"set{number}"), "s", "rejected", since, error=error)


def test_messages_and_notes_are_written_together_and_once(announcer: Announcer, ledger: Ledger) -> None:
    records = [rejected(1), rejected(2)]
    assert announcer.update(records)
    assert not announcer.update(records)
    assert [(one.set_id.name, one.way) for one in ledger.outbox.messages()] == [
        ("set1", "command"),
        ("set2", "command"),
    ]
    assert ledger.outbox.announced() == {
        NO_SET: Announced("begun", BEGUN),
        **{record.id: Announced("rejected", BEGUN + 1) for record in records},
    }


def test_another_process_announces_nothing_again(
    announcer: Announcer, ledger: Ledger, listener: Recorder, clock: Clock
) -> None:
    records = [rejected(1)]
    announcer.update(records)
    other = Announcer(ON, ledger=ledger, conditions=Conditions(listener), clocks=Clocks(now=clock))
    assert not other.update(records)
    assert len(ledger.outbox.messages()) == 1


def test_a_flood_fills_the_outbox_to_its_limit_and_is_reported_once(
    announcer: Announcer, ledger: Ledger, listener: Recorder
) -> None:
    records = [rejected(number) for number in range(MOST_WAITING + 50)]
    announcer.update(records)
    records.append(rejected(MOST_WAITING + 50))
    announcer.update(records, at_once=True)
    assert len(ledger.outbox.messages()) == MOST_WAITING
    (told,) = [event.sentence for event in listener.events]
    assert told == "1000 messages wait on one way: further ones are in the journal only"


def test_a_way_that_is_full_takes_no_place_of_another(announcer: Announcer, ledger: Ledger) -> None:
    announcer.update([rejected(number) for number in range(MOST_WAITING)])
    announcer.configure(replace(ON, urls=(SecretStr("json://127.0.0.1:1/"),)))
    announcer.update([rejected(number) for number in range(MOST_WAITING + 1)], at_once=True)
    ways = [message.way for message in ledger.outbox.messages()]
    assert (ways.count("command"), len(ways)) == (MOST_WAITING, MOST_WAITING + 1)


def test_entries_of_forgotten_sets_go_some_at_a_time(
    announcer: Announcer, ledger: Ledger, clock: Clock
) -> None:
    announcer.update([rejected(number) for number in range(MOST_FORGOTTEN + 1)])
    left = []
    for _ in range(2):
        clock.now += LOOK_SECONDS
        announcer.update([])
        left.append(len(ledger.outbox.announced()) - 1)
    assert left == [1, 0]


def test_the_time_without_messages_is_not_made_up_for(
    announcer: Announcer, ledger: Ledger, clock: Clock
) -> None:
    announcer.configure(OFF)
    announcer.update([rejected(1)])
    assert NO_SET not in ledger.outbox.announced()
    clock.now += 100
    announcer.configure(ON)
    assert not announcer.update([rejected(1)])
    assert announcer.update([rejected(1), rejected(2, since=clock.now)])
    assert [one.set_id.name for one in ledger.outbox.messages()] == ["set2"]


def test_a_cloud_that_answers_during_a_comparison_counts_in_the_next_one(
    ledger: Ledger, listener: Recorder, clock: Clock
) -> None:
    looks = list[float]()

    def now() -> float:
        looks.append(clock.now)
        if len(looks) == 2:  # the situation is known, and nothing is written
            busy.note_resumed("far")
        return clock.now

    busy = Announcer(
        ON, ledger=ledger, conditions=Conditions(listener), clocks=Clocks(now=now, monotonic=clock)
    )
    away = {cloud_key("far"): Announced("deferred", BEGUN)}
    ledger.outbox.announce([], away)
    busy.update([])
    assert ledger.outbox.messages() == ()
    assert busy.update([])
    assert [one.outcome for one in ledger.outbox.messages()] == ["recovered"]
