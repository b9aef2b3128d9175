"""Clouds that a set goes to now: at its first attempt, for its retries, and by request."""

from dataclasses import replace

import pytest

from tests.support.image_set import FOUND as ONE_SET
from uecwatchd.errors import CloudAway
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.ledger.records import INSTALL_STAGE, BuildState, SetBuild, SetRecord, TargetRecord
from uecwatchd.ledger.standing import combine, seen_from
from uecwatchd.service.policy import (
    asked_clouds,
    clouds_of,
    due_clouds,
    earliest_retry,
    is_over,
    summarize,
    to_due_set,
)
from uecwatchd.types import SetId

CLOUDS = ("lab", "far", "aws")
FOUND = replace(ONE_SET, sidecar=Sidecar(clouds=CLOUDS, best_effort=("lab",)))
AWAY = CloudAway("a", "b", "c")


def record(**states: dict[str, object] | str) -> SetRecord:
    """Return a set by its state on each cloud, or by that and more fields."""
    targets = tuple(
        TargetRecord(cloud, place=CLOUDS.index(cloud), is_required=cloud != "lab") for cloud in sorted(states)
    )
    made = SetRecord(SetId("/s", "karmic"), "stamp", "queued", 0.0, cloud=next(iter(states)), targets=targets)
    for cloud, state in states.items():
        fields = state if isinstance(state, dict) else {"state": state}
        made = replace(seen_from(made, cloud), **fields)  # type: ignore[arg-type]
    return combine(made)


def test_a_new_set_goes_to_all_its_clouds_the_required_ones_first() -> None:
    assert due_clouds(None, FOUND, now=0.0, suspended={}) == ("far", "aws", "lab")
    changed = replace(record(lab="done", far="done", aws="done"), stamp="other")
    assert due_clouds(changed, FOUND, now=0.0, suspended={}) == ("far", "aws", "lab")


def test_each_cloud_has_its_own_time_of_the_next_retry() -> None:
    early, late = ({"state": "deferred", "next_retry": moment} for moment in (10.0, 99.0))
    waiting = record(lab="done", far=early, aws=late)
    assert due_clouds(waiting, FOUND, now=9.0, suspended={}) == ()
    assert due_clouds(waiting, FOUND, now=10.0, suspended={}) == ("far",)
    assert due_clouds(waiting, FOUND, now=99.0, suspended={}) == ("far", "aws")
    assert earliest_retry([waiting], suspended={}, looks=False) == 10.0


def test_a_suspended_cloud_keeps_no_set_from_another() -> None:
    halted = record(lab="queued", far="halted", aws={"state": "deferred", "next_retry": None})
    assert due_clouds(halted, FOUND, now=1.0, suspended={"far": AWAY, "aws": AWAY}) == ("lab",)
    assert due_clouds(halted, FOUND, now=1.0, suspended={"aws": AWAY}) == ("far", "lab")


def test_a_request_is_for_the_clouds_that_a_set_is_not_done_on() -> None:
    partly = record(lab="done", far="rejected", aws="done")
    assert asked_clouds(partly, FOUND, {""}) == ("far",)
    assert asked_clouds(partly, FOUND, {"aws"}) == ("aws",)
    assert asked_clouds(partly, FOUND, {"gone"}) == ("far",)
    assert asked_clouds(partly, FOUND, set()) == ()
    assert asked_clouds(record(lab="done", far="done", aws="done"), FOUND, {""}) == ("far", "aws", "lab")


def test_a_finished_set_goes_nowhere_else_after_a_change_of_the_defaults() -> None:
    done = record(far="done", aws="done")
    assert clouds_of(FOUND, done) == ("far", "aws")
    assert due_clouds(done, FOUND, now=0.0, suspended={}) == ()
    assert clouds_of(FOUND, record(far="deferred", aws="done")) == CLOUDS


def test_files_may_leave_when_no_cloud_needs_them_any_more() -> None:
    assert is_over(FOUND, record(lab="rejected", far="done", aws="done"))
    assert not is_over(FOUND, record(lab="deferred", far="done", aws="done"))
    assert not is_over(FOUND, record(lab="done", far="rejected", aws="done"))


def test_a_set_counts_by_its_state_on_the_whole() -> None:
    sets = [record(lab="done", far="deferred", aws="done"), record(lab="rejected", far="done", aws="done")]
    assert summarize(sets, (), (), folders=1) == "Watching 1 folder; 1 done, 1 partly"


def test_a_set_that_was_deferred_on_one_cloud_is_tried_again() -> None:
    assert to_due_set(FOUND, record(lab="done", far="deferred", aws="queued")).again
    assert not to_due_set(FOUND, None).again


def test_a_set_without_images_may_wait_for_its_cloud() -> None:
    waits = SetRecord(FOUND.id, "stamp", "waiting", 0.0, cloud="far", targets=(TargetRecord("far"),))
    waits = replace(waits, stage="register")
    assert to_due_set(FOUND, waits).again


@pytest.mark.parametrize("state", ["running", "done", "failed"])
def test_a_set_whose_system_is_installed_waits_for_no_cloud(state: BuildState) -> None:
    build, target = SetBuild("key", (), state=state), TargetRecord("far")
    waits = SetRecord(FOUND.id, "stamp", "waiting", 0.0, cloud="far", targets=(target,), build=build)
    waits = replace(waits, stage=INSTALL_STAGE)
    assert not waits.awaits_cloud
    assert not to_due_set(FOUND, waits).again
