"""What people and scripts find next to what they dropped.

For a set `karmic`, in the order in which they appear when all goes well:

- `karmic.uec.log`    appended from the first attempt on: what a person reads, in UTC, a block per attempt
- `karmic.uec.json`   replaced at each change of state: what a program reads
- `karmic.eki`, `karmic.eri`   the ids of kernel and ramdisk, a line each
- `karmic.emi`        last, and on success only: so its existence proves all of the above

and `karmic.uec.error` while something is wrong. They are copies for people: nothing here is ever believed.
"""

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from uecwatchd.errors import UecError, words_of
from uecwatchd.events import Event, Progress
from uecwatchd.intake.spool import output_files
from uecwatchd.ledger.records import Failure, MemberRecord, SetRecord
from uecwatchd.outputs.progress import Pacer, seconds_left
from uecwatchd.system import digests
from uecwatchd.system.text import json_text, printable, shell_word
from uecwatchd.types import Role, SetId

JSON_VERSION = 1
# Often enough for a person who looks again and again, seldom enough not to matter to the disk.
PROGRESS_EVERY_SECONDS = 5.0
# From the last to appear to the first, so that taking them away keeps the promise as well.
ID_SUFFIXES: Mapping[Role, str] = {"machine": ".emi", "ramdisk": ".eri", "kernel": ".eki"}


@dataclass(frozen=True, slots=True)
class LogFile:
    """The monitor that writes `NAME.uec.log`. A log that cannot be written stops nobody's work."""

    folder: Path
    name: str

    def tell(self, event: Event) -> None:
        lines = [f"{moment(datetime.now(UTC))}  {event.sentence}"]
        if hint := event.fields.get("hint"):
            lines.append(f"{'':20}  {hint}")
        if request := event.fields.get("request_id"):
            lines.append(f"{'':20}  The cloud's request id: {request}")
        # A newline or an escape in a file's name shall not look like a line of ours, nor reach a terminal.
        self._append("".join(f"{printable(line)}\n" for line in lines))

    def progress(self, progress: Progress) -> None:
        """Not kept: a log is read afterwards, when only what came of it matters."""

    def begin(self, attempt: int, *, started: float) -> None:
        self._append(f"--- attempt {attempt}, {moment(started)} UTC\n")

    def _append(self, text: str) -> None:
        try:
            output_files.append(self.folder, f"{output_files.output_stem(self.name)}.uec.log", text)
        except UecError:
            return  # the same trouble meets `publish`, which says so


class ReportFile:
    """The monitor that keeps the progress in `NAME.uec.json` fresh while one stage of a record runs."""

    def __init__(self, record: SetRecord, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._record = record
        self._clock = clock
        self._written = clock()
        self._pacer = Pacer()

    def tell(self, event: Event) -> None:
        """Nothing: a change of state is published with its record."""

    def progress(self, progress: Progress) -> None:
        now = self._clock()
        speed = self._pacer.speed(progress, now)
        if now - self._written < PROGRESS_EVERY_SECONDS:
            return
        self._written = now
        stem = output_files.output_stem(self._record.name)
        told = as_json(self._record, progress_as_json(progress, speed))
        with suppress(output_files.Taken):  # told when the stage is over
            output_files.place(Path(self._record.folder), f"{stem}.uec.json", _encoded(told))


def moment(when: datetime | float) -> str:
    if isinstance(when, float):
        when = datetime.fromtimestamp(when, UTC)
    return when.strftime("%Y-%m-%d %H:%M:%S")


def publish(record: SetRecord) -> tuple[output_files.Taken, ...]:
    """Bring the files beside the image up to what the record says, in the promised order.

    Returns which of them could not be written since somebody else has put something in their place: that
    keeps back none of the others.
    """
    if record.state == "waiting":  # whatever was registered was made of other files than it waits for
        retract(record)
    taken = []
    for write in _writing(record):
        try:
            write()
        except output_files.Taken as error:
            taken.append(words_of(error))
    return tuple(taken)


def _writing(record: SetRecord) -> Iterator[Callable[[], None]]:
    folder, stem = Path(record.folder), output_files.output_stem(record.name)
    if record.error:
        yield partial(output_files.place, folder, f"{stem}.uec.error", write_failure(record, record.error))
    yield partial(output_files.place, folder, f"{stem}.uec.json", write_report(record))
    if record.error:
        return
    yield partial(output_files.remove, folder, f"{stem}.uec.error")
    if record.state == "done":
        # The ids prove that there is a log, that it is ours, and that a power cut takes none of it.
        yield partial(output_files.append, folder, f"{stem}.uec.log", "", lasting=True)
        for role, suffix in reversed(list(ID_SUFFIXES.items())):
            if image_id := record.image_id(role):
                yield partial(output_files.place, folder, stem + suffix, f"{image_id}\n".encode())


def check_names(record: SetRecord) -> None:
    """Raises Taken when the set's owner has put something in an output's place, who can take it away again:
    known before any work is done. What others put there keeps nobody's set from its cloud."""
    for suffix in output_files.OUTPUT_SUFFIXES:
        try:
            output_files.check_free(Path(record.folder), output_files.output_stem(record.name) + suffix)
        except output_files.Taken as error:
            if error.owner == record.owner:
                raise


def is_remarked(record: SetRecord, taken: output_files.Taken) -> bool:
    return any(remark.startswith(f"{taken.what}: ") for remark in record.remarks)


def untaken(record: SetRecord, planted: Collection[str]) -> SetRecord:
    """The record without its remarks on outputs whose names were taken and are no more."""
    names = (output_files.output_stem(record.name) + suffix for suffix in output_files.OUTPUT_SUFFIXES)
    freed = tuple(output_files.taken_words(name) for name in names if name not in planted)
    remarks = tuple(remark for remark in record.remarks if not remark.startswith(freed))
    return replace(record, remarks=remarks)


def retract(record: SetRecord) -> None:
    """Take the ids away, the last to appear first: the files that they were made of have changed."""
    stem = output_files.output_stem(record.name)
    for suffix in ID_SUFFIXES.values():
        with suppress(output_files.Taken):
            output_files.remove(Path(record.folder), stem + suffix)


def clear(record: SetRecord) -> None:
    """Take everything of ours away that lies beside where a set's files were; what is not ours stays."""
    stem = output_files.output_stem(record.name)
    for suffix in (*ID_SUFFIXES.values(), ".uec.error", ".uec.json", ".uec.log"):
        with suppress(output_files.Taken):
            output_files.remove(Path(record.folder), stem + suffix)


def write_report(record: SetRecord) -> bytes:
    """The JSON beside the image. Sizes in bytes, times in UTC, null where there is nothing to say."""
    return _encoded(as_json(record))


def _encoded(told: Mapping[str, object]) -> bytes:
    return (json_text(told) + "\n").encode()


def read_report(data: bytes) -> Mapping[str, Any]:
    """What `write_report` wrote. Raises ValueError for anything else."""
    report = json.loads(data)
    if not isinstance(report, dict) or report.get("version") != JSON_VERSION:
        raise ValueError("not a report of this version")
    return report


def as_json(record: SetRecord, progress: Mapping[str, object] | None = None) -> dict[str, object]:
    """`progress` is what `progress_as_json` gives, while a stage is under way."""
    return {
        "version": JSON_VERSION,
        "set": record.name,
        "state": record.state,
        "since": instant(record.since),
        "stage": record.stage,
        "attempt": record.attempt,
        "next_retry": instant(record.next_retry),
        "waiting_for": record.reason if record.state == "waiting" else None,
        "cloud": record.cloud,
        "bucket": record.bucket,
        "arch": record.arch,
        "ids": {role: record.image_id(role) or None for role in ID_SUFFIXES},
        "members": [_member(member) for member in record.members],
        "manifests": [member.manifest for member in record.members if member.manifest],
        "progress": progress,
        "remarks": list(record.remarks),
        "without_effect_yet": list(record.idle),
        "error": _failure(record.error),
    }


def progress_as_json(progress: Progress, speed: float) -> dict[str, object]:
    """Sizes and `speed` in bytes, null where it is not known yet."""
    p, left = progress, seconds_left(done=progress.done, total=progress.total, speed=speed)
    return {
        "stage": p.stage,
        "file": p.file or None,
        "part": p.part or None,
        "done": p.done,
        "total": p.total,
        "rate": round(speed) or None,
        "seconds_left": None if left is None else round(left),
    }


def _member(member: MemberRecord) -> dict[str, object]:
    return {
        "role": member.role,
        "file": member.path,
        "size": member.size,
        **digests.named(member.sha256),
        "id": member.image_id or None,
        "manifest": member.manifest or None,
    }


def _failure(error: Failure | None) -> dict[str, str] | None:
    if error is None:
        return None
    told = {"class": error.kind, "what": error.what, "why": error.why, "hint": error.hint}
    return {**told, "request_id": error.request_id} if error.request_id else told


def instant(when: float | None) -> str | None:
    return None if when is None else datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_failure(record: SetRecord, error: Failure) -> bytes:
    """A paragraph each for what went wrong, for the reason, and for what comes next."""
    what, why, hint = (printable(text) for text in (error.what, error.why, error.hint))
    request = f"\nThe cloud's request id: {printable(error.request_id)}" if error.request_id else ""
    paragraphs = (f"{what}.", f"Why: {why}.{request}", f"{hint}\n{when_again(record)}")
    return ("\n\n".join(paragraphs) + "\n").encode("utf-8", "backslashreplace")


def order(verb: str, set_id: SetId) -> str:
    """The command for a set, as hints give it. With its folder: another folder may have the name, or may have
    it by the time that the hint is read."""
    return f"uecwatchd {verb} {shell_word(str(set_id))}"


def when_again(record: SetRecord) -> str:
    if record.state == "deferred" and record.next_retry is not None:
        return f"It is tried again at {moment(record.next_retry)} UTC (attempt {record.attempt + 1})."
    if record.state == "deferred":
        return "Nothing is lost: it is tried again as soon as the cloud answers."
    if record.state == "halted":
        return "Nothing is lost: it is tried again as soon as the cloud can be used."
    return f"It is tried again when its files change, or after: {order('retry', record.id)}"
