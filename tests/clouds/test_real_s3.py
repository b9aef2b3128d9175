"""The S3 half against servers that others wrote: all check signatures, two Content-MD5, one refuses ACLs."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest

from tests.support.memory_source import MemorySource
from uecwatchd.bundle.bundler import Bundling, PartData, Secret
from uecwatchd.bundle.keys import public_key
from uecwatchd.bundle.manifest import Manifest, seal_secret, write_manifest
from uecwatchd.bundle.names import manifest_name
from uecwatchd.bundle.unbundle import NullSink
from uecwatchd.bundle.upload_slots import UploadSlots, store_parts
from uecwatchd.clouds.client import Cloud, make_cloud
from uecwatchd.clouds.credentials.account import Account
from uecwatchd.clouds.dialects import DIALECTS
from uecwatchd.clouds.download import download_bundle
from uecwatchd.clouds.objects import (
    PAGE_KEYS,
    check_objects,
    ensure_bucket,
    fetch_object,
    is_same_object,
    list_objects,
    put_object,
    remove_object,
)
from uecwatchd.demo.material import RealSet
from uecwatchd.errors import Deferred, Halted, Rejected
from uecwatchd.types import StoredObject

pytestmark = pytest.mark.exhaustive

PART_BYTES = 10 * 1024 * 1024

# Which server is asked as what: the first three with V4, and a UEC's client signs with V2.
WAYS = ("rclone sandbox", "seaweed sandbox", "swift openstack", "seaweed uec", "swift uec")


@pytest.fixture(params=WAYS, scope="module")
def cloud(request: pytest.FixtureRequest) -> Cloud:
    server, dialect = request.param.split()
    return make_cloud(request.getfixturevalue(server), DIALECTS[dialect], uploads=4)


def test_a_part_comes_back_as_it_was_sent(cloud: Cloud) -> None:
    data = os.urandom(PART_BYTES)
    ensure_bucket(cloud, "images")
    put_object(cloud, "images", "karmic-0123.part.0", data)
    assert b"".join(fetch_object(cloud, "images", "karmic-0123.part.0")) == data


def test_a_view_of_memory_is_sent_like_bytes(cloud: Cloud) -> None:
    ensure_bucket(cloud, "images")
    put_object(cloud, "images", "view.part.0", memoryview(b"..encrypted..")[2:-2])
    assert b"".join(fetch_object(cloud, "images", "view.part.0")) == b"encrypted"


def test_a_bucket_is_made_once_and_then_found(cloud: Cloud) -> None:
    ensure_bucket(cloud, "fresh")
    ensure_bucket(cloud, "fresh")
    assert "fresh" in [bucket["Name"] for bucket in cloud.s3.list_buckets()["Buckets"]]


def test_a_missing_object_is_reported_missing_and_cannot_be_fetched(cloud: Cloud) -> None:
    ensure_bucket(cloud, "images")
    put_object(cloud, "images", "there", b"x")
    (there,) = list_objects(cloud, "images", "there")
    assert is_same_object(there, b"x")
    assert not is_same_object(there, b"y")
    assert not list(list_objects(cloud, "images", "not-there"))
    with pytest.raises(Rejected, match="a file of the bundle is not in the bucket"):
        list(fetch_object(cloud, "images", "not-there"))


def test_a_bucket_is_listed_by_prefix(cloud: Cloud) -> None:
    ensure_bucket(cloud, "images")
    prefix = f"karmic-{os.urandom(4).hex()}"
    parts = [put_object(cloud, "images", f"{prefix}.part.{index}", b"x" * index) for index in (2, 1, 3)]
    put_object(cloud, "images", f"other-{prefix}.part.1", b"y")
    assert list(list_objects(cloud, "images", f"{prefix}.part.")) == sorted(parts, key=lambda part: part.key)
    check_objects(cloud, "images", prefix, parts)
    with pytest.raises(Deferred, match="it is not there any more; 9 bytes"):
        check_objects(cloud, "images", prefix, [*parts, StoredObject(f"{prefix}.part.4", 9, "0" * 32)])


def test_an_unused_prefix_lists_nothing(cloud: Cloud) -> None:
    ensure_bucket(cloud, "images")
    assert list(list_objects(cloud, "images", "nothing-like-it")) == []


def test_a_write_test_leaves_no_object(cloud: Cloud) -> None:
    """As `check` does."""
    ensure_bucket(cloud, "images")
    put_object(cloud, "images", "try", b"")
    remove_object(cloud, "images", "try")
    remove_object(cloud, "images", "try")
    assert list(list_objects(cloud, "images", "try")) == []


def test_a_list_is_read_to_its_end(seaweed: Account) -> None:
    cloud = make_cloud(seaweed, DIALECTS["uec"], uploads=4)
    ensure_bucket(cloud, "long")
    keys = [f"karmic.part.{index:04}" for index in range(PAGE_KEYS + 1)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: put_object(cloud, "long", key, b"x"), keys))
    assert [one.key for one in list_objects(cloud, "long", "karmic")] == keys


def test_a_whole_bundle_is_uploaded_and_downloaded(cloud: Cloud, real_set: RealSet) -> None:
    """As the service does it: parts from memory, several in flight, the manifest last; then every check."""
    ensure_bucket(cloud, "images")
    source, account, secret = real_set.kernel, cloud.account, Secret.random()
    prefix = f"vmlinuz-{os.urandom(4).hex()}"
    bundling = Bundling(MemorySource(source.read_bytes()), name=prefix, prefix=prefix, secret=secret)
    send = partial(_send, cloud)
    store_parts(bundling, send, slots=UploadSlots(4), check=lambda: None)
    manifest = Manifest(
        name=prefix,
        user=account.account,
        kind="kernel",
        arch="x86_64",
        tar_sha1=bundling.totals.tar_sha1,
        size=bundling.totals.size,
        bundled_size=bundling.totals.bundled_size,
        for_cloud=seal_secret(secret, public_key(account.cloud_cert)),
        for_user=seal_secret(secret, public_key(account.user_cert)),
        parts=bundling.totals.parts,
    )
    put_object(cloud, "images", manifest_name(prefix), write_manifest(manifest, key=account.user_key))
    back = download_bundle(cloud, f"images/{manifest_name(prefix)}", NullSink())
    assert back.digest == hashlib.sha256(source.read_bytes()).hexdigest()
    assert len(back.parts) == 2


def _send(cloud: Cloud, piece: PartData) -> None:
    put_object(cloud, "images", piece.part.name, piece.data)


@pytest.mark.parametrize("wrong", ["secret_key", "access_key"])
def test_wrong_credentials_halt(cloud: Cloud, wrong: str) -> None:
    account = replace(cloud.account, **{wrong: "AKIDWRONG"})
    with pytest.raises(Halted) as caught:
        ensure_bucket(make_cloud(account, cloud.dialect, uploads=1), "images")
    assert "key" in caught.value.why


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_every_dialect_uploads_to_a_real_server(dialect: str, seaweed: Account) -> None:
    cloud = make_cloud(seaweed, DIALECTS[dialect], uploads=1)
    bucket = f"of-{dialect}"
    ensure_bucket(cloud, bucket)
    put_object(cloud, bucket, "karmic.manifest.xml", b"<?xml version='1.0'?><manifest/>")
    assert b"".join(fetch_object(cloud, bucket, "karmic.manifest.xml")) == b"<?xml version='1.0'?><manifest/>"


@pytest.mark.parametrize("dialect", ["openstack", "euca4"])
def test_a_store_without_acls_is_used(dialect: str, swift: Account) -> None:
    cloud = make_cloud(swift, DIALECTS[dialect], uploads=1)
    bucket = f"of-{dialect}"
    ensure_bucket(cloud, bucket)
    for key in ("karmic.part.0", "karmic.part.1"):
        put_object(cloud, bucket, key, b"x")
    assert cloud.without_acl == {bucket}
    assert len(list(list_objects(cloud, bucket, "karmic"))) == 2
