"""The verb `once`: everything that can be done now, or, with `--dry-run`, a list of it."""

import argparse
import os
import random
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from functools import partial

from uecwatchd.cli.output import put_json, say
from uecwatchd.cli.program_log import program_log, progress_shown, report_lost
from uecwatchd.cli.status.rows import Row, begun_now
from uecwatchd.cli.status.survey import survey
from uecwatchd.cli.status.text import row_json
from uecwatchd.cli.status.verb import put_table
from uecwatchd.config.load import load
from uecwatchd.config.records import Settings
from uecwatchd.ledger.open import open_ledger
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.standing import shown_state
from uecwatchd.service.daemon import Service
from uecwatchd.system.clocks import Clocks
from uecwatchd.system.signals import handle_stop_signals
from uecwatchd.types import SetId

# States that decide the exit code: the first of them that any set has.
WORST_FIRST = ("halted", "rejected", "deferred", "waiting", "queued", "working")


def once(arguments: argparse.Namespace) -> int:
    settings = load(arguments.config, environ=os.environ)
    if arguments.dry_run:
        return show_plan(settings, as_json=arguments.json)
    log = program_log()
    with closing(open_ledger(settings, lost=partial(report_lost, log))) as ledger:
        before = {
            r.id: r for r in ledger.sets()
        }  # all, to report the changed ones; the service reads all too
        service = Service(
            settings, listener=log, tracker=log.tracker, clocks=Clocks(random=random.random), ledger=ledger
        )
        handle_stop_signals(service.stop, code=os.EX_TEMPFAIL)
        with progress_shown(log):
            records = service.once()
        holds, host = ledger.holds(), ledger.sessions.host
    changed = [r for r in records if before.get(r.id) != r]
    unchanged = [r for r in records if before.get(r.id) == r]
    say(summed_up(changed, unchanged, holds=holds))
    if arguments.json:
        found = [
            Row(r.id, "held" if r.id in holds else shown_state(r), "", r, held_since=holds.get(r.id))
            for r in records
        ]
        put_json([row_json(row, host=host) for row in found])
    return max((trouble.exit_code for trouble in service.troubles), default=exit_code(records, holds=holds))


def show_plan(settings: Settings, *, as_json: bool) -> int:
    """Print what `once` would do. It waits for files to settle, so all count as settled here."""
    found = survey(settings, now=time.time(), settled=True)
    for trouble in found.troubles:
        say(f"uecwatchd: {trouble}")
    rows = [row for row in found.rows if begun_now(row, found.known.now)]
    if as_json:
        put_json([row_json(row, host=found.known.host) for row in rows])
    else:
        put_table(rows, settings)
    others = sum(row.is_set for row in found.rows) - len(rows)
    say(f"{len(rows)} to be worked on, nothing to be done with {others}.")
    return max((trouble.exit_code for trouble in found.troubles), default=os.EX_OK)


def summed_up(
    changed: Sequence[SetRecord], unchanged: Sequence[SetRecord], *, holds: Collection[SetId] = ()
) -> str:
    """Return the last words of a run: what became of the changed sets, then what the others are."""
    if not changed:
        return f"Nothing to do: {_counted(unchanged, holds) or 'no sets were found'}."
    worked = f"Worked on {len(changed)}: {_counted(changed, holds)}."
    return f"{worked} Unchanged: {_counted(unchanged, holds)}." if unchanged else worked


def _counted(records: Iterable[SetRecord], holds: Collection[SetId]) -> str:
    counts = Counter("held" if record.id in holds else shown_state(record) for record in records)
    return ", ".join(f"{counts[state]} {state}" for state in sorted(counts))


def exit_code(records: Iterable[SetRecord], *, holds: Collection[SetId] = ()) -> int:
    """Return the code for the worst state of any set, but not of those that an administrator holds."""
    unfinished = [one for one in records if one.state in WORST_FIRST and one.id not in holds]
    if not unfinished:
        return os.EX_OK
    worst = min(unfinished, key=lambda record: WORST_FIRST.index(record.state))
    return worst.error.exit_code if worst.error else os.EX_TEMPFAIL
