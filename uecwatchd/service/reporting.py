"""Listeners of the work on all sets, as one record."""

from dataclasses import dataclass, field
from functools import partial

from uecwatchd.events import Listener, Tee
from uecwatchd.ledger.api import Ledger
from uecwatchd.outputs.progress import ProgressTracker
from uecwatchd.outputs.story import Story
from uecwatchd.system.clocks import Clocks


@dataclass(frozen=True, slots=True)
class Reporting:
    """Listeners that stages and loop report to."""

    listener: Listener  #: gets what is news; the others are parts of it
    story: Listener = field(default_factory=partial(Tee, ()))  #: gets repeated failures too
    tracker: ProgressTracker = field(default_factory=ProgressTracker)  #: gets all that `listener` gets


def report_to(
    listener: Listener, *, tracker: ProgressTracker | None, ledger: Ledger, clocks: Clocks
) -> Reporting:
    """Return a listener's reporting, with the story in the ledger, and a tracker if it has none."""
    if tracker is None:
        tracker = ProgressTracker(clock=clocks.monotonic, now=clocks.now)
        listener = Tee((tracker, listener))
    story = Story(ledger.history, clocks.now)
    return Reporting(Tee((listener, story)), story, tracker)
