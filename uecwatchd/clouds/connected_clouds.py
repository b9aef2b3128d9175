"""Clients of the configured clouds, made at first use and shared by all threads.

Behind each client there is a generation of cloud, which decides what a set needs: named in the configuration,
or detected by the first connection. Until then a cloud is presumed to be what it was detected to be earlier.
"""

import threading
from collections.abc import Callable, Mapping

from uecwatchd.clouds.assumed_dialect import assume_dialects, undetected
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.connect import connect_as, detected
from uecwatchd.clouds.credentials.account import Account, gather
from uecwatchd.clouds.detect import DetectedDialect
from uecwatchd.clouds.dialects import DIALECTS, Dialect
from uecwatchd.config.records import CloudSettings
from uecwatchd.system.signals import NEVER, Stop
from uecwatchd.types import DetectedCloud


class ConnectedClouds:
    """Cache of clients, and of the generation of each cloud.

    `before` is what clouds were detected to be earlier. `on_detected` is called after the first connection to
    each cloud, and after one that finds it to be of another generation. `admit` is called before each, to
    refuse an account by an error.
    """

    def __init__(
        self,
        clouds: Mapping[str, CloudSettings],
        *,
        uploads: int,
        before: Mapping[str, DetectedCloud],
        on_detected: Callable[[Cloud, DetectedDialect], None],
        admit: Callable[[Account], None] = lambda _account: None,
        stop: Stop = NEVER,
    ) -> None:
        self._settings = clouds
        self._uploads = uploads
        self._before = before
        self._on_detected = on_detected
        self._admit = admit
        self._stop = stop
        self._lock = threading.Lock()  # guards all below
        self._clients: dict[str, Cloud] = {}
        self._dialects: dict[str, Dialect] = {}

    def get(self, name: str) -> Cloud | None:
        """Return the client of a cloud if it is connected."""
        with self._lock:
            return self._clients.get(name)

    def connect(self, name: str) -> Cloud:
        """Make a client, with credentials read again. Raises what `gather` and the cloud's answers raise."""
        settings = self._settings[name]
        account = gather(settings)
        self._admit(account)
        found = detected(settings, account, stop=self._stop)
        cloud = connect_as(account, found, uploads=self._uploads, stop=self._stop)
        with self._lock:
            self._clients[name] = cloud
            news = self._dialects.get(name) != found.dialect
            self._dialects[name] = found.dialect
        if news:
            self._on_detected(cloud, found)
        return cloud

    def account(self, name: str) -> Account:
        """Return the account on a cloud, read from its files if there is no client. Raises Halted."""
        cloud = self.get(name)
        return cloud.account if cloud else gather(self._settings[name])

    def drop(self, name: str) -> None:
        """Forget the client of a cloud that cannot be used."""
        with self._lock:
            self._clients.pop(name, None)

    def dialects(self) -> Mapping[str, Dialect]:
        """Return the generation of each cloud, presumed where it is not known yet."""
        with self._lock:
            return {**assume_dialects(self._settings, self._before), **self._dialects}

    def undetected(self) -> tuple[str, ...]:
        """Return the clouds whose generation has still to be detected."""
        with self._lock:
            known = frozenset(self._dialects)
        named = (name for name, settings in self._settings.items() if settings.dialect not in DIALECTS)
        return tuple(name for name in named if name not in known)

    def unidentified(self) -> tuple[str, ...]:
        """Return the clouds whose generation is not known, even from earlier."""
        with self._lock:
            known = frozenset(self._dialects)
        return tuple(name for name in undetected(self._settings, self._before) if name not in known)

    def unchanged_since(self, earlier: "ConnectedClouds") -> tuple[str, ...]:
        """Return the clouds with the same configuration as in an object that this one replaces."""
        return tuple(name for name, one in self._settings.items() if one == earlier._settings.get(name))
