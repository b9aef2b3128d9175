"""Orphans: what lies in our buckets, and is registered on our accounts, and belongs to nothing in the ledger.

They come from a lost ledger, from forgotten sets, and from uploads that ended with their host. What another
host of the account has made is none: its images have its name in a tag, and its bundles have an image, or
are young enough to be on their way.
"""

import re
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from uecwatchd.bundle.names import manifest_name
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.images import Image, list_images
from uecwatchd.clouds.objects import ListedObject, list_dated_objects
from uecwatchd.delivery.identity import TOKEN_CHARS
from uecwatchd.delivery.own_images import HOST_TAG, OUR_NAME, OWNER_TAG
from uecwatchd.delivery.version_facts import AccountUse
from uecwatchd.ledger.records import BundleRecord

OrphanKind = Literal["image", "bundle"]
# Keys as `plan_bundle` makes them: a word, the beginning of a digest, and a generation.
OUR_KEY = re.compile(
    rf"((?:[A-Za-z0-9._-]+-)?[0-9a-f]{{{TOKEN_CHARS}}}(?:-g[0-9]+)?)\.(?:manifest\.xml|part\.[0-9]+)"
)
# A set that fails is tried for two days, and a host may be off over a weekend.
ON_ITS_WAY_SECONDS = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Orphan:
    """An image, or a bundle without one, that nothing in the ledger leads to.

    `stays` is the reason why it is not removed, empty if it can be.
    """

    kind: OrphanKind
    name: str  #: id of the image, or BUCKET/MANIFEST
    bucket: str
    keys: tuple[str, ...]  #: of its objects, as far as they are in one of our buckets
    size: int = 0  #: bytes of these objects
    why: str = ""
    stays: str = ""
    is_made_here: bool = False  #: by the ledger; such an image may have no tags yet


@dataclass(frozen=True, slots=True)
class AccountContents:
    """Contents of an account, and the part of them that the ledger knows."""

    images: Sequence[Image]
    objects: Mapping[str, Sequence[ListedObject]]  #: by bucket
    bundles: Sequence[BundleRecord]
    in_use: frozenset[str]  #: ids of images that a set has, or a version in the cloud is


def read_account(
    cloud: Cloud, bundles: Sequence[BundleRecord], in_use: frozenset[str], *, buckets: Iterable[str]
) -> AccountContents:
    """Read the images, and the objects in these buckets that are named like ours."""
    objects = {bucket: tuple(list_dated_objects(cloud, bucket)) for bucket in sorted(set(buckets))}
    return AccountContents(list_images(cloud), objects, bundles, in_use)


def find_orphans(
    account: AccountContents, use: AccountUse, *, host: str, has_tags: bool, now: float
) -> tuple[Orphan, ...]:
    """Return the orphans of an account: images by id, then bundles by name."""
    by_prefix = _by_prefix(account.objects)
    images = [
        found
        for image in sorted(account.images, key=lambda image: image.id)
        if (found := _image(image, account, by_prefix, use, host=host, has_tags=has_tags))
    ]
    of_images = {image.location for image in account.images}
    left = _without_images(account)
    known = {one.location for one in account.bundles} - left
    bundles = [
        _bundle(bucket, prefix, objects, now=now, left=left)
        for (bucket, prefix), objects in sorted(by_prefix.items())
        if f"{bucket}/{manifest_name(prefix)}" not in of_images | known
    ]
    there = {f"{bucket}/{manifest_name(prefix)}" for bucket, prefix in by_prefix}
    rows = [
        Orphan("bundle", name, name.partition("/")[0], (), why="only the ledger still has it")
        for name in sorted(left - there)
    ]
    return (*images, *sorted((*bundles, *rows), key=lambda one: one.name))


def _without_images(account: AccountContents) -> frozenset[str]:
    """Return the locations of bundles whose images were made here, and are gone, and belong to nothing.

    A removal that was interrupted leaves them.
    """
    listed = {image.id for image in account.images}
    there = listed | account.in_use
    made = (one for one in account.bundles if one.state == "registered" and one.registered is not None)
    return frozenset(one.location for one in made if one.image_id not in there)


def _by_prefix(
    objects: Mapping[str, Sequence[ListedObject]],
) -> Mapping[tuple[str, str], list[ListedObject]]:
    found = defaultdict[tuple[str, str], list[ListedObject]](list)
    for bucket, listed in objects.items():
        for one in listed:
            if ours := OUR_KEY.fullmatch(one.key):
                found[bucket, ours[1]].append(one)
    return found


def _image(
    image: Image,
    account: AccountContents,
    by_prefix: Mapping[tuple[str, str], list[ListedObject]],
    use: AccountUse,
    *,
    host: str,
    has_tags: bool,
) -> Orphan | None:
    """Return an image as an orphan, unless it belongs to something, or is none of ours."""
    known = {one.image_id for one in account.bundles} | {one.location for one in account.bundles}
    is_known, is_used = not known.isdisjoint((image.id, image.location)), image.id in account.in_use
    bucket, _, key = image.location.partition("/")
    ours = OUR_KEY.fullmatch(key)
    tags = dict(image.tags)
    if not image.id or not ours or is_used or bucket not in account.objects:
        return None
    made_here = any(_is_of(image, one) for one in account.bundles)
    is_untagged = made_here and not tags.keys() & {OWNER_TAG, HOST_TAG}
    if has_tags and not is_untagged and (tags.get(OWNER_TAG), tags.get(HOST_TAG)) != (OUR_NAME, host):
        return None
    if is_known and not made_here:
        return None
    booting = [one.id for one in account.images if image.id in (one.kernel, one.ramdisk)]
    users = (*use.of(image.id), *(f"image {one}" for one in booting))
    stays = f"{users[0]} uses it" if users else ""
    if not has_tags and not made_here:
        stays = "the cloud has no tags: it may belong to another host"
    objects = by_prefix.get((bucket, ours[1]), [])
    return Orphan(
        "image",
        image.id,
        bucket,
        tuple(one.key for one in objects),
        sum(one.size for one in objects),
        why="no set has it any more" if made_here else "the ledger does not know it",
        stays=stays,
        is_made_here=made_here,
    )


def _is_of(image: Image, bundle: BundleRecord) -> bool:
    """Tell if an image was made here of a bundle, also if the cloud had not finished it."""
    is_here = bundle.registered is not None or bundle.state == "registering"
    return is_here and (bundle.image_id, bundle.location) == (image.id, image.location)


def _bundle(
    bucket: str, prefix: str, objects: Sequence[ListedObject], *, now: float, left: Container[str]
) -> Orphan:
    name, newest = f"{bucket}/{manifest_name(prefix)}", max(one.modified for one in objects)
    is_young = name not in left and now - newest < ON_ITS_WAY_SECONDS
    why = "its image is gone" if name in left else "there is no image of it, and the ledger does not know it"
    return Orphan(
        "bundle",
        name,
        bucket,
        tuple(one.key for one in objects),
        sum(one.size for one in objects),
        why=why,
        stays="it is younger than a week, and may be on its way from another host" if is_young else "",
    )
