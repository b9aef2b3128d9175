"""Access of sets to clouds: a client, or at once the error that suspends the cloud.

Single requests fail often: a server under load drops some. So the first that gets no answer asks once more,
with a probe, and the cloud is suspended only if that fails too.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping

from uecwatchd.clouds.availability import CloudAvailability
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.connect import translated_troubles
from uecwatchd.clouds.connected_clouds import ConnectedClouds
from uecwatchd.clouds.credentials.account import Account
from uecwatchd.clouds.detect import DetectedDialect
from uecwatchd.clouds.dialects import Dialect
from uecwatchd.clouds.objects import ensure_bucket
from uecwatchd.clouds.registration import probe_ec2
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import CloudAway, Halted, Stopped, UecError
from uecwatchd.system.signals import NEVER, Stop
from uecwatchd.types import DetectedCloud, SetId


class CloudAccess:
    """Clients of the usable clouds, and probes of the suspended ones.

    `bucket` is the one for sets whose sidecars name none: a probe succeeds only if it can be used.
    `before` is what clouds were detected to be earlier. `on_detected` is called when a cloud is connected for
    the first time, and if it turns out to be of another generation; `admit` before each connection, to refuse
    an account by a Halted; `on_suspend` when a cloud is suspended, with the reason; `on_halt` with each halt
    that a probe meets, before that; `on_probe` after each probe of a suspended cloud, and if that resumed it.
    """

    def __init__(
        self,
        clouds: Mapping[str, CloudSettings],
        *,
        uploads: int,
        bucket: str,
        before: Mapping[str, DetectedCloud] | None = None,
        on_detected: Callable[[Cloud, DetectedDialect], None] = lambda _cloud, _found: None,
        admit: Callable[[Account], None] = lambda _account: None,
        on_suspend: Callable[[str, UecError], None] = lambda _name, _error: None,
        on_halt: Callable[[str, UecError], None] = lambda _name, _error: None,
        on_probe: Callable[[str, bool], None] = lambda _name, _resumed: None,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
        stop: Stop = NEVER,
    ) -> None:
        self.availability = CloudAvailability(clock=clock, random=random)
        self._clients = ConnectedClouds(
            clouds, uploads=uploads, before=before or {}, on_detected=on_detected, admit=admit, stop=stop
        )
        self._names = frozenset(clouds)
        self._bucket = bucket
        self._on_suspend = on_suspend
        self._on_halt = on_halt
        self._on_probe = on_probe
        self._connect_lock = threading.Lock()  # one connects for all
        self._outage_lock = threading.Lock()  # one asks for all that met the same outage

    def enter(self, name: str) -> Cloud:
        """Return a client of a cloud. Raises the error that suspended the cloud, or that prevents access."""
        if cloud := self._client(name):
            return cloud
        with self._connect_lock, translated_troubles(name):
            return self._client(name) or self._clients.connect(name)

    @property
    def names(self) -> frozenset[str]:
        """The names of the configured clouds."""
        return self._names

    def is_configured(self, name: str) -> bool:
        """Tell if there is a cloud of this name. A set may have gone to one that was removed since."""
        return name in self._names

    def is_same_account(self, one: str, other: str) -> bool:
        """Tell if two names in the configuration are for one account on one cloud. Asks no cloud.

        Unusable credentials are nobody's account: the attempt on their cloud reports them.
        """
        if not (self.is_configured(one) and self.is_configured(other)):
            return False
        try:
            return self.account(one).is_same_as(self.account(other))
        except Halted:
            return False

    def account(self, name: str) -> Account:
        """Return the account on a cloud. Asks no cloud. Raises Halted if its credentials are unusable."""
        return self._clients.account(name)

    def dialects(self) -> Mapping[str, Dialect]:
        """Return the generation of each cloud, presumed where it is not known yet."""
        return self._clients.dialects()

    def unidentified(self) -> Mapping[str, UecError | None]:
        """Return the clouds whose generation cannot even be presumed, with the reason if they were asked."""
        suspended = self.availability.suspended()
        return {name: suspended.get(name) for name in self._clients.unidentified()}

    def take_over(self, earlier: "CloudAccess") -> None:
        """Keep clouds suspended if the replaced object had the same configuration for them."""
        names = self._clients.unchanged_since(earlier._clients)
        self.availability.take_over(earlier.availability, names)

    # --- after failures -----------------------------------------------------------------------------------

    def suspend(self, name: str, error: UecError) -> None:
        """Let no set use a cloud until a probe succeeds; does nothing if it is suspended already.

        What is no halt counts as an outage. The caller reports the error.
        """
        reason = (
            error if isinstance(error, Halted | CloudAway) else CloudAway(error.what, error.why, error.hint)
        )
        if self.availability.suspend(name, reason):
            self._clients.drop(name)
            self._on_suspend(name, reason)

    def follow(self, name: str, error: CloudAway, *, probe_in: float, is_ours: bool) -> None:
        """Suspend a cloud because it is away for other hosts; `is_ours` if this host is to probe it."""
        if self.availability.follow(name, error, probe_in=probe_in, is_ours=is_ours):
            self._clients.drop(name)

    def is_away(self, name: str) -> bool:
        """Tell if a cloud that gave one request no answer is away; suspend it then."""
        with self._outage_lock:
            if name not in self.availability.suspended():
                self._suspend_if_away(name)
        return isinstance(self.availability.suspended().get(name), CloudAway)

    def is_away_for(self, name: str, error: CloudAway, failed: SetId) -> bool:
        """Tell if a set without a good answer waits for its cloud, instead of for its own retry time.

        A cloud may answer probes and still do nothing: after several sets in a row it counts as away.
        """
        if self.is_away(name):
            return True
        several = self.availability.note_failure(name, failed)
        if several:
            self.suspend(name, CloudAway(f"cloud {name}", error.why, error.hint))
        return several

    def _suspend_if_away(self, name: str) -> None:
        try:
            self._ask(name)
        except CloudAway as error:
            self.suspend(name, error)
        except Halted as error:
            self._halt(name, error)
        except UecError:
            return  # it answered: each set meets this error itself

    # --- probes -------------------------------------------------------------------------------------------

    def detect(self) -> None:
        """Connect to each cloud without a detected generation; suspend it after a failure."""
        for name in self._undetected():
            try:
                self.enter(name)
            except Stopped:
                return
            except Halted as error:
                self._halt(name, error)
            except UecError as error:
                self.suspend(name, error)

    def probe_due(self) -> bool:
        """Tell if there is a cloud to be probed or detected now."""
        return bool(self._undetected() or self.availability.due())

    def probe(self) -> tuple[str, ...]:
        """Probe each suspended cloud that is due, with credentials read again; return the resumed ones."""
        self.detect()
        return tuple(name for name in self.availability.due() if self._probe(name))

    def _probe(self, name: str) -> bool:
        resumed = self._resumes(name)
        self._on_probe(name, resumed)
        return resumed

    def _undetected(self) -> list[str]:
        suspended = self.availability.suspended()
        return [name for name in self._clients.undetected() if name not in suspended]

    def _resumes(self, name: str) -> bool:
        try:
            self._ask(name)
        except UecError as error:
            self.availability.extend(name, error)
            if isinstance(error, Halted):
                self._on_halt(name, error)
            return False
        self.availability.resume(name)
        return True

    def _ask(self, name: str) -> None:
        """Ask a cloud for all that every set needs of it, with credentials read again."""
        with translated_troubles(name):
            with self._connect_lock:
                cloud = self._clients.connect(name)
            probe_ec2(cloud)
            ensure_bucket(cloud, self._bucket)

    def _client(self, name: str) -> Cloud | None:
        self.availability.check(name)
        return self._clients.get(name)

    def _halt(self, name: str, error: Halted) -> None:
        self._on_halt(name, error)
        self.suspend(name, error)
