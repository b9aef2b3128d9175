"""Outcomes that are due to be announced: rules without I/O.

They compare the states as they are with what was announced before, so that no event can be lost, and a crash
repeats nothing. Besides sets, three things have an entry among the announced: the time from which on outcomes
count (`NO_SET`), each cloud that sets wait for, and each stream of sets that has to stay fresh.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

from uecwatchd.config.records import NotifySettings, Outcome
from uecwatchd.errors import cause_of
from uecwatchd.ledger.outbox import NO_SET, Announced
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.standing import PARTLY, by_cloud, shown_state
from uecwatchd.outputs.notify.facts import (
    Facts,
    cloud_failure_facts,
    cloud_recovered_facts,
    complete,
    done_facts,
    failure_facts,
    withdrawn_facts,
)
from uecwatchd.outputs.overview import known_successes
from uecwatchd.service.freshness import Freshness, is_about
from uecwatchd.service.policy import GONE
from uecwatchd.service.retry import FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS
from uecwatchd.types import SetId

CLOUD = "cloud "  # before the name of a cloud, in its key
# Causes of a halt that are remembered until the cloud works again.
MOST_CAUSES = 8


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The states as they are. Times are seconds of the epoch."""

    now: float
    records: Collection[SetRecord]
    announced: Mapping[SetId, Announced]
    successes: Mapping[SetId, float] = field(default_factory=dict)  #: when sets were done last, by history
    suspended: Collection[str] = ()  #: clouds
    resumed: Collection[str] = ()  #: clouds that have answered a probe after an outage

    @property
    def begun(self) -> float:
        """The time from which on outcomes count: older ones were before anybody was to be told."""
        known = self.announced.get(NO_SET)
        return known.since if known and known.since <= self.now else self.now


@dataclass(frozen=True, slots=True)
class News:
    """An outcome to be announced."""

    outcome: Outcome
    about: SetId  #: its entry among the announced
    since: float
    facts: Facts


@dataclass(frozen=True, slots=True)
class Announcements:
    """Due messages, by their facts, and the entries to be written with them."""

    messages: tuple[tuple[SetId, Outcome, Facts], ...]
    entries: Mapping[SetId, Announced]
    forgotten: tuple[SetId, ...] = ()


def announcements(situation: Circumstances, settings: NotifySettings) -> Announcements:
    """Return the messages that are due, and what is to be noted about them."""
    entries: dict[SetId, Announced] = {}
    if situation.announced.get(NO_SET) != (begun := Announced("begun", situation.begun)):
        entries[NO_SET] = begun
    successes = known_successes(situation.records, situation.successes)
    freshness = Freshness(successes, settings.fresh, begun=situation.begun)
    stale, renewed = freshness.compare(situation.announced, now=situation.now)
    news = [News("stale", one.key, one.since, one.facts(now=situation.now)) for one in stale]
    entries |= {one.key: Announced("stale", one.since) for one in stale}
    entries |= {one.key: Announced("fresh", one.since) for one in renewed}
    returned = {one.newest for one in renewed}
    for record in situation.records:
        news += _of_set(record, situation, settings, entries, is_renewed=record.id in returned)
    for cloud in sorted(_clouds(situation)):
        news += _of_cloud(cloud, situation, settings, entries)
    wanted = ((one, _as_wanted(one.outcome, settings)) for one in news)
    messages = (
        (one.about, outcome, complete(one.facts, about=one.about, outcome=outcome, since=one.since, now=now))
        for now in (situation.now,)
        for one, outcome in wanted
        if outcome
    )
    known = {record.id for record in situation.records}
    forgotten = (key for key in situation.announced if key.folder and key not in known)
    return Announcements(tuple(messages), entries, tuple(forgotten))


def _as_wanted(outcome: Outcome, settings: NotifySettings) -> Outcome | None:
    if outcome == "recovered" and outcome not in settings.outcomes:
        outcome = "done"
    return outcome if outcome in settings.outcomes else None


# --- sets -------------------------------------------------------------------------------------------------


def _of_set(
    record: SetRecord,
    situation: Circumstances,
    settings: NotifySettings,
    entries: dict[SetId, Announced],
    *,
    is_renewed: bool,
) -> Iterator[News]:
    """Yield the outcome of one set if it is due, and note it."""
    before = situation.announced.get(record.id)
    since = situation.successes.get(record.id, record.since) if record.state == "done" else record.since
    is_done = record.state == "done"
    if record.reason == GONE and not (is_done and record.id in situation.successes):
        # The state has a new beginning, but it is the same one as before, also if the files return.
        is_known = is_done or (before and before.outcome == record.state)
        if is_known and before != Announced(record.state, since):
            entries[record.id] = Announced(record.state, since)
        return
    if not is_done:
        record = _leading_failure(record)
        since = record.since
        if before and len(record.current) > 1 and before.outcome == record.state and since < before.since:
            return  # a later one, on another cloud, was announced, and is over
    if since < situation.begun or before == Announced(record.state, since):
        return
    if is_done and is_about(before, "done", since):
        return
    if is_done:
        entries[record.id] = Announced("done", since)
        after = before.outcome if before and before.outcome != "done" else ""
        after = after or ("stale" if is_renewed else "")
        yield News("recovered" if after else "done", record.id, since, done_facts(record, after=after))
    elif record.state == "withdrawn":
        entries[record.id] = Announced("withdrawn", since)
        yield News("withdrawn", record.id, since, withdrawn_facts(record))
    elif record.state == "rejected" or _is_stuck(record, before, settings):
        entries[record.id] = Announced(record.state, since)
        outcome = PARTLY if shown_state(record) == PARTLY else record.state
        yield News(cast(Outcome, outcome), record.id, since, failure_facts(record))


def _leading_failure(record: SetRecord) -> SetRecord:
    """Return a set as seen from the cloud to be announced: of the required ones in its state the latest.

    Of those that are deferred it is the one with most failures in a row.
    """
    same = [one for one in by_cloud(record) if one.target.is_required and one.state == record.state]
    key = "deferrals" if record.state == "deferred" else "since"
    return max(same, key=lambda one: getattr(one, key), default=record)


def _is_stuck(record: SetRecord, before: Announced | None, settings: NotifySettings) -> bool:
    """Return True for a set deferred too often, once in a row of failures, and not for its cloud."""
    if record.state != "deferred" or waits_for_cloud(record) or (before and before.outcome == "deferred"):
        return False
    return record.deferrals >= settings.deferred_after


# --- clouds -----------------------------------------------------------------------------------------------


def cloud_key(cloud: str) -> SetId:
    """Return the key of a cloud among the announced. No set has an empty folder."""
    return SetId("", f"{CLOUD}{cloud}")


def waits_for_cloud(record: SetRecord) -> bool:
    """Return True for a deferred set that is due as soon as its cloud answers."""
    return record.state == "deferred" and record.next_retry is None


def outage_seconds(attempts: int) -> float:
    """Return how long a cloud is away until it is announced: as long as these attempts at a set take."""
    return sum(
        min(FIRST_DELAY_SECONDS * 2.0**number, LONGEST_DELAY_SECONDS) for number in range(attempts - 1)
    )


def _clouds(situation: Circumstances) -> set[str]:
    seen = (one for record in situation.records for one in by_cloud(record))
    waiting = {one.target.cloud for one in seen if one.state == "halted" or waits_for_cloud(one)}
    others = (key.name for key in situation.announced if not key.folder)
    return waiting | {name.removeprefix(CLOUD) for name in others if name.startswith(CLOUD)}


def _of_cloud(
    cloud: str, situation: Circumstances, settings: NotifySettings, entries: dict[SetId, Announced]
) -> Iterator[News]:
    """Yield what is due about one cloud: once for each cause, however many sets it has."""
    key, before = cloud_key(cloud), situation.announced.get(cloud_key(cloud))
    there = (one for record in situation.records if record.reason != GONE for one in by_cloud(record))
    mine = [one for one in there if one.target.cloud == cloud]
    halted = [r for r in mine if r.state == "halted" and r.since >= situation.begun]
    away = [r for r in mine if waits_for_cloud(r)]
    known = before.outcome.split() if before else ["recovered"]
    if halted:
        causes = {_cause(record): record for record in sorted(halted, key=lambda r: -r.since)}
        new = [cause for cause in sorted(causes) if cause not in known]
        tags = dict.fromkeys([*(known[1:] if known[0] == "halted" else ()), *new])
        since = before.since if before and known[0] == "halted" else min(r.since for r in halted)
        if new:
            entries[key] = Announced(" ".join(["halted", *list(tags)[-MOST_CAUSES:]]), since)
        for cause in new:
            sets = sum(_cause(record) == cause for record in halted)
            facts = cloud_failure_facts("halted", cloud, causes[cause], sets=sets)
            yield News("halted", key, causes[cause].since, facts)
    elif away and known[0] == "recovered":
        since = min(r.first_failure or r.since for r in away)
        if situation.now - since >= outage_seconds(settings.deferred_after):
            entries[key] = Announced("deferred", since)
            yield News(
                "deferred", key, since, cloud_failure_facts("deferred", cloud, away[0], sets=len(away))
            )
    elif before and known[0] != "recovered" and _works_again(cloud, mine, situation, before):
        entries[key] = Announced("recovered", situation.now)
        yield News("recovered", key, situation.now, cloud_recovered_facts(cloud, after=known[0]))


def _cause(record: SetRecord) -> str:
    """Return a short word for the cause of a failure, without what differs each time."""
    why = cause_of(record.error.why) if record.error else ""
    return hashlib.sha256(why.encode("utf-8", "replace")).hexdigest()[:8]


def _works_again(
    cloud: str, records: Iterable[SetRecord], situation: Circumstances, before: Announced
) -> bool:
    """Return True if a set was done there since, or a cloud that was away has answered.

    An answer proves nothing after a halt: a probe cannot see each one.
    """
    if cloud in situation.suspended:
        return False
    done = (situation.successes.get(r.id, r.since) for r in records if r.state == "done")
    answered = before.outcome == "deferred" and cloud in situation.resumed
    return answered or any(moment > before.since for moment in done)
