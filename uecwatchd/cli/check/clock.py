"""Our clock compared with a cloud's.

Servers refuse requests with a wrong date, and do not say by how much it is wrong.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from uecwatchd.cli.check.finding import Finding
from uecwatchd.clouds.dialects import ClockTolerance
from uecwatchd.errors import Halted

# The window of S3 is the same everywhere.
S3_WINDOW = ClockTolerance(ahead=15 * 60, behind=15 * 60)

# A date has whole seconds and takes some time to arrive: smaller differences do not count.
TRIFLE_SECONDS = 5

HINT = "Compare `date -u` on both machines, and let both follow one time server."


def date_of(response: Mapping[str, Any]) -> datetime | None:
    """Return the server's time, from the headers of a response."""
    text = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def examine_clock(
    cloud: str, half: str, *, ours: datetime, theirs: datetime, window: ClockTolerance
) -> Iterator[Finding]:
    """Compare both clocks at the same moment; `window` is the difference that this service allows."""
    ahead = round((ours - theirs).total_seconds())
    if abs(ahead) <= TRIFLE_SECONDS:
        return
    what = (
        f"cloud {cloud}: our clock is {abs(ahead)} s {'ahead of' if ahead > 0 else 'behind'} that of {half}"
    )
    if -window.behind <= ahead <= window.ahead:
        yield Finding("warning", f"{what}, which allows {_allowed(window, ahead)} s", HINT)
    else:
        yield Finding(
            "bad", f"{what}, which refuses more than {_allowed(window, ahead)} s", HINT, Halted.exit_code
        )


def _allowed(window: ClockTolerance, ahead: int) -> int:
    return window.ahead if ahead > 0 else window.behind
