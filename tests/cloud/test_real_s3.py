"""The S3 half against servers that others wrote: both check signatures, and one of them Content-MD5."""

import hashlib
import os
from dataclasses import replace
from functools import partial

import pytest

from uecwatchd.bundle.keys import public_key
from uecwatchd.bundle.manifest import Manifest, seal_secret, write_manifest
from uecwatchd.bundle.names import manifest_name
from uecwatchd.bundle.stream import Bundling, Secret, Slice
from uecwatchd.bundle.unbundle import Nowhere
from uecwatchd.cloud.client import Cloud, connect
from uecwatchd.cloud.credentials import Account
from uecwatchd.cloud.dialect import DIALECTS, SANDBOX
from uecwatchd.cloud.upload import ensure_bucket, fetch, holds, put
from uecwatchd.delivery import in_flight
from uecwatchd.demo.material import RealSet
from uecwatchd.errors import Halted, Rejected
from uecwatchd.verify import take_back

PART_BYTES = 10 * 1024 * 1024

# Which server is asked with which signature: rclone knows only V4.
WAYS = ("rclone V4", "seaweed V4", "seaweed V2")


@pytest.fixture(params=WAYS)
def cloud(request: pytest.FixtureRequest, account: Account) -> Cloud:
    server, signature = request.param.split()
    at = replace(account, s3_url=request.getfixturevalue(server))
    return connect(at, replace(SANDBOX, s3_signature="s3" if signature == "V2" else "s3v4"), uploads=4)


def test_a_part_comes_back_as_it_was_sent(cloud: Cloud) -> None:
    data = os.urandom(PART_BYTES)
    ensure_bucket(cloud, "images")
    put(cloud, "images", "karmic-0123.part.0", data)
    assert b"".join(fetch(cloud, "images", "karmic-0123.part.0")) == data


def test_a_view_of_memory_is_sent_like_bytes(cloud: Cloud) -> None:
    ensure_bucket(cloud, "images")
    put(cloud, "images", "view.part.0", memoryview(b"..encrypted..")[2:-2])
    assert b"".join(fetch(cloud, "images", "view.part.0")) == b"encrypted"


def test_a_bucket_is_made_once_and_then_found(cloud: Cloud) -> None:
    ensure_bucket(cloud, "fresh")
    ensure_bucket(cloud, "fresh")
    assert "fresh" in [bucket["Name"] for bucket in cloud.s3.list_buckets()["Buckets"]]


def test_what_is_not_there_is_not_held_and_cannot_be_fetched(cloud: Cloud) -> None:
    ensure_bucket(cloud, "images")
    put(cloud, "images", "there", b"x")
    assert holds(cloud, "images", "there", b"x")
    assert not holds(cloud, "images", "there", b"y")
    assert not holds(cloud, "images", "not-there", b"x")
    with pytest.raises(Rejected, match="a file of the bundle is not in the bucket"):
        list(fetch(cloud, "images", "not-there"))


def test_a_whole_bundle_goes_there_and_comes_back(cloud: Cloud, real_set: RealSet) -> None:
    """As the service does it: parts from memory, several in flight, the manifest last; then every check."""
    ensure_bucket(cloud, "images")
    source, account, secret = real_set.kernel, cloud.account, Secret.random()
    prefix = f"vmlinuz-{os.urandom(4).hex()}"
    with source.open("rb", buffering=0) as image:
        size = source.stat().st_size
        bundling = Bundling(image, name=prefix, size=size, prefix=prefix, secret=secret)
        send = partial(_send, cloud)
        in_flight(bundling, send, uploads=4, check=lambda: None)
    manifest = Manifest(
        name=prefix,
        user=account.account,
        kind="kernel",
        arch="x86_64",
        tar_sha1=bundling.totals.tar_sha1,
        size=size,
        bundled_size=bundling.totals.bundled_size,
        for_cloud=seal_secret(secret, public_key(account.cloud_cert)),
        for_user=seal_secret(secret, public_key(account.user_cert)),
        parts=bundling.totals.parts,
    )
    put(cloud, "images", manifest_name(prefix), write_manifest(manifest, key=account.user_key))
    back = take_back(cloud, f"images/{manifest_name(prefix)}", Nowhere())
    assert back.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert len(back.parts) == 2


def _send(cloud: Cloud, piece: Slice) -> None:
    put(cloud, "images", piece.part.name, piece.data)


@pytest.mark.parametrize("wrong", ["secret_key", "access_key"])
def test_wrong_credentials_halt(cloud: Cloud, wrong: str) -> None:
    account = replace(cloud.account, **{wrong: "AKIDWRONG"})
    with pytest.raises(Halted) as caught:
        ensure_bucket(connect(account, cloud.dialect, uploads=1), "images")
    assert "key" in caught.value.why


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_every_dialect_uploads_to_a_real_server(dialect: str, seaweed: str, account: Account) -> None:
    cloud = connect(replace(account, s3_url=seaweed), DIALECTS[dialect], uploads=1)
    bucket = f"of-{dialect}"
    ensure_bucket(cloud, bucket)
    put(cloud, bucket, "karmic.manifest.xml", b"<?xml version='1.0'?><manifest/>")
    assert b"".join(fetch(cloud, bucket, "karmic.manifest.xml")) == b"<?xml version='1.0'?><manifest/>"
