"""Contents of the spool folders by the last scans, and the times when something is due."""

from dataclasses import dataclass

from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.standing import seen_from
from uecwatchd.outputs.situation import Situation, SpoolFolder
from uecwatchd.service.policy import earliest_retry, is_shown, summarize
from uecwatchd.service.spooler_parts import ConfiguredParts, LastingParts


@dataclass(frozen=True, slots=True)
class Schedule:
    """Answers questions about the sets in the spool folders; changes nothing."""

    parts: LastingParts
    setup: ConfiguredParts

    def present(self) -> tuple[SetRecord, ...]:
        """Return the records of the sets that are in the spool folders now."""
        records = map(self.parts.states.get, self.setup.found.ids())
        return tuple(record for record in records if record)

    def settle_times(self) -> list[float]:
        """Return the monotonic times when files will have been unchanged for long enough."""
        return self.setup.found.settle_times()

    def next_retry(self, *, looks: bool = False) -> float | None:
        """Return when, by the wall clock, the next set that is deferred or waits is due.

        With `looks`, only sets count that wait for their cloud.
        """
        keys = {found.id for found in self.setup.found.ready()} - self.parts.dispatcher.taken
        records = map(self.parts.states.get, keys - self.parts.requests.open.holds.keys())
        suspended = self.setup.tools.clouds.availability.suspended()
        return earliest_retry(filter(None, records), suspended=suspended, looks=looks)

    def due_in(self) -> float:
        """Return the seconds until files have settled or a retry is due; infinite if there is neither."""
        pauses = [ready_at - self.parts.monotonic() for ready_at in self.settle_times()]
        if (retry := self.next_retry()) is not None:
            pauses.append(retry - self.setup.tools.clocks.now())
        return min(pauses, default=float("inf"))

    def count_sets_for(self, cloud: str) -> int:
        """Count the complete sets that have still to be registered in a cloud."""
        keys = {found.id for found in self.setup.found.ready() if cloud in found.clouds}
        taken = self.parts.dispatcher.taken
        others = (record for record in map(self.parts.states.get, keys - taken) if record)
        return len(keys & taken) + sum(seen_from(record, cloud).state == "deferred" for record in others)

    def summary(self) -> str:
        """Return one line with numbers, for systemd and for people."""
        held, running = self.parts.requests.open.holds, self.parts.dispatcher.running
        folders = len(self.setup.settings.spool.folders)
        return summarize(self.present(), held, running, folders=folders)

    def situation(self) -> Situation:
        """Return what is known of all sets. Those that were removed before they were done are left out."""
        tools, records = self.setup.tools, self.parts.states.records()
        availability, dialects = tools.clouds.availability, tools.clouds.dialects()
        kinds = {
            name: dialects[name].versions if name in dialects else "" for name in self.setup.settings.clouds
        }
        return Situation(
            tuple(filter(is_shown, records)),
            self.parts.requests.open.holds,
            frozenset(self.parts.dispatcher.running),
            kinds,
            availability.suspended(),
            availability.probe_times(),
            tuple(
                SpoolFolder(str(folder), self.setup.troubles.get(folder))
                for folder in self.setup.settings.spool.folders
            ),
        )
