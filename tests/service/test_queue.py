"""Whose turn it is: every set is begun in the end, and a small one does not wait for large ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uecwatchd.service.queue import LARGE_BYTES, TURNS, Candidate, begun_next, express

LARGE = 200 * 1024**3
SMALL = 1024**2


def new(name: str, size: int = SMALL, *, since: float = 0.0) -> Candidate:
    return Candidate(("/s", name), size, since)


def again(name: str, size: int = SMALL, *, since: float = 0.0) -> Candidate:
    return Candidate(("/s", name), size, since, again=True)


def names(chosen: tuple[Candidate, ...]) -> list[str]:
    return [candidate.key[1] for candidate in chosen]


def test_no_more_sets_are_begun_than_there_are_lanes() -> None:
    assert names(begun_next([new("a"), new("b"), new("c")], [], lanes=2, turn=0)) == ["a", "b"]
    assert begun_next([new("a")], [SMALL, SMALL], lanes=2, turn=0) == ()


def test_new_sets_and_those_tried_again_take_turns() -> None:
    due = [new(f"n{i}") for i in range(4)] + [again(f"a{i}") for i in range(4)]
    begun = begun_next(due, [], lanes=8, turn=0)
    assert [candidate.again for candidate in begun] == [False, True] * 4


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_a_small_set_passes_large_ones_that_hold_every_lane(lanes: int) -> None:
    due = [new("large", LARGE), new("small", since=9.0)]
    passing = express(due, [LARGE] * lanes, lanes=lanes)
    assert passing == due[1]


@pytest.mark.parametrize(
    ("waiting", "running"),
    [(SMALL, [LARGE, LARGE, SMALL]), (SMALL, [LARGE, SMALL]), (SMALL, [LARGE]), (LARGE // 2, [LARGE] * 2)],
    ids=["it is taken", "a lane will soon be free", "a lane is free", "not that much smaller"],
)
def test_the_express_lane_is_one_and_for_small_sets_beside_large_ones(
    waiting: int, running: list[int]
) -> None:
    assert express([new("a", waiting)], running, lanes=2) is None


def test_what_is_at_work_must_be_large_for_anything_to_pass_it() -> None:
    assert express([new("tiny", 1)], [LARGE_BYTES - 1], lanes=1) is None


# One set more at each step: its size, and whether it is tried again.
ARRIVALS = st.lists(st.tuples(st.sampled_from([1, SMALL, LARGE_BYTES, LARGE]), st.booleans()), max_size=80)


@given(
    first=ARRIVALS.filter(bool),
    stream=ARRIVALS,
    lanes=st.integers(1, 4),
    turn=st.integers(0, len(TURNS) - 1),
)
@settings(max_examples=60)
def test_every_set_is_begun_within_a_bounded_number_of_starts(
    first: list[tuple[int, bool]], stream: list[tuple[int, bool]], lanes: int, turn: int
) -> None:
    """However many arrive meanwhile: at each completion of the oldest set at work, another one arrives."""
    waiting = [Candidate(("/s", f"{i:03}"), size, float(i), kind) for i, (size, kind) in enumerate(first)]
    bound = {
        c.key: len(TURNS) * sum(o.again == c.again and o.since <= c.since for o in waiting) for c in waiting
    }
    arrivals, running, began = iter(stream), list[Candidate](), 0
    for moment in range(len(first) + len(stream) + 1):
        chosen = begun_next(waiting, [c.size for c in running], lanes=lanes, turn=turn + began)
        for number, candidate in enumerate(chosen, start=began + 1):
            assert number <= bound.pop(candidate.key, number)
        began += len(chosen)
        running += chosen
        waiting = [c for c in waiting if c not in chosen]
        if passing := express(waiting, [c.size for c in running], lanes=lanes):
            bound.pop(passing.key, None)
            waiting.remove(passing)
            running.append(passing)
        running = running[1:]
        if arrived := next(arrivals, None):
            waiting.append(Candidate(("/s", f"{100 + moment}"), arrived[0], 1000.0 + moment, arrived[1]))
    assert not bound


def test_a_large_set_is_not_starved_by_an_endless_stream_of_small_ones() -> None:
    waiting, begun = [new("large", LARGE)], list[str]()
    for moment in range(len(TURNS)):
        waiting += [new(f"s{moment}{i}", since=moment + 1.0) for i in range(3)]
        (chosen,) = begun_next(waiting, [], lanes=1, turn=moment)
        begun.append(chosen.key[1])
        waiting.remove(chosen)
    assert "large" in begun


@pytest.mark.parametrize("lanes", [1, 2])
def test_fifty_small_sets_are_begun_beside_a_large_one_that_never_ends(lanes: int) -> None:
    waiting = [new("large", LARGE)] + [new(f"s{i:02}", since=1.0) for i in range(50)]
    running, began = list[Candidate](), 0
    for _ in range(60):
        chosen = begun_next(waiting, [c.size for c in running], lanes=lanes, turn=began)
        began += len(chosen)
        running += chosen
        waiting = [c for c in waiting if c not in chosen]
        if passing := express(waiting, [c.size for c in running], lanes=lanes):
            waiting.remove(passing)
        running = [c for c in running if c.size == LARGE]
    assert waiting == []
