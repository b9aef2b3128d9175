"""Verify registered images: download a set from the cloud and compare it with its files.

An image that the cloud lists as available may still be damaged: servers check little of a bundle until a node
boots it. So the manifest and every part are fetched, unbundled with the user's key, and the image's digest is
compared.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from uecwatchd.bundle.unbundle import CountingSink, NullSink
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.download import download_bundle
from uecwatchd.errors import Rejected, UecError
from uecwatchd.events import Progress
from uecwatchd.images.digests import digest_like
from uecwatchd.images.reading import describe
from uecwatchd.intake.spool import safe_open
from uecwatchd.ledger.records import MemberRecord, SetRecord, TargetImage
from uecwatchd.types import ContentDigest, Role, SetId


@dataclass(frozen=True, slots=True)
class MemberResult:
    """A member whose image in the cloud is what it should be.

    `source` is what it was compared with, for people. It is empty if the file is gone: then the digest in the
    ledger was compared.
    """

    role: Role
    image_id: str
    manifest: str
    size: int
    parts: int
    digest: ContentDigest
    source: str


def verify(
    record: SetRecord, cloud: Cloud, *, show: Callable[[Progress], None] = lambda _progress: None
) -> Iterator[MemberResult]:
    """Check the members in the order of their registration. Raises Rejected at the first that differs."""
    for member in record.members:
        image = record.target.image(member.role)
        if image.manifest:
            yield _verify_member(record.id, member, image, cloud, show)


def _verify_member(
    made_for: SetId, member: MemberRecord, image: TargetImage, cloud: Cloud, show: Callable[[Progress], None]
) -> MemberResult:
    def reached(stage: str, done: int) -> None:
        show(Progress(made_for, f"{stage} the {member.role}", member.path, done, member.size))

    expected, source = _expected(made_for, member, partial(reached, "read"))
    sink = CountingSink(NullSink(), partial(reached, "download"))
    found = download_bundle(cloud, image.manifest, sink, digest_like(expected))
    if found.digest != expected:
        raise Rejected(
            f"{image.manifest}: it is not what {source or 'the ledger'} is",
            f"the image in the cloud has the digest {found.digest}, expected {expected}",
            "The file may have changed since; if not, drop it again and deregister this image.",
        )
    return MemberResult(
        member.role,
        image.image_id,
        image.manifest,
        found.size,
        len(found.parts),
        found.digest,
        source,
    )


def _expected(
    made_for: SetId, member: MemberRecord, progress: Callable[[int], None]
) -> tuple[ContentDigest, str]:
    """Return the digest to find, and the file it was read from now, if that is still there.

    A prepared image is not what its file is, and what is made for a set is removed when it is done.
    """
    if member.origin or member.prepared is not None or made_for.is_elsewhere:
        return member.digest, ""
    try:
        found = safe_open.digest(Path(made_for.folder), member.path, member.how, progress=progress)
        return found, describe(member.how, member.path)
    except UecError:
        return member.digest, ""
