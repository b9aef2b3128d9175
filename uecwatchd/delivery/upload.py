"""Upload a bundle: made while it is sent, without a copy on disk, and without parts that the bucket has.

Only for a set that goes to several clouds its parts are kept on the disk as well, and sent to the next ones
from there: see `uecwatchd.bundle.kept_bundles`.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import takewhile

from uecwatchd.bundle.bundler import (
    PART_SIZE,
    Bundling,
    PartData,
    Secret,
    Totals,
    max_bundled_bytes,
    max_parts,
)
from uecwatchd.bundle.folder import BundleCredentials, ImageProperties, make_manifest
from uecwatchd.bundle.kept_bundles import KeptBundle, KeptParts, UnreadableParts
from uecwatchd.bundle.manifest import Manifest, write_manifest
from uecwatchd.bundle.names import manifest_name, part_name, parts_prefix
from uecwatchd.bundle.upload_slots import store_parts
from uecwatchd.clouds.credentials.account import bundle_user, sealed_with, sealing_certificate
from uecwatchd.clouds.objects import is_same_object, list_objects, put_object
from uecwatchd.clouds.request_retry import retry
from uecwatchd.delivery.identity import with_keys_of, with_new_keys
from uecwatchd.delivery.request import UploadRequest, UploadTools, arch_word, tell_waiting
from uecwatchd.errors import Rejected, UecError, problem
from uecwatchd.events import Event, Fields, Kind, Progress
from uecwatchd.images.block_source import BlockSource
from uecwatchd.images.digests import digest_like
from uecwatchd.intake.spool import safe_open
from uecwatchd.ledger.records import BundleRecord
from uecwatchd.ledger.slots import SlotKey
from uecwatchd.system import failpoints
from uecwatchd.system.text import format_size
from uecwatchd.types import StoredObject

Sent = tuple[Totals, tuple[StoredObject, ...]]  # a bundle, and its parts in the bucket in order


def send(
    request: UploadRequest, bundle: BundleRecord, source: BlockSource, tools: UploadTools, *, resuming: bool
) -> BundleRecord:
    """Bundle and upload an image in one stream, the manifest last; return the record of the upload.

    The same key and IV make the same parts, so `resuming` sends only those that are not there yet. Where
    another host has the keys, all are sent again.
    """
    began = time.monotonic()
    has_keys = bundle.secret_key is not None
    there = _find_parts(request, bundle, tools) if resuming and has_keys else {}
    kept = tools.kept.find(request.content)
    if kept and resuming and not there and bundle.state == "planned":  # no part has come through yet
        bundle = tools.ledger.put_bundle(with_keys_of(bundle, kept))
    elif not has_keys:
        bundle = tools.ledger.put_bundle(with_new_keys(bundle))
    secret = Secret(bundle.secret_key or b"", bundle.secret_iv or b"")
    if kept and (kept.secret, kept.name) == (secret, bundle.name_inside):
        totals, parts = _send_kept(request, bundle, kept, source, tools, there=there)
    else:
        totals, parts = _bundle_and_send(request, bundle, secret, source, tools, there=there)
    account = tools.cloud.account
    manifest = write_manifest(_manifest(request, bundle, totals, secret, tools), key=account.user_key)
    _check_manifest_size(request, manifest, totals, tools)
    key, waits = SlotKey(bundle.cloud, "uploads"), tell_waiting(request, "upload", tools)
    with tools.limits.one(key, check=tools.check_stop, waits=waits):
        last = _put(tools, "put manifest", bundle.bucket, manifest_name(bundle.prefix), manifest)
    _tell_uploaded(request, bundle, totals, tools, seconds=round(time.monotonic() - began, 1))
    return replace(
        bundle,
        state="uploaded",
        objects=(*parts, last),
        boot=str(request.machine.boot),
        sealed=sealed_with(account),
        parts=len(totals.parts),
        bundled_size=totals.bundled_size,
    )


def _check_what_was_read(
    request: UploadRequest, source: BlockSource, totals: Totals, tools: UploadTools
) -> None:
    """Raise Deferred if the file was not read as it was at scan time."""
    if source.is_unchanged() and totals.digest == request.digest:
        return
    # Writes through a mapping may leave the stamp as it was, and the digest in the ledger wrong for ever.
    tools.ledger.drop_digests(request.member.stamp)
    raise safe_open.changed(request.member.path)


def _check_manifest_size(request: UploadRequest, manifest: bytes, totals: Totals, tools: UploadTools) -> None:
    """Raise Rejected if this generation of cloud does not read manifests of that size."""
    limit = tools.cloud.dialect.manifest_limit
    if limit is not None and len(manifest) > limit:
        raise Rejected(
            f"{request.member.path}: too large for cloud {tools.cloud.name}",
            f"the manifest of its {len(totals.parts)} parts has {format_size(len(manifest))}, "
            f"and such a cloud reads no more than {format_size(limit)}",
            "Make the image smaller, or put less into it.",
        )


def _bundle_and_send(
    request: UploadRequest,
    bundle: BundleRecord,
    secret: Secret,
    source: BlockSource,
    tools: UploadTools,
    *,
    there: Mapping[str, StoredObject],
) -> Sent:
    """Bundle an image while it is sent, and keep the parts if the set goes to another cloud next."""
    most = max_bundled_bytes(source.stored_bytes if tools.work.sparse else source.size)
    keeping = tools.kept.keeping(
        request.content, cloud=tools.cloud.name, name=bundle.name_inside, secret=secret, needs_bytes=most
    )
    with keeping as keeper:
        begin = partial(_bundling, request, bundle, secret, source, tools)
        totals, stored = _send_parts(request, bundle, begin, tools, there=there, keep=keeper.keep)
        _check_what_was_read(request, source, totals, tools)
        keeper.finish(totals)
    _tell_bundled(request, totals, tools)
    if keeper.problem:
        _tell_not_kept(request, keeper.problem, tools)
    return totals, stored


def _send_kept(
    request: UploadRequest,
    bundle: BundleRecord,
    kept: KeptBundle,
    source: BlockSource,
    tools: UploadTools,
    *,
    there: Mapping[str, StoredObject],
) -> Sent:
    """Send what was bundled for another cloud."""
    _tell_kept(request, kept, tools)
    try:
        totals, stored = _send_parts(
            request, bundle, partial(KeptParts, kept, bundle.prefix), tools, there=there
        )
    except UnreadableParts:
        tools.kept.drop(request.content)
        raise
    _check_what_was_read(request, source, totals, tools)
    return totals, stored


def _send_parts(
    request: UploadRequest,
    bundle: BundleRecord,
    begin: Callable[[Callable[[int], None]], Bundling | KeptParts],
    tools: UploadTools,
    *,
    there: Mapping[str, StoredObject],
    keep: Callable[[PartData], None] = lambda _piece: None,
) -> Sent:
    """Send the parts that the bucket does not have.

    `begin` begins to yield all of them, and takes a function for the number of bytes of the image that are
    done. `keep` is called with each part, in the thread that sends it.
    """
    member, ready = request.member, 0
    stored: dict[int, StoredObject] = {}

    def progress(done: int) -> None:
        stage = f"upload the {member.role}"
        tools.listener.progress(Progress(request.made_for, stage, member.name, done, member.size, ready + 1))

    def send_one(piece: PartData) -> None:
        keep(piece)
        known = there.get(piece.part.name)
        if known is None or not is_same_object(known, piece.data):
            known = _put(tools, "put part", bundle.bucket, piece.part.name, piece.data)
        stored[piece.part.index] = known
        tools.note_parts(member.role, len(stored))

    def check() -> None:
        nonlocal ready
        ready += 1
        tools.check_stop()

    key, waits = SlotKey(bundle.cloud, "uploads"), tell_waiting(request, "upload", tools)
    limited = tools.limits.used(key, most=tools.slots.most, check=tools.check_stop, waits=waits)
    pieces = begin(progress)
    with closing(pieces), limited as permits:
        store_parts(pieces, send_one, slots=tools.slots, permits=permits, check=check, done=pieces.release)
    return pieces.totals, tuple(stored[index] for index in sorted(stored))


def _bundling(
    request: UploadRequest,
    bundle: BundleRecord,
    secret: Secret,
    source: BlockSource,
    tools: UploadTools,
    progress: Callable[[int], None],
) -> Bundling:
    """Begin the bundle of a member as the configuration asks for it."""
    return Bundling(
        source,
        name=bundle.name_inside,
        prefix=bundle.prefix,
        secret=secret,
        sparse=tools.work.sparse,
        digest=digest_like(request.digest),
        compression=tools.work.compression,
        sharers=tools.slots.sharers,
        progress=progress,
    )


def _put(tools: UploadTools, moment: str, bucket: str, key: str, data: bytes | memoryview) -> StoredObject:
    def put_once() -> StoredObject:
        with failpoints.effect(moment):
            return put_object(tools.cloud, bucket, key, data)

    return retry(put_once, patience=tools.patience, sleep=tools.sleep, spread=tools.clocks.random)


def _find_parts(
    request: UploadRequest, bundle: BundleRecord, tools: UploadTools
) -> Mapping[str, StoredObject]:
    """Find the parts of an earlier attempt, by one listing, and tell the first part to send."""
    parts = {one.key: one for one in list_objects(tools.cloud, bundle.bucket, parts_prefix(bundle.prefix))}
    if parts:
        place = _resume_point(bundle, parts, size=request.member.size)
        what = f"Resuming {request.made_for.name} at upload, {place}"
        fields: Fields = {"file": request.member.path, "stage": f"upload the {request.member.role}"}
        tools.listener.tell(Event(Kind.RESUMED, what, request.made_for, fields=fields))
    return parts


def _resume_point(bundle: BundleRecord, parts: Mapping[str, StoredObject], *, size: int) -> str:
    """Say which part is missing first. The number of parts is certain once the last was sent."""
    names = (part_name(bundle.prefix, index) for index in range(len(parts)))
    ready = sum(1 for _ in takewhile(parts.__contains__, names))
    last = ready > 0 and parts[part_name(bundle.prefix, ready - 1)].size < PART_SIZE
    if last or ready == bundle.parts > 0:
        return "the manifest"
    of = str(bundle.parts) if bundle.parts else f"at most {max_parts(size)}"
    return f"part {ready + 1} of {of}"


def _manifest(
    request: UploadRequest, bundle: BundleRecord, totals: Totals, secret: Secret, tools: UploadTools
) -> Manifest:
    account, machine = tools.cloud.account, request.machine
    root = tools.cloud.dialect.disk_mapping if machine.is_whole_disk else None
    word = arch_word(request, tools.cloud)
    properties = ImageProperties(request.member.role, word, machine.boot.kernel, machine.boot.ramdisk, root)
    credentials = BundleCredentials(
        bundle_user(account), account.user_key, account.user_cert, sealing_certificate(account)
    )
    return make_manifest(bundle.name_inside, totals, secret, properties, credentials)


def _parts(totals: Totals) -> str:
    return "1 part" if len(totals.parts) == 1 else f"{len(totals.parts)} parts"


def _tell_bundled(request: UploadRequest, totals: Totals, tools: UploadTools) -> None:
    what = (
        f"{request.made_for.name}: bundled {request.member.name}: {format_size(totals.size)} as "
        f"{_parts(totals)} of {format_size(totals.bundled_size)} in all"
    )
    fields: Fields = {"file": request.member.path, "bytes": totals.bundled_size}
    tools.listener.tell(Event(Kind.BUNDLED, what, request.made_for, "debug", fields))


def _tell_kept(request: UploadRequest, kept: KeptBundle, tools: UploadTools) -> None:
    cloud = tools.cloud.name
    what = f"{request.member.name} is sent to cloud {cloud} as it was bundled for cloud {kept.cloud}"
    fields: Fields = {"file": request.member.path, "cloud": cloud}
    event = Event(Kind.WORKING, f"{request.made_for.name}: {what}", request.made_for, "debug", fields)
    tools.listener.tell(event)


def _tell_not_kept(request: UploadRequest, why: UecError, tools: UploadTools) -> None:
    what = f"{request.member.name} is bundled again for the next cloud: {problem(why)}"
    fields: Fields = {"file": request.member.path}
    tools.listener.tell(
        Event(Kind.WORKING, f"{request.made_for.name}: {what}", request.made_for, fields=fields)
    )


def _tell_uploaded(
    request: UploadRequest, bundle: BundleRecord, totals: Totals, tools: UploadTools, *, seconds: float
) -> None:
    member = request.member
    what = (
        f"{request.made_for.name}: uploaded {member.role} {member.name} to {bundle.location}: "
        f"{format_size(totals.size)} as {_parts(totals)} in {seconds} s"
    )
    fields: Fields = {
        "file": member.path,
        "cloud": tools.cloud.name,
        "bucket": bundle.bucket,
        "bytes": totals.bundled_size,
        "seconds": seconds,
    }
    tools.listener.tell(Event(Kind.UPLOADED, what, request.made_for, fields=fields))
