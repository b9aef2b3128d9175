"""A bundle on its way into the bucket: made as it is sent, and never twice what lies there already."""

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from itertools import takewhile

from uecwatchd.bundle.bundler import PART_SIZE, Bundling, PartData, Secret, Totals, max_parts
from uecwatchd.bundle.folder import BundleCredentials, ImageProperties, make_manifest
from uecwatchd.bundle.manifest import Manifest, write_manifest
from uecwatchd.bundle.names import manifest_name, part_name, parts_prefix
from uecwatchd.bundle.upload_slots import store_parts
from uecwatchd.clouds.credentials.gather import bundle_user, sealed_with, sealing_certificate
from uecwatchd.clouds.objects import is_same_object, list_objects, put_object
from uecwatchd.clouds.patience import retry
from uecwatchd.delivery.request import BootIds, Order
from uecwatchd.errors import Rejected
from uecwatchd.events import Event, Fields, Kind, Progress
from uecwatchd.images.block_source import BlockSource
from uecwatchd.images.digests import digest_like
from uecwatchd.images.suitability import format_size
from uecwatchd.intake.spool import safe_open
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import BundleRecord
from uecwatchd.system import failpoints
from uecwatchd.types import StoredObject


def send(
    order: Order, bundle: BundleRecord, source: BlockSource, ledger: Ledger, *, resuming: bool
) -> BundleRecord:
    """Bundle and upload in one stream: nothing of the image is written to a disk.

    The same key and IV make the same parts, so `resuming` needs to send only those that are not there yet.
    """
    secret = Secret(bundle.secret_key or b"", bundle.secret_iv or b"")
    began = time.monotonic()
    there = _already_there(order, bundle) if resuming else {}
    totals, parts = _send_parts(order, bundle, secret, source, there=there)
    _must_be_what_was_read(order, source, totals, ledger)
    _tell_bundled(order, totals)
    boot = order.boot.ids()
    manifest = write_manifest(
        _manifest(order, bundle, totals, secret, boot), key=order.cloud.account.user_key
    )
    _must_be_readable(order, manifest, totals)
    last = _put(order, "put manifest", bundle.bucket, manifest_name(bundle.prefix), manifest)
    _tell_uploaded(order, bundle, totals, round(time.monotonic() - began, 1))
    sent = replace(
        bundle,
        state="uploaded",
        objects=(*parts, last),
        boot=str(boot),
        sealed=sealed_with(order.cloud.account),
    )
    return replace(sent, parts=len(totals.parts), bundled_size=totals.bundled_size)


def _must_be_what_was_read(order: Order, source: BlockSource, totals: Totals, ledger: Ledger) -> None:
    if source.is_unchanged() and totals.digest == order.digest:
        return
    # What is written through a mapping may leave the stamp as it was, and what is kept of it wrong for ever.
    ledger.drop_digest(order.member.stamp)
    raise safe_open.changed(order.member.path)


def _must_be_readable(order: Order, manifest: bytes, totals: Totals) -> None:
    limit = order.cloud.dialect.manifest_limit
    if limit is not None and len(manifest) > limit:
        raise Rejected(
            f"{order.member.path}: too large for cloud {order.cloud.name}",
            f"the manifest of its {len(totals.parts)} parts has {format_size(len(manifest))}, "
            f"and such a cloud reads no more than {format_size(limit)}",
            "Make the image smaller, or put less into it.",
        )


def _send_parts(
    order: Order,
    bundle: BundleRecord,
    secret: Secret,
    source: BlockSource,
    *,
    there: Mapping[str, StoredObject],
) -> tuple[Totals, tuple[StoredObject, ...]]:
    member, ready = order.member, 0
    stored: dict[int, StoredObject] = {}

    def progress(done: int) -> None:
        stage = f"upload the {member.role}"
        order.monitor.progress(Progress(order.set_name, stage, member.name, done, member.size, ready + 1))

    def send_one(piece: PartData) -> None:
        listed_there = there.get(piece.part.name)
        if listed_there is None or not is_same_object(listed_there, piece.data):
            listed_there = _put(order, "put part", bundle.bucket, piece.part.name, piece.data)
        stored[piece.part.index] = listed_there
        order.arrived(len(stored))

    def check() -> None:
        nonlocal ready
        ready += 1
        order.check()

    bundling = Bundling(
        source,
        name=bundle.prefix,
        prefix=bundle.prefix,
        secret=secret,
        sparse=order.sparse,
        digest=digest_like(order.digest),
        compression=order.compression,
        sharers=order.slots.sharers,
        progress=progress,
    )
    with closing(bundling):
        store_parts(bundling, send_one, slots=order.slots, check=check, done=bundling.release)
    return bundling.totals, tuple(stored[index] for index in sorted(stored))


def _put(order: Order, moment: str, bucket: str, key: str, data: bytes | memoryview) -> StoredObject:
    def put_once() -> StoredObject:
        with failpoints.effect(moment):
            return put_object(order.cloud, bucket, key, data)

    return retry(put_once, patience=order.patience, sleep=order.sleep, spread=order.spread)


def _already_there(order: Order, bundle: BundleRecord) -> Mapping[str, StoredObject]:
    """The parts that an earlier attempt has sent, by one look at the bucket. Says where it goes on."""
    parts = {one.key: one for one in list_objects(order.cloud, bundle.bucket, parts_prefix(bundle.prefix))}
    if parts:
        place = _place(bundle, parts, size=order.member.size)
        what = f"Resuming {order.set_name} at upload, {place}"
        fields: Fields = {"file": order.member.path, "stage": f"upload the {order.member.role}"}
        order.monitor.tell(Event(Kind.RESUMED, what, order.set_name, fields=fields))
    return parts


def _place(bundle: BundleRecord, parts: Mapping[str, StoredObject], *, size: int) -> str:
    """Which part is the first that lacks, and of how many: known for sure once the last one was sent."""
    names = (part_name(bundle.prefix, index) for index in range(len(parts)))
    ready = sum(1 for _ in takewhile(parts.__contains__, names))
    last = ready > 0 and parts[part_name(bundle.prefix, ready - 1)].size < PART_SIZE
    if last or ready == bundle.parts > 0:
        return "the manifest"
    of = str(bundle.parts) if bundle.parts else f"at most {max_parts(size)}"
    return f"part {ready + 1} of {of}"


def _manifest(order: Order, bundle: BundleRecord, totals: Totals, secret: Secret, boot: BootIds) -> Manifest:
    account = order.cloud.account
    root = order.cloud.dialect.disk_mapping if order.whole_disk else None
    properties = ImageProperties(order.member.role, order.arch_word, boot.kernel, boot.ramdisk, root)
    credentials = BundleCredentials(
        bundle_user(account), account.user_key, account.user_cert, sealing_certificate(account)
    )
    return make_manifest(bundle.prefix, totals, secret, properties, credentials)


def _parts(totals: Totals) -> str:
    return "1 part" if len(totals.parts) == 1 else f"{len(totals.parts)} parts"


def _tell_bundled(order: Order, totals: Totals) -> None:
    what = (
        f"{order.set_name}: bundled {order.member.name}: {format_size(totals.size)} as {_parts(totals)} "
        f"of {format_size(totals.bundled_size)} in all"
    )
    fields: Fields = {"file": order.member.path, "bytes": totals.bundled_size}
    order.monitor.tell(Event(Kind.BUNDLED, what, order.set_name, "debug", fields))


def _tell_uploaded(order: Order, bundle: BundleRecord, totals: Totals, seconds: float) -> None:
    what = (
        f"{order.set_name}: uploaded {order.member.role} {order.member.name} to {bundle.location}: "
        f"{format_size(totals.size)} as {_parts(totals)} in {seconds} s"
    )
    fields: Fields = {
        "file": order.member.path,
        "cloud": order.cloud.name,
        "bucket": bundle.bucket,
        "bytes": totals.bundled_size,
        "seconds": seconds,
    }
    order.monitor.tell(Event(Kind.UPLOADED, what, order.set_name, fields=fields))
