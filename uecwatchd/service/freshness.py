"""Streams of sets that have to stay fresh: rules without I/O.

A stream is what one source drops again and again: under one name, or under names that differ in their digits
only, such as daily-20261128 and daily-20261129.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from uecwatchd.ledger.outbox import Announced
from uecwatchd.outputs.notify.facts import Facts, stale_facts
from uecwatchd.types import SetId

HOUR_SECONDS = 3600.0
# A success has two times that differ by less: of its attempt, which is not kept for ever, and of its state.
SAME_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SetStream:
    """A stream, and when its newest set was done; if there is none, when that began to count."""

    key: SetId  #: among the announced
    newest: SetId
    since: float
    hours: float
    ever: bool = True  #: a set of it was done

    def facts(self, *, now: float) -> Facts:
        return stale_facts(self.newest, age=now - self.since, ever=self.ever)


class Freshness:
    """The streams of those sets whose names match a pattern.

    `successes` is when each set was done last, `fresh` has the hours by pattern. A stream without any set is
    as old as `begun`.
    """

    def __init__(self, successes: Mapping[SetId, float], fresh: Mapping[str, float], *, begun: float) -> None:
        self._fresh = fresh
        self._begun = begun
        streams: dict[SetId, SetStream] = {}
        for set_id, moment in successes.items() if fresh else ():
            pattern = next((one for one in fresh if fnmatchcase(set_id.name, one)), None)
            if pattern is not None:
                key = stream_key(set_id)
                if key not in streams or streams[key].since < moment:
                    streams[key] = SetStream(key, set_id, moment, fresh[pattern])
        self._streams = streams

    def compare(
        self, announced: Mapping[SetId, Announced], *, now: float
    ) -> tuple[list[SetStream], list[SetStream]]:
        """Return the newly stale streams, and those with news after that."""
        stale, renewed = [], []
        for one in self._all():
            known = announced.get(one.key)
            is_known = is_about(known, "stale", one.since)
            if known and known.outcome == "stale" and not is_known:
                renewed.append(one)
            if now - one.since >= one.hours * HOUR_SECONDS and not is_known:
                stale.append(one)
        return stale, [one for one in renewed if one not in stale]

    def _all(self) -> Iterator[SetStream]:
        yield from self._streams.values()
        names = [one.newest.name for one in self._streams.values()]
        for pattern, hours in self._fresh.items():
            if not any(fnmatchcase(name, pattern) for name in names):
                set_id = SetId("", pattern)
                yield SetStream(stream_key(set_id), set_id, self._begun, hours, ever=False)


def is_about(known: Announced | None, outcome: str, success: float) -> bool:
    """Tell if this outcome was announced of this very success, by either of its times."""
    return known is not None and known.outcome == outcome and abs(known.since - success) < SAME_SECONDS


def stream_key(set_id: SetId) -> SetId:
    """Return the key of a set's stream among the announced. No set has an empty folder."""
    return SetId("", f"fresh {set_id.folder}/{re.sub('[0-9]+', '#', set_id.name)}")
