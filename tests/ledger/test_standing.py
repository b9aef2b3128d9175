"""A set that goes to several clouds, seen from each of them."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from uecwatchd.ledger.records import Failure, SetRecord, TargetRecord
from uecwatchd.ledger.standing import (
    by_cloud,
    combine,
    count_done,
    is_published,
    leading_cloud,
    of_these_files,
    seen_from,
    shown_state,
    with_each,
    with_state_of,
    with_waits,
)
from uecwatchd.types import SetId

CLOUDS = ("lab", "far", "aws")
STATES = ("waiting", "queued", "working", "done", "rejected", "deferred", "halted")
ALONE = SetRecord(
    SetId("/s", "karmic"), "stamp", "done", 1.0, cloud="lab", targets=(TargetRecord("lab"),), attempt=3
)


def on(*states: str, optional: tuple[str, ...] = ()) -> SetRecord:
    """Return a set on as many clouds as there are states, seen from the last one."""
    clouds = CLOUDS[: len(states)]
    targets = (
        TargetRecord(cloud, place=i, is_required=cloud not in optional) for i, cloud in enumerate(clouds)
    )
    record = replace(ALONE, targets=tuple(sorted(targets, key=lambda one: one.cloud)))
    for cloud, state in zip(clouds, states, strict=True):
        error = (
            Failure(state, f"{cloud} failed", "why", "hint") if state in ("rejected", "deferred") else None
        )
        record = replace(seen_from(record, cloud), state=state, error=error)  # type: ignore[arg-type]
    return record


@given(st.lists(st.sampled_from(STATES), min_size=1, max_size=3), st.lists(st.sampled_from(CLOUDS)))
def test_a_look_from_other_clouds_changes_nothing(states: list[str], looks: list[str]) -> None:
    record = on(*states)
    looked = record
    for cloud in looks:
        if cloud in CLOUDS[: len(states)]:
            looked = seen_from(looked, cloud)
    assert seen_from(looked, record.cloud) == record
    assert [one.state for one in by_cloud(looked)] == states


def test_a_set_on_one_cloud_is_seen_as_it_is() -> None:
    assert by_cloud(ALONE) == (ALONE,)
    assert combine(ALONE) is ALONE
    assert shown_state(ALONE) == "done"


def test_a_cloud_without_an_attempt_is_queued() -> None:
    record = replace(ALONE, state="deferred", targets=(TargetRecord("far", place=1), TargetRecord("lab")))
    begun = seen_from(record, "far")
    assert (begun.state, begun.stage, begun.error, begun.attempt) == ("queued", "", None, 0)


@given(st.lists(st.sampled_from(STATES), min_size=2, max_size=3))
def test_a_set_is_done_if_it_is_on_every_required_cloud(states: list[str]) -> None:
    assert is_published(on(*states)) == (set(states) == {"done"})
    assert is_published(on(*states, optional=("far",))) == (set(states[:1] + states[2:]) == {"done"})


def test_the_whole_is_the_cloud_that_matters_most() -> None:
    assert combine(on("done", "deferred", "rejected")).cloud == "aws"
    assert combine(on("done", "queued", "rejected")).cloud == "far"
    assert combine(on("deferred", "rejected", "done", optional=("far",))).cloud == "lab"
    assert combine(on("done", "done", "deferred", optional=("aws",))).cloud == "lab"


def test_a_set_on_some_of_its_clouds_is_partly_done() -> None:
    assert (shown_state(on("done", "deferred", "rejected")), count_done(on("done", "deferred"))) == (
        "partly",
        (1, 2),
    )
    assert shown_state(on("deferred", "rejected")) == "rejected"
    assert shown_state(on("done", "working")) == "working"
    assert shown_state(on("done", "rejected", optional=("far",))) == "done"


def test_a_change_is_made_on_the_named_clouds_alone() -> None:
    changed = with_each(on("deferred", "deferred", "done"), lambda one: replace(one, next_retry=9.0), ["lab"])
    assert [one.next_retry for one in by_cloud(changed)] == [9.0, None, None]
    assert changed.cloud == "aws"


def test_the_outcome_of_one_cloud_can_be_that_of_another() -> None:
    failed = seen_from(on("rejected", "queued"), "lab")
    both = with_each(failed, lambda one: with_state_of(one, failed), ["far"])
    assert [(one.state, one.error) for one in by_cloud(both)] == [("rejected", failed.error)] * 2


def test_the_ids_of_a_set_are_those_of_its_first_required_cloud() -> None:
    assert leading_cloud(on("done", "done", "done")) == "lab"
    assert leading_cloud(on("done", "done", "done", optional=("lab",))) == "far"
    assert leading_cloud(replace(ALONE, cloud="", targets=())) == ""


def states(record: SetRecord) -> list[str]:
    return [one.state for one in by_cloud(record)]


def test_a_cloud_that_a_set_does_not_go_to_waits_with_its_own_reason_until_it_does() -> None:
    before = on("done", "deferred", "rejected")
    waiting = with_waits(before, {"lab": "x", "far": "its release", "aws": "x"}, now=9.0)
    assert states(waiting) == ["done", "waiting", "rejected"], "an outcome for good stays"
    far = seen_from(waiting, "far")
    assert (far.reason, far.since, far.error, far.awaits_requirements) == ("its release", 9.0, None, True)
    assert with_waits(waiting, {"far": "its release"}, now=99.0) == waiting
    assert seen_from(with_waits(waiting, {"far": "a kernel"}, now=99.0), "far").reason == "a kernel"
    assert states(with_waits(waiting, {}, now=99.0)) == ["done", "queued", "rejected"]


def test_no_cloud_has_a_state_yet_for_other_files() -> None:
    before = on("done", "rejected")
    assert of_these_files(before, "stamp") == before
    after = of_these_files(before, "other")
    assert (after.stamp, set(states(after))) == ("other", {"working", "queued"})
    assert [one.cloud for one in after.current] == ["lab", "far"]
