"""Files that are in no set although somebody may wait for one: reported once while they are there."""

from collections.abc import Iterable
from pathlib import Path

from uecwatchd.events import Event, Kind, Listener
from uecwatchd.intake.sets.records import UnmatchedFile
from uecwatchd.service.conditions import Conditions
from uecwatchd.system.text import printable

LEFT_OUT = "left out"  # the topic of such files
# In one scan of a folder. A user who drops more than that sees the pattern.
MOST_REPORTED = 20


def report_leftover_files(
    folder: Path, unmatched: Iterable[UnmatchedFile], *, conditions: Conditions, listener: Listener
) -> None:
    """Report the files of a folder that are in no set, each once."""
    topic = (LEFT_OUT, str(folder))
    texts = {(*topic, one.path): f"{printable(one.path)}: {one.reason}" for one in unmatched if one.is_news}
    news = [key for key, text in texts.items() if not conditions.lasts(key, text)]
    conditions.clear_others(topic, texts)
    for number, key in enumerate(news):
        conditions.set(key, texts[key], kind=Kind.LEFT_OUT, quiet=number >= MOST_REPORTED)
    if (more := len(news) - MOST_REPORTED) > 0:
        text = f"{more} more files are in no set: uecwatchd status lists them"
        listener.tell(Event(Kind.LEFT_OUT, text, level="warning"))
