"""Outages of clouds, shared with the other hosts with one ledger: reported, followed, probed for all, ended.

A suspended cloud of this host and the outage in the ledger are compared after each beat of the lease. What
this host finds out itself, it reports at once, or with the next beat if the ledger cannot take it now.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from uecwatchd.clouds.access import CloudAccess
from uecwatchd.clouds.availability import Suspension
from uecwatchd.errors import CloudAway, UecError
from uecwatchd.ledger.outages import Outage
from uecwatchd.ledger.sessions import Sessions
from uecwatchd.service.conditions import Conditions, reported_part

ALONE = "cloud away here"
Step = Literal["nothing", "report", "follow", "resume", "end"]


def next_step(here: Suspension | None, outage: Outage | None, *, succeeded: bool) -> Step:
    """Return what a host does about a cloud, by its own suspension and the outage of all hosts.

    `succeeded` is True if a set was registered since the suspension.
    """
    if here and not isinstance(here.error, CloudAway):
        return "nothing"
    if outage:
        return "end" if here and succeeded else "follow"
    if here is None or here.is_alone:
        return "nothing"
    return "resume" if here.is_shared else "report"


class SharedOutages:
    """The outages that this host has in common with others. Usable from several threads.

    `resumed` is called with each cloud that another host has found to answer, and if that is to be reported.
    `clouds` is replaced at a reload.
    """

    def __init__(
        self,
        sessions: Sessions,
        conditions: Conditions,
        *,
        resumed: Callable[[str, bool], None],
    ) -> None:
        self.clouds: CloudAccess | None = None
        self.probes = False  # this host may be the one that probes
        self._sessions = sessions
        self._conditions = conditions
        self._resumed = resumed
        self._lock = threading.RLock()  # a change in the ledger and here is one
        self._changed_at: dict[str, float] = {}  # by this host: what was read before is old
        self._unended: set[str] = set()  # outages that could not be ended when their clouds answered

    def suspended(self, cloud: str) -> None:
        """Tell the others that this host has suspended a cloud, if that may be an outage for them."""
        with self._lock:
            here = self.clouds.availability.suspension(cloud) if self.clouds else None
            if here is None or not isinstance(here.error, CloudAway) or not self._sessions.is_shared:
                return
            if here.is_alone:
                self._conditions.set((ALONE, cloud), _alone_words(cloud, here.error))
                return
            with suppress(UecError):  # the next beat tries again
                self._report(cloud, here.error)

    def probed(self, cloud: str, resumed: bool) -> None:  # noqa: FBT001 (a callback)
        """Tell the others the result of a probe of this host."""
        if not self._sessions.is_shared:
            return
        with self._lock, suppress(UecError):
            if resumed:
                self._conditions.clear((ALONE, cloud))
                self._unended.add(cloud)
                self._end(cloud)
            else:
                self._postpone(cloud)

    def beat(self) -> None:
        """Do what follows from the outages as the last beat has read them."""
        if self.clouds is None:
            return
        for cloud in self.clouds.names:
            with self._lock:
                outages = self._sessions.outages
                if self._changed_at.get(cloud, float("-inf")) <= outages.read_at:
                    self._adjust(cloud, self.clouds, outages.current.get(cloud))

    def _adjust(self, cloud: str, clouds: CloudAccess, outage: Outage | None) -> None:
        if cloud in self._unended:
            self._end(cloud)
            return
        availability = clouds.availability
        here = availability.suspension(cloud)
        succeeded = here is not None and availability.has_succeeded(cloud, here)
        step = next_step(here, outage, succeeded=succeeded)
        if step == "report" and here:
            self._report(cloud, here.error)
        elif step == "end":
            self._end(cloud)
        elif step == "follow" and outage:
            self._follow(cloud, clouds, outage)
        if step in ("resume", "end"):
            availability.resume(cloud, is_told=step == "resume")
            self._resumed(cloud, reported_part(availability.suspensions(cloud)) == "all")

    def _report(self, cloud: str, error: UecError) -> None:
        if self.clouds is None:
            return
        availability = self.clouds.availability
        words = (error.what, error.why, error.hint)
        probe_in = availability.seconds_to_probe(cloud)
        is_ours = self._sessions.outages.report(cloud, words, probe_in=probe_in)
        self._changed_at[cloud] = time.monotonic()
        availability.share(cloud, is_ours=is_ours)

    def _postpone(self, cloud: str) -> None:
        availability = self.clouds.availability if self.clouds else None
        here = availability.suspension(cloud) if availability else None
        if availability and here and here.is_shared:
            probe_in = availability.seconds_to_probe(cloud)
            is_ours = self._sessions.outages.postpone(cloud, probe_in=probe_in)
            self._changed_at[cloud] = time.monotonic()
            is_halt = not isinstance(here.error, CloudAway)  # which no other host can end
            availability.share(cloud, is_ours=is_ours or is_halt)

    def _follow(self, cloud: str, clouds: CloudAccess, outage: Outage) -> None:
        if outage.is_abandoned and self.probes and self._sessions.outages.take_over(cloud):
            outage = replace(outage, is_ours=True, probe_in=0.0)
        error = CloudAway(outage.what, f"{outage.why} (found by host {outage.found_by})", outage.hint)
        clouds.follow(cloud, error, probe_in=outage.probe_in, is_ours=outage.is_ours)
        self._conditions.clear((ALONE, cloud))

    def _end(self, cloud: str) -> None:
        self._sessions.outages.end(cloud)
        self._unended.discard(cloud)
        self._changed_at[cloud] = time.monotonic()


def _alone_words(cloud: str, error: UecError) -> str:
    return (
        f"Cloud {cloud} has just answered another host, and does not answer this one: {error.why}. Look at"
        " the network of this host. The others use the cloud"
    )
