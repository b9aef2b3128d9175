"""What is in no set although somebody may wait for it: told once while it lies there."""

from collections.abc import Iterable

from uecwatchd.events import Event, Kind, Monitor
from uecwatchd.intake.sets.records import Misfit
from uecwatchd.system.text import printable

# Told one by one of a folder at once; who drops more than that sees the pattern.
MOST_TOLD = 20


class Remnants:
    """What has been told of one folder's files that are in no set, by path."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def tell(self, misfits: Iterable[Misfit], monitor: Monitor) -> None:
        """Tell what is new among what is worth telling, and forget what is gone."""
        worth = {misfit.path: misfit.reason for misfit in misfits if misfit.is_news}
        news = [path for path, reason in worth.items() if self._told.get(path) != reason]
        self._told = worth
        for path in news[:MOST_TOLD]:
            monitor.tell(Event(Kind.LEFT_OUT, f"{printable(path)}: {worth[path]}", level="warning"))
        if (more := len(news) - MOST_TOLD) > 0:
            what = f"{more} more files are in no set: uecwatchd status lists them"
            monitor.tell(Event(Kind.LEFT_OUT, what, level="warning"))
