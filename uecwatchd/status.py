"""What to answer when somebody asks: why not yet?

Every name in a spool folder gets a row: a set with its state, a file that is in no set with the reason, a
file that is passed over with the pattern. The ledger says what has been done; a fresh look at the folder says
what lies there, also when no daemon runs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from uecwatchd import report
from uecwatchd.image import amount
from uecwatchd.imageset import Assembly, ImageSet
from uecwatchd.ledger import SetRecord
from uecwatchd.rounds import GONE
from uecwatchd.spool import Listing, is_output

# What is left for the reason on a terminal of usual width; a longer name pushes its own line only.
NAME_COLUMNS = 40


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the answer. `record` is there for sets that have one."""

    folder: str
    name: str
    state: str
    detail: str
    record: SetRecord | None = None


def rows(listing: Listing, assembly: Assembly, records: Iterable[SetRecord]) -> tuple[Row, ...]:
    """The rows of one folder: sets by name, then what is in no set."""
    folder = str(listing.folder)
    known = {record.name: record for record in records if record.folder == folder}
    sets = {row.name: row for row in _unseen(folder, assembly, known)}
    sets.update({name: _of_record(record) for name, record in known.items()})
    others = [Row(folder, m.path, "misfit", m.reason) for m in assembly.misfits]
    # Ours are what the row of their set is about; those of somebody else are among the misfits.
    passed = {path: why for path, why in listing.ignored.items() if "/" in path or not is_output(path)}
    others += [Row(folder, path, "ignored", _why_ignored(why)) for path, why in passed.items()]
    return (*(sets[name] for name in sorted(sets)), *sorted(others, key=lambda row: row.name))


def _why_ignored(why: str) -> str:
    return why if " " in why else f"its name matches {why}"


def _unseen(folder: str, assembly: Assembly, known: Mapping[str, SetRecord]) -> Iterable[Row]:
    for found in assembly.ready:
        record = known.get(found.name)
        if record is None:
            yield Row(folder, found.name, "new", f"complete: {plan(found)}")
    for waiting in assembly.waiting:
        if waiting.name not in known:
            yield Row(folder, waiting.name, "waiting", f"for {waiting.reason}")
    for refused in assembly.refused:
        if refused.name not in known:
            error = refused.error
            yield Row(folder, refused.name, "rejected", f"{error.what}: {error.why}. {error.hint}")


def plan(found: ImageSet) -> str:
    """What is to be done with a set that is complete."""
    parts = [f"{member.role} {member.path} ({amount(member.size)})" for member in found.members]
    cloud = found.sidecar.clouds[0]
    return f"to be registered on cloud {cloud}, in bucket {found.sidecar.bucket}: {', '.join(parts)}"


def _of_record(record: SetRecord) -> Row:
    return Row(record.folder, record.name, record.state, _detail(record), record)


def _detail(record: SetRecord) -> str:
    if record.reason == GONE:
        return GONE
    if record.state == "waiting":
        return f"for {record.reason}, since {report.moment(record.since)} UTC"
    if record.error:
        return f"{record.error.what}: {record.error.why}"
    if record.state == "done":
        ids = ", ".join(m.image_id for m in record.members[::-1])
        return f"{ids} ({record.reason})" if record.reason else ids
    return f"{record.stage} (attempt {record.attempt})" if record.stage else f"attempt {record.attempt}"


def as_json(row: Row) -> dict[str, object]:
    told: dict[str, object] = {
        "folder": row.folder,
        "name": row.name,
        "state": row.state,
        "detail": row.detail,
    }
    return {**told, "report": report.as_json(row.record)} if row.record else told


def table(found: Iterable[Row]) -> list[str]:
    """Columns for people; one line a row."""
    lines = [("SET", "STATE", ""), *((row.name, row.state, row.detail) for row in found)]
    width = min(max(len(name) for name, _, _ in lines), NAME_COLUMNS)
    return [f"{name:<{width}}  {state:<8}  {detail}".rstrip() for name, state, detail in lines]


def story(row: Row) -> list[str]:
    """All there is to say about one name, in lines."""
    lines = [f"{row.name}: {row.state}", f"  {row.detail}"]
    if record := row.record:
        lines += [f"  since {report.moment(record.since)} UTC, attempt {record.attempt}"]
        lines += [_member_line(record, role) for role in ("kernel", "ramdisk", "machine")]
        if record.error:
            lines += [f"  {record.error.hint}", f"  {report.when_again(record)}"]
        lines += [f"  not done: {remark}" for remark in record.remarks]
        if record.idle:
            lines += [f"  no effect yet: {', '.join(record.idle)}"]
    return [line for line in lines if line.strip()]


def _member_line(record: SetRecord, role: str) -> str:
    member = next((m for m in record.members if m.role == role), None)
    if member is None:
        return ""
    place = f" {member.image_id} at {member.manifest}" if member.image_id else ""
    return f"  {role}: {member.path} ({amount(member.size)}){place}"
