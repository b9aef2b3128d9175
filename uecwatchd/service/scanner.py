"""One scan of a spool folder: its files, and the sets that they make by the rules.

The reason for a scan, an event or a timer, makes no difference to its result.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from uecwatchd.config.records import Settings
from uecwatchd.config.sharing import share_in
from uecwatchd.intake.sets import assemble
from uecwatchd.intake.sets.records import FolderSets
from uecwatchd.intake.spool import contents, safe_open, scan
from uecwatchd.intake.spool.scan import Listing
from uecwatchd.ledger.records import SetRecord
from uecwatchd.service.attempt import context
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.file_removal import without_leaving
from uecwatchd.service.policy import make_rules, set_names
from uecwatchd.service.set_owners import find_new_owners, folder_history, folder_rules
from uecwatchd.service.set_states import SetStates

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
        self.update_rules()

    def update_rules(self) -> None:
        """Make the rules again: more may be known of the clouds."""
        clouds = self._tools.clouds
        self._rules = make_rules(self._settings, clouds.dialects(), clouds.unidentified())

    def scan(self, folder: Path) -> FolderScan:
        """Scan one folder, and note owners of sets that were not known."""
        listing = without_leaving(self._list(folder), self._tools.ledger.leaving(folder))
        records = self._states.of_folder(folder)
        rules = folder_rules(folder, self._rules, self._settings.spool, service=os.geteuid())
        history = folder_history(records.values(), rules.users)
        assembly = assemble.assemble(listing, rules=rules, **history, progressed=self._progressed)
        owners, proven = find_new_owners(assembly, listing, records)
        records = self._states.put_owners(folder, owners, proven) if owners else records
        return FolderScan(listing, assembly, records)

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

    def _list(self, folder: Path) -> Listing:
        listing = scan.scan(
            folder,
            now=self._monotonic(),
            before=self._listings.get(folder),
            ignore=self._settings.spool.ignore,
            budget=contents.ReadBudget(progressed=self._progressed),
            share=share_in(self._settings.spool, folder),
        )
        self._listings[folder] = listing
        self._report_rest(listing)
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
