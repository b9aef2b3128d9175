"""The operations of a ledger, whatever database is behind it.

The program knows only this protocol. `uecwatchd.ledger.open` opens the store that is configured;
`tests/ledger/test_contract.py` holds the rules that any store has to pass.

For all operations:

- each is one transaction: it happens as a whole, and is on disk when the call returns, or it raises and
  nothing has changed. The few that need not survive a power cut say so;
- each raises Deferred if the store cannot be used now, LedgerAway if it is a server that does not answer, and
  LedgerDamaged if it has to be replaced;
- all may be called from several threads, and while other processes use the same store.

Several hosts may have one store. Then each has its own sets, with all that belongs to them, and sees those of
others only where it says so: they have HOST:FOLDER as their folder. Bundles are shared by all, and sets in
shared folders by the hosts that have the folder.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from uecwatchd.errors import Deferred
from uecwatchd.ledger.boots import Boots
from uecwatchd.ledger.history import History
from uecwatchd.ledger.other_hosts import OtherHosts
from uecwatchd.ledger.outbox import Outbox
from uecwatchd.ledger.records import (
    Asked,
    BegunBundles,
    BundleRecord,
    LeavingFile,
    ProgressRecord,
    Request,
    SetRecord,
)
from uecwatchd.ledger.sessions import Claim, Sessions
from uecwatchd.ledger.sharing import Sharing
from uecwatchd.ledger.versions import Versions
from uecwatchd.types import ContentDigest, DetectedCloud, DigestOf, FileStamp, Role, SetId

FileReading = tuple[FileStamp, DigestOf]

# How long a thread that waits for another goes without looking if it has to stop.
CHECK_SECONDS = 1.0


class LedgerDamaged(Deferred):
    """The ledger cannot be read any more. Only a new start helps: it begins a new ledger.

    A process that has the ledger open should end, so that there is a new start.
    """

    exit_code = 74


class LedgerAway(Deferred):
    """The store cannot be reached now, or cannot answer. No set is to blame, and none is tried meanwhile."""


class Ledger(Protocol):
    """An open ledger."""

    @property
    def history(self) -> History:
        """History of each set."""

    @property
    def outbox(self) -> Outbox:
        """The messages about outcomes."""

    @property
    def boots(self) -> Boots:
        """The test boots."""

    @property
    def sessions(self) -> Sessions:
        """The hosts that work with the ledger."""

    @property
    def others(self) -> OtherHosts:
        """The rows of the other hosts."""

    @property
    def sharing(self) -> Sharing:
        """The folders that several of these hosts work on."""

    @property
    def versions(self) -> Versions:
        """The published images of each set."""

    def close(self) -> None:
        """End the use of the store. No other operation may follow."""

    def check(self) -> None:
        """Raise the first LedgerDamaged or Overtaken that an operation has raised, in any thread, again.

        So the thread that can end the process learns of it, although another one has met it. Reads nothing.
        """

    # --- sets --------------------------------------------------------------------------------------------

    def set(self, set_id: SetId) -> SetRecord | None:
        """Return the record of one set, or None if there is none."""

    def sets(self, folder: Path | None = None) -> tuple[SetRecord, ...]:
        """Return all sets, or those of one spool folder, ordered by folder and name."""

    def count_sets(self) -> int:
        """Return the number of sets."""

    def sets_of_fleet(self) -> tuple[SetRecord, ...]:
        """Return the sets of all hosts, ordered by folder and name."""

    def sets_named(self, name: str) -> tuple[SetRecord, ...]:
        """Return the sets of this name in all folders, ordered by folder."""

    def sets_on(self, cloud: str) -> tuple[SetRecord, ...]:
        """Return the sets that go to this cloud now, ordered as all."""

    def sets_with_image(self, cloud: str, image_id: str) -> tuple[SetRecord, ...]:
        """Return the sets of all hosts that have an image on a cloud, or gave it attributes, ordered."""

    def sets_with_build(self, key: str) -> tuple[SetRecord, ...]:
        """Return the sets of this host with this installation, ordered as all."""

    def sets_with_content(self, digest: ContentDigest) -> tuple[SetRecord, ...]:
        """Return the sets of all hosts with a member of this content, ordered."""

    def put_set(self, record: SetRecord) -> SetRecord:
        """Write a set, and return it. A working set may be lost in a power cut."""

    def put_stage(self, record: SetRecord) -> None:
        """Write the stage of a working set with the next transaction. Raises nothing.

        A crash before that loses it, and the stage is found again.
        """

    def has_written(self, record: SetRecord) -> bool:
        """Tell if `put_set` has written this record last for its set. Reads nothing; True once a write."""

    def put_sets(self, records: Iterable[SetRecord]) -> None:
        """Write all these sets or none."""

    def drop_set(self, set_id: SetId) -> None:
        """Remove a set, if it is there."""

    def put_owners(self, folder: Path, owners: Mapping[str, int], *, proven: Collection[str]) -> None:
        """Write the owners of sets that have none yet, by name.

        The bundles of the sets in `proven` get the owner as well, if they have none.
        """

    # --- bundles -----------------------------------------------------------------------------------------

    def bundle(self, cloud: str, identity: str) -> BundleRecord | None:
        """Return one bundle, or None."""

    def bundles(self, cloud: str) -> tuple[BundleRecord, ...]:
        """Return the bundles of a cloud, ordered by prefix."""

    def all_bundles(self) -> tuple[BundleRecord, ...]:
        """Return the bundles of all clouds, ordered by cloud and prefix."""

    def unfinished(
        self, cloud: str, *, made_for: SetId, role: Role | None = None
    ) -> tuple[BundleRecord, ...]:
        """Return the bundles that a set began, of one role or of all, and that are not registered."""

    def begun(self, cloud: str, digests: Collection[ContentDigest], *, made_for: SetId) -> BegunBundles:
        """Return the bundles of these contents, and those that a set began and has not published."""

    def bundle_of(self, cloud: str, image_id: str) -> BundleRecord | None:
        """Return the bundle that is registered under an id, or None."""

    def bundles_with_image(self, image_id: str) -> tuple[BundleRecord, ...]:
        """Return the bundles of all clouds that have an id, ordered by cloud and prefix."""

    def content(self, cloud: str, image_id: str) -> ContentDigest | None:
        """Return the digest of the content that was registered under an id, or None if it is unknown."""

    def predecessor(
        self, image_id: str, *, cloud: str, made_for: SetId, owner: int | None = None
    ) -> BundleRecord | None:
        """Return the machine image that this host registered last for a set, except `image_id`.

        If `owner` is given, only bundles of that owner count.
        """

    def put_bundle(self, record: BundleRecord) -> BundleRecord:
        """Write a bundle, and return it.

        A key that is no longer in it is gone from the disk, but not from the log and backups of a database.
        """

    def drop_bundle(self, record: BundleRecord) -> None:
        """Remove a bundle, and its key from the disk as `put_bundle` does, if it is there."""

    def claim(self, identity: str, *, check: Callable[[], None]) -> AbstractContextManager[Claim]:
        """Lock one bundle, CLOUD/IDENTITY, for this thread, so that sets with the same kernel make it once.

        `check` is called about once a second while another thread has it, and may raise to give up.
        """

    # --- digests -----------------------------------------------------------------------------------------

    def digests(self, files: Collection[FileReading]) -> Mapping[FileReading, ContentDigest]:
        """Return the known digests of files with these stamps, in one read."""

    def digest(self, stamp: FileStamp, of: DigestOf) -> ContentDigest | None:
        """Return a digest of the file with this stamp, or None if it is unknown."""

    def put_digest(self, stamp: FileStamp, of: DigestOf, digest: ContentDigest) -> None:
        """Write a digest of a file, in place of an older one, with the next transaction. Raises nothing."""

    def drop_digests(self, stamp: FileStamp) -> None:
        """Remove all digests of a file, whatever its stamp was when they were written."""

    # --- files that leave --------------------------------------------------------------------------------

    def leaving(self, folder: Path) -> tuple[LeavingFile, ...]:
        """Return the files that are about to leave a spool folder, ordered by path."""

    def put_leaving(self, files: Iterable[LeavingFile]) -> None:
        """Write all these files or none: half a set would be taken for another one."""

    def drop_leaving(self, folder: Path) -> None:
        """Remove what is written about files that leave this folder."""

    # --- what people ask for, also while a daemon runs ---------------------------------------------------

    def requests(self) -> tuple[Request, ...]:
        """Return what has been asked for and is not done yet, in order."""

    def asked(self) -> Asked:
        """Return the requests, and all holds, in one read."""

    def put_request(self, request: Request) -> None:
        """Add a request. It gets the next number."""

    def drop_request(self, request: Request) -> None:
        """Remove the request with this number, if it is there."""

    def holds(self) -> Mapping[SetId, float]:
        """Return the sets on hold, each with the time of its hold in seconds of the epoch."""

    def cloud_holds(self) -> Mapping[SetId, Mapping[str, float]]:
        """Return the sets on hold for some clouds alone, each with these clouds and the times."""

    def put_hold(self, set_id: SetId, *, since: float, cloud: str = "") -> None:
        """Hold a set, or keep it from one cloud. A hold that is there already keeps its time."""

    def drop_hold(self, set_id: SetId, *, cloud: str = "") -> None:
        """Remove a hold, if it is there: that of the whole set, or the one for a cloud."""

    # --- buckets -----------------------------------------------------------------------------------------

    def made_buckets(self, cloud: str) -> frozenset[str]:
        """Return the buckets that this host has made on a cloud, apart from the configured one."""

    def put_made_bucket(self, cloud: str, bucket: str) -> None:
        """Note that this host has made a bucket."""

    def drop_made_bucket(self, cloud: str, bucket: str) -> None:
        """Forget that this host has made a bucket, if it is known."""

    # --- for `status` ------------------------------------------------------------------------------------

    def clouds(self) -> Mapping[str, DetectedCloud]:
        """Return the detected clouds by name."""

    def put_cloud(self, name: str, found: DetectedCloud) -> None:
        """Write the generation of a cloud."""

    def progress(self) -> Mapping[SetId, ProgressRecord]:
        """Return the progress of the work on each set that is under way."""

    def put_progress(self, progress: ProgressRecord) -> None:
        """Write the progress of a set. It may be lost in a power cut."""

    def drop_progress(self, set_id: SetId) -> None:
        """Remove the progress of a set, if it is there, with the next transaction. Raises nothing."""

    def probes(self) -> Mapping[str, float]:
        """Return when suspended clouds are probed next, in seconds of the epoch, by cloud."""

    def put_probes(self, moments: Mapping[str, float]) -> None:
        """Write these times in place of all others. They may be lost in a power cut."""
