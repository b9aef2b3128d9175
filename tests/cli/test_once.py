"""The end of `once`: what became of the sets it has worked on, apart from the others; its exit code."""

import os

from uecwatchd.cli.once import exit_code, summed_up
from uecwatchd.ledger.records import SetRecord, State
from uecwatchd.types import SetId


def records(*states: State) -> list[SetRecord]:
    return [SetRecord(SetId("/s", state), "stamp", state, 1.0) for state in states]


def test_only_changed_sets_count_as_worked_on() -> None:
    said = summed_up(records("done", "deferred", "done"), records("rejected"))
    assert said == "Worked on 3: 1 deferred, 2 done. Unchanged: 1 rejected."
    assert summed_up(records("done"), []) == "Worked on 1: 1 done."


def test_without_a_changed_set_nothing_was_to_do() -> None:
    assert summed_up([], records("rejected", "done")) == "Nothing to do: 1 done, 1 rejected."
    assert summed_up([], []) == "Nothing to do: no sets were found."


def test_a_set_that_an_administrator_holds_is_no_failure_of_the_run() -> None:
    (held, done) = records("halted", "done")
    assert exit_code([held, done]) != os.EX_OK
    assert exit_code([held, done], holds={held.id}) == os.EX_OK
    assert summed_up([], [held, done], holds={held.id}) == "Nothing to do: 1 done, 1 held."
