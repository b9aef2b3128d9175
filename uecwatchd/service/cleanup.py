"""Cleanup of everything that a set leaves beside its record, when it is forgotten."""

from collections.abc import Iterable

from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import BundleRecord, SetRecord
from uecwatchd.outputs import result_files
from uecwatchd.types import SetId


def clear_traces(record: SetRecord, ledger: Ledger) -> None:
    """Remove everything about a set except its row: result files, digests, unfinished bundles.

    Registered images stay in the cloud, and in the ledger as made here. Raises errors of the disks.
    """
    result_files.clear(record)
    for member in record.members:
        ledger.drop_digests(member.stamp)
    for target in record.targets:
        for bundle in ledger.unfinished(target.cloud, made_for=record.id):
            others = [other for other in ledger.sets_with_content(bundle.digest) if other.id != record.id]
            if is_used_only_by(bundle, record, others):
                ledger.drop_bundle(bundle)
    ledger.drop_progress(record.id)


def clear_history(set_id: SetId, ledger: Ledger) -> None:
    """Remove the history and the versions of a set, and what was announced. Raises errors of the ledger.

    A set whose files are gone keeps them: only `forget` removes them.
    """
    ledger.history.drop(set_id)
    ledger.outbox.drop_announced(set_id)
    ledger.versions.drop_versions(set_id)


def is_used_only_by(bundle: BundleRecord, record: SetRecord, others: Iterable[SetRecord]) -> bool:
    """Return True if only this set can use a bundle: it was started for it, without an image.

    After RegisterImage was called it may be in an image, which only its row leads to.
    """
    if bundle.made_for != record.id or bundle.state not in ("planned", "uploaded"):
        return False
    there = (one for one in others if one.target_on(bundle.cloud) in one.current)
    users = (member for other in there for member in other.members)
    return not any((m.role, m.digest) == (bundle.role, bundle.digest) for m in users)
