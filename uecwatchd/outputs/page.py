"""The page about all sets, for a web server to show: one file, without scripts or anything from elsewhere.

The template writes everything through `_printable`, and then escapes it for HTML. So a name can neither hide
other text, turn its direction, nor become a tag.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from uecwatchd.events import Progress
from uecwatchd.ledger.history import AttemptRecord
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.sessions import HostSession
from uecwatchd.ledger.standing import PARTLY, by_cloud
from uecwatchd.outputs.fleet_overview import MOST_SETS
from uecwatchd.outputs.overview import STATES, Overview, choose, count_states
from uecwatchd.outputs.progress import TrackedProgress
from uecwatchd.outputs.result_files import instant
from uecwatchd.outputs.situation import Situation
from uecwatchd.outputs.wording import (
    amounts,
    build_words,
    duration,
    host_words,
    moment,
    next_attempt,
    time_left,
)
from uecwatchd.system.extras import optional_library
from uecwatchd.system.text import format_size, printable
from uecwatchd.types import ID_WORDS, Role

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATE = "page.html"
# The page is written at least this often while the service runs, so that its age says if it does.
RENEW_SECONDS = 60.0
# A browser loads it again as often.
REFRESH_SECONDS = 60
# Of one sentence. More of an error is in the log of the set, and in the JSON.
LONGEST_TEXT_CHARS = 600


@dataclass(frozen=True, slots=True)
class SetOnCloud:
    """One set on one of several clouds, on the page."""

    cloud: str
    state: str
    ids: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PageHost:
    """One of several hosts on the page: its service, the numbers of its sets, and what is unusual there."""

    session: HostSession
    numbers: tuple[tuple[str, int], ...]
    words: str


@dataclass(frozen=True, slots=True)
class PageSet:
    """One set on the page."""

    record: SetRecord
    state: str
    age: str
    ids: tuple[tuple[str, str], ...]  #: what each is, EMI, EKI or ERI, and the id
    again: str  #: when it is tried again
    progress: Progress | None = None
    progress_words: str = ""
    clouds: tuple[SetOnCloud, ...] = ()  #: if there are several
    waits_for: str = ""


def render_page(overview: Overview) -> bytes:
    """Return the page as HTML. Raises Halted if the library for it is missing."""
    situation, counts = overview.everywhere, overview.count_everywhere()
    chosen = choose(situation, MOST_SETS)
    text = _template().render(
        overview=overview,
        situation=situation,
        counts={state: number for state, number in counts.items() if number},
        sets=[_set(record, situation, overview) for record in chosen],
        left_out=max(0, sum(counts.values()) - len(chosen)),
        hosts=[_host(one, overview) for one in overview.fleet.hosts],
        refresh=REFRESH_SECONDS,
        renewed_within=duration(2 * RENEW_SECONDS),
    )
    return text.encode("utf-8", "backslashreplace")


def _host(one: HostSession, overview: Overview) -> PageHost:
    is_own = one.host == overview.fleet.host
    counts = count_states(overview.situation) if is_own else overview.fleet.counts_of(one.host)
    numbers = tuple((state, counts[state]) for state in STATES if counts.get(state))
    return PageHost(one, numbers, host_words(one))


def _set(record: SetRecord, situation: Situation, overview: Overview) -> PageSet:
    state = situation.state_of(record)
    tracked = overview.progress_of(record.id) if state == "working" else None
    return PageSet(
        record,
        state,
        duration(overview.moment - (situation.holds[record.id] if state == "held" else record.since)),
        _ids({image.role: image.image_id for image in record.target.images}),
        next_attempt(record) if record.error and state in (record.state, PARTLY) else "",
        tracked.latest if tracked else None,
        _progress_words(tracked) if tracked else "",
        tuple(map(_on_cloud, by_cloud(record))) if len(record.current) > 1 else (),
        build_words(record.build, overview.moment) if record.awaits_build and record.build else record.reason,
    )


def _on_cloud(record: SetRecord) -> SetOnCloud:
    ids = _ids({image.role: image.image_id for image in record.target.images})
    optional = "" if record.target.is_required else ", best effort"
    return SetOnCloud(f"{record.cloud}{optional}", record.state, ids if record.state == "done" else ())


def _ids(by_role: Mapping[Role, str]) -> tuple[tuple[str, str], ...]:
    return tuple((word.upper(), by_role[role]) for role, word in ID_WORDS.items() if by_role.get(role))


def _progress_words(tracked: TrackedProgress) -> str:
    p, speed = tracked.latest, tracked.speed
    reached = amounts(part=p.part, done=p.done, total=p.total, speed=speed)
    return ", ".join((*reached, *time_left(done=p.done, total=p.total, speed=speed)))


def _attempt_ids(attempt: AttemptRecord) -> tuple[tuple[str, str], ...]:
    return _ids(attempt.ids)


def _printable(value: object) -> object:
    """Return what the template writes: text of others is made printable, and no longer than a paragraph."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    shown = value if len(value) <= LONGEST_TEXT_CHARS else f"{value[:LONGEST_TEXT_CHARS]}…"
    return printable(shown)


@cache
def _template() -> "Template":
    with optional_library("page", what="outputs.page: cannot write the page"):
        from jinja2 import Environment, PackageLoader, StrictUndefined
    environment = Environment(
        loader=PackageLoader("uecwatchd", "outputs"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"size": format_size, "moment": moment, "instant": instant, "duration": duration}
    environment.filters |= {"ids": _attempt_ids}
    return environment.get_template(TEMPLATE)
