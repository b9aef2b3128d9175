"""Cleanup of everything that a set leaves beside its record, when it is forgotten."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from uecwatchd.install.request import withdraw_request
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import BundleRecord, SetRecord, TargetRecord
from uecwatchd.ledger.standing import combine, leading_cloud, seen_from
from uecwatchd.outputs import result_files
from uecwatchd.types import SetId


def clear_traces(record: SetRecord, ledger: Ledger, *, builds: Path) -> None:
    """Remove everything about a set except its row: result files, digests, unfinished bundles, its build.

    Registered images stay in the cloud, and in the ledger as made here. Raises errors of the disks.
    """
    result_files.clear(record)
    _withdraw_build(record, ledger, builds)
    for member in record.members:
        ledger.drop_digests(member.stamp)
    for target in record.targets:
        _drop_unfinished(record, target.cloud, ledger)
    ledger.drop_progress(record.id)


def forget_on_cloud(record: SetRecord, cloud: str, ledger: Ledger) -> SetRecord:
    """Forget what is known of a set on one cloud: its state and ids, versions, and unfinished bundles.

    Return the record without them: if the set still goes there, it begins there again. Its images stay in the
    cloud. Raises errors of the disks.
    """
    known = record.target_on(cloud)
    if known not in record.targets:
        return record
    seen = [one for one in record.current if one.cloud != cloud] or [known]
    fresh = TargetRecord(cloud, is_current=known.is_current, place=known.place, is_required=known.is_required)
    left = seen_from(record, seen[0].cloud).with_target(fresh)
    if record.cloud == cloud == left.cloud:
        left = replace(left, state="queued", stage="", error=None, next_retry=None, reason="")
        left = replace(left, deferrals=0, first_failure=None)
    left = combine(left)
    result_files.retract_undone(left)
    if leading_cloud(left) == cloud:
        result_files.remove_latest(record.id)
    _drop_unfinished(record, cloud, ledger)
    ledger.versions.drop_versions(record.id, cloud)
    result_files.publish(left)
    return left


def _drop_unfinished(record: SetRecord, cloud: str, ledger: Ledger) -> None:
    """Remove the bundles that only this set began on a cloud, and that are not registered."""
    for bundle in ledger.unfinished(cloud, made_for=record.id):
        others = [other for other in ledger.sets_with_content(bundle.digest) if other.id != record.id]
        if is_used_only_by(bundle, record, others):
            ledger.drop_bundle(bundle)


def _withdraw_build(record: SetRecord, ledger: Ledger, builds: Path) -> None:
    """End and remove the build of a set, unless another set has the same."""
    key = record.build.key if record.build else ""
    if key and not any(one.id != record.id for one in ledger.sets_with_build(key)):
        withdraw_request(builds, key)


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
