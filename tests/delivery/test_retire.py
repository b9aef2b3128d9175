"""The decision about older images: its invariants over random histories, and its words."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uecwatchd.config.retention import RetentionRule
from uecwatchd.delivery.retire import LEAST_KEPT, RetireDecision, VersionFacts, decide, next_step
from uecwatchd.ledger.versions import VersionRecord
from uecwatchd.types import SetId

pytestmark = pytest.mark.exhaustive

KARMIC = SetId("/srv/a", "karmic")
DAY = 86400.0
NOW = 1000 * DAY
WAITS = (1.0, DAY, 29.5 * DAY, 400 * DAY)
OFTEN = settings(max_examples=1000, deadline=None)

AGES = st.sampled_from([0.0, 1.0, DAY, 7 * DAY, 30 * DAY, 400 * DAY])
RULES = st.builds(
    RetentionRule,
    keep=st.none() | st.integers(1, 5),
    min_age=st.none() | AGES,
    deprecate_after=st.none() | AGES,
    delete_after=st.none() | AGES,
)


@st.composite
def facts(draw: st.DrawFn, number: int = 0, state: str = "older") -> VersionFacts:
    published = NOW - draw(st.floats(-DAY, 500 * DAY))
    replaced = None if state == "current" else draw(st.none() | st.floats(published, NOW + DAY))
    version = VersionRecord(
        KARMIC,
        "near",
        f"emi-{number:08X}",
        "machine",
        state,
        published,
        since=published,
        replaced=replaced,
        passed=draw(st.sampled_from([True, True, True, False])),
    )
    usual = st.sampled_from([True, True, True, True, False])
    listed = draw(usual)
    return VersionFacts(
        version,
        is_listed=listed,
        is_available=listed and draw(usual),
        is_known=draw(usual),
        not_ours=draw(st.sampled_from(["", "", "", "its tag host is other"])),
        users=draw(st.sampled_from([(), (), (), ("instance i-1",)])),
    )


@st.composite
def histories(draw: st.DrawFn) -> list[VersionFacts]:
    """Versions of one set on one cloud, of which at most one is in use."""
    states = draw(
        st.lists(st.sampled_from(["older", "older", "deprecated", "removed", "withdrawn"]), max_size=8)
    )
    current = draw(st.integers(-1, len(states)))
    if current >= 0:
        states.insert(min(current, len(states)), "current")
    return [draw(facts(number, state)) for number, state in enumerate(states)]


def decided(found: Sequence[VersionFacts], rule: RetentionRule, **more: object) -> tuple[RetireDecision, ...]:
    return decide(found, rule, **{"now": NOW, "can_deprecate": True, **more})


def removed(decisions: Sequence[RetireDecision]) -> set[str]:
    return {one.version.image_id for one in decisions if one.step == "remove"}


def by_id(found: Sequence[VersionFacts]) -> dict[str, VersionFacts]:
    return {one.version.image_id: one for one in found}


# --- the invariants ---------------------------------------------------------------------------------------


def the_image_in_use_stays(found: list[VersionFacts], rule: RetentionRule) -> None:
    steps = {one.version.image_id: one.step for one in decided(found, rule)}
    assert {steps[one.version.image_id] for one in found if one.version.state == "current"} <= {"stay"}


def the_newest_that_passed_and_the_one_before_it_stay(found: list[VersionFacts], rule: RetentionRule) -> None:
    usable = [one.version for one in found if one.counts]
    newest = sorted(usable, key=lambda one: (-one.published, one.image_id))[:LEAST_KEPT]
    steps = {one.version.image_id: one.step for one in decided(found, rule)}
    assert {steps[one.image_id] for one in newest} <= {"stay"}


def as_many_as_the_configuration_says_stay(found: list[VersionFacts], rule: RetentionRule) -> None:
    usable = [one.version for one in found if one.counts]
    newest = sorted(usable, key=lambda one: (-one.published, one.image_id))[: rule.keep or len(usable)]
    assert not removed(decided(found, rule)) & {one.image_id for one in newest}


def old_leaves_only_after_new_works(found: list[VersionFacts], rule: RetentionRule) -> None:
    in_use = [one for one in found if one.version.state == "current"]
    works = [one for one in in_use if one.is_listed and one.is_available]
    if not works:
        assert {one.step for one in decided(found, rule)} <= {"stay"}


def only_what_is_ours_by_ledger_and_tag_is_touched(found: list[VersionFacts], rule: RetentionRule) -> None:
    touched = [one for one in decided(found, rule) if one.step != "stay"]
    assert not [
        one
        for one in touched
        if by_id(found)[one.version.image_id].not_ours and not by_id(found)[one.version.image_id].is_gone
    ]


def what_something_uses_is_not_removed(found: list[VersionFacts], rule: RetentionRule) -> None:
    used = {one.version.image_id for one in found if one.users and not one.is_gone}
    assert not removed(decided(found, rule)) & used


def nothing_leaves_after_an_error(found: list[VersionFacts], rule: RetentionRule) -> None:
    decisions = decided(found, rule, obstacle="an earlier step failed")
    assert {one.step for one in decisions} <= {"stay"}
    assert next_step(decisions) is None


def nothing_younger_than_it_may_be_is_removed(found: list[VersionFacts], rule: RetentionRule) -> None:
    for one in decided(found, rule):
        version = one.version
        if one.step != "remove" or by_id(found)[version.image_id].is_gone:
            continue
        assert rule.keep is not None
        assert NOW - version.published >= (rule.min_age or 0.0) or rule.min_age is None
        replaced = version.published if version.replaced is None else version.replaced
        assert rule.delete_after is None or NOW - replaced >= rule.delete_after


def time_alone_never_saves_an_image(found: list[VersionFacts], rule: RetentionRule) -> None:
    now, *later = (removed(decided(found, rule, now=NOW + wait)) for wait in (0.0, *WAITS))
    assert all(now <= then for then in later)


def without_a_rule_and_on_clouds_without_deprecation_nothing_is_done(
    found: list[VersionFacts], rule: RetentionRule
) -> None:
    assert {one.step for one in decided(found, RetentionRule(min_age=0.0))} <= {"stay"}
    assert "deprecate" not in {one.step for one in decided(found, rule, can_deprecate=False)}


INVARIANTS: tuple[Callable[[list[VersionFacts], RetentionRule], None], ...] = (
    the_image_in_use_stays,
    the_newest_that_passed_and_the_one_before_it_stay,
    as_many_as_the_configuration_says_stay,
    old_leaves_only_after_new_works,
    only_what_is_ours_by_ledger_and_tag_is_touched,
    what_something_uses_is_not_removed,
    nothing_leaves_after_an_error,
    nothing_younger_than_it_may_be_is_removed,
    time_alone_never_saves_an_image,
    without_a_rule_and_on_clouds_without_deprecation_nothing_is_done,
)


@OFTEN
@given(found=histories(), rule=RULES)
def test_each_invariant_holds_for_any_history_and_rule(
    found: list[VersionFacts], rule: RetentionRule
) -> None:
    """A history takes far longer to make than to judge, so each is judged by all of them."""
    for invariant in INVARIANTS:
        invariant(found, rule)


@OFTEN
@given(found=histories(), rule=RULES, errors=st.lists(st.booleans(), max_size=10))
def test_a_whole_run_ends_and_keeps_all_promises(
    found: list[VersionFacts], rule: RetentionRule, errors: list[bool]
) -> None:
    """Each step is carried out on the facts, as in a cloud; some fail, and end the run."""
    kept = sorted((one.version for one in found if one.counts), key=lambda one: -one.published)[:LEAST_KEPT]
    facts_now, steps = list(found), 0
    while step := next_step(decided(facts_now, rule)):
        if steps < len(errors) and errors[steps]:
            break
        steps += 1
        assert steps <= 2 * len(found), "it does not end"
        state = "removed" if step.step == "remove" else "deprecated"
        facts_now = [
            replace(one, version=replace(one.version, state=state)) if one.version == step.version else one
            for one in facts_now
        ]
    there = {one.version.image_id for one in facts_now if one.version.is_in_cloud}
    assert {one.image_id for one in kept} <= there
    assert {one.version.image_id for one in found if one.version.state == "current"} <= there


# --- its words --------------------------------------------------------------------------------------------


def version(number: int, *, days: float, state: str = "older", **changes: object) -> VersionFacts:
    at = NOW - days * DAY
    record = VersionRecord(KARMIC, "near", f"emi-{number}", "machine", state, at, since=at, replaced=at + DAY)
    return replace(VersionFacts(record), **changes)


FOUR = [
    version(4, days=1, state="current"),
    version(3, days=10),
    version(2, days=20),
    version(1, days=90),
]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (RetentionRule(), ["stay"] * 4),
        (RetentionRule(keep=1), ["stay", "stay", "remove", "remove"]),
        (RetentionRule(keep=3), ["stay", "stay", "stay", "remove"]),
        (RetentionRule(keep=2, min_age=30 * DAY), ["stay", "stay", "stay", "remove"]),
        (RetentionRule(keep=2, delete_after=50 * DAY), ["stay", "stay", "stay", "remove"]),
        (RetentionRule(deprecate_after=15 * DAY), ["stay", "stay", "deprecate", "deprecate"]),
        (
            RetentionRule(keep=2, deprecate_after=15 * DAY, delete_after=50 * DAY),
            ["stay", "stay", "deprecate", "remove"],
        ),
    ],
)
def test_a_rule_says_what_leaves(rule: RetentionRule, expected: list[str]) -> None:
    assert [one.step for one in decided(FOUR, rule)] == expected


def test_the_oldest_leaves_first() -> None:
    step = next_step(decided(FOUR, RetentionRule(keep=1)))
    assert step
    assert (step.version.image_id, step.why) == ("emi-1", "newer than it are 2 that stay")


def test_an_image_that_was_gone_back_from_leaves_for_that_and_not_for_its_age() -> None:
    older = replace(FOUR[1], version=replace(FOUR[1].version, state="current"))
    newest = replace(FOUR[0], version=replace(FOUR[0].version, state="older", passed=False))
    first = decided([newest, older, *FOUR[2:]], RetentionRule(keep=5))[0]
    assert (first.step, first.why) == ("remove", "a rollback went back from it")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"users": ("instance i-7",)}, "instance i-7 uses it"),
        ({"not_ours": "its tag host is other"}, "its tag host is other"),
    ],
)
def test_each_image_that_stays_has_a_reason(change: dict[str, object], why: str) -> None:
    found = [*FOUR[:3], replace(FOUR[3], **change)]
    assert decided(found, RetentionRule(keep=1))[-1] == RetireDecision(found[3].version, "stay", why)


def test_an_image_in_use_that_was_removed_by_hand_stops_all() -> None:
    found = [replace(FOUR[0], is_listed=False, is_available=False), *FOUR[1:]]
    whys = {one.why for one in decided(found, RetentionRule(keep=1))}
    assert whys == {"the image in use, emi-4, is gone from the cloud"}
