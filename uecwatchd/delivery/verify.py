"""Takes a registered set back out of the cloud and holds it against its source.

What the cloud lists as available may be damaged all the same: servers check little of a bundle until a node
boots it. So the manifest and every part are fetched, unbundled with the user's key, and the image's digest is
compared.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from uecwatchd.bundle.unbundle import NullSink
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.download import download_bundle
from uecwatchd.errors import Rejected, UecError
from uecwatchd.images.digests import digest_like
from uecwatchd.intake.spool import safe_open
from uecwatchd.ledger.records import MemberRecord, SetRecord
from uecwatchd.types import ContentDigest, Role


@dataclass(frozen=True, slots=True)
class MemberResult:
    """What became of one member. `source` is the file it was compared with, empty when that is gone and the
    digest in the ledger had to serve."""

    role: Role
    image_id: str
    manifest: str
    size: int
    parts: int
    digest: ContentDigest
    source: str


def verify(record: SetRecord, cloud: Cloud) -> Iterator[MemberResult]:
    """Check the members in the order of their registration. Raises Rejected at the first that differs."""
    for member in record.members:
        if member.manifest:
            yield _verify_member(Path(record.folder), member, cloud)


def _verify_member(folder: Path, member: MemberRecord, cloud: Cloud) -> MemberResult:
    expected, source = _expected(folder, member)
    found = download_bundle(cloud, member.manifest, NullSink(), digest_like(expected))
    if found.digest != expected:
        raise Rejected(
            f"{member.manifest}: it is not what {source or 'the ledger'} is",
            f"the image in the cloud has the digest {found.digest}, expected {expected}",
            "The file may have changed since; if not, drop it anew and deregister this image.",
        )
    return MemberResult(
        member.role,
        member.image_id,
        member.manifest,
        found.size,
        len(found.parts),
        found.digest,
        source,
    )


def _expected(folder: Path, member: MemberRecord) -> tuple[ContentDigest, str]:
    """The digest to find, and the file it was read from just now, if that is still there."""
    try:
        return safe_open.digest(folder, member.path), member.path
    except UecError:
        return member.digest, ""
