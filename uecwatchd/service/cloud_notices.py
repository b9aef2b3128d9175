"""What is told of clouds: which they are, and that they go away."""

from collections.abc import Callable, Iterator

from uecwatchd.clouds.availability import REPORTED_SUSPENSIONS, CloudAvailability
from uecwatchd.clouds.client import Cloud, is_insecure
from uecwatchd.clouds.detect import DetectedDialect
from uecwatchd.errors import CloudAway, Unforeseen
from uecwatchd.events import Event, Kind, Monitor


class Outages:
    """However many sets meet with one, and however often a cloud comes back for a moment."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._told: set[str] = set()

    def tell(self, availability: CloudAvailability, *, wanting: Callable[[str], int]) -> None:
        """`wanting` is how many sets have still to go to a cloud."""
        closed = availability.suspended()
        away = {name: error for name, error in closed.items() if isinstance(error, CloudAway)}
        for name in away.keys() - self._told:
            if (times := availability.suspensions(name)) <= REPORTED_SUSPENSIONS:
                self._tell(name, away[name], sets=wanting(name), last=times == REPORTED_SUSPENSIONS)
        self._told = set(away)

    def _tell(self, name: str, error: CloudAway, *, sets: int, last: bool) -> None:
        what = f"Cloud {name} is away: {error.why}"
        if sets:
            what += f"; {sets} set{' waits' if sets == 1 else 's wait'} for it"
        if last:
            what += (
                f", and it is so for the {REPORTED_SUSPENSIONS}rd time: more is told when a set comes through"
            )
        fields = {"traceback": error.trace} if isinstance(error, Unforeseen) else {}
        self._monitor.tell(Event(Kind.DEFERRED, what, level="warning", fields=fields))


def introduced(cloud: Cloud, found: DetectedDialect) -> str:
    return f"Cloud {cloud.name} is {found.dialect.versions} (dialect {found.dialect.name}): {found.why}"


def warned(cloud: Cloud) -> Iterator[str]:
    for url in filter(is_insecure, (cloud.account.ec2_url, cloud.account.s3_url)):
        yield f"Cloud {cloud.name}: {url} is asked without TLS; who is on the way can read and change it"
