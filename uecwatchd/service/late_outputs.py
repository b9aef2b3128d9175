"""Outputs of finished sets that are written late, since their names were somebody else's files' before."""

from collections.abc import Iterable

from uecwatchd.intake.spool import scan
from uecwatchd.ledger.records import SetRecord
from uecwatchd.outputs import result_files
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.set_states import SetStates


def write_freed(
    records: Iterable[SetRecord], listing: scan.Listing, *, states: SetStates, conditions: Conditions
) -> None:
    """Write what is lacking beside the sets, as far as its names are free now."""
    for record in [record for record in records if record.remarks and record.state == "done"]:
        freed = result_files.untaken(record, listing.planted)
        if freed == record:
            continue
        with conditions.guard(("set", *record.id), record.name):
            late = [
                taken for taken in result_files.publish(freed) if not result_files.is_remarked(freed, taken)
            ]
            if not late:  # or somebody was faster, and it is tried at the next look
                states.put(freed)
