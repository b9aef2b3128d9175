"""Order of starts: every set is begun in the end, and a small one does not wait for large ones."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.image_set import FOUND
from uecwatchd.service.queue import CYCLE, LARGE_BYTES, DueSet, QueueEntry, SetQueue, choose, choose_express
from uecwatchd.types import SetId

LARGE = 200 * 1024**3
SMALL = 1024**2


def new(name: str, size: int = SMALL, *, since: float = 0.0) -> QueueEntry:
    return QueueEntry(("/s", name), size, since)


def again(name: str, size: int = SMALL, *, since: float = 0.0) -> QueueEntry:
    return QueueEntry(("/s", name), size, since, again=True)


def names(chosen: tuple[QueueEntry, ...]) -> list[str]:
    return [candidate.key[1] for candidate in chosen]


def test_no_more_sets_are_begun_than_there_are_slots() -> None:
    assert names(choose([new("a"), new("b"), new("c")], [], slots=2, begun=0)) == ["a", "b"]
    assert choose([new("a")], [SMALL, SMALL], slots=2, begun=0) == ()


def test_new_sets_and_those_tried_again_take_turns() -> None:
    due = [new(f"n{i}") for i in range(4)] + [again(f"a{i}") for i in range(4)]
    begun = choose(due, [], slots=8, begun=0)
    assert [candidate.again for candidate in begun] == [False, True] * 4


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_a_small_set_passes_large_ones_that_take_every_slot(slots: int) -> None:
    due = [new("large", LARGE), new("small", since=9.0)]
    passing = choose_express(due, [LARGE] * slots, slots=slots)
    assert passing == due[1]


@pytest.mark.parametrize(
    ("waiting", "running"),
    [(SMALL, [LARGE, LARGE, SMALL]), (SMALL, [LARGE, SMALL]), (SMALL, [LARGE]), (LARGE // 2, [LARGE] * 2)],
    ids=["it is taken", "a slot will soon be free", "a slot is free", "not that much smaller"],
)
def test_there_is_one_express_slot_and_for_small_sets_beside_large_ones(
    waiting: int, running: list[int]
) -> None:
    assert choose_express([new("a", waiting)], running, slots=2) is None


def test_what_is_at_work_must_be_large_for_anything_to_pass_it() -> None:
    assert choose_express([new("tiny", 1)], [LARGE_BYTES - 1], slots=1) is None


# One set more at each step: its size, and whether it is tried again.
ARRIVALS = st.lists(st.tuples(st.sampled_from([1, SMALL, LARGE_BYTES, LARGE]), st.booleans()), max_size=80)


@given(
    first=ARRIVALS.filter(bool),
    stream=ARRIVALS,
    slots=st.integers(1, 4),
    begun=st.integers(0, len(CYCLE) - 1),
)
@settings(max_examples=60)
def test_every_set_is_begun_within_a_bounded_number_of_starts(
    first: list[tuple[int, bool]], stream: list[tuple[int, bool]], slots: int, begun: int
) -> None:
    """However many arrive: at each completion of the oldest set at work, another one arrives."""
    waiting = [QueueEntry(("/s", f"{i:03}"), size, float(i), kind) for i, (size, kind) in enumerate(first)]
    bound = {
        c.key: len(CYCLE) * sum(o.again == c.again and o.since <= c.since for o in waiting) for c in waiting
    }
    arrivals, running, began = iter(stream), list[QueueEntry](), 0
    for moment in range(len(first) + len(stream) + 1):
        chosen = choose(waiting, [c.size for c in running], slots=slots, begun=begun + began)
        for number, candidate in enumerate(chosen, start=began + 1):
            assert number <= bound.pop(candidate.key, number)
        began += len(chosen)
        running += chosen
        waiting = [c for c in waiting if c not in chosen]
        if passing := choose_express(waiting, [c.size for c in running], slots=slots):
            bound.pop(passing.key, None)
            waiting.remove(passing)
            running.append(passing)
        running = running[1:]
        if arrived := next(arrivals, None):
            waiting.append(QueueEntry(("/s", f"{100 + moment}"), arrived[0], 1000.0 + moment, arrived[1]))
    assert not bound


def test_a_large_set_is_not_starved_by_an_endless_stream_of_small_ones() -> None:
    waiting, begun = [new("large", LARGE)], list[str]()
    for moment in range(len(CYCLE)):
        waiting += [new(f"s{moment}{i}", since=moment + 1.0) for i in range(3)]
        (chosen,) = choose(waiting, [], slots=1, begun=moment)
        begun.append(chosen.key[1])
        waiting.remove(chosen)
    assert "large" in begun


@pytest.mark.parametrize("slots", [1, 2])
def test_fifty_small_sets_start_beside_an_endless_large_one(slots: int) -> None:
    waiting = [new("large", LARGE)] + [new(f"s{i:02}", since=1.0) for i in range(50)]
    running, began = list[QueueEntry](), 0
    for _ in range(60):
        chosen = choose(waiting, [c.size for c in running], slots=slots, begun=began)
        began += len(chosen)
        running += chosen
        waiting = [c for c in waiting if c not in chosen]
        if passing := choose_express(waiting, [c.size for c in running], slots=slots):
            waiting.remove(passing)
        running = [c for c in running if c.size == LARGE]
    assert waiting == []


# --- the queue itself -------------------------------------------------------------------------------------

FOLDER = Path("/s")


def due(name: str, size: int = SMALL) -> DueSet:
    return DueSet(replace(FOUND, name=name), again=False, size=size)


def taken(queue: SetQueue, running: dict[SetId, int] | None = None) -> list[str]:
    return [each.found.name for each in queue.take(running or {})]


def test_a_set_keeps_its_place_while_scans_find_it_again() -> None:
    queue = SetQueue(1)
    queue.replace(FOLDER, [due("late")], now=5.0)
    queue.replace(FOLDER, [due("early"), due("late")], now=9.0)
    assert taken(queue) == ["late"]
    assert queue.ids == {SetId("/s", "early")}


def test_a_set_that_is_found_no_more_is_not_begun() -> None:
    queue = SetQueue(2)
    queue.replace(FOLDER, [due("a"), due("b")], now=5.0)
    queue.replace(FOLDER, [due("b")], now=6.0)
    assert queue.has(due("b").found)
    assert not queue.has(replace(due("b").found, stamp="another")), "its files have changed"
    assert taken(queue) == ["b"]
    queue.replace(FOLDER, [due("c")], now=7.0)
    queue.clear_folder(FOLDER)
    assert taken(queue) == []


def test_the_express_slot_is_given_beside_what_is_begun_at_the_same_moment() -> None:
    queue = SetQueue(1)
    queue.replace(FOLDER, [due("large", LARGE)], now=5.0)
    queue.replace(FOLDER, [due("large", LARGE), due("small")], now=6.0)
    running = {SetId("/s", "other"): LARGE}
    assert taken(queue, running) == ["small"]
    assert taken(queue, {**running, SetId("/s", "small"): SMALL}) == [], "there is one express slot"
    assert taken(queue) == ["large"]
