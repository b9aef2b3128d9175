"""Clouds that several hosts use: their limits and outages, brought up to date with each beat of the lease."""

from contextlib import suppress

from uecwatchd.config.records import CloudSettings, Settings
from uecwatchd.delivery.limits import CloudLimits
from uecwatchd.errors import UecError
from uecwatchd.ledger.sessions import Sessions
from uecwatchd.ledger.slots import USES, SlotKey
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.shared_outages import SharedOutages

OTHER_LIMIT = "other limit"


class SharedClouds:
    """Clouds of this host and others: what each is configured with, and what each has found out."""

    def __init__(
        self, sessions: Sessions, limits: CloudLimits, outages: SharedOutages, conditions: Conditions
    ) -> None:
        self._sessions = sessions
        self._limits = limits
        self._outages = outages
        self._conditions = conditions
        self._settings = Settings()

    def announce(self, settings: Settings, *, probes: bool) -> None:
        """Tell the other hosts what clouds this one has, with which limits."""
        self._settings, self._outages.probes = settings, probes
        self._sessions.slots.announce(tuple(settings.clouds), own_limits(settings), probes=probes)
        self._limits.beat()
        self._report_other_limits()

    def beat(self) -> None:
        """Do what follows from the last beat of the lease."""
        self._report_other_limits()
        with suppress(UecError):  # the next beat does it
            self._outages.beat()
            self._limits.beat()

    def _report_other_limits(self) -> None:
        for key in (SlotKey(cloud, use) for cloud in self._settings.clouds for use in USES):
            text = self._other_limit(key, self._settings.clouds[key.cloud])
            self._conditions.set((OTHER_LIMIT, *key), text)

    def _other_limit(self, key: SlotKey, settings: CloudSettings) -> str:
        """Return a sentence about a limit that another host is configured with, and that counts here, too."""
        limit, own = self._sessions.slots.limits.get(key), getattr(settings, key.use)
        if limit is None or own == limit.most:
            return ""
        here = (
            f"{own} here is more, and does not count" if own else "here there is none, and it counts here too"
        )
        return f"Cloud {key.cloud}: host {limit.host} has {key.use} = {limit.most}; {here}"


def own_limits(settings: Settings) -> dict[SlotKey, int]:
    """Return the limits that this host is configured with."""
    keys = (SlotKey(cloud, use) for cloud in settings.clouds for use in USES)
    numbers = {key: getattr(settings.clouds[key.cloud], key.use) for key in keys}
    return {key: number for key, number in numbers.items() if number}
