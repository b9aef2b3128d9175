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
from uecwatchd.ledger.standing import PARTLY, by_cloud
from uecwatchd.outputs.overview import Overview, choose, count_states
from uecwatchd.outputs.overview_json import MOST_SETS
from uecwatchd.outputs.progress import TrackedProgress
from uecwatchd.outputs.result_files import instant
from uecwatchd.outputs.wording import amounts, build_words, duration, moment, next_attempt, time_left
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
    situation = overview.situation
    chosen = choose(situation, MOST_SETS)
    text = _template().render(
        overview=overview,
        situation=situation,
        counts={state: number for state, number in count_states(situation).items() if number},
        sets=[_set(record, overview) for record in chosen],
        left_out=len(situation.records) - len(chosen),
        refresh=REFRESH_SECONDS,
        renewed_within=duration(2 * RENEW_SECONDS),
    )
    return text.encode("utf-8", "backslashreplace")


def _set(record: SetRecord, overview: Overview) -> PageSet:
    situation = overview.situation
    state = situation.state_of(record)
    tracked = overview.progress.get(record.id) if state == "working" else None
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
