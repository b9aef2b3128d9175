"""Both halves against the embedded cloud, which makes every signature again and takes every bundle apart."""

import datetime
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from uecwatchd.bundle.files import Claims, Parties, bundle_to_folder
from uecwatchd.cloud.client import Cloud, connect
from uecwatchd.cloud.credentials import Account, gather
from uecwatchd.cloud.dialect import SANDBOX
from uecwatchd.cloud.register import find, images, probe, register, wait
from uecwatchd.cloud.upload import ensure_bucket, fetch, holds, put
from uecwatchd.errors import CloudAway, Halted, Rejected
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.settings import CloudSettings

# More than one part, and no whole number of them.
IMAGE_BYTES = 11 * 1024 * 1024

V2 = replace(SANDBOX, ec2_signature="v2", s3_signature="s3")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


def settings_for(sandbox: Sandbox) -> CloudSettings:
    return CloudSettings(name="embedded", dialect="sandbox", eucarc=sandbox.eucarc)


@pytest.fixture(params=[SANDBOX, V2], ids=["V4", "V2"])
def cloud(request: pytest.FixtureRequest, sandbox: Sandbox) -> Cloud:
    return connect(gather(settings_for(sandbox)), request.param, uploads=2)


@pytest.fixture
def bundle(cloud: Cloud, tmp_path: Path) -> Path:
    """The manifest of a bundle in a folder, beside its parts."""
    source = tmp_path / f"karmic-{random.randrange(10**9)}.img"  # noqa: S311 (only to be another)
    source.write_bytes(random.randbytes(IMAGE_BYTES))  # noqa: S311 (only not to be compressible)
    return bundled(source, tmp_path / "bundle", cloud.account)


def bundled(source: Path, folder: Path, account: Account) -> Path:
    parties = Parties(account.account, account.user_key, account.user_cert, account.cloud_cert)
    return bundle_to_folder(source, folder, Claims("machine", "x86_64"), parties).path


def upload(cloud: Cloud, manifest: Path) -> str:
    ensure_bucket(cloud, "images")
    for file in sorted(manifest.parent.iterdir()):
        put(cloud, "images", file.name, file.read_bytes())
    return f"images/{manifest.name}"


def register_it(cloud: Cloud, location: str) -> str:
    nothing = {"description": None, "kernel": None, "ramdisk": None, "virtualization": None}
    return register(cloud, location=location, name=location.removeprefix("images/"), arch="x86_64", **nothing)


def test_the_credentials_it_gives_out_are_good_for_both_halves(cloud: Cloud) -> None:
    probe(cloud)


def test_a_bundle_goes_up_becomes_an_image_and_comes_back(
    cloud: Cloud, bundle: Path, sandbox: Sandbox
) -> None:
    before = len(sandbox.refusals)
    location = upload(cloud, bundle)
    assert find(cloud, location) is None
    image = wait(cloud, register_it(cloud, location))
    assert (image.location, image.state, image.type, image.arch) == (
        location,
        "available",
        "machine",
        "x86_64",
    )
    assert image.id.startswith("emi-")
    assert find(cloud, location) == image
    for file in bundle.parent.iterdir():
        assert b"".join(fetch(cloud, "images", file.name)) == file.read_bytes()
    assert {seen.code for seen in sandbox.refusals[before:]} <= {"NoSuchBucket"}


def test_a_deregistered_image_is_not_found_again(cloud: Cloud, bundle: Path) -> None:
    location = upload(cloud, bundle)
    image_id = register_it(cloud, location)
    cloud.ec2.deregister_image(ImageId=image_id)
    assert find(cloud, location) is None
    assert image_id not in [image.id for image in images(cloud)]


def test_a_part_with_one_flipped_bit_is_refused_for_good(cloud: Cloud, bundle: Path) -> None:
    location = upload(cloud, bundle)
    part = next(file for file in bundle.parent.iterdir() if file.name.endswith(".part.0"))
    damaged = bytearray(part.read_bytes())
    damaged[4096] ^= 1
    put(cloud, "images", part.name, bytes(damaged))
    with pytest.raises(Rejected, match=f"cloud embedded, registering {location}"):
        register_it(cloud, location)


def test_a_manifest_that_is_not_there_is_refused_for_good(cloud: Cloud) -> None:
    ensure_bucket(cloud, "images")
    with pytest.raises(Rejected) as caught:
        register_it(cloud, "images/nothing.manifest.xml")
    assert caught.value.request_id


def test_an_object_is_held_when_its_bytes_are_just_these(cloud: Cloud) -> None:
    ensure_bucket(cloud, "images")
    put(cloud, "images", "held", b"these")
    assert holds(cloud, "images", "held", b"these")
    assert not holds(cloud, "images", "held", b"those")
    assert not holds(cloud, "images", "nothing", b"")


def test_a_bucket_of_somebody_else_halts(cloud: Cloud, sandbox: Sandbox) -> None:
    bucket = f"theirs-{cloud.dialect.s3_signature}"
    sandbox.grant_bucket_to_other(bucket)
    with pytest.raises(Halted, match="another account"):
        ensure_bucket(cloud, bucket)


@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
@pytest.mark.parametrize("half", ["s3", "ec2"])
def test_wrong_credentials_halt(cloud: Cloud, wrong: str, half: str) -> None:
    stranger = connect(replace(cloud.account, **{wrong: "WRONG"}), cloud.dialect, uploads=1)
    with pytest.raises(Halted, match="key") as caught:
        ensure_bucket(stranger, "images") if half == "s3" else images(stranger)
    assert "WRONG" not in str(caught.value) or wrong == "access_key"


def test_a_wrong_account_number_halts(cloud: Cloud, tmp_path: Path) -> None:
    source = tmp_path / "karmic.img"
    source.write_bytes(bytes(512))
    location = upload(cloud, bundled(source, tmp_path / "b", replace(cloud.account, account="999999999999")))
    with pytest.raises(Halted, match="account number") as halted:
        register_it(cloud, location)
    assert "999999999999" in halted.value.why
    assert "EC2_USER_ID" in halted.value.hint


def test_a_secret_of_the_configuration_goes_before_the_eucarc(sandbox: Sandbox) -> None:
    account = gather(replace(settings_for(sandbox), secret_key=SecretStr("wrong")))
    with pytest.raises(Halted, match="secret key"):
        probe(connect(account, SANDBOX, uploads=1))


@pytest.mark.parametrize("dialect", [SANDBOX, V2], ids=["V4", "V2"])
@pytest.mark.parametrize("minutes", [-20, 20])
def test_a_clock_that_differs_halts(tmp_path: Path, dialect: object, minutes: int) -> None:
    off = datetime.timedelta(minutes=minutes)
    with Sandbox(tmp_path / "cloud", clock=lambda: datetime.datetime.now(datetime.UTC) + off) as sandbox:
        cloud = connect(gather(settings_for(sandbox)), dialect, uploads=1)
        with pytest.raises(Halted, match="clock"):
            images(cloud)
        with pytest.raises(Halted, match="clock"):
            ensure_bucket(cloud, "images")


def test_a_cloud_that_is_down_is_away(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "cloud") as sandbox:
        cloud = connect(gather(settings_for(sandbox)), SANDBOX, uploads=1)
        probe(cloud)
    with pytest.raises(CloudAway, match="nobody answers at its address"):
        probe(cloud)
