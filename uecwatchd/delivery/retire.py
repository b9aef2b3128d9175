"""The decision about older images of a set: pure, from facts read a moment before.

The rules, each learnt from images that were missed afterwards:

- the image in use stays, and so do the newest one that has passed its checks and the one before it;
- nothing leaves unless the image in use is in the cloud and available: old goes only after new works;
- nothing leaves that this host has not made, by its ledger and by the tags;
- nothing leaves that another set, an instance, an image or a template uses;
- nothing leaves once there was an error.

One image leaves at a time, the oldest first, and the facts are read again before the next one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from uecwatchd.config.retention import RetentionRule, write_age
from uecwatchd.ledger.versions import VersionRecord

Step = Literal["stay", "deprecate", "remove"]
# The newest that passed and the one before it, whatever the configuration says: the second is for a rollback.
LEAST_KEPT = 2


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """A version, and what is known about its image now."""

    version: VersionRecord
    is_listed: bool = True  #: the cloud has it
    is_available: bool = True
    is_known: bool = True  #: the ledger has its bundle
    not_ours: str = ""  #: why this host may not remove it, by ledger and tags
    users: tuple[str, ...] = ()  #: what needs it, in words

    @property
    def is_gone(self) -> bool:
        """True if neither the cloud nor the ledger has it any more."""
        return not self.is_listed and not self.is_known

    @property
    def counts(self) -> bool:
        """True if it is one of the images that can be used."""
        return self.version.is_in_cloud and self.version.passed and self.is_listed


@dataclass(frozen=True, slots=True)
class RetireDecision:
    """The decision about one version, with its reason in words."""

    version: VersionRecord
    step: Step
    why: str


def decide(
    found: Sequence[VersionFacts], rule: RetentionRule, *, now: float, can_deprecate: bool, obstacle: str = ""
) -> tuple[RetireDecision, ...]:
    """Decide about the versions of one set on one cloud, the newest first.

    `obstacle` is a reason for which nothing leaves now, such as an error in this run.
    """
    there = sorted((one for one in found if one.version.is_in_cloud), key=_newest_first)
    obstacle = obstacle or _obstacle(there, rule)
    counted = [one.version.image_id for one in there if one.counts]
    kept = counted[: max(rule.keep or 0, LEAST_KEPT)]
    return tuple(
        RetireDecision(one.version, "stay", obstacle)
        if obstacle
        else _decide_one(one, rule, now=now, kept=kept, can_deprecate=can_deprecate)
        for one in there
    )


def next_step(decisions: Iterable[RetireDecision]) -> RetireDecision | None:
    """Return the step to take now: of those that do something, the one about the oldest image."""
    due = [one for one in decisions if one.step != "stay"]
    return min(due, key=lambda one: (one.version.published, one.version.image_id), default=None)


def _newest_first(one: VersionFacts) -> tuple[float, str]:
    return -one.version.published, one.version.image_id


def _obstacle(there: Sequence[VersionFacts], rule: RetentionRule) -> str:
    if not rule.is_on:
        return "the configuration has no retention for it"
    current = [one for one in there if one.version.state == "current"]
    if not current:
        return "no image of the set is in use"
    broken = next((one for one in current if not (one.is_listed and one.is_available)), None)
    if broken:
        state = "not available yet" if broken.is_listed else "gone from the cloud"
        return f"the image in use, {broken.version.image_id}, is {state}"
    return ""


def _decide_one(
    one: VersionFacts, rule: RetentionRule, *, now: float, kept: Sequence[str], can_deprecate: bool
) -> RetireDecision:
    version = one.version

    def stays(why: str) -> RetireDecision:
        return RetireDecision(version, "stay", why)

    if version.state == "current":
        return stays("it is in use")
    if one.is_gone:
        return RetireDecision(version, "remove", "neither the cloud nor the ledger has it any more")
    if version.image_id in kept[:LEAST_KEPT]:
        return stays("it is the newest, or the one before it")
    if one.not_ours:
        return stays(one.not_ours)
    removal_is_due, why = _removal(one, rule, now=now, kept=kept)
    if removal_is_due:
        return RetireDecision(version, "remove", why)
    if can_deprecate and one.is_listed and _is_to_deprecate(version, rule, now=now):
        return RetireDecision(
            version, "deprecate", f"replaced for {write_age(rule.deprecate_after or 0)} or longer"
        )
    return stays(why)


def _is_to_deprecate(version: VersionRecord, rule: RetentionRule, *, now: float) -> bool:
    after = rule.deprecate_after
    return version.state == "older" and after is not None and _since_replaced(version, now) >= after


def _since_replaced(version: VersionRecord, now: float) -> float:
    """Return for how many seconds another image is the current one; at least since its own publication."""
    return now - (version.published if version.replaced is None else version.replaced)


def _removal(one: VersionFacts, rule: RetentionRule, *, now: float, kept: Sequence[str]) -> tuple[bool, str]:
    """Tell if an image is to be removed, and why or why not."""
    version = one.version
    if rule.keep is None:
        return False, "without `keep` nothing is removed"
    if version.image_id in kept:
        return False, f"it is one of the newest {rule.keep}"
    if one.users:
        return False, f"{one.users[0]} uses it"
    if rule.min_age is not None and now - version.published < rule.min_age:
        return False, f"it is younger than {write_age(rule.min_age)}"
    if rule.delete_after is not None and _since_replaced(version, now) < rule.delete_after:
        return False, f"it was replaced less than {write_age(rule.delete_after)} ago"
    if not one.is_listed:
        return True, "the cloud does not list it any more"
    if not version.passed:
        return True, "a rollback went back from it"
    return True, f"newer than it are {len(kept)} that stay"
