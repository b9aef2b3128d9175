"""The story of each set in the ledger, for those who cannot read the journal, or after its rotation."""

from collections.abc import Callable
from dataclasses import dataclass

from uecwatchd.events import Event, Kind, Progress
from uecwatchd.ledger.history import History, StoryEntry


@dataclass(frozen=True, slots=True)
class Story:
    """Listener that adds each event of a set to the history. `now` is the wall clock.

    The console of an installation is in the log of the set: here its thousands of lines would hide the rest.
    """

    history: History
    now: Callable[[], float]

    def tell(self, event: Event) -> None:
        if event.set and event.level != "debug" and event.kind != Kind.CONSOLE:
            entry = StoryEntry(event.set, self.now(), event.kind, event.level, event.sentence, event.fields)
            self.history.add_entry(entry)

    def progress(self, progress: Progress) -> None:
        """Ignore progress: a story has stages, and no percentages."""
