"""Wording that several outputs share: failures, next attempts, progress, and times.

The journal, the files beside an image, `status` and the other verbs say the same thing in the same words.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from uecwatchd.errors import UecError, problem
from uecwatchd.events import Event, Fields, Kind, Progress
from uecwatchd.images.guest.summary import ImageSummary
from uecwatchd.intake.sets.records import Member
from uecwatchd.ledger.history import StoryEntry
from uecwatchd.ledger.records import Failure, SetBuild, SetRecord, TargetRecord
from uecwatchd.ledger.sessions import LEASE_SECONDS, HostSession
from uecwatchd.ledger.standing import by_cloud
from uecwatchd.outputs.progress import Snapshot, seconds_left
from uecwatchd.system.text import format_size, printable, shell_word
from uecwatchd.types import SetId

MINUTE, HOUR = 60, 3600

KIND_OF_FAILURE: Mapping[str, Kind] = {
    "rejected": Kind.REJECTED,
    "deferred": Kind.DEFERRED,
    "halted": Kind.HALTED,
}


# --- times ------------------------------------------------------------------------------------------------


def moment(when: datetime | float) -> str:
    """Return a time in UTC, as `2009-10-29 23:30:05`."""
    if not isinstance(when, datetime):
        when = datetime.fromtimestamp(when, UTC)
    return when.strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float) -> str:
    """Return "40 s", "12 min", "3 h 20 min", with useful precision."""
    whole = max(0, round(seconds))
    if whole < 2 * MINUTE:
        return f"{whole} s"
    if whole < 2 * HOUR:
        return f"{whole // MINUTE} min"
    return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"


def from_now(when: float, now: float) -> str:
    return "now" if when <= now else f"in {duration(when - now)}"


# --- commands ---------------------------------------------------------------------------------------------


def host_words(one: HostSession) -> str:
    """Return what to know about a host whose sets are looked at; empty if its service works as usual."""
    if one.state == "silent":
        since = moment(one.lease_until - LEASE_SECONDS)
        return f"{one.host} is silent since {since} UTC: nothing is done there until its service runs again"
    if one.state == "stopped":
        since = f", since {moment(one.ended)} UTC" if one.ended else ""
        return f"the service of {one.host} does not run{since}"
    return f"{one.host} is drained: nothing new is begun there" if one.is_drained else ""


def command(verb: str, set_id: SetId, cloud: str = "") -> str:
    """Return the command for a set, or for it on one cloud, for hints.

    It has the folder, because another folder may have the same name, now or when the hint is read.
    """
    option = f" --cloud {shell_word(cloud)}" if cloud else ""
    return f"uecwatchd {verb} {shell_word(str(set_id))}{option}"


# --- failures ---------------------------------------------------------------------------------------------


def problem_and_hint(error: UecError | Failure) -> str:
    return f"{problem(error)}. {error.hint}"


def next_attempt(record: SetRecord) -> str:
    """Return a sentence that says when a failed set is tried again."""
    if record.state == "deferred" and record.next_retry is not None:
        return f"It is tried again at {moment(record.next_retry)} UTC (attempt {record.attempt + 1})."
    if record.state == "deferred":
        return "Nothing is lost: it is tried again as soon as the cloud answers."
    if record.state == "halted":
        return "Nothing is lost: it is tried again as soon as the cloud can be used."
    return f"It is tried again when its files change, or after: {command('retry', record.id)}"


def failure_event(record: SetRecord) -> Event:
    """Make the event of a failed set: what and why in the sentence itself, the hint as a field."""
    error = record.error or Failure("rejected", record.name, "unknown", "")
    fields: Fields = {
        "error": problem(error),
        "hint": f"{error.hint} {next_attempt(record)}",
        "attempt": record.attempt,
        "cloud": record.target.cloud,
        "stage": record.stage,
        "request_id": error.request_id,
    }
    return Event(
        KIND_OF_FAILURE[record.state],
        f"{record.name} is {record.state}{on_cloud(record)}: {problem(error)}",
        record.id,
        level="warning" if record.state == "deferred" else "error",
        fields={name: value for name, value in fields.items() if value},
    )


def ids_by_cloud(record: SetRecord) -> str:
    """Return the main image on each cloud that a set is done on, as a clause of a sentence."""
    done = (one for one in by_cloud(record) if one.state == "done")
    return " and ".join(f"{main_id(one.target)} on cloud {one.cloud}" for one in done)


def main_id(target: TargetRecord) -> str:
    """Return the id of the machine image, or of the only image."""
    ids = {image.role: image.image_id for image in target.images}
    return ids.get("machine") or ids.get("kernel") or ids.get("ramdisk", "")


def on_cloud(record: SetRecord) -> str:
    """Return " on cloud NAME" for a set that goes to several, otherwise nothing."""
    return f" on cloud {record.cloud}" if len(record.current) > 1 else ""


def failure_paragraphs(record: SetRecord, error: Failure) -> str:
    """Return one paragraph each for the problem, the reason, the next step, and a console if there is one."""
    what, why, hint = (printable(text) for text in (error.what, error.why, error.hint))
    request = f"\n{request_id(printable(error.request_id))}" if error.request_id else ""
    paragraphs = [f"{what}.", f"Why: {why}.{request}", f"{hint}\n{next_attempt(record)}\n"]
    if error.console:
        lines = "".join(f"    {printable(line)}\n" for line in error.console)
        paragraphs.append(f"The end of the console:\n{lines}")
    return "\n\n".join(paragraphs)


def failure_in_a_row(
    record: SetRecord, error: Failure, *, now: float, held: bool, probe_at: float | None, prober: str = ""
) -> str:
    """Return the detail of a failed set in a table. `probe_at` is the next probe of its cloud.

    `prober` is the host that makes it, if that is to be said.
    """
    if record.state == "deferred" and record.next_retry is not None and not held:
        again = f"again {from_now(record.next_retry, now)} ({attempt(record)} failed)"
        return f"{problem(error)}; {again}"
    by = f" by host {prober}" if prober else ""
    when = "" if probe_at is None else from_now(probe_at, now)
    asked = f" Cloud {record.target.cloud} is asked {when}{by}." if when else ""
    return f"{problem_and_hint(error)}{asked}"


def waiting_for(record: SetRecord) -> str:
    return f"waiting for {record.reason}"


def wait_events(before: SetRecord | None, after: SetRecord) -> Iterator[Event]:
    """Yield an event for each cloud that a set waits for now with a new reason."""
    seen = by_cloud(before) if before else ()
    known = {(one.cloud, one.reason) for one in seen if one.awaits_requirements}
    for one in by_cloud(after):
        if one.awaits_requirements and (one.cloud, one.reason) not in known:
            what = f"{one.name}: {waiting_for(one)}{on_cloud(one)}"
            yield Event(Kind.WAITING, what, one.id, fields={"cloud": one.cloud})


def build_words(build: SetBuild, now: float) -> str:
    """Return how far an installation is: its stage, the time of that, and the last line of the console."""
    if build.state == "queued":
        return "its system to be installed; the worker has not begun yet"
    last = f": {build.last_line}" if build.last_line else ""
    return f"its system to be installed; {build.stage} for {duration(now - build.stage_began)}{last}"


def request_id(text: str) -> str:
    return f"The cloud's request id: {text}"


def attempt(record: SetRecord) -> str:
    return f"attempt {record.attempt}"


def with_hint(event: Event | StoryEntry) -> str:
    """Return the event's sentence with its hint, so that this line alone is enough to act on."""
    hint = str(event.fields.get("hint", ""))
    if not hint or hint in event.sentence:
        return event.sentence
    return f"{event.sentence.removesuffix('.')}. {hint}"


# --- progress ---------------------------------------------------------------------------------------------


def amounts(*, part: int, done: int, total: int, speed: float) -> tuple[str, ...]:
    """Return "part 37", "31 %", "84.0 MB/s", as far as they are known."""
    known = []
    if part:
        known.append(f"part {part}")
    if total:
        known.append(f"{100 * done // total} %")
    if speed:
        known.append(f"{speed / 1e6:.1f} MB/s")
    return tuple(known)


def time_left(*, done: int, total: int, speed: float) -> tuple[str, ...]:
    """Return "12 min left", or nothing while it is not known."""
    left = seconds_left(done=done, total=total, speed=speed)
    return () if left is None else (f"{duration(left)} left",)


def phrase(progress: Progress, *, speed: float) -> str:
    """Return `karmic: upload the machine, part 37, 31 %, 84 MB/s`, as far as it is known.

    A stage without amounts may have a last line of a console.
    """
    p = progress
    known = amounts(part=p.part, done=p.done, total=p.total, speed=speed) or ((p.file,) if p.file else ())
    return printable(", ".join([f"{p.set.name}: {p.stage}", *known]))


def phrases(snapshot: Snapshot) -> str:
    return "; ".join(phrase(tracked.latest, speed=tracked.speed) for tracked in snapshot)


def describe_image(summary: ImageSummary) -> str:
    """Return what an image is, in one line."""
    layout = {"disk": "a whole disk", "partition": "one file system"}.get(summary.layout, summary.layout)
    words = [layout]
    if summary.system:
        words.append(f"with {summary.system}{f' for {summary.arch}' if summary.arch else ''}")
    if summary.kernel:
        words.append(f"kernel {summary.kernel}")
    if summary.layout == "disk":
        ways = " and ".join(way.upper() for way in summary.boots_by)
        words.append(f"boots by {ways}" if ways else "does not boot by itself")
    return ", ".join(words)


def describe_size(member: Member) -> str:
    """Return the size of a member in words, of the file and of the disk in it."""
    size, stored = format_size(member.size), format_size(member.stamp.size)
    if not member.container:
        return size
    if member.facts.disk is None or member.facts.disk.size is None:
        return f"compressed with {member.container}, {stored}"
    return f"{size} in {'an' if member.container == 'xz' else 'a'} {member.container} of {stored}"
