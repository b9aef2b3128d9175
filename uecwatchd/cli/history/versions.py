"""The published images of a set: the publication of each, and its end."""

from collections.abc import Iterable, Iterator, Mapping

from uecwatchd.ledger.versions import VersionRecord, VersionState
from uecwatchd.outputs.result_files import instant, place_json
from uecwatchd.outputs.wording import moment

WORDS: Mapping[VersionState, str] = {
    "current": "in use",
    "older": "older",
    "deprecated": "deprecated",
    "withdrawn": "withdrawn",
    "removed": "removed",
}


def version_lines(versions: Iterable[VersionRecord]) -> Iterator[str]:
    """Yield one line for each published image."""
    for one in versions:
        where = f"{one.set_id.host}:" if one.set_id.is_elsewhere else ""
        image = f"{where}{one.set_id.name}: {one.image_id} on cloud {one.cloud}"
        published = f"{image}, published {moment(one.published)} UTC"
        since = "" if one.state == "current" else f" since {moment(one.since)} UTC"
        instead = f", replaced by {one.replaced_by}" if one.replaced_by else ""
        judged = "" if one.passed else ", gone back from"
        yield f"{published}; {WORDS[one.state]}{since}{instead}{judged}"


def version_json(one: VersionRecord, *, host: str = "") -> dict[str, object]:
    """Return a published image for programs: times in UTC, null for missing values.

    `host` is this one, where several have one ledger.
    """
    return {
        **place_json(one.set_id, host),
        "set": one.set_id.name,
        "cloud": one.cloud,
        "id": one.image_id,
        "role": one.role,
        "state": one.state,
        "published": instant(one.published),
        "since": instant(one.since),
        "replaced": instant(one.replaced),
        "replaced_by": one.replaced_by or None,
        "passed": one.passed,
    }
