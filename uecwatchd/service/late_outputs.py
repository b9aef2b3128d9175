"""Late result files of finished sets, whose names were taken by somebody else's files before."""

from collections.abc import Iterable

from uecwatchd.intake.spool import scan
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.standing import count_done
from uecwatchd.outputs import result_files
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.set_states import SetStates


def write_late_outputs(
    records: Iterable[SetRecord], listing: scan.Listing, *, states: SetStates, conditions: Conditions
) -> None:
    """Write missing result files, if their names are free now."""
    remarked = [record for record in records if any(target.remarks for target in record.current)]
    for record in [record for record in remarked if count_done(record)[0]]:
        freed = result_files.without_freed_names(record, listing.planted)
        if freed == record:
            continue
        with conditions.guard(("set", *record.id), record.name):
            late = [
                taken for taken in result_files.publish(freed) if not result_files.is_remarked(freed, taken)
            ]
            if not late:  # otherwise somebody was faster, and the next scan tries it again
                states.put(freed)
