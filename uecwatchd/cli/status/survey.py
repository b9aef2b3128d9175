"""A survey of folders, ledger and lock, as the basis for an answer.

It changes nothing and creates no file.
"""

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from uecwatchd.cli.status.elsewhere import LookElsewhere, check_hosts, count_left_out, facts_elsewhere
from uecwatchd.cli.status.one_cloud import facts_on, seen_on
from uecwatchd.cli.status.rows import ASKED, LedgerFacts, Row, rows, rows_elsewhere, unseen
from uecwatchd.clouds.assumed_dialect import assume_dialects, undetected
from uecwatchd.config.records import Settings, SpoolSettings
from uecwatchd.config.sharing import share_in
from uecwatchd.errors import UecError
from uecwatchd.intake.sets import assemble
from uecwatchd.intake.sets.records import FolderSets, ImageSet, Refused, defer_open_files
from uecwatchd.intake.spool import contents, scan, writers
from uecwatchd.intake.spool.scan import Listing
from uecwatchd.ledger.open import read_ledger
from uecwatchd.ledger.state_folder import STATE_LOCK
from uecwatchd.service.policy import make_rules, with_held_clouds
from uecwatchd.service.set_owners import folder_history, folder_rules
from uecwatchd.system import lockfile
from uecwatchd.system.internal_errors import as_internal_error
from uecwatchd.types import DetectedCloud

# Somebody waits for the answer; tens of thousands of files are read in this time.
READ_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Survey:
    """Rows, facts, and complete sets. `troubles` are the errors of folders that cannot be scanned."""

    rows: tuple[Row, ...]
    known: LedgerFacts
    troubles: tuple[UecError, ...] = ()
    ready: tuple[ImageSet, ...] = ()
    elsewhere: Mapping[str, LedgerFacts] = field(default_factory=dict)  #: by the names of other hosts
    left_out: int = 0  #: sets of other hosts that were done earlier, and are too many to be read

    def facts_about(self, row: Row) -> LedgerFacts:
        """Return the facts about the host that has a row."""
        return self.elsewhere.get(row.id.host, self.known)


def survey(
    settings: Settings,
    *,
    now: float,
    settled: bool = False,
    cloud: str = "",
    look: LookElsewhere | None = None,
) -> Survey:
    """Scan all folders, and read the ledger. With `settled`, every file counts as settled.

    Otherwise the change time of a file decides. The daemon counts from when it first saw the file: it takes
    longer if it was started later. With a `cloud`, only the sets that go there have rows, as they are there;
    with `look` also those of other hosts that it is for. Raises the errors of the ledger.
    """
    known, before, elsewhere, left_out = _known(settings, now, look)
    strange = dict.fromkeys(undetected(settings.clouds, before))
    rules = make_rules(settings, assume_dialects(settings.clouds, before), strange)
    found: list[Row] = []
    troubles: list[UecError] = []
    ready: list[ImageSet] = []
    for folder in settings.spool.folders if look is None or look.is_for(known.host) else ():
        try:
            with as_internal_error(str(folder)):
                owner = _service_user(settings)
                listing = _list(folder, settings.spool, owner=owner)
                seen = _with_times_seen(listing, now=now, settled=settled)
                records = [record for record in known.records if record.folder == str(folder)]
                here = folder_rules(folder, rules, settings.spool, service=owner)
                assembly = assemble.assemble(seen, rules=here, **folder_history(records, here.users))
                assembly = with_held_clouds(_closed(assembly, listing, known), known.cloud_holds)
                if cloud:
                    found += [row for row in rows(seen, *seen_on(cloud, assembly, known)) if row.is_set]
                else:
                    found += rows(seen, assembly, known)
                ready += assembly.ready
        except UecError as error:
            troubles.append(error)
            found += unseen(str(folder), known, why=f"its folder cannot be scanned: {error.why}")
    for facts in elsewhere.values():
        found += rows_elsewhere(facts_on(cloud, facts) if cloud else facts)
    return Survey(tuple(found), known, tuple(troubles), tuple(ready), elsewhere, left_out)


def _list(folder: Path, spool: SpoolSettings, *, owner: int) -> Listing:
    budget, share = contents.ReadBudget(seconds=READ_SECONDS), share_in(spool, folder)
    return scan.scan(folder, now=0.0, ignore=spool.ignore, owner=owner, budget=budget, share=share)


def _known(
    settings: Settings, now: float, look: LookElsewhere | None
) -> tuple[LedgerFacts, Mapping[str, DetectedCloud], Mapping[str, LedgerFacts], int]:
    alive = lockfile.is_locked(settings.state.dir, STATE_LOCK)
    ledger = read_ledger(settings)
    if ledger is None:
        check_hosts(look, ())
        return LedgerFacts(now, alive), {}, {}, 0
    with closing(ledger):
        elsewhere = facts_elsewhere(ledger, look, now=now) if look else {}
        left_out = count_left_out(ledger, elsewhere, look) if look else 0
        asked = {r.set_id: r.verb for r in ledger.requests() if r.verb in ASKED and r.due is None}
        # All sets, even for one name: a name is decided among all files of its folder.
        known = LedgerFacts(
            now,
            alive,
            ledger.sets(),
            ledger.holds(),
            ledger.progress(),
            asked,
            ledger.probes(),
            ledger.cloud_holds(),
            host=ledger.sessions.host,
            probers=ledger.sessions.outages.probers(),
        )
        return known, ledger.clouds(), elsewhere, left_out


def _closed(assembly: FolderSets, listing: Listing, known: LedgerFacts) -> FolderSets:
    """Make new sets wait if a process has one of their files open for writing."""
    folder = str(listing.folder)
    seen = {record.name: record.stamp for record in known.records if record.folder == folder}
    judged: list[ImageSet | Refused] = [*assembly.ready, *assembly.refused]
    news = [one for one in judged if seen.get(one.name) != one.stamp]
    asked = ((one.name, writers.open_for_writing(listing.folder, one.files)) for one in news)
    return defer_open_files(assembly, {name: path for name, path in asked if path}, ready_at=0.0)


def _service_user(settings: Settings) -> int:
    """Return the user of the result files. Other users may also ask about their files."""
    try:
        return settings.state.dir.stat().st_uid
    except OSError:
        return os.geteuid()


def _with_times_seen(listing: Listing, *, now: float, settled: bool) -> Listing:
    """Return the listing with change times as the times when files were first seen.

    A change time in the future comes from another host.
    """
    entries = {}
    for path, entry in listing.entries.items():
        changed = entry.stamp.ctime_ns / 1e9
        entries[path] = replace(entry, since=0.0 if settled or changed > now else changed)
    return replace(listing, now=now, entries=entries)
