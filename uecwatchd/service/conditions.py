"""Trouble that is told once while it lasts, and keeps nothing else from its turn."""

import contextlib
from collections.abc import Iterator

from uecwatchd.errors import UecError
from uecwatchd.events import Event, Kind, Level, Monitor
from uecwatchd.system.unforeseen import OurFault, in_words


class Complaints:
    """What has been complained of and not mended yet, by what it is about."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._made: dict[str, str] = {}

    def standing(self, what: str) -> bool:
        return what in self._made

    @contextlib.contextmanager
    def about(self, what: str) -> Iterator[None]:
        """Do something to one thing in a folder; a UecError of it is told here, and goes no further."""
        try:
            with in_words(what):
                yield
        except UecError as error:
            if self._made.get(what) != str(error):
                self.tell_error(error)
            self._made[what] = str(error)
        else:
            self._made.pop(what, None)

    def while_it_lasts(self, what: str, sentence: str) -> None:
        """Tell a sentence once, until `what` has come to an end: then the sentence is empty."""
        if not sentence:
            self._made.pop(what, None)
        elif what not in self._made:
            self._made[what] = sentence
            self.tell(Kind.FAULT, sentence, "warning")

    def tell(self, kind: Kind, sentence: str, level: Level = "info", *, set_name: str = "") -> None:
        self._monitor.tell(Event(kind, sentence, set_name, level))

    def tell_error(self, error: UecError, set_name: str = "") -> None:
        """With the traceback of a fault of ours as a field: a report to us needs it."""
        fields = {"traceback": error.trace} if isinstance(error, OurFault) else {}
        self._monitor.tell(Event(Kind.FAULT, str(error), set_name, "error", fields))
