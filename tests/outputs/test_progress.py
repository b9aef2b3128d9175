"""One tracker keeps how far each set has come; each output gets it at its own cadence."""

from tests.support.clock import Clock
from uecwatchd.events import Event, Kind, Progress
from uecwatchd.outputs.progress import ProgressTracker, Snapshot
from uecwatchd.types import SetId

KARMIC = SetId("/spool", "karmic")


def upload(file: str, done: int, *, key: SetId = KARMIC) -> Progress:
    return Progress(key, f"upload {file}", file, done, 100_000_000)


def test_each_subscriber_is_called_at_its_own_cadence() -> None:
    clock, often, seldom = Clock(100.0), list[Snapshot](), list[Snapshot]()
    tracker = ProgressTracker(clock=clock)
    tracker.subscribe(often.append, every_seconds=1)
    tracker.subscribe(seldom.append, every_seconds=5, at_once=False)
    for step in range(61):
        clock.now = 100 + step / 6
        tracker.progress(upload("a.img", step))
    assert len(often) == 11
    assert len(seldom) == 2


def test_two_files_of_a_set_that_are_uploaded_in_turn_keep_their_speeds() -> None:
    clock = Clock(100.0)
    tracker = ProgressTracker(clock=clock, now=lambda: 1000 + clock.now)
    for second in range(4):
        clock.now = 100.0 + second
        tracker.progress(upload("vmlinuz", second * 1_000_000))
        tracker.progress(upload("a.img", second * 20_000_000))
    (tracked,) = tracker.snapshot()
    assert (tracked.latest.file, tracked.speed, tracked.began) == ("a.img", 20_000_000, 1100.0)


def test_a_stage_that_starts_again_is_measured_from_there() -> None:
    clock = Clock(100.0)
    tracker = ProgressTracker(clock=clock)
    for now, done in ((100, 0), (110, 50_000_000), (120, 0), (122, 10_000_000)):
        clock.now = float(now)
        tracker.progress(upload("a.img", done))
    assert tracker.snapshot()[0].speed == 5_000_000


def test_a_set_whose_work_has_ended_is_forgotten_and_that_is_shown_on_request() -> None:
    tracker, ends, others = ProgressTracker(), list[Snapshot](), list[Snapshot]()
    tracker.subscribe(ends.append, every_seconds=3600, ends=True)
    tracker.subscribe(others.append, every_seconds=3600)
    tracker.progress(upload("a.img", 1))
    tracker.tell(Event(Kind.WORKING, "karmic: attempt 1", KARMIC))
    tracker.tell(Event(Kind.DONE, "karmic is registered", KARMIC))
    assert [len(one) for one in ends] == [1, 0]
    assert [len(one) for one in others] == [1]


def test_two_sets_of_one_name_in_two_folders_have_each_its_own_progress() -> None:
    tracker, there = ProgressTracker(), SetId("/other", "karmic")
    tracker.progress(upload("a.img", 5))
    tracker.progress(upload("a.img", 1, key=there))
    assert [(one.latest.set, one.latest.done) for one in tracker.snapshot()] == [(KARMIC, 5), (there, 1)]
    tracker.tell(Event(Kind.DONE, "karmic is registered", KARMIC))
    assert [one.latest.set for one in tracker.snapshot()] == [there]
