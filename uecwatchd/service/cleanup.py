"""What a set leaves behind beside its record, and how it is cleared away when the set is forgotten."""

from collections.abc import Iterable

from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import BundleRecord, SetRecord
from uecwatchd.outputs import result_files


def clear_traces(record: SetRecord, ledger: Ledger) -> None:
    """Take away all that is known of a set but its own row: files beside it, digests, bundles under way.

    What was registered stays in the cloud, and known as made here. Raises what the disks raise.
    """
    result_files.clear(record)
    for member in record.members:
        ledger.drop_digest(member.stamp)
    others = [other for other in ledger.sets() if other.id != record.id]
    for bundle in ledger.bundles(record.cloud):
        if is_its_alone(bundle, record, others):
            ledger.drop_bundle(bundle)
    ledger.drop_advance(record.folder, record.name)


def is_its_alone(bundle: BundleRecord, record: SetRecord, others: Iterable[SetRecord]) -> bool:
    """Whether a bundle was begun for this set, is in no image yet, and is of use to no other set.

    One that the cloud was asked to register may be an image by now, which only its row leads to.
    """
    if bundle.made_for != str(record.id) or bundle.state not in ("planned", "uploaded"):
        return False
    users = (m for other in others if other.cloud == bundle.cloud for m in other.members)
    return not any((m.role, m.sha256) == (bundle.role, bundle.sha256) for m in users)
