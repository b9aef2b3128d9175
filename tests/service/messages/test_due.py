"""Announced outcomes, by the states as they are and what was announced before."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from uecwatchd.config.records import NotifySettings
from uecwatchd.ledger.outbox import NO_SET, Announced
from uecwatchd.ledger.records import Failure, SetRecord, TargetImage, TargetRecord
from uecwatchd.ledger.standing import combine, seen_from
from uecwatchd.service.freshness import stream_key
from uecwatchd.service.messages.due import (
    Announcements,
    Circumstances,
    announcements,
    cloud_key,
    outage_seconds,
)
from uecwatchd.service.policy import GONE
from uecwatchd.types import SetId

ON = NotifySettings(command=("/bin/true",))
BEGUN = 1000.0
HOUR = 3600.0


def record(state: str, name: str = "karmic", *, since: float = BEGUN + 1, **fields: object) -> SetRecord:
    target = TargetRecord("default", "b", (TargetImage("machine", "emi-1"),))
    failure = Failure(state, "karmic: its sum is wrong", "declared a, found b", "Copy it again.", "req-7")
    error = failure if state in ("rejected", "deferred", "halted") else None
    made = SetRecord(
        SetId("/spool", name), "s", state, since, attempt=1, error=error, cloud="default", targets=(target,)
    )
    return replace(made, **{"deferrals": 1, "next_retry": since + 30, "first_failure": since, **fields})


class Told:
    """The announcements in a row of situations."""

    def __init__(self, settings: NotifySettings = ON) -> None:
        self.settings = settings
        self.announced: dict[SetId, Announced] = {NO_SET: Announced("begun", BEGUN)}

    def of(self, *records: SetRecord, now: float = BEGUN + 10, **fields: object) -> list[str]:
        due = self.due(*records, now=now, **fields)
        self.announced.update(due.entries)
        for key in due.forgotten:
            del self.announced[key]
        return [f"{outcome} {about.name}" for about, outcome, _ in due.messages]

    def due(self, *records: SetRecord, now: float = BEGUN + 10, **fields: object) -> Announcements:
        return announcements(Circumstances(now, records, self.announced, **fields), self.settings)

    def facts(self, *records: SetRecord, now: float = BEGUN + 10, **fields: object) -> Mapping[str, object]:
        ((_, _, facts),) = self.due(*records, now=now, **fields).messages
        return facts


# --- sets -------------------------------------------------------------------------------------------------


def test_each_outcome_is_announced_once() -> None:
    told = Told()
    assert told.of(record("working")) == []
    assert told.of(record("rejected")) == ["rejected karmic"]
    assert told.of(record("rejected")) == []
    assert told.of(record("done", since=BEGUN + 5)) == ["recovered karmic"]
    assert told.of(record("done", since=BEGUN + 5)) == []
    assert told.of(record("done", since=BEGUN + 6)) == ["done karmic"]
    assert told.of(record("rejected", since=BEGUN + 7)) == ["rejected karmic"]
    assert told.of(record("rejected", since=BEGUN + 8)) == ["rejected karmic"]


def test_a_withdrawal_is_announced_and_so_is_the_next_publication() -> None:
    told = Told()
    assert told.of(record("done")) == ["done karmic"]
    assert told.of(record("withdrawn", since=BEGUN + 5)) == ["withdrawn karmic"]
    assert told.of(record("withdrawn", since=BEGUN + 5)) == []
    assert told.of(record("done", since=BEGUN + 7)) == ["recovered karmic"]
    facts = Told().facts(record("withdrawn"))
    assert facts["sentence"] == "karmic is withdrawn: its image was taken back from cloud default"


def on_two(*, near: tuple[str, float], far: tuple[str, float]) -> SetRecord:
    """Return a set with a state on each of two clouds, and the time when that began."""
    made = record("done")
    targets = tuple(TargetRecord(cloud, "b", place=i) for i, cloud in enumerate(("near", "far")))
    made = replace(made, cloud="near", targets=tuple(sorted(targets, key=lambda one: one.cloud)))
    for cloud, (state, since) in (("near", near), ("far", far)):
        failed = record(state, since=since)
        seen = seen_from(made, cloud)
        made = replace(seen, state=failed.state, since=since, error=failed.error, deferrals=failed.deferrals)
    return combine(made)


def test_a_failure_on_a_second_cloud_is_announced_while_the_first_lasts() -> None:
    told = Told()
    assert told.of(on_two(near=("rejected", BEGUN + 1), far=("working", BEGUN + 1))) == []
    assert told.of(on_two(near=("rejected", BEGUN + 1), far=("queued", BEGUN + 1))) == []
    first = on_two(near=("rejected", BEGUN + 1), far=("done", BEGUN + 2))
    assert told.of(first) == ["partly karmic"]
    both = on_two(near=("rejected", BEGUN + 1), far=("rejected", BEGUN + 3))
    assert told.facts(both)["cloud"] == "far"
    assert told.of(both) == ["rejected karmic"]
    assert told.of(both) == []
    assert told.of(first) == [], "that is known"
    assert told.of(on_two(near=("rejected", BEGUN + 9), far=("done", BEGUN + 8))) == ["partly karmic"]


def test_a_withdrawal_names_each_of_its_clouds() -> None:
    facts = Told().facts(on_two(near=("withdrawn", BEGUN + 1), far=("withdrawn", BEGUN + 1)))
    assert str(facts["sentence"]).endswith("its image was taken back from clouds near and far")
    told = Told()
    assert told.of(on_two(near=("withdrawn", BEGUN + 1), far=("done", BEGUN + 0.5))) == ["withdrawn karmic"]
    assert told.of(on_two(near=("withdrawn", BEGUN + 1), far=("withdrawn", BEGUN + 7))) == [
        "withdrawn karmic"
    ]


def test_a_set_that_is_withdrawn_because_its_files_are_gone_is_not_announced() -> None:
    told = Told()
    assert told.of(record("done")) == ["done karmic"]
    assert told.of(record("withdrawn", since=BEGUN + 5, reason=GONE)) == []


def test_what_was_so_before_anybody_was_to_be_told_is_not_announced() -> None:
    told = Told()
    told.announced.clear()
    old = [record("done", f"set{number}", since=number) for number in range(1000)]
    assert told.of(*old, record("rejected", since=5.0), now=BEGUN) == []
    assert told.announced == {NO_SET: Announced("begun", BEGUN)}
    assert told.of(*old, record("rejected", since=5.0)) == []
    assert told.of(*old[1:], record("done", "set0")) == ["done set0"]


def test_a_beginning_in_the_future_is_corrected() -> None:
    told = Told()
    told.announced[NO_SET] = Announced("begun", 1e9)
    assert told.of(record("done", since=BEGUN - 1), now=BEGUN) == []
    assert told.of(record("done"), now=BEGUN + 1) == ["done karmic"]


def test_a_deferred_set_is_announced_after_some_failures_and_once_in_a_row() -> None:
    told = Told()
    assert told.of(record("deferred", deferrals=4)) == []
    assert told.of(record("deferred", deferrals=5)) == ["deferred karmic"]
    assert told.of(record("deferred", deferrals=6, since=BEGUN + 9)) == []
    assert told.of(record("working", since=BEGUN + 10)) == []
    assert told.of(record("deferred", deferrals=7, since=BEGUN + 11)) == []
    assert told.of(record("done", since=BEGUN + 12)) == ["recovered karmic"]


def test_the_success_in_the_history_counts_and_not_when_the_record_was_changed() -> None:
    told, done = Told(), {SetId("/spool", "karmic"): BEGUN + 1}
    assert told.of(record("done"), successes=done) == ["done karmic"]
    assert told.of(record("done", since=BEGUN + 50, reason=GONE), successes=done) == []
    assert told.of(record("done", since=BEGUN + 50), successes=done) == []


def test_a_success_whose_attempt_is_no_longer_kept_is_not_announced_again() -> None:
    told, done = Told(), {SetId("/spool", "karmic"): BEGUN + 1}
    assert told.of(record("done", since=BEGUN + 1.4), successes=done) == ["done karmic"]
    assert told.of(record("done", since=BEGUN + 1.4)) == []
    assert told.of(record("done", since=BEGUN + 50, reason=GONE)) == []
    assert told.of(record("done", since=BEGUN + 50)) == []


def test_files_of_an_old_set_that_leave_and_return_are_no_news() -> None:
    told = Told()
    assert told.of(record("done", since=BEGUN - 9)) == []
    assert told.of(record("done", since=BEGUN + 50, reason=GONE)) == []
    assert told.of(record("done", since=BEGUN + 50)) == []


def test_files_that_leave_before_their_set_was_announced_hide_nothing() -> None:
    done = {SetId("/spool", "karmic"): BEGUN + 1}
    assert Told().of(record("done", since=BEGUN + 2, reason=GONE), successes=done) == ["done karmic"]


def test_a_rejected_set_whose_files_leave_and_return_is_not_announced_again() -> None:
    told = Told()
    assert told.of(record("rejected")) == ["rejected karmic"]
    assert told.of(record("rejected", since=BEGUN + 3, reason=GONE)) == []
    assert told.of(record("rejected", since=BEGUN + 3)) == []


def test_a_set_that_is_forgotten_has_no_entry() -> None:
    told = Told()
    told.of(record("rejected"))
    told.of()
    assert told.announced == {NO_SET: Announced("begun", BEGUN)}


def test_only_wanted_outcomes_are_sent_and_all_are_noted() -> None:
    told = Told(replace(ON, outcomes=("done",)))
    assert told.of(record("rejected")) == []
    assert told.of(record("done", since=BEGUN + 2)) == ["done karmic"]


def test_the_facts_say_what_happened_and_what_to_do() -> None:
    done = Told().facts(record("done"))
    assert (done["sentence"], done["emi"], done["set"], done["folder"], done["cloud"]) == (
        "karmic is emi-1 on cloud default", "emi-1", "karmic", "/spool", "default"
    )  # fmt: skip
    rejected = Told().facts(record("rejected"))
    assert rejected["sentence"] == "karmic is rejected: karmic: its sum is wrong: declared a, found b"
    assert str(rejected["hint"]).startswith("Copy it again. It is tried again when its files change")
    assert rejected["request_id"] == "req-7"
    assert rejected["time"] == "1970-01-01T00:16:50Z"


def test_the_id_depends_on_set_outcome_and_beginning_alone() -> None:
    one = Told().facts(record("done"))["id"]
    assert Told().facts(record("done", attempt=7), now=BEGUN + 99)["id"] == one
    others = (record("rejected"), record("done", since=BEGUN + 2), record("done", "lucid"))
    assert len({one, *(Told().facts(other)["id"] for other in others)}) == 4


# --- clouds -----------------------------------------------------------------------------------------------


def test_a_halted_cloud_is_announced_once_for_each_cause() -> None:
    told = Told()
    sets = [record("halted", f"set{number}", since=BEGUN + number) for number in range(1, 10)]
    facts = told.facts(*sets)
    assert facts["sentence"] == (
        "Nothing is sent to cloud default, 9 sets wait: karmic: its sum is wrong: declared a, found b"
    )
    assert told.of(*sets) == ["halted cloud default"]
    assert told.of(*sets, record("halted", "late", since=BEGUN + 99)) == []
    other = replace(sets[0], error=Failure("halted", "the clock", "it is wrong", "Set it."))
    assert told.of(other, *sets[1:]) == ["halted cloud default"]
    assert told.of(*sets) == []


def test_a_halted_cloud_has_recovered_when_a_set_is_done_there() -> None:
    told = Told()
    told.of(record("halted"), suspended={"default"})
    assert told.of(record("working"), resumed={"default"}) == []
    assert told.of(record("done", since=BEGUN + 5), suspended={"default"}) == ["done karmic"]
    assert told.of(record("done", since=BEGUN + 5)) == ["recovered cloud default"]
    assert told.of(record("done", since=BEGUN + 5)) == []
    assert told.of(record("halted", since=BEGUN + 9)) == ["halted cloud default"]


def test_a_cloud_that_is_away_is_announced_after_the_time_of_some_attempts() -> None:
    told, waits = Told(), [record("deferred", f"set{n}", next_retry=None) for n in range(3)]
    long = BEGUN + 1 + outage_seconds(ON.deferred_after)
    assert outage_seconds(5) == 30 + 60 + 120 + 240
    assert told.of(*waits, now=long - 1) == []
    facts = told.facts(*waits, now=long)
    assert str(facts["sentence"]).startswith("Nothing can be sent to cloud default, 3 sets wait: ")
    assert told.of(*waits, now=long) == ["deferred cloud default"]
    assert told.of(*waits, now=long + 9) == []
    # A restart tries each set at once: that proves nothing.
    assert told.of(record("working"), now=long + 10) == []
    assert told.of(record("working"), now=long + 11, resumed={"default"}) == ["recovered cloud default"]


# --- freshness --------------------------------------------------------------------------------------------

FRESH = replace(ON, fresh={"nightly-debug": 1000, "nightly-*": 36, "karmic": 36})
NIGHTLY, KARMIC = SetId("/spool", "nightly-20261128"), SetId("/spool", "karmic")


def stale(told: Told, successes: Mapping[SetId, float], *, hours: float) -> list[str]:
    due = told.due(now=BEGUN + hours * HOUR, successes=successes)
    told.announced.update(due.entries)
    return [str(facts["sentence"]) for _, outcome, facts in due.messages if outcome == "stale"]


def test_a_set_is_stale_once_until_a_new_one_is_done() -> None:
    told, done = Told(FRESH), {KARMIC: BEGUN, NIGHTLY: BEGUN + 36 * HOUR}
    assert stale(told, done, hours=35) == []
    assert stale(told, done, hours=36) == ["karmic: nothing new for 36 h 0 min"]
    assert stale(told, done, hours=90) == ["nightly-20261128: nothing new for 54 h 0 min"]
    done[KARMIC] = BEGUN + 91 * HOUR
    fresh = record("done", since=BEGUN + 91 * HOUR)
    assert told.of(fresh, now=BEGUN + 91 * HOUR, successes=done) == ["recovered karmic"]
    assert told.of(fresh, now=BEGUN + 92 * HOUR, successes=done) == []
    assert stale(told, done, hours=91 + 36) == ["karmic: nothing new for 36 h 0 min"]


def test_names_that_differ_in_digits_are_one_stream() -> None:
    told = Told(FRESH)
    done = {KARMIC: BEGUN + 99 * HOUR} | {
        SetId("/spool", f"nightly-202611{day}"): BEGUN + 24 * day * HOUR for day in range(10, 30)
    }
    assert stale(told, done, hours=24 * 29 + 1) == ["karmic: nothing new for 598 h 0 min"]
    assert stale(told, done, hours=24 * 29 + 36) == ["nightly-20261129: nothing new for 36 h 0 min"]


def test_the_first_pattern_that_matches_counts() -> None:
    done = {KARMIC: BEGUN + 99 * HOUR, SetId("/spool", "nightly-debug"): BEGUN, NIGHTLY: BEGUN + 99 * HOUR}
    assert stale(Told(FRESH), done, hours=100) == []


def test_a_set_that_the_history_does_not_know_counts_as_done_since_its_state_is() -> None:
    told = Told(replace(ON, fresh={"karmic": 36}))
    old = record("done", since=BEGUN - 30 * HOUR)
    assert told.of(old, now=BEGUN + 5 * HOUR) == []
    (_, _, facts), = told.due(old, now=BEGUN + 6 * HOUR).messages  # fmt: skip
    assert facts["sentence"] == "karmic: nothing new for 36 h 0 min"


def test_a_stale_set_whose_attempt_is_no_longer_kept_is_not_announced_again() -> None:
    told, done = Told(replace(ON, fresh={"karmic": 36})), record("done", since=BEGUN - 29.6)
    assert len(told.of(done, now=BEGUN + 36 * HOUR, successes={KARMIC: BEGUN - 30})) == 1
    assert told.of(done, now=BEGUN + 37 * HOUR) == []


def test_a_pattern_without_any_set_is_stale_too() -> None:
    told = Told(replace(ON, fresh={"karmic": 36}))
    assert stale(told, {}, hours=35.9) == []
    assert stale(told, {}, hours=36) == ["karmic: nothing at all for 36 h 0 min"]
    assert stale(told, {}, hours=99) == []


@pytest.mark.parametrize("name", ["cloud default", "fresh x"])
def test_no_set_can_have_the_entry_of_something_else(name: str) -> None:
    assert SetId("/spool", name) not in (cloud_key("default"), stream_key(SetId("", "x")))
