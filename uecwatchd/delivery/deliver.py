"""Bundle, upload and register one member: the order of the steps, and what the ledger says after each."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from uecwatchd.bundle.bundler import Part
from uecwatchd.bundle.unbundle import NullSink
from uecwatchd.clouds import images, registration
from uecwatchd.clouds.credentials.account import sealed_with
from uecwatchd.clouds.download import download_bundle
from uecwatchd.clouds.objects import check_objects
from uecwatchd.delivery.existing import (
    check_id,
    check_is_ours,
    check_name_is_free,
    deregister_failed,
    image_of_bundle,
    own_images,
)
from uecwatchd.delivery.identity import free_identity, is_anothers, plan_bundle, separate
from uecwatchd.delivery.pending import deregister_overdue, is_available, is_overdue, renew_unlisted
from uecwatchd.delivery.request import UploadRequest, UploadTools, arch_word, tell_waiting
from uecwatchd.delivery.stale_uploads import remove_stale_uploads
from uecwatchd.delivery.takeover import (
    begin_again,
    check_settled,
    is_overtaken,
    removed_if_overtaken,
    take_back,
)
from uecwatchd.delivery.upload import send
from uecwatchd.errors import BundleRefused, Deferred, Overtaken, Pending, Rejected
from uecwatchd.events import Event, Kind, Progress
from uecwatchd.images.block_source import BlockSource
from uecwatchd.images.digests import digest_like
from uecwatchd.ledger.records import BundleRecord
from uecwatchd.ledger.sessions import Claim
from uecwatchd.ledger.slots import SlotKey
from uecwatchd.types import ID_WORDS


@dataclass(frozen=True, slots=True)
class Registration:
    """A member that the cloud has given an id. Its image may still be pending."""

    bundle: BundleRecord
    image_id: str
    location: str  #: of the image: another host may have registered it from a bucket of its own
    is_available: bool
    request_id: str = ""  #: of the cloud's answer, if this host has just registered it


def upload_ahead(request: UploadRequest, source: BlockSource, tools: UploadTools) -> None:
    """Bring a member's bundle into the bucket, to be registered later.

    `register_member` looks for its image again: another host may have registered it in the hours between.
    """
    with _claimed(request, tools) as (own, identity, known, _):
        _bring_to_bucket(own, known, identity, source, tools)


def register_member(request: UploadRequest, source: BlockSource, tools: UploadTools) -> Registration:
    """Bundle, upload and register a member, or find it registered.

    Does not wait for an image that is pending. The ledger has to know the set with its contents.
    """
    if made := _find_registered(request, tools):
        return made
    with _claimed(request, tools) as (own, identity, known, claim):
        bundle, there = _bring_to_bucket(own, known, identity, source, tools)
        if there:
            if known and known.state in ("planned", "uploaded") and known.location == there.location:
                bundle = _make_readable(own, known, source, tools)
            return _adopt(own, bundle, there, tools)
        check_settled(claim, known, tools)
        tools.check_stop()
        _check_bundle(own, bundle, tools)
        key, waits = SlotKey(bundle.cloud, "registrations"), tell_waiting(own, "register", tools)
        with tools.limits.one(key, check=tools.check_stop, waits=waits):
            return _register(own, bundle, tools)


def await_available(
    request: UploadRequest, made: Registration, tools: UploadTools, *, pauses: Iterable[float]
) -> BundleRecord:
    """Look at a registered image now and after each pause (seconds), and finish the member's record.

    Raises Pending for an image that takes longer, BundleRefused for one that has failed.
    """
    if made.is_available:
        return made.bundle
    before, role = made.bundle, request.member.role
    with tools.ledger.claim(before.claim, check=tools.check_stop):
        bundle = tools.ledger.bundle(before.cloud, before.identity) or before
        if bundle.image_id not in (before.image_id, made.image_id):  # another set has registered it again
            raise Pending({role: bundle.image_id or made.image_id})
        if not is_available(bundle, made.image_id, tools, pauses=pauses):
            raise Pending({role: made.image_id})
        return _finish(request, bundle, made, tools)


def _find_registered(request: UploadRequest, tools: UploadTools) -> Registration | None:
    """Return a member that is registered and claimed by nobody: then there is nothing to write about it.

    Removers of an image claim it, and look for sets with its content afterwards: they find this one, which
    was written before the ledger was asked for claims.
    """
    identity, begun = free_identity(request, tools), tools.begun_for(request)
    known = begun.get(identity)
    if known is None or known.state != "registered" or known.on_trial or identity in begun.claimed:
        return None
    is_owned = known.owner is not None or request.owner is None
    if not is_owned or is_anothers(request, known) or begun.unpublished(request.made_for, known.role):
        return None
    there = image_of_bundle(known, own_images(request, tools, known, known), tools)
    if there is None or (there.id, there.location, there.state) != (
        known.image_id, known.location, images.AVAILABLE,
    ):  # fmt: skip
        return None
    check_is_ours(request, tools, known, there)
    return _adopt(request, known, there, tools)


@contextmanager
def _claimed(
    request: UploadRequest, tools: UploadTools
) -> Iterator[tuple[UploadRequest, str, BundleRecord | None, Claim]]:
    """Claim a member's bundle while other sets may want the same one.

    Yields the request, the bundle's identity, its record if it was begun, and the claim. The request becomes
    one for an image of the owner's own where another owner has the machine of the same bytes.
    """
    ledger, cloud = tools.ledger, tools.cloud.name
    identity = free_identity(request, tools)
    if not is_anothers(request, tools.begun_for(request).get(identity)):
        remove_stale_uploads(request, tools, but=identity)
        tools.begun.forget()
        with ledger.claim(f"{cloud}/{identity}", check=tools.check_stop) as claim:
            known = _find_begun(request, tools, identity)
            if not is_anothers(request, known):  # or another set was quicker
                yield request, identity, known, claim
                return
    with _claimed(separate(request), tools) as claimed:
        yield claimed


def _find_begun(request: UploadRequest, tools: UploadTools, identity: str) -> BundleRecord | None:
    """Return the record of what was begun, unless the set names another bucket by now.

    That bucket may be gone, or somebody else's.
    """
    known = tools.ledger.bundle(tools.cloud.name, identity)
    if known and known.state in ("planned", "uploaded") and known.bucket != request.bucket:
        return None
    return known


def _bring_to_bucket(
    request: UploadRequest, known: BundleRecord | None, identity: str, source: BlockSource, tools: UploadTools
) -> tuple[BundleRecord, images.Image | None]:
    """Bring the bundle into the bucket, unless there is an image of it already: its record, and the image."""
    ledger, bundle = tools.ledger, known or plan_bundle(request, tools, identity)
    listed = own_images(request, tools, known, bundle)
    if there := image_of_bundle(bundle, listed, tools):
        check_is_ours(request, tools, known, there)
        if not is_overdue(request, bundle, there):
            return bundle, there
        bundle = deregister_overdue(request, bundle, there, tools)
        listed = tuple(image for image in listed if image.id != there.id)
    failed = images.failed_at(tools.cloud, listed, bundle.location)
    if failed:  # no image could be made of it: with another key each of its parts is sent again
        known, bundle = None, ledger.put_bundle(_plan_again(request, bundle, tools, is_new=True))
        deregister_failed(request, tools, failed)
        listed = tuple(image for image in listed if image not in failed)
    elif bundle.state == "registered":  # it was taken out of the cloud since: the whole way again
        known, bundle = None, _plan_again(request, bundle, tools)
    elif is_overtaken(bundle):
        known, bundle = None, begin_again(request, bundle, tools)
    elif bundle.state == "registering" and bundle.image_id:
        bundle = renew_unlisted(request, bundle, tools)
    check_name_is_free(request, tools, bundle, listed)
    if not _is_ready(request, bundle, tools):
        bundle = ledger.put_bundle(bundle)
        with removed_if_overtaken(bundle, tools):
            bundle = ledger.put_bundle(send(request, bundle, source, tools, resuming=known is not None))
    return bundle, None


def _plan_again(
    request: UploadRequest, bundle: BundleRecord, tools: UploadTools, *, is_new: bool = False
) -> BundleRecord:
    return plan_bundle(request, tools, bundle.identity, generation=bundle.generation, is_new=is_new)


def _is_ready(request: UploadRequest, bundle: BundleRecord, tools: UploadTools) -> bool:
    """Tell if the bucket has the bundle, with a manifest that is still right."""
    if bundle.state == "planned" or bundle.sealed != sealed_with(tools.cloud.account):
        return False
    return bundle.boot == str(request.machine.boot)


def _make_readable(
    request: UploadRequest, bundle: BundleRecord, source: BlockSource, tools: UploadTools
) -> BundleRecord:
    """Make a bundle one that opens, after another host of the account registered it from the same location.

    Some parts there may be ours, which the other host's key does not open. Such a bundle is sent again whole.
    """
    try:
        _open_again(request, bundle, tools)
    except Rejected:
        bundle = tools.ledger.put_bundle(send(request, bundle, source, tools, resuming=True))
        _check_bundle(request, bundle, tools)
    return bundle


def _check_bundle(request: UploadRequest, bundle: BundleRecord, tools: UploadTools) -> None:
    """Check that the bucket holds the bundle before the cloud is asked to read it."""
    tools.check_stop()
    try:
        check_objects(tools.cloud, bundle.bucket, bundle.prefix, bundle.objects)
    except Deferred:
        tools.ledger.put_bundle(replace(bundle, state="planned"))  # the next attempt sends what is missing
        raise
    if tools.work.verify == "full":
        try:
            _open_again(request, bundle, tools)
        except Rejected as error:
            # The ETags were right, what is fetched is not: made again, with another key, each part is sent.
            _drop(request, bundle, tools)
            hint = "It is bundled and sent again; if that goes on, suspect the server's disk."
            raise Deferred(error.what, error.why, hint) from error


def _drop(request: UploadRequest, bundle: BundleRecord, tools: UploadTools) -> None:
    """Forget a bundle that was not opened, so that neither this cloud nor the next gets the same parts."""
    tools.ledger.drop_bundle(bundle)
    tools.kept.drop(request.content)


def _open_again(request: UploadRequest, bundle: BundleRecord, tools: UploadTools) -> None:
    """Fetch and open a bundle. Raises Rejected unless it holds the image, bit by bit."""
    member, cloud = request.member, tools.cloud

    def before_part(part: Part) -> None:
        tools.check_stop()
        done = part.index * member.size // bundle.parts if bundle.parts else 0
        stage = f"open the {member.role} again"
        tools.listener.progress(
            Progress(request.made_for, stage, member.name, done, member.size, part.index + 1)
        )

    digest = digest_like(request.digest)
    download_bundle(cloud, bundle.location, NullSink(), digest, before_part=before_part)
    if digest.text() != request.digest:
        why = f"the image in it has the digest {digest.text()}, the file {request.digest}"
        raise Rejected(f"cloud {cloud.name}, opening {bundle.location}", why, "Bundle it again.")
    what = f"{request.made_for.name}: opened {bundle.location} again: it holds {member.name}, bit by bit"
    tools.listener.tell(Event(Kind.UPLOADED, what, request.made_for, fields={"cloud": cloud.name}))


def _register(request: UploadRequest, bundle: BundleRecord, tools: UploadTools) -> Registration:
    tools.check_stop()
    tools.check_files()
    # The set that asks for the image has it made, even if another one began to upload it.
    bundle = replace(bundle, state="registering", made_for=request.made_for, owner=request.owner, image_id="")
    bundle = tools.ledger.put_bundle(replace(bundle, on_trial=tools.on_trial))
    tools.ledger.sessions.sure()
    try:
        answer = _ask_to_register(request, bundle, tools)
    except BundleRefused:
        # What the bucket says of its parts cannot be believed: with another key each of them is sent again.
        _drop(request, bundle, tools)
        raise
    except Rejected:
        # Somebody may have damaged a part: the next attempt looks at each of them again.
        bundle = tools.ledger.put_bundle(replace(bundle, state="planned"))
        # Or another host of the account registered the same first, and ours may not have its name.
        if there := image_of_bundle(bundle, images.list_images(tools.cloud), tools):
            check_is_ours(request, tools, None, there)
            return _adopt(request, bundle, there, tools)
        raise
    bundle = replace(bundle, image_id=answer.image_id)
    made = Registration(bundle, answer.image_id, bundle.location, is_available=False)
    try:
        return _look_once(request, replace(made, request_id=answer.request_id), tools)
    except Overtaken:
        take_back(bundle, answer.image_id, tools)
        raise


def _ask_to_register(
    request: UploadRequest, bundle: BundleRecord, tools: UploadTools
) -> registration.RegisterAnswer:
    machine = request.machine
    return registration.register(
        tools.cloud,
        location=bundle.location,
        name=machine.name or bundle.prefix,
        description=machine.description,
        arch=arch_word(request, tools.cloud),
        kernel=machine.boot.kernel,
        ramdisk=machine.boot.ramdisk,
        virtualization=machine.virtualization,
        platform=machine.platform,
        role=request.member.role,
    )


def _adopt(
    request: UploadRequest, bundle: BundleRecord, there: images.Image, tools: UploadTools
) -> Registration:
    check_id(request, tools, there)
    return _look_once(request, Registration(bundle, there.id, there.location, is_available=False), tools)


def _look_once(request: UploadRequest, made: Registration, tools: UploadTools) -> Registration:
    """Look at an image once: finish its record if it is available, otherwise keep its id."""
    bundle = made.bundle
    if is_available(bundle, made.image_id, tools, pauses=()):
        return replace(made, bundle=_finish(request, bundle, made, tools), is_available=True)
    if bundle.state == "registering":
        bundle = tools.ledger.put_bundle(replace(bundle, image_id=made.image_id))
    if made.request_id:  # the attempt may end before the image is available
        _tell_pending(request, made, tools)
    return replace(made, bundle=bundle)


def _tell_pending(request: UploadRequest, made: Registration, tools: UploadTools) -> None:
    member, cloud = request.member, tools.cloud.name
    what = f"cloud {cloud} makes {member.role} {member.name} available as {made.image_id}"
    fields = {"file": member.path, "cloud": cloud, "request_id": made.request_id}
    event = Event(Kind.WORKING, f"{request.made_for.name}: {what}", request.made_for, "debug", fields)
    tools.listener.tell(event)


def _finish(
    request: UploadRequest, bundle: BundleRecord, made: Registration, tools: UploadTools
) -> BundleRecord:
    """Write down a member that is in the cloud, and tell it: as registered by us, or as found there.

    `bundle` is its record now: another set may have changed it since `made`.
    """
    member, image_id, registered = request.member, made.image_id, bundle.registered
    if bundle.state == "registering":  # also where the answer was lost: then this host has made it
        registered = tools.clocks.now()
    if bundle.state == "registering" and bundle.image_id == image_id:
        kind, what = Kind.REGISTERED, f"registered {member.role} {member.name} as {image_id}"
    else:
        kind, what = Kind.ADOPTED, f"{member.role} {member.name} is {image_id} already ({bundle.location})"
        owner = request.owner if bundle.owner is None else bundle.owner
        bundle = replace(bundle, owner=owner)
    fields = {"file": member.path, "cloud": tools.cloud.name, ID_WORDS[member.role]: image_id}
    if made.request_id:
        fields["request_id"] = made.request_id
    tools.listener.tell(Event(kind, f"{request.made_for.name}: {what}", request.made_for, fields=fields))
    # Another host may have registered it from a bucket of its own, also where an answer to us was lost.
    bucket = made.location.split("/")[0]
    done = replace(bundle, state="registered", bucket=bucket, image_id=image_id, registered=registered)
    done = replace(done, secret_key=None, secret_iv=None)
    return done if done == bundle else tools.ledger.put_bundle(done)
