"""A listener that keeps what it gets."""

from dataclasses import dataclass, field

from uecwatchd.events import Event, Kind, Progress


@dataclass(frozen=True)
class Recorder:
    """Keeps every event and every step of progress."""

    events: list[Event] = field(default_factory=list)
    progresses: list[Progress] = field(default_factory=list)

    def tell(self, event: Event) -> None:
        self.events.append(event)

    def progress(self, progress: Progress) -> None:
        self.progresses.append(progress)

    def sentences(self, *kinds: Kind) -> list[str]:
        return [event.sentence for event in self.events if event.kind in kinds]
