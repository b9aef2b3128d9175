"""The sets as they are on one of their clouds, for an answer about that cloud alone."""

from collections.abc import Collection
from dataclasses import replace

from uecwatchd.cli.status.rows import LedgerFacts
from uecwatchd.intake.sets.records import FolderSets
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.standing import seen_from
from uecwatchd.types import SetId


def seen_on(cloud: str, assembly: FolderSets, known: LedgerFacts) -> tuple[FolderSets, LedgerFacts]:
    """Return sets and records as they are on a cloud, without those that do not go there.

    Of a set that waits or was refused before its first attempt, nobody knows the clouds: it stays.
    """
    others = {one.id for one in assembly.ready if cloud not in one.clouds} | _not_going(cloud, known)
    ready = tuple(one.on(cloud) for one in assembly.ready if one.id not in others)
    return replace(assembly, ready=ready), _without(others, cloud, known)


def facts_on(cloud: str, known: LedgerFacts) -> LedgerFacts:
    """Return records as they are on a cloud, without those that do not go there."""
    return _without(_not_going(cloud, known), cloud, known)


def _not_going(cloud: str, known: LedgerFacts) -> set[SetId]:
    return {one.id for one in known.records if not _goes_to(one, cloud)}


def _without(others: Collection[SetId], cloud: str, known: LedgerFacts) -> LedgerFacts:
    records = tuple(_alone(one, cloud) for one in known.records if one.id not in others)
    holds = {key: since for key, since in known.holds.items() if key not in others}
    return replace(known, records=records, holds=holds)


def _goes_to(record: SetRecord, cloud: str) -> bool:
    return not record.targets or any(target.cloud == cloud for target in record.current)


def _alone(record: SetRecord, cloud: str) -> SetRecord:
    """Return the record as if the set went to no other cloud."""
    if not record.targets:
        return record
    seen = seen_from(record, cloud)
    targets = (replace(one, is_current=one.cloud == cloud) for one in seen.targets)
    return replace(seen, targets=tuple(targets))
