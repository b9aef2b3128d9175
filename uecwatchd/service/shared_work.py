"""Part of this host in the folders that several hosts share.

One of the hosts scans such a folder, and does all that follows from a scan. It offers the due sets in the
ledger, takes those itself that it has workers for, and leaves the others to the other hosts.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from uecwatchd.config.records import SpoolSettings
from uecwatchd.config.sharing import shared_folders
from uecwatchd.errors import UecError
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.sharing import Offer
from uecwatchd.service.set_states import SetStates
from uecwatchd.types import SetId

# Between two looks for work of another host, while it has none: a statement each.
LOOK_SECONDS = 3.0
# For as long a host leaves a set alone whose files it does not see yet, or whose cloud it has not.
UNABLE_SECONDS = 60.0


class SharedWork:
    """The shared folders, and the sets in them that hosts work on. Belongs to the service's loop."""

    def __init__(self, ledger: Ledger, states: SetStates, *, monotonic: Callable[[], float]) -> None:
        self._ledger = ledger
        self._states = states
        self._monotonic = monotonic
        self._folders: frozenset[str] = frozenset()
        self._fresh: frozenset[str] = frozenset()  # with records as of the scan under way
        self._elsewhere: dict[str, frozenset[SetId]] = {}  # by the folders that this host scans
        self._left: frozenset[str] = frozenset()  # that other hosts scan, as this one may help with
        self._taken: set[SetId] = set()  # here, until their records are written
        self._unable: dict[SetId, float] = {}  # until these times
        self._next_look = float("-inf")

    def configure(self, spool: SpoolSettings) -> None:
        """Take another configuration. It has the same shared folders, or fewer."""
        self._folders = frozenset(map(str, shared_folders(spool)))
        self._left &= self._folders
        for folder in self._elsewhere.keys() - self._folders:
            self.leave(Path(folder))

    @property
    def elsewhere(self) -> frozenset[SetId]:
        """Sets at work on other hosts, of the folders scanned here."""
        return frozenset[SetId]().union(*self._elsewhere.values())

    @property
    def left_to_others(self) -> tuple[Path, ...]:
        """Shared folders that another host scans, as far as this one may work there."""
        return tuple(map(Path, sorted(self._left)))

    def is_shared(self, folder: Path | str) -> bool:
        """Tell if several hosts work on a folder."""
        return str(folder) in self._folders

    def is_ours(self, set_id: SetId) -> bool:
        """Tell if this host decides about a set: the one that scans its folder."""
        return set_id.folder not in self._folders or set_id.folder in self._elsewhere

    def is_known(self, set_id: SetId) -> bool:
        """Tell if this host decides about a set, and has its record as it is now."""
        return set_id.folder not in self._folders or set_id.folder in self._fresh

    # --- the host that scans ------------------------------------------------------------------------------

    def enter(
        self, folders: Iterable[Path], acquire: Callable[[Path], None]
    ) -> Mapping[Path, UecError | bool]:
        """Scan the shared ones of some folders, unless other hosts do.

        `acquire` locks a folder. Returns for each if this host scans it, or the error that prevents that. The
        records of other shared folders are as old as their last scans: other hosts may have changed them.
        """
        entered: dict[Path, UecError | bool] = {}
        self._fresh = frozenset()
        for folder in filter(self.is_shared, folders):
            try:
                acquire(folder)
                entered[folder] = self._begin_scan(folder)
            except UecError as error:
                entered[folder] = error
                self.leave(folder)
            is_left = {str(folder)} if entered[folder] is False else set[str]()
            self._left = self._left - {str(folder)} | is_left
        return entered

    def _begin_scan(self, folder: Path) -> bool:
        if self._ledger.sessions.is_drained:
            self.leave(folder)
            return False
        elsewhere = self._ledger.sharing.begin_scan(folder, self._taken)
        if elsewhere is None:
            self._forget(folder)
            return False
        self._states.refresh(folder, but=self._taken)
        self._elsewhere[str(folder)] = elsewhere
        self._fresh |= {str(folder)}
        return True

    def leave(self, folder: Path) -> None:
        """Let another host scan a folder."""
        if str(folder) in self._elsewhere:
            with suppress(UecError):  # then it is free when this session is over
                self._ledger.sharing.leave(folder)
        self._forget(folder)

    def _forget(self, folder: Path) -> None:
        self._elsewhere.pop(str(folder), None)
        self._fresh -= {str(folder)}
        self._states.forget(folder, but=self._taken)

    def offer(self, offers: Iterable[Offer]) -> None:
        """Offer the due sets of a folder after its scan. Raises what the ledger raises."""
        self._ledger.sharing.offer(offers)

    def take(self, set_id: SetId) -> bool:
        """Take a set that is to be begun here; False if another host was faster."""
        if not self.is_shared(set_id.folder):
            return True
        with suppress(UecError):  # it is offered again by the next scan
            if self._ledger.sharing.take(set_id):
                self._taken.add(set_id)
                return True
            known = self._elsewhere.get(set_id.folder, frozenset())
            self._elsewhere[set_id.folder] = known | {set_id}  # until the next scan tells more
        return False

    # --- the hosts that help ------------------------------------------------------------------------------

    def look_in(self) -> float:
        """Return the seconds until the next look for work of another host; infinite if there is no folder."""
        if not self._left:
            return float("inf")
        return max(0.0, self._next_look - self._monotonic())

    def look_soon(self) -> None:
        """Look for more work at once, because some has ended."""
        self._next_look = self._monotonic()

    def take_some(self, number: int) -> list[Offer]:
        """Take up to so many sets of folders that other hosts scan, unless nothing new is to be begun.

        Raises what the ledger raises.
        """
        now, offers, sessions = self._monotonic(), list[Offer](), self._ledger.sessions
        self._next_look = now + LOOK_SECONDS
        if sessions.is_drained or sessions.is_away:
            return []
        self._unable = {set_id: until for set_id, until in self._unable.items() if until > now}
        while len(offers) < number:
            offer = self._ledger.sharing.take_next(self.left_to_others, self._unable, self._taken)
            if offer is None:
                break
            self._taken.add(offer.set_id)
            offers.append(offer)
        return offers

    def give_back(self, set_id: SetId) -> None:
        """Leave a set that cannot be worked on here to the next scan, and to other hosts."""
        self._unable[set_id] = self._monotonic() + UNABLE_SECONDS
        self._release(set_id)

    def release_ended(self, running: Collection[SetId]) -> None:
        """End the claims on finished sets, once their records are in the ledger."""
        for set_id in tuple(self._taken.difference(running)):
            if self._states.is_written(set_id):
                self._release(set_id)

    def _release(self, set_id: SetId) -> None:
        with suppress(UecError):  # tried again; if this host ends, it is free as well
            self._ledger.sharing.release(set_id)
            self._taken.discard(set_id)
            if not self.is_ours(set_id):
                self._states.forget_set(set_id)
