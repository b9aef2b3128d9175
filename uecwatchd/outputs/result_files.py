"""Result files beside the dropped files, for people and scripts.

For a set `karmic`, in the order in which they appear on success:

- `karmic.uec.log`    for people: appended from the first attempt on, in UTC, one block for each attempt
- `karmic.uec.json`   for programs: replaced at each change of state
- `karmic.eki`, `karmic.eri`   the ids of kernel and ramdisk, one line each
- `karmic.emi`        last, and only on success: so its existence proves all of the above
- `karmic.latest`     where the configuration keeps several images of a set: the one to be used now. It stays
  while a newer one is made, and follows a rollback

and while something is wrong `karmic.uec.error`, and `karmic.uec.png` with the screen of an installation that
has failed. They are only copies: the service never reads them.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from uecwatchd.errors import UecError, words_of
from uecwatchd.events import Event, Progress
from uecwatchd.images import digests
from uecwatchd.intake.spool import output_files
from uecwatchd.ledger.records import Failure, MemberRecord, SetBuild, SetRecord, TargetImage
from uecwatchd.ledger.standing import by_cloud, combine, is_published, shown_state
from uecwatchd.outputs.progress import ProgressTracker, Snapshot, seconds_left
from uecwatchd.outputs.wording import failure_paragraphs, moment, request_id
from uecwatchd.system.text import json_text, printable
from uecwatchd.types import ID_WORDS, Role, SetId

JSON_VERSION = 1
LATEST_SUFFIX = ".latest"
SCREENSHOT_SUFFIX = ".uec.png"
# Often enough for a person who watches, and a small load for the disk.
PROGRESS_EVERY_SECONDS = 5.0
# From the last to the first, so that removing them keeps the promise too.
ID_SUFFIXES: Mapping[Role, str] = {role: f".{word}" for role, word in ID_WORDS.items()}
_SET_IDS = tuple(ID_SUFFIXES.values())


@dataclass(frozen=True, slots=True)
class LogFile:
    """Listener that writes `NAME.uec.log`. A failed write does not stop the work."""

    id: SetId

    def tell(self, event: Event) -> None:
        lines = [f"{moment(datetime.now(UTC))}  {event.sentence}"]
        if hint := event.fields.get("hint"):
            lines.append(f"{'':20}  {hint}")
        if request := event.fields.get("request_id"):
            lines.append(f"{'':20}  {request_id(str(request))}")
        # A newline or an escape in a file's name must not look like our own line, or reach a terminal.
        self._append("".join(f"{printable(line)}\n" for line in lines))

    def progress(self, progress: Progress) -> None:
        """Ignore progress: a log is read afterwards, when only the result matters."""

    def add_lines(self, lines: Iterable[str]) -> None:
        """Write lines of somebody else, such as those of a console."""
        self._append("".join(f"{'':20}  {printable(line)}\n" for line in lines))

    def begin(self, attempt: int, *, started: float, goes_on: bool = False) -> None:
        """Begin the block of an attempt, or one more that goes on after a wait."""
        self._append(f"--- attempt {attempt}{' goes on' if goes_on else ''}, {moment(started)} UTC\n")

    def _append(self, text: str) -> None:
        try:
            stem = output_files.output_stem(self.id.name)
            output_files.append(Path(self.id.folder), f"{stem}.uec.log", text)
        except UecError:
            return  # `publish` meets the same error, and reports it


@contextmanager
def progress_in_report(tracker: ProgressTracker, record: SetRecord) -> Iterator[None]:
    """Keep the progress in `NAME.uec.json` up to date during one stage of a record."""

    def write(snapshot: Snapshot) -> None:
        stem = output_files.output_stem(record.name)
        for tracked in snapshot:
            report = as_json(combine(record), progress_as_json(tracked.latest, tracked.speed))
            with suppress(output_files.NameTaken):  # reported at the end of the stage
                output_files.place(Path(record.folder), f"{stem}.uec.json", _encoded(report))

    with tracker.following(record.id, write, every_seconds=PROGRESS_EVERY_SECONDS):
        yield


def publish(record: SetRecord) -> tuple[output_files.NameTaken, ...]:
    """Update the files beside the image from the record, in the promised order.

    Returns the files that could not be written because somebody else's file has their name; the others are
    still written.
    """
    record = combine(record)
    if record.state == "waiting":  # a registered image was made of other files than it waits for
        retract_undone(record)
    _remove(record, _suffixes_by_cloud(_left_clouds(record)))
    taken = []
    for write in _writing(record):
        try:
            write()
        except output_files.NameTaken as error:
            taken.append(words_of(error))
    return tuple(taken)


def publish_report(record: SetRecord) -> None:
    """Update `NAME.uec.json` alone. Raises NameTaken."""
    stem = output_files.output_stem(record.name)
    output_files.place(Path(record.folder), f"{stem}.uec.json", write_report(combine(record)))


def _writing(record: SetRecord) -> Iterator[Callable[[], None]]:
    folder, stem = Path(record.folder), output_files.output_stem(record.name)
    failed = [one for one in by_cloud(record) if one.error and (one.target.is_required or not one.cloud)]
    if failed:
        yield partial(output_files.place, folder, f"{stem}.uec.error", write_failures(failed))
    yield partial(output_files.place, folder, f"{stem}.uec.json", write_report(record))
    if not failed:
        for suffix in (SCREENSHOT_SUFFIX, ".uec.error"):
            yield partial(output_files.remove, folder, f"{stem}{suffix}")
    if ids := _id_files(record):
        # The ids prove that there is a log, that it is ours, and that a power cut cannot remove any of it.
        yield partial(output_files.append, folder, f"{stem}.uec.log", "", lasting=True)
        for name, image_id in ids.items():
            yield partial(output_files.place, folder, name, f"{image_id}\n".encode())


def _id_files(record: SetRecord) -> Mapping[str, str]:
    """Return the ids to be written by the names of their files, in the order of writing.

    The id on each of several clouds comes first. Those of the set are the ones of its first cloud, once it
    is done on every required one.
    """
    stem = output_files.output_stem(record.name)
    seen = by_cloud(record)
    done = [(f"{stem}.{one.cloud}", one) for one in seen if one.state == "done" and len(seen) > 1]
    done += [(stem, record)] if record.state == "done" else []
    return {
        f"{name}{suffix}": image_id
        for name, one in done
        for role, suffix in reversed(list(ID_SUFFIXES.items()))
        if (image_id := one.image_id(role))
    }


def check_names(record: SetRecord) -> None:
    """Raise NameTaken, before any work, if the set's owner has put a file in place of a result file.

    The owner can remove it. A file of somebody else does not stop the set.
    """
    stem = output_files.output_stem(record.name)
    for name in (*(stem + suffix for suffix in output_files.OUTPUT_SUFFIXES), *_names_by_cloud(record)):
        try:
            output_files.check_free(Path(record.folder), name)
        except output_files.NameTaken as error:
            if error.owner == record.owner:
                raise


def is_remarked(record: SetRecord, taken: output_files.NameTaken) -> bool:
    remarks = (remark for target in record.current for remark in target.remarks)
    return any(remark.startswith(f"{taken.what}: ") for remark in remarks)


def without_freed_names(record: SetRecord, planted: Collection[str]) -> SetRecord:
    """Return the record without remarks about taken names that are free now."""
    stem = output_files.output_stem(record.name)
    names = (*(stem + suffix for suffix in output_files.OUTPUT_SUFFIXES), *_names_by_cloud(record))
    freed = tuple(output_files.taken_words(name) for name in names if name not in planted)
    for target in record.current:
        remarks = tuple(remark for remark in target.remarks if not remark.startswith(freed))
        record = record.with_target(replace(target, remarks=remarks))
    return record


def retract(record: SetRecord) -> None:
    """Remove the ids, in reverse order, because their files have changed."""
    _remove(record, [*_SET_IDS, *_suffixes_by_cloud(_named_clouds(record))])


def retract_undone(record: SetRecord) -> None:
    """Remove the ids of the set unless they still hold, and those on clouds without its present files."""
    done = {one.cloud for one in by_cloud(record) if one.state == "done"}
    undone = [cloud for cloud in _named_clouds(record) if cloud not in done]
    _remove(record, [*(() if is_published(record) else _SET_IDS), *_suffixes_by_cloud(undone)])


def write_latest(set_id: SetId, image_id: str) -> None:
    """Write the id of the image to be used now. Raises NameTaken, and errors of the disk."""
    name = f"{output_files.output_stem(set_id.name)}{LATEST_SUFFIX}"
    output_files.place(Path(set_id.folder), name, f"{image_id}\n".encode())


def write_screenshot(record: SetRecord, content: bytes) -> str:
    """Write the screen of a failed installation, and return the file's name.

    Raises NameTaken, and errors of the disk.
    """
    name = f"{output_files.output_stem(record.name)}{SCREENSHOT_SUFFIX}"
    output_files.place(Path(record.folder), name, content)
    return name


def remove_screenshot(record: SetRecord) -> None:
    _remove(record, [SCREENSHOT_SUFFIX])


def remove_latest(set_id: SetId) -> None:
    """Remove the id of the image to be used, because there is none."""
    with suppress(output_files.NameTaken):
        name = f"{output_files.output_stem(set_id.name)}{LATEST_SUFFIX}"
        output_files.remove(Path(set_id.folder), name)


def clear(record: SetRecord) -> None:
    """Remove all our result files of a set; files of others stay."""
    ids = (*_SET_IDS, *_suffixes_by_cloud(_named_clouds(record)))
    _remove(record, [LATEST_SUFFIX, *ids, SCREENSHOT_SUFFIX, ".uec.error", ".uec.json", ".uec.log"])


def _remove(record: SetRecord, suffixes: Iterable[str]) -> None:
    stem = output_files.output_stem(record.name)
    for suffix in suffixes:
        with suppress(output_files.NameTaken):
            output_files.remove(Path(record.folder), stem + suffix)


def _names_by_cloud(record: SetRecord) -> list[str]:
    stem = output_files.output_stem(record.name)
    return [f"{stem}{suffix}" for suffix in _suffixes_by_cloud(_named_clouds(record))]


def _named_clouds(record: SetRecord) -> list[str]:
    """Return the clouds with ids in files of their own: none, if the set has had one cloud only."""
    return [target.cloud for target in record.targets] if len(record.targets) > 1 else []


def stems_by_cloud(record: SetRecord) -> list[str]:
    """Return the names, without suffix, of the files with the ids on each of several clouds."""
    stem = output_files.output_stem(record.name)
    return [f"{stem}.{cloud}" for cloud in _named_clouds(record)]


def _left_clouds(record: SetRecord) -> list[str]:
    """Return the clouds whose ids have no files of their own any more."""
    kept = [target.cloud for target in record.current] if len(record.current) > 1 else []
    return [cloud for cloud in _named_clouds(record) if cloud not in kept]


def _suffixes_by_cloud(clouds: Iterable[str]) -> list[str]:
    return [f".{cloud}{suffix}" for cloud in clouds for suffix in _SET_IDS]


def write_report(record: SetRecord) -> bytes:
    """Return the JSON beside the image: sizes in bytes, times in UTC, null for missing values."""
    return _encoded(as_json(record))


def _encoded(fields: Mapping[str, object]) -> bytes:
    return (json_text(fields) + "\n").encode()


def read_report(data: bytes) -> Mapping[str, Any]:
    """Parse the output of `write_report`. Raises ValueError for anything else."""
    report = json.loads(data)
    if not isinstance(report, dict) or report.get("version") != JSON_VERSION:
        raise ValueError("not a report of this version")
    return report


def as_json(record: SetRecord, progress: Mapping[str, object] | None = None) -> dict[str, object]:
    """Return the report as a dictionary; `progress` is from `progress_as_json`, while a stage runs."""
    return {
        "version": JSON_VERSION,
        "set": record.name,
        "state": shown_state(record),
        "since": instant(record.since),
        "stage": record.stage,
        "attempt": record.attempt,
        "next_retry": instant(record.next_retry),
        "waiting_for": record.reason if record.state == "waiting" else None,
        "clouds": [_on_cloud(one) for one in by_cloud(record) if one.cloud],
        "cloud": record.target.cloud,
        "bucket": record.target.bucket,
        "arch": record.arch,
        "ids": {role: record.image_id(role) or None for role in ID_SUFFIXES},
        "members": [_member(member, record.target.image(member.role)) for member in record.members],
        "manifests": [image.manifest for image in record.target.images if image.manifest],
        "progress": progress,
        "remarks": list(record.target.remarks),
        "without_effect_yet": [],
        "image": record.inspection.as_json() if record.inspection else None,
        "build": _build(record.build) if record.build else None,
        "error": _failure(record.error),
    }


def place_json(set_id: SetId, host: str) -> dict[str, object]:
    """Return the host and the folder of a set. `host` is this one, empty if it is the only one."""
    return {"host": set_id.host or host or None, "folder": set_id.there.folder}


def progress_as_json(progress: Progress, speed: float) -> dict[str, object]:
    """Return sizes and `speed` in bytes, null if unknown."""
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


def _member(member: MemberRecord, image: TargetImage) -> dict[str, object]:
    return {
        "role": member.role,
        "file": member.path,
        "origin": member.origin or None,
        "container": member.container or None,
        "part": member.how.partition(" ")[2] or None,
        "prepared": None if member.prepared is None else list(member.prepared),
        "size": member.size,
        **digests.json_fields(member.digest),
        "id": image.image_id or None,
        "manifest": image.manifest or None,
    }


def _build(build: SetBuild) -> dict[str, object]:
    """Return the installation of a set: how far it is, and what it is made of."""
    return {
        "key": build.key,
        "state": build.state,
        "stage": build.stage or None,
        "began": instant(build.began),
        "stage_began": instant(build.stage_began or None),
        "last_line": build.last_line or None,
        "sources": [
            {"use": one.use, "file": one.name, **digests.json_fields(one.digest)} for one in build.sources
        ],
    }


def _on_cloud(record: SetRecord) -> dict[str, object]:
    """Return the state of a set on one cloud."""
    return {
        "cloud": record.cloud,
        "required": record.target.is_required,
        "state": record.state,
        "since": instant(record.since),
        "stage": record.stage,
        "attempt": record.attempt,
        "next_retry": instant(record.next_retry),
        "waiting_for": record.reason if record.state == "waiting" else None,
        "bucket": record.target.bucket,
        "ids": {role: record.image_id(role) or None for role in ID_SUFFIXES},
        "manifests": [image.manifest for image in record.target.images if image.manifest],
        "remarks": list(record.target.remarks),
        "error": _failure(record.error),
    }


def _failure(error: Failure | None) -> dict[str, object] | None:
    if error is None:
        return None
    fields = {"class": error.kind, "what": error.what, "why": error.why, "hint": error.hint}
    more: Mapping[str, object] = {"request_id": error.request_id, "console": list(error.console)}
    return {**fields, **{key: value for key, value in more.items() if value}}


def instant(when: float | None) -> str | None:
    return None if when is None else datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_failures(failed: Iterable[SetRecord]) -> bytes:
    """Return the text of `NAME.uec.error`: the paragraphs of each error, once for all clouds that have it."""
    texts: dict[str, list[str]] = {}
    for record in failed:
        if record.error:
            texts.setdefault(failure_paragraphs(record, record.error), []).append(record.cloud)
    several = any(len(record.current) > 1 for record in failed)
    parts = (f"{_on(clouds) if several else ''}{text}" for text, clouds in texts.items())
    return "\n".join(parts).encode("utf-8", "backslashreplace")


def _on(clouds: Sequence[str]) -> str:
    return f"On {'cloud' if len(clouds) == 1 else 'the clouds'} {' and '.join(map(printable, clouds))}:\n\n"
