"""The steps that one member takes, in order."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace

from uecwatchd.bundle.bundler import Part, Secret
from uecwatchd.bundle.names import bundle_prefix, manifest_name
from uecwatchd.bundle.unbundle import NullSink
from uecwatchd.clouds import images, registration
from uecwatchd.clouds.credentials.gather import sealed_with
from uecwatchd.clouds.dialects import fitting_name
from uecwatchd.clouds.download import download_bundle
from uecwatchd.clouds.errors.connection import quoted
from uecwatchd.clouds.objects import check_objects
from uecwatchd.delivery.pending import is_overdue, missed, settled, taken_back
from uecwatchd.delivery.request import BootIds, Order
from uecwatchd.delivery.stale_uploads import clear_leftovers
from uecwatchd.delivery.upload import send
from uecwatchd.errors import BundleRefused, Deferred, Halted, Rejected
from uecwatchd.events import Event, Kind, Progress
from uecwatchd.images.block_source import BlockSource
from uecwatchd.images.digests import digest_like
from uecwatchd.intake.sets.records import ROLE_WORDS
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import BundleRecord

# 64 bits of the identity: names that do not meet by chance, in keys that a person can still read.
TOKEN_CHARS = 16


def bundle_and_register(order: Order, source: BlockSource, ledger: Ledger) -> BundleRecord:
    """Take a member all the way; the finished record. Raises the errors of the bundle and cloud rooms."""
    identity = _free_identity(order, ledger)
    if _is_anothers(order, ledger.bundle(order.cloud.name, identity)):
        return bundle_and_register(_apart(order), source, ledger)
    clear_leftovers(order, ledger, but=identity)
    with ledger.claim(f"{order.cloud.name}/{identity}", check=order.check):
        known = _known(order, ledger, identity)
        if not _is_anothers(order, known):
            return _taken_all_the_way(order, known, identity, source, ledger)
    return bundle_and_register(_apart(order), source, ledger)  # the other one was quicker


def _is_anothers(order: Order, known: BundleRecord | None) -> bool:
    """Whether a machine image of the same bytes is another member's.

    Neither of them is to say who may start the other's image, or to take it away. Kernels are shared.
    """
    mine = known is None or order.owner is None or known.owner in (None, order.owner)
    return order.member.role == "machine" and not mine


def _apart(order: Order) -> Order:
    """The same as an image of the owner's own, under a name that tells it from the other one."""
    name = order.name if order.wishes or order.name is None else f"{order.name}-{order.owner}"
    return replace(order, name=name, wishes=(*order.wishes, f"owner {order.owner}"))


def _taken_all_the_way(
    order: Order, known: BundleRecord | None, identity: str, source: BlockSource, ledger: Ledger
) -> BundleRecord:
    bundle = known or _plan(order, identity)
    listed = _listed(order, known, bundle)
    if there := _find(order, bundle, listed):
        _must_be_ours(order, known, there)
        if not is_overdue(order, bundle, there):
            if known and known.state in ("planned", "uploaded") and known.location == there.location:
                bundle = _made_whole(order, known, source, ledger)
            return _adopt(order, bundle, there, ledger)
        bundle = taken_back(order, bundle, there, ledger)
        listed = tuple(image for image in listed if image.id != there.id)
    failed = images.failed_at(order.cloud, listed, bundle.location)
    if failed:  # no image could be made of it: with another key each of its parts is sent again
        known, bundle = None, ledger.put_bundle(_plan(order, identity))
        listed = _without(order, failed, listed)
    elif bundle.state == "registered":  # it was taken out of the cloud since: the whole way again
        known, bundle = None, _plan(order, identity)
    elif bundle.state == "registering" and bundle.image_id:
        bundle = missed(order, bundle, ledger)
    _must_have_name(order, bundle, listed)
    if not _is_ready(order, bundle):
        bundle = ledger.put_bundle(bundle)
        bundle = _sent(order, bundle, source, ledger, resuming=known is not None)
    order.check()
    _look_over(order, bundle, ledger)
    return _register(order, bundle, ledger)


def _is_ready(order: Order, bundle: BundleRecord) -> bool:
    """Whether a bundle lies in the bucket, with a manifest that is still right."""
    if bundle.state == "planned" or bundle.sealed != sealed_with(order.cloud.account):
        return False
    return bundle.boot == str(order.boot.ids())


def _sent(
    order: Order, bundle: BundleRecord, source: BlockSource, ledger: Ledger, *, resuming: bool
) -> BundleRecord:
    with order.turn(order.check):
        return ledger.put_bundle(send(order, bundle, source, ledger, resuming=resuming))


def _made_whole(order: Order, bundle: BundleRecord, source: BlockSource, ledger: Ledger) -> BundleRecord:
    """Another host of our account registered it from the very place that we were sending to: some parts there
    may be ours, which its key does not open. What is not all of one hand is sent again, to be of ours."""
    try:
        _open_again(order, bundle)
    except Rejected:
        bundle = _sent(order, bundle, source, ledger, resuming=True)
        _look_over(order, bundle, ledger)
    return bundle


def _known(order: Order, ledger: Ledger, identity: str) -> BundleRecord | None:
    """What was begun. Not in a bucket that is another by now: that one may be gone, or somebody else's."""
    known = ledger.bundle(order.cloud.name, identity)
    elsewhere = known and known.state in ("planned", "uploaded") and known.bucket != order.bucket
    return None if elsewhere else known


def _free_identity(order: Order, ledger: Ledger) -> str:
    """A kernel that left the cloud may have come back under another id since. The image of its old one has
    the place then, and is no good to us; what was made in its stead is, also once the old one has gone."""
    identity = _identity(order, order.boot.traits)
    if order.member.role != "machine":
        return identity
    others = ledger.machines(order.cloud.name, digest=order.digest)
    there = images.image_at(order.cloud, images.recent_images(order.cloud), _place(order, identity, others))
    if there is None and not others.keys() - {identity}:
        return identity  # without waiting for the ids
    boot = order.boot.ids()
    instead = _identity(order, (boot.kernel or "", boot.ramdisk or ""))
    if there is None:
        return instead if instead in others else identity
    return identity if _boots_alike(there, boot) else instead


def _place(order: Order, identity: str, begun: Mapping[str, BundleRecord]) -> str:
    """Where an image is looked for: a set of another name may have had it made."""
    if known := begun.get(identity):
        return known.location
    return f"{order.bucket}/{manifest_name(_prefix(order, identity))}"


def _boots_alike(there: images.Image, boot: BootIds) -> bool:
    """As far as the cloud tells; one that boots with nothing of its own may be given the cloud's default."""
    pairs = ((there.kernel, boot.kernel), (there.ramdisk, boot.ramdisk))
    return all(listed == wanted for listed, wanted in pairs if listed and wanted)


def _identity(order: Order, boot: object) -> str:
    """All that makes an image what it is; equal identities need one bundle, of kernels in whatever bucket."""
    traits: list[object] = [order.member.role, order.digest, order.arch, order.cloud.account.account]
    if order.member.role == "machine":
        traits += [boot, order.virtualization, order.platform, order.bucket, *order.wishes]
    return hashlib.sha256(json.dumps(traits).encode()).hexdigest()


def _listed(order: Order, known: BundleRecord | None, bundle: BundleRecord) -> tuple[images.Image, ...]:
    """Asked for now, but where nothing was begun and a list of a moment ago has nothing in our way either:
    the upload comes in between anyhow."""
    lately = () if known else images.recent_images(order.cloud)
    if known or _find(order, bundle, lately) or _holder(order, bundle, lately):
        return images.list_images(order.cloud)
    return lately


def _find(order: Order, bundle: BundleRecord, listed: tuple[images.Image, ...]) -> images.Image | None:
    """What is registered from this bundle already. Kernels and ramdisks are looked for in every bucket, since
    their keys come from their content alone and their names may be had only once."""
    if order.member.role == "machine":
        return images.image_at(order.cloud, listed, bundle.location)
    return images.image_of_manifest(order.cloud, listed, manifest_name(bundle.prefix))


def _must_be_ours(order: Order, known: BundleRecord | None, there: images.Image) -> None:
    """With `on_existing = "fail"`, only what this very set began may be taken for its own."""
    mine = known and known.made_for == order.made_for and known.owner in (None, order.owner)
    if not order.unique or mine:
        return
    raise Rejected(
        f"{order.set_name}: it is registered already",
        f'{there.id} on cloud {order.cloud.name} has the same content, and on_existing = "fail"',
        f'Use {there.id}, deregister it, or say on_existing = "reuse" in the sidecar.',
    )


def _without(
    order: Order, failed: tuple[images.Image, ...], listed: tuple[images.Image, ...]
) -> tuple[images.Image, ...]:
    """Take what was registered from our place and has failed off the cloud's list: it would keep the name."""
    for image in failed:
        registration.deregister(order.cloud, image.id)
        what = f"{order.set_name}: deregistered {image.id}, which is {image.state}, to register it anew"
        order.monitor.tell(Event(Kind.REGISTERED, what, order.set_name, fields={"cloud": order.cloud.name}))
    return tuple(image for image in listed if image not in failed)


def _must_have_name(order: Order, bundle: BundleRecord, listed: tuple[images.Image, ...]) -> None:
    """Known before gigabytes go up: no two images of an account may have one name."""
    holder = _holder(order, bundle, listed)
    if holder is None:
        return
    name = holder.name
    other = ", or choose a name that changes with the content, such as {stem}-{sha8}" if order.name else ""
    raise Rejected(
        f"{order.set_name}: the name {name} is taken",
        f"{holder.id or 'an image'} on cloud {order.cloud.name} has it, with another content"
        f" (it is {quoted(holder.state)})",
        f"Deregister {holder.id or 'it'}{other}.",
    )


def _holder(order: Order, bundle: BundleRecord, listed: tuple[images.Image, ...]) -> images.Image | None:
    """The image that has the name already."""
    return images.image_named(listed, fitting_name(order.cloud.dialect, order.name or bundle.prefix))


def _plan(order: Order, identity: str) -> BundleRecord:
    secret = Secret.random()
    return BundleRecord(
        cloud=order.cloud.name,
        bucket=order.bucket,
        identity=identity,
        role=order.member.role,
        digest=order.digest,
        prefix=_prefix(order, identity),
        state="planned",
        secret_key=secret.key,
        secret_iv=secret.iv,
        made_for=order.made_for,
        owner=order.owner,
    )


def _prefix(order: Order, identity: str) -> str:
    return bundle_prefix(order.member.role, _telling_name(order), token=identity[:TOKEN_CHARS])


def _telling_name(order: Order) -> str:
    """What a person reads in a list of images: whose machine it is, or which kernel. Kernels and ramdisks are
    named by nothing that differs between the sets that share them."""
    if order.member.role == "machine":
        return order.set_name
    return order.member.facts.version or ""


def _adopt(order: Order, bundle: BundleRecord, there: images.Image, ledger: Ledger) -> BundleRecord:
    _must_be_one(order, there)
    ready = settled(order, bundle, there.id, ledger)
    if bundle.state == "registering" and bundle.image_id == ready.id:
        return _finished(order, bundle, ready.id, ledger)
    what = (
        f"{order.set_name}: {order.member.role} {order.member.name} is {ready.id} already ({bundle.location})"
    )
    fields = {"file": order.member.path, "cloud": order.cloud.name, _id_field(order): ready.id}
    order.monitor.tell(Event(Kind.ADOPTED, what, order.set_name, fields=fields))
    bucket = there.location.split("/")[0]
    # Asked for by us, with the answer lost on the way: then it is this host that made it.
    made = order.now() if bundle.state == "registering" else bundle.registered
    owner = order.owner if bundle.owner is None else bundle.owner
    bundle = replace(bundle, bucket=bucket, registered=made, owner=owner)
    return ledger.put_bundle(_registered(bundle, ready.id))


def _must_be_one(order: Order, there: images.Image) -> None:
    if images.is_id(order.cloud, there.id, order.member.role):
        return
    raise Halted(
        f"cloud {order.cloud.name}, looking for {there.location}",
        f"it lists it as {there.id}, which is no id of a {ROLE_WORDS[order.member.role]}",
        "Ask its administrator: whoever boots it would boot something else.",
    )


def _registered(bundle: BundleRecord, image_id: str) -> BundleRecord:
    return replace(bundle, state="registered", image_id=image_id, secret_key=None, secret_iv=None)


def _look_over(order: Order, bundle: BundleRecord, ledger: Ledger) -> None:
    """See that the bucket holds the bundle before the cloud is asked to read it."""
    order.check()
    try:
        check_objects(order.cloud, bundle.bucket, bundle.prefix, bundle.objects)
    except Deferred:
        ledger.put_bundle(replace(bundle, state="planned"))  # the next attempt sends what is not there
        raise
    if order.full:
        try:
            _open_again(order, bundle)
        except Rejected as error:
            # The ETags tell nothing of what is fetched: made anew, with another key, each part is sent again.
            ledger.drop_bundle(bundle)
            hint = "It is bundled and sent anew; if that goes on, suspect the server's disk."
            raise Deferred(error.what, error.why, hint) from error


def _open_again(order: Order, bundle: BundleRecord) -> None:
    def before_part(part: Part) -> None:
        order.check()
        name, size, stage = order.member.name, order.member.size, f"open the {order.member.role} again"
        done = part.index * size // bundle.parts if bundle.parts else 0
        order.monitor.progress(Progress(order.set_name, stage, name, done, size, part.index + 1))

    digest = digest_like(order.digest)
    download_bundle(order.cloud, bundle.location, NullSink(), digest, before_part=before_part)
    if digest.text() != order.digest:
        why = f"the image in it has the digest {digest.text()}, the file {order.digest}"
        raise Rejected(f"cloud {order.cloud.name}, opening {bundle.location}", why, "Bundle it anew.")
    what = f"{order.set_name}: opened {bundle.location} again: it holds {order.member.name}, bit by bit"
    order.monitor.tell(Event(Kind.UPLOADED, what, order.set_name, fields={"cloud": order.cloud.name}))


def _register(order: Order, bundle: BundleRecord, ledger: Ledger) -> BundleRecord:
    order.check()
    order.unchanged()
    boot = order.boot.ids()
    # Whoever asks for an image has it made, whichever set began to upload it.
    bundle = replace(bundle, state="registering", made_for=order.made_for, owner=order.owner, image_id="")
    bundle = ledger.put_bundle(bundle)
    try:
        image_id = registration.register(
            order.cloud,
            location=bundle.location,
            name=order.name or bundle.prefix,
            description=order.description,
            arch=order.arch_word,
            kernel=boot.kernel,
            ramdisk=boot.ramdisk,
            virtualization=order.virtualization,
            platform=order.platform,
            role=order.member.role,
        )
    except BundleRefused:
        # What the bucket says of its parts cannot be believed: with another key each of them is sent again.
        ledger.drop_bundle(bundle)
        raise
    except Rejected:
        # Somebody may have damaged a part: the next attempt looks at each of them again.
        bundle = ledger.put_bundle(replace(bundle, state="planned"))
        # Or another host of our account was quicker with the same, and ours has its name no more.
        if there := _find(order, bundle, images.list_images(order.cloud)):
            _must_be_ours(order, None, there)
            return _adopt(order, bundle, there, ledger)
        raise
    settled(order, bundle, image_id, ledger)
    return _finished(order, bundle, image_id, ledger)


def _finished(order: Order, bundle: BundleRecord, image_id: str, ledger: Ledger) -> BundleRecord:
    what = f"{order.set_name}: registered {order.member.role} {order.member.name} as {image_id}"
    fields = {"file": order.member.path, "cloud": order.cloud.name, _id_field(order): image_id}
    order.monitor.tell(Event(Kind.REGISTERED, what, order.set_name, fields=fields))
    return ledger.put_bundle(replace(_registered(bundle, image_id), registered=order.now()))


def _id_field(order: Order) -> str:
    return {"machine": "emi", "kernel": "eki", "ramdisk": "eri"}[order.member.role]
