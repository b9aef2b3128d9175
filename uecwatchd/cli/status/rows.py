"""The rows of an answer, made from a listing, the decisions about it, and the ledger."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from posixpath import normpath

from uecwatchd.intake.sets.candidates import is_set_folder
from uecwatchd.intake.sets.records import FolderSets, ImageSet, Refused, Waiting
from uecwatchd.intake.spool.output_files import OUTPUT_SUFFIXES, is_output, output_stem
from uecwatchd.intake.spool.scan import NOT_UTF8, Listing
from uecwatchd.ledger.records import ProgressRecord, SetRecord, Verb
from uecwatchd.ledger.standing import PARTLY, by_cloud, count_done, shown_state
from uecwatchd.outputs import result_files
from uecwatchd.outputs.progress import rate
from uecwatchd.outputs.wording import (
    amounts,
    attempt,
    build_words,
    duration,
    failure_in_a_row,
    from_now,
    ids_by_cloud,
    moment,
    on_cloud,
    problem_and_hint,
    time_left,
)
from uecwatchd.service.policy import GONE
from uecwatchd.system.text import format_size, printable
from uecwatchd.types import SetId

Outcome = ImageSet | Waiting | Refused | None
ASKED: Mapping[Verb, str] = {
    "retry": "tried again",
    "forget": "forgotten",
    "withdraw": "withdrawn",
    "rollback": "rolled back",
}
WITHDRAWN = "its image was taken back from the cloud"


@dataclass(frozen=True, slots=True)
class LedgerFacts:
    """Facts from the ledger.

    `now` and the times of holds are seconds of the epoch. `alive` is True if a daemon runs. `asked` are
    requests that are not done yet, `probes` the times when each unavailable cloud is asked, `probers` the
    hosts that do so for all with this ledger.
    """

    now: float
    alive: bool = False
    records: tuple[SetRecord, ...] = ()
    holds: Mapping[SetId, float] = field(default_factory=dict)
    progress: Mapping[SetId, ProgressRecord] = field(default_factory=dict)
    asked: Mapping[SetId, Verb] = field(default_factory=dict)
    probes: Mapping[str, float] = field(default_factory=dict)
    cloud_holds: Mapping[SetId, Mapping[str, float]] = field(default_factory=dict)
    host: str = ""  #: name of the host that they are about, where several have one ledger
    host_words: str = ""  #: about that host, if it does not work as usual
    probers: Mapping[str, str] = field(default_factory=dict)

    def probe_of(self, record: SetRecord) -> float | None:
        """Return when the cloud of a waiting set is asked again, if it will be."""
        waits = record.state == "halted" or (record.state == "deferred" and record.next_retry is None)
        held = record.id in self.holds
        return self.probes.get(record.target.cloud) if waits and self.alive and not held else None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the answer."""

    id: SetId  #: its name is a path for a file in no set
    state: str
    detail: str
    record: SetRecord | None = None  #: of a set, if there is one
    files: tuple[str, ...] = ()  #: the set's own files
    outputs: tuple[str, ...] = ()  #: its result files
    hint: str = ""
    held_since: float | None = None
    to_go: float | None = None  #: seconds until its files have settled
    progress: ProgressRecord | None = None
    otherwise: "Row | None" = None  #: the row of a held set without the hold
    seen: bool = True  #: False if its folder could not be scanned
    probe_at: float | None = None  #: when its cloud is asked again, in seconds of the epoch
    host_words: str = ""  #: about its host, if that is another one and does not work as usual

    @property
    def folder(self) -> str:
        return self.id.folder

    @property
    def name(self) -> str:
        return self.id.name

    @property
    def title(self) -> str:
        """The name in a sentence, with its host if that is another one."""
        return f"{self.id.host}:{self.name}" if self.id.is_elsewhere else self.name

    @property
    def is_set(self) -> bool:
        return self.state not in ("misfit", "ignored")

    @property
    def needs_daemon(self) -> bool:
        """True if the next step is a daemon's."""
        return self.state in ("working", "queued", "new", "deferred", "halted", "withdrawn", PARTLY)


def rows(listing: Listing, assembly: FolderSets, known: LedgerFacts) -> tuple[Row, ...]:
    """Return the rows of one folder: sets by name, then files that are in no set."""
    folder = str(listing.folder)
    records = {record.name: record for record in known.records if record.folder == folder}
    outcomes: dict[str, Outcome] = {waiting.name: waiting for waiting in assembly.waiting}
    outcomes |= {found.name: found for found in assembly.ready}
    outcomes |= {refused.name: refused for refused in assembly.refused}
    held = {name for place, name in known.holds if place == folder}
    names = sorted(outcomes.keys() | records.keys() | held)
    outputs, strays = _outputs(listing, names, records)
    sets = [_set_row(listing, name, outcomes.get(name), records.get(name), known) for name in names]
    others = [Row(SetId(folder, m.path), "misfit", m.reason) for m in assembly.unmatched]
    others += [Row(SetId(folder, path), "ignored", why) for path, why in strays]
    return (
        *(replace(row, outputs=outputs.get(row.name, ())) for row in sets),
        *sorted(others, key=lambda row: row.name),
    )


def unseen(folder: str, known: LedgerFacts, *, why: str) -> tuple[Row, ...]:
    """Return rows for the sets in a folder that cannot be scanned."""
    records = {record.name: record for record in known.records if record.folder == folder}
    held = {name: since for (place, name), since in known.holds.items() if place == folder}
    found = []
    for name in sorted(records.keys() | held.keys()):
        record = records.get(name)
        row = Row(SetId(folder, name), record.state if record else "absent", why, record, seen=False)
        found.append(_held(row, held[name], alive=known.alive) if name in held else row)
    return tuple(found)


def rows_elsewhere(known: LedgerFacts) -> tuple[Row, ...]:
    """Return rows for the sets of another host, by its records alone: their files are there."""
    records = {record.id: record for record in known.records}
    found = []
    for set_id in sorted(records.keys() | known.holds.keys()):
        row = Row(set_id, "", "", records.get(set_id), host_words=known.host_words)
        row = _at_work(row, known) or _by_record(row, known)
        since = known.holds.get(set_id)
        found.append(row if since is None else _held(row, since, alive=known.alive))
    return tuple(found)


def _by_record(row: Row, known: LedgerFacts) -> Row:
    record = row.record
    if record is None or record.reason == GONE:
        return _absent(row)
    files = tuple(dict.fromkeys(member.path for member in record.members)) or (row.name,)
    return _of_record(replace(row, files=files), record, known)


def _outputs(
    listing: Listing, names: Iterable[str], records: Mapping[str, SetRecord]
) -> tuple[Mapping[str, tuple[str, ...]], list[tuple[str, str]]]:
    """Return ignored names: result files by their set, and all others with the reason."""
    stems = {stem: name for name, record in records.items() for stem in result_files.stems_by_cloud(record)}
    stems |= {output_stem(name): name for name in names}
    outputs: dict[str, tuple[str, ...]] = {}
    strays = []
    for path, why in listing.ignored.items():
        if path in listing.planted:  # among the misfits
            continue
        name = stems.get(_stem(path))
        if name is not None:
            outputs[name] = (*outputs.get(name, ()), path)
        elif "/" not in path and is_output(path):
            strays.append(
                (path, f"it is named like an output of the service, and there is no set {_stem(path)}")
            )
        else:
            strays.append((path, why if why == NOT_UTF8 else f"its name matches {why}"))
    return outputs, strays


def _stem(path: str) -> str:
    """Return a result file's name without its suffix; other paths unchanged."""
    return next((path[: -len(suffix)] for suffix in OUTPUT_SUFFIXES if path.endswith(suffix)), path)


def about(found: Iterable[Row], words: str, *, host: str = "") -> tuple[Row, ...]:
    """Return the rows for the name of a set or of a file, which may have its folder or host.

    `host` is the name of this one.
    """
    found = tuple(found)
    if answers := _about(found, words):
        return answers
    there, _, rest = words.partition(":")
    of_host = [row for row in found if rest and (row.id.host or host) == there]
    meant = {row.id for row in _about([replace(row, id=row.id.there) for row in of_host], rest)}
    return tuple(row for row in of_host if row.id.there in meant)


def _about(found: Iterable[Row], words: str) -> tuple[Row, ...]:
    words = normpath(words)  # a shell completes "folder/", and people type "./karmic.img"
    paths = [(row, words.removeprefix(f"{row.folder.rstrip('/')}/")) for row in found]
    within = [(row, path) for row, path in paths if path != words]
    for asked in (within, paths):
        named = [row for row, path in asked if path in (row.name, printable(row.name))]
        if answers := named or [row for row, path in asked if _answers_for(row, path)]:
            return tuple(answers)
    return ()


def _answers_for(row: Row, path: str) -> bool:
    theirs = (*row.files, *row.outputs)
    return path in theirs or path in map(printable, theirs)


def begun_now(row: Row, now: float) -> bool:
    """Return True if a daemon would work on the set at this moment (seconds of the epoch)."""
    if row.state in ("deferred", PARTLY) and row.record:
        seen = by_cloud(row.record)
        is_waiting = any(one.state in ("queued", "working", "halted", "withdrawn") for one in seen)
        return is_waiting or any(one.next_retry is not None and one.next_retry <= now for one in seen)
    fresh_refusal = row.record is None and row.state in ("rejected", "deferred")
    return fresh_refusal or row.state in ("new", "queued", "halted", "withdrawn")


# --- the row of a set -------------------------------------------------------------------------------------


def _set_row(
    listing: Listing, name: str, outcome: Outcome, record: SetRecord | None, known: LedgerFacts
) -> Row:
    folder = str(listing.folder)
    files = outcome.files if outcome else ()
    if (entry := listing.entries.get(name)) and is_set_folder(entry):
        files = (name, *files)
    row = Row(SetId(folder, name), "", "", record, tuple(dict.fromkeys(files)))
    since = known.holds.get(row.id)
    row = _with_state(row, outcome, listing.now, known)
    return _held(row, since, alive=known.alive) if since is not None else row


def _with_state(row: Row, outcome: Outcome, now: float, known: LedgerFacts) -> Row:
    """Return the row with its state and the reason. `now` is that of the listing."""
    record = row.record
    if at_work := _at_work(row, known):
        return at_work
    if outcome is None:
        return _absent(row)
    if isinstance(outcome, Waiting):
        known_else = record and outcome.unread and record.state != "waiting"
        return _of_record(row, record, known) if record and known_else else _waiting(row, outcome, now)
    if record and record.stamp == outcome.stamp:
        return _of_record(row, record, known)
    if isinstance(outcome, Refused):
        error = outcome.error
        return replace(row, state=error.kind, detail=problem_and_hint(error), hint=error.hint)
    return replace(row, state="new", detail=f"complete: {plan(outcome)}")


def _at_work(row: Row, known: LedgerFacts) -> Row | None:
    """Return the row of a set that a daemon works on, or was asked to; None for any other."""
    record = row.record
    if record and record.state == "working" and known.alive:
        progress = known.progress.get(row.id)
        since = f", since {moment(record.began or record.since)} UTC" if known.host else ""
        detail = f"{_working(record, progress)}{since}"
        return replace(row, state="working", detail=detail, progress=progress)
    if verb := known.asked.get(row.id):
        return replace(row, state="queued", detail=f"to be {ASKED[verb]}, on request")
    return None


def plan(found: ImageSet) -> str:
    """Describe what will be done with a complete set."""
    parts = [f"{what} ({format_size(size)})" if size else what for what, size in found.described]
    clouds = f"cloud{'' if len(found.clouds) == 1 else 's'} {' and '.join(found.clouds)}"
    return f"to be registered on {clouds}, in bucket {found.sidecar.bucket}: {', '.join(parts)}"


def _absent(row: Row) -> Row:
    if row.record is None:
        return replace(row, state="absent", detail="there is nothing with this name yet")
    return replace(row, state=row.record.state, detail=GONE)


def _waiting(row: Row, waiting: Waiting, now: float) -> Row:
    record = row.record
    if waiting.brief and waiting.ready_at is not None and not waiting.unread:
        to_go = max(0.0, waiting.ready_at - now)
        return replace(
            row, state="waiting", detail=f"for {waiting.reason} ({duration(to_go)} to go)", to_go=to_go
        )
    if record and count_done(record)[0]:
        ids = _ids(record) if record.state == "done" else ids_by_cloud(record)
        detail = f"{ids}; its files have changed since, and wait for {waiting.reason}"
        return replace(row, state=shown_state(record), detail=detail)
    if record and record.state == "waiting" and record.reason.startswith(waiting.reason):
        # The daemon has asked the cloud, and may know more of what is in the way.
        return replace(row, state="waiting", detail=f"for {record.reason}, since {moment(record.since)} UTC")
    return replace(row, state="waiting", detail=f"for {waiting.reason}")


def _of_record(row: Row, record: SetRecord, known: LedgerFacts) -> Row:
    """Return the row with the state of its record; of one that goes to several clouds, with each."""
    whole = _of_one_cloud(row, record, known)
    if len(record.current) < 2 or record.state == "working":
        return whole
    state, (done, every) = shown_state(record), count_done(record)
    seen = [(one.cloud, _of_one_cloud(row, one, known)) for one in by_cloud(record)]
    words = [f"{cloud}{'' if one.state == state else f' {one.state}'}: {one.detail}" for cloud, one in seen]
    counted = [f"{done} of {every} clouds"] if 0 < done < every else []
    return replace(whole, state=state, detail="; ".join((*counted, *words)))


def _of_one_cloud(row: Row, record: SetRecord, known: LedgerFacts) -> Row:
    if record.error:
        row = replace(row, state=record.state, hint=record.error.hint, probe_at=known.probe_of(record))
        held = record.id in known.holds
        prober = known.probers.get(record.target.cloud, "")
        detail = failure_in_a_row(
            record, record.error, now=known.now, held=held, probe_at=row.probe_at, prober=prober
        )
        return replace(row, detail=detail)
    if record.state == "done":
        return replace(row, state="done", detail=_ids(record))
    if record.state == "withdrawn":
        return replace(row, state="withdrawn", detail=WITHDRAWN)
    if record.awaits_build and record.build:
        return replace(row, state="waiting", detail=f"for {build_words(record.build, known.now)}")
    if record.state == "waiting":  # it was started, and found to be incomplete
        again = "" if record.next_retry is None else f"; looked at {from_now(record.next_retry, known.now)}"
        comma = "" if record.awaits_cloud else ","
        detail = (
            f"for {record.reason}{comma} since {moment(record.since)} UTC{again}{_last_line(record, known)}"
        )
        return replace(row, state="waiting", detail=detail)
    # Also "working" without a daemon: it was interrupted.
    at = f"stopped at: {record.stage}" if record.stage else "about to begin"
    return replace(row, state="queued", detail=f"{at} ({attempt(record)})")


def _last_line(record: SetRecord, known: LedgerFacts) -> str:
    """Return the last line of the console of a set's test boot, as a clause."""
    progress = known.progress.get(record.id)
    is_booting = progress and progress.file and record.awaits_cloud and progress.stage == record.stage
    return f"; console: {printable(progress.file)}" if progress and is_booting else ""


def _ids(record: SetRecord) -> str:
    return ", ".join(image.image_id for image in record.target.images[::-1])


def _working(record: SetRecord, progress: ProgressRecord | None, *, numbers: bool = True) -> str:
    if progress is None:
        return f"{record.stage or 'beginning'}{on_cloud(record)} ({attempt(record)})"
    p, speed = progress, speed_of(progress) if numbers else 0.0
    file = [p.file] if p.file else []
    reached = amounts(part=p.part, done=p.done, total=p.total if numbers else 0, speed=speed)
    left = time_left(done=p.done, total=p.total, speed=speed)
    words = ", ".join([*file, *reached, *left])
    return f"{p.stage}{on_cloud(record)}{f': {words}' if words else ''} ({attempt(record)})"


def work_words(row: Row) -> str:
    """Return the detail of a row without the numbers that a bar beside it shows."""
    if row.record is None or row.progress is None:
        return row.detail
    with_numbers = _working(row.record, row.progress)
    return row.detail.replace(with_numbers, _working(row.record, row.progress, numbers=False), 1)


def speed_of(progress: ProgressRecord) -> float:
    return rate(progress.done, progress.moment - progress.began)


def _held(row: Row, since: float, *, alive: bool) -> Row:
    if row.state == "working" and alive:
        return replace(row, held_since=since, detail=f"{row.detail}; held: stops before its next part")
    without_hold = row.detail if row.state == "absent" else f"{row.state}: {row.detail}"
    detail = f"since {moment(since)} UTC; {without_hold}"
    return replace(row, state="held", held_since=since, detail=detail, otherwise=row)
