"""One scan of a spool folder: its files, and the sets that they make by the rules.

The reason for a scan, an event or a timer, makes no difference to its result.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from uecwatchd.config.records import Settings
from uecwatchd.config.sharing import share_in
from uecwatchd.intake.sets import assemble
from uecwatchd.intake.sets.records import FolderSets, ImageSet
from uecwatchd.intake.spool import contents, safe_open, scan
from uecwatchd.intake.spool.scan import Listing
from uecwatchd.ledger.records import LeavingFile, SetRecord
from uecwatchd.service.attempt import context
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.file_removal import without_leaving
from uecwatchd.service.policy import make_rules, set_names, with_held_clouds
from uecwatchd.service.set_owners import find_new_owners, folder_history, folder_rules
from uecwatchd.service.set_states import SetStates
from uecwatchd.types import SetId

# A scan of ten thousand files takes less than one. When it takes longer, people wait for their images.
SLOW_SCAN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class FolderScan:
    """Result of one scan of one folder."""

    listing: Listing  #: files, without those that are leaving
    assembly: FolderSets  #: sets that they make
    records: Mapping[str, SetRecord]  #: records of sets of this folder, by name

    @property
    def folder(self) -> Path:
        return self.listing.folder

    def present(self) -> list[SetRecord]:
        """Return the records of the sets whose files are in the folder."""
        return [self.records[name] for name in self.records.keys() & set_names(self.assembly)]

    def absent(self) -> list[SetRecord]:
        """Return the records of the sets whose files are not there."""
        return [self.records[name] for name in self.records.keys() - set_names(self.assembly)]


class Scanner:
    """Scans spool folders by one configuration. Belongs to the service's loop.

    `monotonic` is the clock for how long files are unchanged; `tools.clocks.now` the one for what is stored.
    `progressed` is called for each file and set that a scan has looked at.
    Raises Halted for a mistake in `[defaults]`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        tools: context.AttemptTools,
        states: SetStates,
        conditions: Conditions,
        monotonic: Callable[[], float],
        progressed: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._tools = tools
        self._states = states
        self._conditions = conditions
        self._monotonic = monotonic
        self._progressed = progressed
        self._listings: dict[Path, Listing] = {}
        self._looks: dict[Path, Listing] = {}  # at folders that another host scans
        self.update_rules()

    def update_rules(self) -> None:
        """Make the rules again: more may be known of the clouds."""
        clouds = self._tools.clouds
        self._rules = make_rules(self._settings, clouds.dialects(), clouds.unidentified())

    def scan(self, folder: Path, leaving: Iterable[LeavingFile]) -> FolderScan:
        """Scan one folder without leaving files, and note owners of sets that were not known."""
        listing = self._list(folder, self._listings)
        self._report_rest(listing)
        listing = without_leaving(listing, leaving)
        records = self._states.of_folder(folder)
        rules = folder_rules(folder, self._rules, self._settings.spool, service=os.geteuid())
        history = folder_history(records.values(), rules.users)
        assembly = assemble.assemble(listing, rules=rules, **history, progressed=self._progressed)
        owners, proven = find_new_owners(assembly, listing, records)
        records = self._states.put_owners(folder, owners, proven) if owners else records
        return FolderScan(listing, assembly, records)

    def find_sets(self, folder: Path, held: Mapping[SetId, Mapping[str, float]]) -> Mapping[str, ImageSet]:
        """Return the complete sets of a folder by name, for a host that does not scan it; change nothing.

        `held` are holds on clouds. All files count as settled, as they are for the host that scans.
        """
        settled = self._monotonic() - self._settings.spool.settle
        listing = self._list(folder, self._looks, seen=settled)
        listing = without_leaving(listing, self._tools.ledger.leaving(folder))
        records = self._tools.ledger.sets(folder)
        rules = folder_rules(folder, self._rules, self._settings.spool, service=os.geteuid())
        history = folder_history(records, rules.users)
        assembly = assemble.assemble(listing, rules=rules, **history, progressed=self._progressed)
        return {one.name: one for one in with_held_clouds(assembly, held).ready}

    def is_behind(self) -> bool:
        """Tell if the last scan of some folder left files to the next one."""
        return any(listing.unread for listing in self._listings.values())

    @contextlib.contextmanager
    def timed(self, folder: Path) -> Iterator[None]:
        """Report once, while it lasts, that scans are slow: a failing disk or a slow file server."""
        began = self._monotonic()
        yield
        took = self._monotonic() - began
        slow = f"{folder}: it took {took:.0f} s to scan it once" if took >= SLOW_SCAN_SECONDS else ""
        self._conditions.set(("slow", str(folder)), slow, once=True)

    def _list(self, folder: Path, earlier: dict[Path, Listing], *, seen: float | None = None) -> Listing:
        listing = earlier[folder] = scan.scan(
            folder,
            now=self._monotonic(),
            before=earlier.get(folder),
            seen=seen,
            ignore=self._settings.spool.ignore,
            budget=contents.ReadBudget(progressed=self._progressed),
            share=share_in(self._settings.spool, folder),
        )
        return listing

    def _report_rest(self, listing: Listing) -> None:
        """Report what one scan had no time or no memory for."""
        folder, unread, crowded = listing.folder, len(listing.unread), len(listing.crowded)
        late = f"{folder}: many files; {unread} of them are read at the next scans"
        self._conditions.set(("unread", str(folder)), late if unread else "", once=True)
        large = f"{folder}: there is too much metadata; the sets of the {crowded} largest files of it wait"
        self._conditions.set(("crowded", str(folder)), large if crowded else "", once=True)
        owners = " and ".join(
            f"{number} of {safe_open.user_name(uid)}" for uid, number in listing.left_out.items()
        )
        many = f"{folder}: too many files; left out are names of {owners}"
        self._conditions.set(("many names", str(folder)), many if owners else "", once=True)
