"""Sentences about clouds: what they are, and that they are away."""

from collections.abc import Callable, Iterator

from uecwatchd.clouds.availability import REPORTED_SUSPENSIONS, CloudAvailability
from uecwatchd.clouds.client import Cloud, is_insecure
from uecwatchd.clouds.detect import DetectedDialect
from uecwatchd.errors import CloudAway
from uecwatchd.events import Kind
from uecwatchd.service.conditions import Conditions

TOPIC = "cloud away"


def tell_outages(
    conditions: Conditions, availability: CloudAvailability, *, wanting: Callable[[str], int]
) -> None:
    """Tell once of each cloud that is away, but only the first few times in a row.

    `wanting` returns how many sets have still to go to a cloud.
    """
    suspended = availability.suspended()
    away = {(TOPIC, name): error for name, error in suspended.items() if isinstance(error, CloudAway)}
    conditions.clear_others((TOPIC,), away)
    for key, error in away.items():
        if not conditions.lasts(key):
            times, name = availability.suspensions(key[1]), key[1]
            text = _outage(name, error, sets=wanting(name), last=times == REPORTED_SUSPENSIONS)
            fields = {"traceback": error.trace} if error.trace else {}
            quiet = times > REPORTED_SUSPENSIONS
            conditions.set(key, text, kind=Kind.DEFERRED, fields=fields, quiet=quiet)


def _outage(name: str, error: CloudAway, *, sets: int, last: bool) -> str:
    text = f"Cloud {name} is away: {error.why}"
    if sets:
        text += f"; {sets} set{' waits' if sets == 1 else 's wait'} for it"
    if last:
        text += f", and it is so for the {REPORTED_SUSPENSIONS}rd time: more is told when a set comes through"
    return text


def describe_cloud(cloud: Cloud, found: DetectedDialect) -> str:
    return f"Cloud {cloud.name} is {found.dialect.versions} (dialect {found.dialect.name}): {found.why}"


def cloud_warnings(cloud: Cloud) -> Iterator[str]:
    for url in filter(is_insecure, (cloud.account.ec2_url, cloud.account.s3_url)):
        yield f"Cloud {cloud.name}: {url} is asked without TLS; who is on the way can read and change it"
