"""The answer for people, and for programs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from uecwatchd.cli.status.answer import StatusAnswer
from uecwatchd.cli.status.rows import Row, speed_of
from uecwatchd.errors import problem
from uecwatchd.events import Progress
from uecwatchd.images import digests
from uecwatchd.images.reading import describe
from uecwatchd.intake.spool.output_files import is_output
from uecwatchd.ledger.records import BuildSource, MemberRecord, SetRecord, TargetImage
from uecwatchd.ledger.standing import by_cloud, shown_state
from uecwatchd.outputs import result_files
from uecwatchd.outputs.wording import (
    attempt,
    describe_image,
    moment,
    next_attempt,
    request_id,
)
from uecwatchd.system.text import format_size, printable

# Leaves space for the reason on a normal terminal; a longer name only moves its own line.
NAME_COLUMNS = 40
HEADING = ("SET", "STATE", "")


def row_json(row: Row, *, host: str = "") -> dict[str, object]:
    """Return a row for programs: sizes in bytes, times in UTC, null for missing values.

    `host` is this one, where several have one ledger.
    """
    record, hold = _current_record(row), row.held_since
    fields: dict[str, object] = {
        **result_files.place_json(row.id, host),
        "name": row.name,
        "state": row.state,
        "detail": row.detail,
        "hint": row.hint or None,
        "files": list(row.files),
        "held_since": result_files.instant(hold),
        "seconds_to_go": None if row.to_go is None else round(row.to_go, 1),
        "next_retry": result_files.instant(record.next_retry) if record else None,
        "cloud_asked": result_files.instant(row.probe_at),
        "progress": _progress(row),
    }
    return {**fields, "report": result_files.as_json(record)} if record else fields


def _current_record(row: Row) -> SetRecord | None:
    """Return the record, without the time of the next attempt if the set is held or requested now."""
    record = row.record
    return replace(record, next_retry=None) if record and shown_state(record) != row.state else record


def _progress(row: Row) -> dict[str, object] | None:
    a = row.progress
    if a is None:
        return None
    return result_files.progress_as_json(
        Progress(row.id, a.stage, a.file, a.done, a.total, a.part), speed_of(a)
    )


def answer_lines(answer: StatusAnswer) -> list[str]:
    """Return the rows of an answer as plain lines."""
    if answer.asked:
        return [line for row in answer.rows for line in details(row, asked=answer.asked)]
    return table(tuple(answer.groups())) if answer.rows else []


def table(groups: Sequence[tuple[str, Sequence[Row]]]) -> list[str]:
    """Return one line for each row, below the heading of its group, if that has one."""
    names = [len(printable(row.name)) for _, rows in groups for row in rows]
    width = min(max(len(HEADING[0]), *names, 0), NAME_COLUMNS)
    lines = [_line(HEADING, width)]
    for heading, rows in groups:
        lines += [printable(heading)] if heading else []
        lines += [_line((printable(row.name), row.state, printable(row.detail)), width) for row in rows]
    return lines


def _line(cells: tuple[str, str, str], width: int) -> str:
    name, state, detail = cells
    return f"{name:<{width}}  {state:<8}  {detail}".rstrip()


def details(row: Row, *, asked: str) -> list[str]:
    """Return all facts about one name, in lines; `asked` is the name in the question."""
    return [
        *_relation(row, asked.rstrip("/").rpartition("/")[2]),
        f"{row.name}: {row.state}",
        f"  {row.detail}",
        *_more(row),
    ]


def _relation(row: Row, asked: str) -> Iterator[str]:
    if asked in (row.name, printable(row.name)) or not row.is_set:
        return
    if is_output(asked):
        yield f"{asked} is a result file of the set {row.name}."
    else:
        yield f"{asked} is a file of the set {row.name}."


def _more(row: Row) -> Iterator[str]:
    yield f"  in {row.folder}{': ' if row.files else ''}{', '.join(row.files)}"
    if row.host_words:
        yield f"  {row.host_words}"
    record = row.record
    if record is None:
        return
    tried = f", {attempt(record)}" if record.attempt else ""
    state = shown_state(record)
    before = "" if row.state == state else "before that "
    yield f"  {before}{state} since {moment(record.since)} UTC{tried}"
    if record.build:
        yield f"  installed from {', '.join(map(_source, record.build.sources))}"
    if record.inspection:
        yield f"  it is {describe_image(record.inspection)}"
        errors = (finding for finding in record.inspection.findings if finding.severity == "error")
        yield from (f"  not ready: {finding.sentence}" for finding in errors)
    for one in by_cloud(record):
        yield from _on_cloud(row, one, is_current=row.state == state)


def _on_cloud(row: Row, record: SetRecord, *, is_current: bool) -> Iterator[str]:
    """Yield the facts about a set on one cloud; the name of the cloud first, if there are several."""
    if len(record.current) > 1:
        optional = "" if record.target.is_required else ", best effort"
        yield f"  cloud {record.cloud}{optional}: {record.state}"
    yield from (_member(member, record.target.image(member.role)) for member in record.members)
    if error := record.error:
        sentences = (problem(error), error.hint)
        yield from (f"  {text}" for text in sentences if text not in row.detail)
        if error.request_id:
            yield f"  {request_id(error.request_id)}"
        if is_current:
            yield f"  {next_attempt(record)}"
    yield from (f"  not done: {remark}" for remark in record.target.remarks)


def _source(source: BuildSource) -> str:
    return f"{source.name} ({digests.describe(source.digest)})"


def _member(member: MemberRecord, image: TargetImage) -> str:
    place = f" {image.image_id} at {image.manifest}" if image.image_id else ""
    kind = f" in a {member.container}" if member.container else ""
    changes = f", prepared with {len(member.prepared)} changes" if member.prepared else ""
    words = f"{describe(member.how, member.path)} ({format_size(member.size)}{kind}{changes})"
    return f"  {member.role}: {words}{place}"
