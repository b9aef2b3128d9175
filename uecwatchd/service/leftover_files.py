"""Files that are in no set although somebody may wait for one: told once while they lie there."""

from collections.abc import Iterable
from pathlib import Path

from uecwatchd.events import Event, Kind, Monitor
from uecwatchd.intake.sets.records import UnmatchedFile
from uecwatchd.service.conditions import Conditions
from uecwatchd.system.text import printable

# In one scan of a folder. A user who drops more than that sees the pattern.
MOST_TOLD = 20


def tell_leftover_files(
    folder: Path, unmatched: Iterable[UnmatchedFile], *, conditions: Conditions, monitor: Monitor
) -> None:
    """Tell the files of a folder that are in no set, as far as that is new."""
    topic = ("left out", str(folder))
    texts = {(*topic, one.path): f"{printable(one.path)}: {one.reason}" for one in unmatched if one.is_news}
    news = [key for key, text in texts.items() if not conditions.lasts(key, text)]
    conditions.clear_others(topic, texts)
    for number, key in enumerate(news):
        conditions.set(key, texts[key], kind=Kind.LEFT_OUT, quiet=number >= MOST_TOLD)
    if (more := len(news) - MOST_TOLD) > 0:
        text = f"{more} more files are in no set: uecwatchd status lists them"
        monitor.tell(Event(Kind.LEFT_OUT, text, level="warning"))
