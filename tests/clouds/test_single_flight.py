"""One answer for all who ask at the same time, and none that is older than they want it."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.support.waiting import PATIENCE_SECONDS
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.images import find_image, list_images, recent_images, remember_image
from uecwatchd.clouds.single_flight import SingleFlight
from uecwatchd.errors import Halted


class Question:
    """Answers with the number of times that it was put."""

    def __init__(self) -> None:
        self.put = 0

    def __call__(self) -> int:
        self.put += 1
        return self.put


@pytest.mark.parametrize(
    ("age", "later", "answers"),
    [
        pytest.param(0.0, 0.0, (1, 2), id="a new one for each who wants it new"),
        pytest.param(10.0, 9.9, (1, 1), id="the old one while it is young enough"),
        pytest.param(10.0, 10.1, (1, 2), id="a new one when it is not"),
    ],
)
def test_an_answer_is_not_older_than_requested(age: float, later: float, answers: tuple[int, int]) -> None:
    times = iter([100.0, 100.0, 100.0 + later, 100.0 + later])
    question, flight = Question(), SingleFlight[int](clock=lambda: next(times))
    assert (flight.answer(question, age=age), flight.answer(question, age=age)) == answers


def test_one_request_serves_all_waiting_threads() -> None:
    """Four come while a first answer is under way, which was asked for too early for them: they need one."""
    question, begun, go_on = Question(), threading.Event(), threading.Event()
    taken: list[int] = []
    coming: set[threading.Thread] = set()
    all_there = threading.Barrier(5)

    def clock() -> float:
        now = time.monotonic()
        if threading.current_thread() in coming:
            coming.discard(threading.current_thread())
            all_there.wait(PATIENCE_SECONDS)
        return now

    def slow() -> int:
        begun.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return question()

    flight = SingleFlight[int](clock=clock)
    first = threading.Thread(target=lambda: taken.append(flight.answer(slow)))
    first.start()
    assert begun.wait(PATIENCE_SECONDS)
    others = [threading.Thread(target=lambda: taken.append(flight.answer(question))) for _ in range(4)]
    coming.update(others)
    for other in others:
        other.start()
    all_there.wait(PATIENCE_SECONDS)
    go_on.set()
    for thread in (first, *others):
        thread.join(PATIENCE_SECONDS)
    assert sorted(taken) == [1, 2, 2, 2, 2]


def test_a_failed_request_is_repeated() -> None:
    def refused() -> int:
        raise Halted("a", "b", "c")

    flight = SingleFlight[int]()
    with pytest.raises(Halted):
        flight.answer(refused, age=10.0)
    assert flight.answer(Question(), age=10.0) == 1


def test_known_changes_are_applied_to_the_shared_answer() -> None:
    flight = SingleFlight[int]()
    flight.amend(lambda answer: answer + 100)
    assert flight.answer(Question(), age=10.0) == 1
    flight.amend(lambda answer: answer + 100)
    assert flight.answer(Question(), age=10.0) == 101


# --- the list of images ------------------------------------------------------------------------------------


def listing(*ids: str) -> str:
    items = "".join(f"<item><imageId>{one}</imageId><imageState>available</imageState></item>" for one in ids)
    return f"<DescribeImagesResponse><imagesSet>{items}</imagesSet></DescribeImagesResponse>"


def test_a_new_registration_is_added_to_the_cached_list(
    scripted: Callable[[str], Cloud], script: Any
) -> None:
    cloud = replace(scripted("sandbox"), own_images=SingleFlight())
    for answer in (
        listing("emi-00000001"),
        listing("emi-00000002"),
        listing("emi-00000001", "emi-00000002", "emi-00000003"),
    ):
        script.says(body=answer)
    assert [image.id for image in recent_images(cloud)] == ["emi-00000001"]
    found = find_image(cloud, "emi-00000002")
    assert found
    remember_image(cloud, found)
    assert [image.id for image in recent_images(cloud)] == ["emi-00000001", "emi-00000002"]
    assert [image.id for image in list_images(cloud)] == ["emi-00000001", "emi-00000002", "emi-00000003"]
    assert [image.id for image in recent_images(cloud)] == ["emi-00000001", "emi-00000002", "emi-00000003"]
    assert len(script.requests) == 3


def test_an_image_of_somebody_else_is_in_no_list_of_ours(
    scripted: Callable[[str], Cloud], script: Any
) -> None:
    cloud = replace(scripted("sandbox"), own_images=SingleFlight())
    script.says(body=listing("emi-00000001", "emi-00000009"))
    script.says(body=listing("emi-00000001"))
    assert len(list_images(cloud, owned=False)) == 2
    assert [image.id for image in recent_images(cloud)] == ["emi-00000001"]
