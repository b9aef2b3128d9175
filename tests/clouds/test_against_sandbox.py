"""Both halves against the embedded cloud, which makes every signature again and takes every bundle apart."""

import datetime
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.cloud_keys import with_keys
from uecwatchd.bundle.folder import BundleCredentials, ImageProperties, bundle_to_folder
from uecwatchd.clouds.client import Cloud, make_cloud
from uecwatchd.clouds.credentials.account import Account, gather, sealing_certificate
from uecwatchd.clouds.dialects import SANDBOX
from uecwatchd.clouds.images import image_at, list_images
from uecwatchd.clouds.objects import (
    check_objects,
    ensure_bucket,
    fetch_object,
    is_same_object,
    list_objects,
    put_object,
    remove_object,
)
from uecwatchd.clouds.registration import probe_ec2, register, wait_until_available
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import CloudAway, Deferred, Halted, Rejected
from uecwatchd.sandbox.server import Sandbox

# More than one part, and no whole number of them.
IMAGE_BYTES = 11 * 1024 * 1024

V2 = replace(SANDBOX, ec2_signature="v2", s3_signature="s3", signs_whole_path=True)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


def settings_for(sandbox: Sandbox) -> CloudSettings:
    return CloudSettings(name="embedded", dialect="sandbox", eucarc=sandbox.eucarc)


@pytest.fixture(params=[SANDBOX, V2], ids=["V4", "V2"])
def cloud(request: pytest.FixtureRequest, sandbox: Sandbox) -> Cloud:
    return make_cloud(gather(settings_for(sandbox)), request.param, uploads=2)


@pytest.fixture
def bundle(cloud: Cloud, tmp_path: Path) -> Path:
    """The manifest of a bundle in a folder, beside its parts."""
    source = tmp_path / f"karmic-{random.randrange(10**9)}.img"  # noqa: S311 (only to be another)
    source.write_bytes(random.randbytes(IMAGE_BYTES))  # noqa: S311 (only not to be compressible)
    return bundled(source, tmp_path / "bundle", cloud.account)


def bundled(source: Path, folder: Path, account: Account) -> Path:
    credentials = BundleCredentials(
        account.account, account.user_key, account.user_cert, sealing_certificate(account)
    )
    return bundle_to_folder(source, folder, ImageProperties("machine", "x86_64"), credentials).path


def upload(cloud: Cloud, manifest: Path) -> str:
    ensure_bucket(cloud, "images")
    for file in sorted(manifest.parent.iterdir()):
        put_object(cloud, "images", file.name, file.read_bytes())
    return f"images/{manifest.name}"


def register_it(cloud: Cloud, location: str) -> str:
    nothing = {"description": None, "kernel": None, "ramdisk": None, "virtualization": None}
    name = location.removeprefix("images/")
    return register(cloud, location=location, name=name, arch="x86_64", platform="linux", **nothing).image_id


def test_the_credentials_of_the_sandbox_are_valid_for_ec2_and_s3(cloud: Cloud) -> None:
    probe_ec2(cloud)


WRITTEN = {
    "capitals": ("127.0.0.1", "LocalHost"),
    "a capital scheme": ("http://", "HTTP://"),
    "two slashes": ("/services/", "//services//"),
    "percent for a letter": ("/services/", "/%73ervices/"),
    "percent in small letters": ("/services/", "/%7e/../services/"),
    "a dot in the path": ("/services/", "/./services/"),
}


@pytest.mark.parametrize(("right", "written"), WRITTEN.values(), ids=WRITTEN.keys())
def test_an_address_may_be_written_in_several_ways(
    cloud: Cloud, sandbox: Sandbox, right: str, written: str
) -> None:
    """A signature covers host and path, as they are sent."""
    urls = {f"{half}_url": str(getattr(cloud.account, f"{half}_url")) for half in ("ec2", "s3")}
    written_so = {name: url.replace(right, written, 1) for name, url in urls.items()}
    settings = replace(settings_for(sandbox), **written_so)
    probe_ec2(make_cloud(gather(settings), cloud.dialect, uploads=1))


def test_a_bundle_is_uploaded_and_registered_and_downloaded_again(
    cloud: Cloud, bundle: Path, sandbox: Sandbox
) -> None:
    before = len(sandbox.refusals)
    location = upload(cloud, bundle)
    assert image_at(cloud, list_images(cloud), location) is None
    image = wait_until_available(cloud, register_it(cloud, location), pauses=(1.0, 2.0), sleep=time.sleep)
    assert image
    assert (image.location, image.state, image.type, image.arch) == (
        location,
        "available",
        "machine",
        "x86_64",
    )
    assert image.id.startswith("emi-")
    assert image_at(cloud, list_images(cloud), location) == image
    for file in bundle.parent.iterdir():
        assert b"".join(fetch_object(cloud, "images", file.name)) == file.read_bytes()
    assert {seen.code for seen in sandbox.refusals[before:]} <= {"NoSuchBucket"}


def test_a_deregistered_image_is_not_found_again(cloud: Cloud, bundle: Path) -> None:
    location = upload(cloud, bundle)
    image_id = register_it(cloud, location)
    cloud.ec2.deregister_image(ImageId=image_id)
    assert image_at(cloud, list_images(cloud), location) is None
    assert image_id not in [image.id for image in list_images(cloud)]


def test_a_part_with_one_flipped_bit_is_refused_for_good(cloud: Cloud, bundle: Path) -> None:
    location = upload(cloud, bundle)
    part = next(file for file in bundle.parent.iterdir() if file.name.endswith(".part.0"))
    damaged = bytearray(part.read_bytes())
    damaged[4096] ^= 1
    put_object(cloud, "images", part.name, bytes(damaged))
    with pytest.raises(Rejected, match=f"cloud embedded, registering {location}"):
        register_it(cloud, location)


def test_a_manifest_that_is_not_there_is_refused_for_good(cloud: Cloud) -> None:
    ensure_bucket(cloud, "images")
    with pytest.raises(Rejected) as caught:
        register_it(cloud, "images/nothing.manifest.xml")
    assert caught.value.request_id


def test_an_object_counts_as_stored_only_with_the_same_bytes(cloud: Cloud) -> None:
    ensure_bucket(cloud, "images")
    put_object(cloud, "images", "held", b"these")
    (there,) = list_objects(cloud, "images", "held")
    assert is_same_object(there, b"these")
    assert not is_same_object(there, b"those")
    assert not is_same_object(None, b"")


def test_a_bucket_is_listed_page_by_page(cloud: Cloud) -> None:
    bucket = f"pages-{cloud.dialect.s3_signature}"
    ensure_bucket(cloud, bucket)
    sent = [put_object(cloud, bucket, f"x.part.{number}", str(number).encode()) for number in range(5)]
    put_object(cloud, bucket, "y.part.0", b"other")
    found = list(list_objects(cloud, bucket, "x.part.", page_keys=2))
    assert found == sorted(sent, key=lambda stored: stored.key)
    check_objects(cloud, bucket, "x.", sent)


@pytest.mark.parametrize("harm", ["damage", "remove", "cut short"])
def test_an_object_that_differs_from_what_was_sent_is_named(cloud: Cloud, harm: str) -> None:
    bucket = f"harm-{cloud.dialect.s3_signature}-{harm.replace(' ', '')}"
    ensure_bucket(cloud, bucket)
    sent = [put_object(cloud, bucket, f"x.part.{number}", b"12345678") for number in range(2)]
    if harm == "remove":
        remove_object(cloud, bucket, "x.part.1")
        remove_object(cloud, bucket, "x.part.1")  # is no error
    else:
        put_object(cloud, bucket, "x.part.1", b"87654321" if harm == "damage" else b"1234")
    with pytest.raises(Deferred, match=rf"looking over {bucket}/x\.part\.1"):
        check_objects(cloud, bucket, "x.", sent)


def test_a_bucket_of_somebody_else_halts(cloud: Cloud, sandbox: Sandbox) -> None:
    bucket = f"theirs-{cloud.dialect.s3_signature}"
    sandbox.grant_bucket_to_other(bucket)
    with pytest.raises(Halted, match="another account"):
        ensure_bucket(cloud, bucket)


@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
@pytest.mark.parametrize("half", ["s3", "ec2"])
def test_wrong_credentials_halt(cloud: Cloud, wrong: str, half: str) -> None:
    other = make_cloud(replace(cloud.account, **{wrong: "WRONG"}), cloud.dialect, uploads=1)
    with pytest.raises(Halted, match="key") as caught:
        ensure_bucket(other, "images") if half == "s3" else list_images(other)
    assert "WRONG" not in str(caught.value) or wrong == "access_key"


def test_a_wrong_account_number_halts(cloud: Cloud, tmp_path: Path) -> None:
    source = tmp_path / "karmic.img"
    source.write_bytes(bytes(512))
    location = upload(cloud, bundled(source, tmp_path / "b", replace(cloud.account, account="999999999999")))
    with pytest.raises(Halted, match="account number") as halted:
        register_it(cloud, location)
    assert "999999999999" in halted.value.why
    assert "EC2_USER_ID" in halted.value.hint


def test_a_secret_of_the_configuration_overrides_the_eucarc(sandbox: Sandbox) -> None:
    account = gather(replace(settings_for(sandbox), secret_key=SecretStr("wrong")))
    with pytest.raises(Halted, match="secret key"):
        probe_ec2(make_cloud(account, SANDBOX, uploads=1))


@pytest.mark.parametrize("dialect", [SANDBOX, V2], ids=["V4", "V2"])
@pytest.mark.parametrize("minutes", [-20, 20])
def test_a_clock_difference_halts(tmp_path: Path, dialect: object, minutes: int) -> None:
    off = datetime.timedelta(minutes=minutes)
    with Sandbox(
        with_keys(tmp_path / "cloud"), clock=lambda: datetime.datetime.now(datetime.UTC) + off
    ) as sandbox:
        cloud = make_cloud(gather(settings_for(sandbox)), dialect, uploads=1)
        with pytest.raises(Halted, match="clock"):
            list_images(cloud)
        with pytest.raises(Halted, match="clock"):
            ensure_bucket(cloud, "images")


def test_a_cloud_that_is_down_counts_as_away(tmp_path: Path) -> None:
    with Sandbox(with_keys(tmp_path / "cloud")) as sandbox:
        cloud = make_cloud(gather(settings_for(sandbox)), SANDBOX, uploads=1)
        probe_ec2(cloud)
    with pytest.raises(CloudAway, match="nobody answers at its address"):
        probe_ec2(cloud)
