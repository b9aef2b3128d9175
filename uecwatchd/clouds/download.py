"""The download of a bundle from its bucket."""

from collections.abc import Callable, Iterator

from uecwatchd.bundle.bundler import Part
from uecwatchd.bundle.keys import public_key
from uecwatchd.bundle.manifest import LIMIT_BYTES, check_signature, read_manifest
from uecwatchd.bundle.unbundle import Sink, Unbundled, open_secret, unbundle
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.objects import fetch_object
from uecwatchd.errors import Rejected
from uecwatchd.images.digests import Digest


def download_bundle(
    cloud: Cloud,
    location: str,
    sink: Sink,
    digest: Digest | None = None,
    *,
    before_part: Callable[[Part], None] = lambda _part: None,
) -> Unbundled:
    """Fetch the bundle at "bucket/key" and write its image to `sink` and `digest`, by default one that fits.

    `before_part` is called with each part before it is fetched; what it raises ends the work.
    Raises Rejected for a damaged bundle, and the errors of `clouds` when the cloud does not answer.
    """
    bucket, key = location.split("/", 1)
    data = _fetched(cloud, bucket, key)
    manifest = read_manifest(data, name=key)
    # Opened before the signature is looked at: if we have another key now, the message says that.
    secret = open_secret(manifest, cloud.account.user_key, side="user")
    check_signature(data, public_key(cloud.account.user_cert), name=key)

    def part(wanted: Part) -> Iterator[bytes]:
        before_part(wanted)
        return fetch_object(cloud, bucket, wanted.name)

    return unbundle(manifest, part, secret=secret, sink=sink, digest=digest)


def _fetched(cloud: Cloud, bucket: str, key: str) -> bytes:
    """Return a manifest's bytes, at most as many as a server would read."""
    data = bytearray()
    for chunk in fetch_object(cloud, bucket, key):
        data += chunk
        if len(data) > LIMIT_BYTES:
            why = f"it has more than {LIMIT_BYTES} bytes"
            raise Rejected(f"{bucket}/{key}: this is no manifest", why, "Look who else writes to the bucket.")
    return bytes(data)
