"""Reports about clouds: what they are, that they are away or halt all sets, that they can be used again."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from uecwatchd.clouds.availability import CloudAvailability
from uecwatchd.clouds.client import Cloud, is_insecure
from uecwatchd.clouds.credentials.account import Account
from uecwatchd.clouds.detect import DetectedDialect, address_of
from uecwatchd.clouds.dialects import DIALECTS
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import CloudAway, Halted, UecError, cause_of
from uecwatchd.events import Event, Kind, Listener
from uecwatchd.ledger.api import Ledger
from uecwatchd.service.conditions import REPORTED_SUSPENSIONS, Conditions, Key, reported_part
from uecwatchd.types import DetectedCloud

AWAY, HALTED = "cloud away", "cloud halted"


@dataclass(frozen=True, slots=True)
class CloudReports:
    """Called from the threads that ask clouds. Each report is a reason to scan: `wake` starts one."""

    ledger: Ledger
    conditions: Conditions
    listener: Listener
    wake: Callable[[], None]

    def detected(self, clouds: Mapping[str, CloudSettings], cloud: Cloud, found: DetectedDialect) -> None:
        """Report what a cloud is, if the configuration does not say so, and keep it for the next start."""
        if clouds[cloud.name].dialect not in DIALECTS:
            with contextlib.suppress(UecError):  # what cannot be kept is detected again at the next start
                known = DetectedCloud(found.dialect.name, address_of(cloud.account))
                self.ledger.put_cloud(cloud.name, known)
            self.listener.tell(Event(Kind.READY, describe_cloud(cloud, found)))
            self.wake()
        for sentence in cloud_warnings(cloud):
            self.listener.tell(Event(Kind.READY, sentence, level="warning"))

    def admit(self, account: Account) -> None:
        """Raise Halted if the other hosts with this ledger have another cloud under the name of this one."""
        ours = f"{address_of(account)} account {account.account}"
        theirs = self.ledger.sessions.same_cloud(account.cloud, ours)
        if theirs != ours:
            raise Halted(
                f"cloud {account.cloud}: the other hosts with this ledger have another cloud of this name",
                f"theirs is {theirs}, and here it is {ours}",
                "Give it another name here, or write its addresses as they do. If the cloud has moved, remove"
                " its row from fleet_clouds in the database.",
            )

    def suspended(self, name: str, error: UecError) -> None:
        """Note the reason; the set reports it."""
        self.conditions.set(_halt_key(name, error), str(error), once=True, quiet=True)

    def halted(self, name: str, error: UecError) -> None:
        """Report a halt, once for each cause until the cloud resumes."""
        if self.conditions.set(_halt_key(name, error), str(error), kind=Kind.HALTED, once=True):
            self.wake()

    def resumed(self, name: str, reported: bool) -> None:  # noqa: FBT001 (a callback)
        self.conditions.clear_others((HALTED, name), ())
        if reported:
            self.listener.tell(Event(Kind.READY, f"Cloud {name} can be used again"))
        self.wake()


def _halt_key(name: str, error: UecError) -> Key:
    return (HALTED, name, error.kind, cause_of(error.why))


def report_outages(
    conditions: Conditions, availability: CloudAvailability, *, count_sets: Callable[[str], int]
) -> None:
    """Tell once of each cloud that is away, but only the first few times in a row.

    `count_sets` returns how many sets have still to go to a cloud.
    """
    suspended = availability.suspended()
    away = {(AWAY, name): error for name, error in suspended.items() if isinstance(error, CloudAway)}
    conditions.clear_others((AWAY,), away)
    for key, error in away.items():
        if not conditions.lasts(key):
            name, reported = key[1], reported_part(availability.suspensions(key[1]))
            text = _outage(name, error, sets=count_sets(name), last=reported == "beginning")
            fields = {"traceback": error.trace} if error.trace else {}
            conditions.set(key, text, kind=Kind.DEFERRED, fields=fields, quiet=reported == "nothing")


def _outage(name: str, error: CloudAway, *, sets: int, last: bool) -> str:
    text = f"Cloud {name} is away: {error.why}"
    if sets:
        text += f"; {sets} set{' waits' if sets == 1 else 's wait'} for it"
    if last:
        text += f" for the {REPORTED_SUSPENSIONS}rd time; it is reported again after a set has succeeded"
    return text


def describe_cloud(cloud: Cloud, found: DetectedDialect) -> str:
    return f"Cloud {cloud.name} is {found.dialect.versions} (dialect {found.dialect.name}): {found.why}"


def cloud_warnings(cloud: Cloud) -> Iterator[str]:
    for url in filter(is_insecure, (cloud.account.ec2_url, cloud.account.s3_url)):
        yield f"Cloud {cloud.name}: {url} is used without TLS; others on the network can read and change it"
