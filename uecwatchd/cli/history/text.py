"""The past of a set for people, and for programs."""

from collections.abc import Iterator, Sequence

from uecwatchd.cli.history.attempts import PastAttempt
from uecwatchd.ledger.history import AttemptRecord, StoryEntry
from uecwatchd.outputs.result_files import instant, place_json
from uecwatchd.outputs.wording import duration, moment, request_id, with_hint
from uecwatchd.system.text import format_size, printable
from uecwatchd.types import ID_WORDS

# Below the sentence: as wide as a time with its zone, and the space behind it.
INDENT = " " * 22
# Below this, tenths of a second tell a fast stage from a slow one.
TENTHS_BELOW_SECONDS = 10.0
# Most stages take less, and would hide those that took the time. JSON has all.
LEAST_SHOWN_SECONDS = 0.1
NAME_COLUMNS = 40


# --- the story --------------------------------------------------------------------------------------------


def entry_lines(entry: StoryEntry) -> Iterator[str]:
    """Yield the sentence with its time and hint; below it the cloud's request id, and a traceback."""
    level = "" if entry.level == "info" else f"{entry.level}: "
    yield f"{moment(entry.moment)}Z  {level}{with_hint(entry)}"
    if request := entry.fields.get("request_id"):
        yield f"{INDENT}{request_id(str(request))}"
    yield from (f"{INDENT}{line}" for line in str(entry.fields.get("traceback", "")).splitlines())


def entry_json(entry: StoryEntry, *, host: str = "") -> dict[str, object]:
    """Return an entry for programs. Its fields are those of the journal, without their prefix.

    `host` is the one with the set, where several have one ledger.
    """
    return {
        **place_json(entry.set_id, host),
        "name": entry.set_id.name,
        "time": instant(entry.moment),
        "kind": str(entry.kind),
        "level": entry.level,
        "sentence": entry.sentence,
        "fields": dict(entry.fields),
    }


# --- attempts ---------------------------------------------------------------------------------------------


def attempt_json(past: PastAttempt, *, host: str = "") -> dict[str, object]:
    """Return an attempt for programs: sizes in bytes, times in UTC, null for missing values.

    `host` is this one, where several have one ledger.
    """
    record = past.record
    return {
        **place_json(record.set_id, host),
        "name": record.set_id.name,
        "number": record.number,
        "began": instant(record.began),
        "ended": instant(record.ended),
        "seconds": _seconds(record),
        "outcome": record.state,
        "cloud": record.cloud,
        "ids": {role: record.ids.get(role) for role in ID_WORDS},
        "sent": record.sent,
        "stages": [{"name": stage.name, "seconds": stage.seconds} for stage in record.stages],
        "request_ids": list(record.request_ids),
        "problem": record.problem or None,
        "replaced": record.replaced or None,
        "replaced_by": past.replaced_by or None,
    }


def attempt_lines(past: PastAttempt) -> Iterator[str]:
    """Yield all facts about one attempt."""
    record = past.record
    began = f"began {moment(record.began)} UTC, took {_took(_seconds(record))}"
    yield f"{record.set_id.name}, attempt {record.number}: {record.state}, {began}"
    if record.problem:
        yield f"  {record.problem}"
    if record.cloud:
        yield f"  on cloud {record.cloud}{_images(record)}"
    if record.sent:
        yield f"  sent {format_size(record.sent)}"
    yield from (f"  {words}" for words in _replacements(past))
    if record.stages:
        yield f"  stages: {', '.join(_stage_times(record))}"
    if record.request_ids:
        yield f"  the cloud's request ids: {', '.join(record.request_ids)}"


def attempt_table(found: Sequence[PastAttempt], *, host: str = "") -> Iterator[str]:
    """Yield one line for each attempt. With several folders, sets have theirs before their name."""
    sets = [past.record.set_id.of_host(host) for past in found]
    with_folder = len({one.folder for one in sets}) > 1
    names = [printable(str(one) if with_folder else one.name) for one in sets]
    width = min(max(map(len, ("SET", *names))), NAME_COLUMNS)
    yield _row(("SET", "ATTEMPT", "BEGAN (UTC)", "TOOK", "OUTCOME", ""), width)
    for past, name in zip(found, names, strict=True):
        record = past.record
        cells = (
            *(name, str(record.number), moment(record.began), _took(_seconds(record))),
            *(record.state, printable(record.problem or _result(past))),
        )
        yield _row(cells, width)


def _row(cells: tuple[str, ...], width: int) -> str:
    name, number, began, took, outcome, detail = cells
    return f"{name:<{width}}  {number:<7}  {began:<19}  {took:<8}  {outcome:<8}  {detail}".rstrip()


def _result(past: PastAttempt) -> str:
    return ", ".join(filter(None, (past.main_id, *_replacements(past))))


def _images(record: AttemptRecord) -> str:
    ids = ", ".join(f"{role} {record.ids[role]}" for role in ID_WORDS if role in record.ids)
    return f": {ids}" if ids else ""


def _stage_times(record: AttemptRecord) -> Iterator[str]:
    slow = [stage for stage in record.stages if stage.seconds >= LEAST_SHOWN_SECONDS]
    yield from (f"{stage.name} {_took(stage.seconds)}" for stage in slow)
    if others := len(record.stages) - len(slow):
        yield f"{others} of less than {LEAST_SHOWN_SECONDS:g} s each"


def _replacements(past: PastAttempt) -> Iterator[str]:
    if past.record.replaced:
        yield f"replaced {past.record.replaced}"
    if past.replaced_by:
        yield f"replaced by {past.replaced_by}"


def _seconds(record: AttemptRecord) -> float:
    """Return how long it took; 0 if the clock was set back in between."""
    return max(0.0, round(record.ended - record.began, 3))


def _took(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < TENTHS_BELOW_SECONDS else duration(seconds)
