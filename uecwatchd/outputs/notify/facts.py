"""Content of a message: flat facts for programs, and from them a title and a text for people."""

import hashlib
import json
import socket
from collections.abc import Mapping, Sequence

from uecwatchd.config.records import Outcome
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.standing import by_cloud
from uecwatchd.outputs.result_files import instant
from uecwatchd.outputs.wording import command, duration, failure_event, ids_by_cloud
from uecwatchd.system.text import printable
from uecwatchd.types import ID_WORDS, SetId

Facts = Mapping[str, str | int | float]

# A subject of a mail that no program cuts.
TITLE_CHARACTERS = 150
# Told to people below the sentence, in this order.
SHOWN = ("set", "folder", "cloud", "emi", "eki", "eri", "stage", "attempt", "request_id", "host", "id")


def message_id(about: SetId, outcome: str, since: float) -> str:
    """Return the id of a message: the same whenever and however it is sent."""
    return hashlib.sha256(json.dumps([*about, outcome, since]).encode()).hexdigest()[:32]


def complete(facts: Facts, *, about: SetId, outcome: Outcome, since: float, now: float) -> Facts:
    """Return the facts of a message, with those that each has, and without empty ones."""
    common = {
        "id": message_id(about, outcome, since),
        "outcome": outcome,
        "time": instant(now) or "",
        "since": instant(since) or "",
        "host": socket.gethostname(),
    }
    return {name: value for name, value in {**common, **facts}.items() if value != ""}


def done_facts(record: SetRecord, *, after: str) -> Facts:
    """Return the facts of a finished set. `after` is the failure that is over, empty if there was none."""
    ids = {ID_WORDS[image.role]: image.image_id for image in record.target.images if image.image_id}
    over = f", after it was {after}" if after else ""
    return {
        "sentence": f"{record.name} is {ids_by_cloud(record)}{over}",
        **_of_set(record),
        **ids,
        "remarks": " ".join(record.target.remarks),
    }


def failure_facts(record: SetRecord) -> Facts:
    """Return the facts of a failed set: those of its event in the journal, and where it is done."""
    event = failure_event(record)
    there = ids_by_cloud(record)
    sentence = f"{event.sentence}; it is {there}" if there else event.sentence
    return {"sentence": sentence, **_of_set(record), **event.fields}


def withdrawn_facts(record: SetRecord) -> Facts:
    """Return the facts of a set without its image, which was taken back from one or several clouds."""
    clouds = [one.cloud for one in by_cloud(record) if one.state == "withdrawn"] or [record.cloud]
    names = f"cloud{'s' if len(clouds) > 1 else ''} {' and '.join(clouds)}"
    there = ids_by_cloud(record)
    return {
        "sentence": f"{record.name} is withdrawn: its image was taken back from {names}"
        f"{f'; it is {there}' if there else ''}",
        "hint": f"What was done: {command('log', record.id)}",
        **_of_set(record),
    }


def rolled_back_facts(set_id: SetId, cloud: str, *, word: str, image_id: str, before: str) -> Facts:
    """Return the facts of a set with an older image in use again. `word` is "emi", for example."""
    return {
        "sentence": f"{set_id.name} is back at {image_id} on cloud {cloud}, instead of {before}; it is held",
        "hint": f"To publish it again: {command('release', set_id)}",
        "set": set_id.name,
        "folder": set_id.folder,
        "cloud": cloud,
        word: image_id,
    }


def pruned_facts(set_id: SetId, cloud: str, images: Sequence[str]) -> Facts:
    """Return the facts of a set with fewer older images."""
    count = f"{len(images)} older image{'s' if len(images) > 1 else ''}"
    what = f"{count} removed from cloud {cloud} by the retention: {', '.join(images)}"
    return {
        "sentence": f"{set_id.name}: {what}",
        "hint": f"What was done: {command('log', set_id)}",
        "set": set_id.name,
        "folder": set_id.folder,
        "cloud": cloud,
    }


def _of_set(record: SetRecord) -> Facts:
    return {
        "set": record.name,
        "folder": record.folder,
        "cloud": record.target.cloud,
        "attempt": record.attempt,
    }


def cloud_failure_facts(outcome: str, cloud: str, record: SetRecord, *, sets: int) -> Facts:
    """Return the facts of an unusable cloud. `record` is one of the sets that wait for it."""
    event = failure_event(record)
    name = f"cloud {cloud}" if cloud else "any cloud"
    state = "Nothing is sent to" if outcome == "halted" else "Nothing can be sent to"
    waiting = "1 set waits" if sets == 1 else f"{sets} sets wait"
    fields = {key: event.fields.get(key, "") for key in ("error", "hint", "request_id")}
    return {"sentence": f"{state} {name}, {waiting}: {fields['error']}", "cloud": cloud, **fields}


def cloud_recovered_facts(cloud: str, *, after: str) -> Facts:
    name = f"Cloud {cloud}" if cloud else "The service"
    return {"sentence": f"{name} works again, after sets were {after}", "cloud": cloud}


def stale_facts(about: SetId, *, age: float, ever: bool) -> Facts:
    """Return the facts of a set that is too old. `age` is in seconds."""
    what = "nothing new" if ever else "nothing at all"
    hint = f"See what makes its images. Its history: {command('history', about)}" if ever else ""
    return {
        "sentence": f"{about.name}: {what} for {duration(age)}",
        "set": about.name,
        "folder": about.folder,
        "hint": hint or "See what makes its images, and where it puts them.",
    }


def facts_of_test() -> Facts:
    """Return the facts of a test message."""
    host = socket.gethostname()
    sentence = f"a test message from {host}: messages arrive"
    return {"id": "test", "outcome": "test", "sentence": sentence, "host": host}


def title_of(facts: Mapping[str, object]) -> str:
    """Return one line that says what has happened, printable, as the subject of a mail."""
    title = printable(f"uecwatchd: {facts.get('sentence', '')}")
    return title if len(title) <= TITLE_CHARACTERS else f"{title[: TITLE_CHARACTERS - 1]}…"


def text_of(facts: Mapping[str, object]) -> str:
    """Return a message as text for people."""
    shown = [f"{name}: {facts[name]}" for name in SHOWN if name in facts]
    paragraphs = (
        [str(facts.get("sentence", ""))],
        [str(facts[name]) for name in ("hint", "remarks") if name in facts],
        shown,
    )
    return "\n\n".join("\n".join(map(printable, lines)) for lines in paragraphs if lines) + "\n"
