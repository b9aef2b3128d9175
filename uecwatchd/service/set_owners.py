"""Owners of the sets in a folder, from the ledger, and the policy of the folder."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from uecwatchd.config.records import SpoolSettings
from uecwatchd.intake.sets.records import FolderSets, FolderUsers, ImageSet, Refused, Rules, Waiting
from uecwatchd.intake.spool import safe_open, scan
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.standing import clouds_done
from uecwatchd.service.policy import GONE, files_of_done_sets
from uecwatchd.types import FileStamp

ROOT = 0


def folder_rules(folder: Path, rules: Rules, settings: SpoolSettings, *, service: int) -> Rules:
    """Return the rules for one folder. `service` is the uid that the service runs as."""
    policy = settings.policy_of(folder)
    users = (
        FolderUsers(frozenset({ROOT, service}), safe_open.user_name) if policy.members == "separate" else None
    )
    return replace(rules, users=users, policy=policy)


class FolderHistory(TypedDict):
    """Facts from the ledger about the sets in a folder that affect the use of its files."""

    taken: Mapping[str, Sequence[tuple[str, FileStamp]]]
    holders: Mapping[str, int]
    done: Mapping[str, str]
    taken_on: Mapping[str, Collection[str]]


def folder_history(records: Collection[SetRecord], users: FolderUsers | None) -> FolderHistory:
    """Collect what the rules have to know from the records of a folder."""
    taken_on = {record.name: done for record in records if (done := clouds_done(record))}
    return FolderHistory(
        taken=files_of_done_sets(records),
        holders=_holders_of(records, users),
        done={record.name: record.stamp for record in records if record.name in taken_on},
        taken_on=taken_on,
    )


def _holders_of(records: Iterable[SetRecord], users: FolderUsers | None) -> dict[str, int]:
    """Return the owners of names: a set keeps its name as long as its files or its ids are there.

    Root's files for all wait for any member's image, until there is an image of root.
    """
    common = users.common if users else frozenset[int]()
    return {
        record.name: record.owner
        for record in records
        if record.owner is not None
        and (_has_ids(record) or (record.reason != GONE and record.owner not in common))
    }


def _has_ids(record: SetRecord) -> bool:
    return any(image.image_id for target in record.current for image in target.images)


def find_new_owners(
    assembly: FolderSets, listing: scan.Listing, records: Mapping[str, SetRecord]
) -> tuple[dict[str, int], set[str]]:
    """Return owners of sets without one in an older ledger, and the sets with a proof.

    The proof is a file that the set was made of. Without it, the files may belong to somebody else than the
    image: such a set gets no owner.
    """
    sets: tuple[ImageSet | Waiting | Refused, ...] = (
        *assembly.ready,
        *assembly.waiting,
        *assembly.refused,
    )
    owners: dict[str, int] = {}
    proven: set[str] = set()
    for one in sets:
        record = records.get(one.name)
        if one.owner is None or record is None or record.owner is not None:
            continue
        entries = ((listing.entries.get(member.path), member.stamp) for member in record.members)
        if any(entry and (entry.stamp, entry.owner) == (stamp, one.owner) for entry, stamp in entries):
            proven.add(one.name)
        if one.name in proven or not _has_ids(record):
            owners[one.name] = one.owner
    return owners, proven
