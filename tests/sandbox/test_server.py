"""The cloud's life: its folder, its credentials, its port, its record of requests."""

import os
import socket
import sqlite3
import stat
import subprocess
import threading
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from uecwatchd.errors import Deferred, Halted, NotPermitted
from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.sandbox.state.store import Bucket, S3Object


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cloud"


def test_a_cloud_started_again_knows_its_images_buckets_and_keys(
    folder: Path, make_forge: Any, make_clients: Any, contents: Mapping[str, bytes]
) -> None:
    with Sandbox(folder) as first:
        location = make_forge(first).bundle(contents["partition"])
        ec2 = make_clients(first).ec2()
        image_id = ec2.register_image(ImageLocation=location, Name="lasting")["ImageId"]
        ec2.create_tags(Resources=[image_id], Tags=[{"Key": "k", "Value": "v"}])
        ec2.run_instances(ImageId=image_id, MinCount=1, MaxCount=1)
        keys = (first.identity.account, first.identity.access_key, first.identity.secret_key)
    with Sandbox(folder) as second:
        assert (second.identity.account, second.identity.access_key, second.identity.secret_key) == keys
        ec2 = make_clients(second).ec2()
        (image,) = ec2.describe_images()["Images"]
        assert (image["ImageId"], image["Name"], image["Tags"]) == (
            image_id,
            "lasting",
            [{"Key": "k", "Value": "v"}],
        )
        assert len(ec2.describe_instances()["Reservations"]) == 1
        assert ec2.register_image(ImageLocation=location)["ImageId"] != image_id


def test_what_a_crash_left_behind_is_swept_away(folder: Path) -> None:
    with Sandbox(folder) as cloud:
        half = cloud.folder / "objects" / "half-an-upload"
        half.write_bytes(b"x")
    with Sandbox(folder):
        assert not half.exists()


def test_only_one_cloud_at_a_time_is_over_a_folder(folder: Path) -> None:
    with Sandbox(folder), pytest.raises(Deferred, match="another one runs"):
        Sandbox(folder).start()
    with Sandbox(folder):
        pass


def test_a_port_in_use_is_reported(folder: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(Halted, match="Address already in use"),
    ):
        Sandbox(folder, port=taken.getsockname()[1]).start()
    with Sandbox(folder):
        pass


def test_a_stopped_cloud_comes_back_on_its_port(folder: Path, make_clients: Any) -> None:
    cloud = Sandbox(folder)
    with cloud:
        url, s3 = cloud.s3_url, make_clients(cloud).s3()
        s3.create_bucket(Bucket="images")
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url)  # noqa: S310  # our own address
    with cloud:
        assert cloud.s3_url == url
        assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["images"]
        assert [seen.action for seen in cloud.requests] == ["CreateBucket", "ListBuckets"]


def test_stopping_leaves_no_thread(folder: Path, make_clients: Any) -> None:
    before = set(threading.enumerate())
    with Sandbox(folder) as cloud:
        make_clients(cloud).s3().list_buckets()
        with socket.create_connection(("127.0.0.1", cloud.port)):
            pass
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("text", ["", "{}", "[]"])
def test_a_folder_with_something_else_in_it_is_not_used(text: str, folder: Path) -> None:
    folder.mkdir()
    (folder / "identity.json").write_text(text)
    with pytest.raises(Halted, match="cannot use it as a test cloud"):
        Sandbox(folder).start()
    (folder / "identity.json").unlink()
    with Sandbox(folder):
        pass


def test_a_folder_stays_what_it_was_made_as(folder: Path) -> None:
    with Sandbox(folder, dialect="aws") as cloud:
        account = cloud.identity.account
    with pytest.raises(Halted) as caught:
        Sandbox(folder, dialect="euca4").start()
    assert caught.value.what == f"{folder}: cannot play euca4 there"
    assert caught.value.why.startswith("it was made as aws")
    assert "--dialect aws" in caught.value.hint
    with Sandbox(folder, dialect="aws") as cloud:
        assert cloud.identity.account == account


def test_everything_in_the_folder_is_private(cloud: Sandbox) -> None:
    assert stat.S_IMODE(cloud.folder.stat().st_mode) & 0o077 == 0
    for path in cloud.folder.glob("*"):
        if path.suffix in (".pem", ".json") or path == cloud.eucarc:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_eucarc_is_one_a_shell_understands(cloud: Sandbox) -> None:
    script = f'. {cloud.eucarc} && env && openssl x509 -noout -subject -in "$EUCALYPTUS_CERT"'
    environ = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, check=True)
    assert f"EC2_URL={cloud.ec2_url}\n" in done.stdout
    assert f"S3_URL={cloud.s3_url}\n" in done.stdout
    assert f"EC2_SECRET_KEY={cloud.identity.secret_key}\n" in done.stdout
    assert f"EC2_PRIVATE_KEY={cloud.folder}/" in done.stdout
    assert "sandbox cloud" in done.stdout


@pytest.mark.parametrize("whose", ["cloud", "euca2-admin"])
def test_each_key_fits_its_certificate(whose: str, cloud: Sandbox) -> None:
    key = load_pem_private_key((cloud.folder / f"{whose}-pk.pem").read_bytes(), password=None)
    certificate = x509.load_pem_x509_certificate((cloud.folder / f"{whose}-cert.pem").read_bytes())
    assert certificate.public_key() == key.public_key()


def test_secrets_do_not_show_in_a_representation(cloud: Sandbox) -> None:
    assert cloud.identity.secret_key not in repr(cloud.identity)


def test_a_browser_is_told_what_this_is(cloud: Sandbox) -> None:
    with urllib.request.urlopen(cloud.url) as page:  # noqa: S310  # our own address
        text = page.read().decode()
    assert cloud.ec2_url in text
    assert str(cloud.eucarc) in text
    assert cloud.identity.secret_key not in text


def test_the_record_tells_uploads_registrations_and_refusals(
    folder: Path, make_forge: Any, make_clients: Any, refusal: Any, contents: Mapping[str, bytes]
) -> None:
    with Sandbox(folder) as cloud:
        location = make_forge(cloud).bundle(contents["partition"])
        ec2 = make_clients(cloud).ec2()
        ec2.register_image(ImageLocation=location)
        refusal(ec2.register_image, ImageLocation="images/none")
        assert len(cloud.calls("PutObject")) == len(cloud.objects("images"))
        assert [seen.code for seen in cloud.calls("RegisterImage")] == ["", "InvalidManifest"]
        (refused,) = cloud.refusals
    assert (refused.method, refused.path, refused.status) == ("POST", "/services/Eucalyptus", 400)
    assert refused.request_id


def test_many_clients_at_once_are_served(folder: Path, make_forge: Any, make_clients: Any) -> None:
    with Sandbox(folder) as cloud:
        forge, clients = make_forge(cloud), make_clients(cloud)

        def register(number: int) -> str:
            location = forge.bundle(bytes([number]) * 5120)
            found: str = clients.ec2().register_image(ImageLocation=location)["ImageId"]
            return found

        with ThreadPoolExecutor(8) as pool:
            ids = set(pool.map(register, range(16)))
        assert ids == {image.id for image in cloud.images}
        assert len(ids) == 16


def test_an_account_has_only_so_many_buckets(folder: Path, make_clients: Any, refusal: Any) -> None:
    with Sandbox(folder) as cloud:
        store = cloud.backend.store
        for number in range(100):
            store.add_bucket(
                Bucket(f"b-{number}", cloud.identity.account, "private", datetime.now(UTC)), quota=100
            )
        cloud.grant_bucket_to_other("not-counted")
        refused = refusal(make_clients(cloud).s3().create_bucket, Bucket="one-more")
    assert (refused.code, refused.status) == ("TooManyBuckets", 400)


def test_an_upload_into_a_bucket_that_went_away_is_refused(folder: Path) -> None:
    """The bucket is looked up before the body is read, which may take long."""
    with Sandbox(folder) as cloud:
        upload = cloud.backend.store.receive([b"bytes"])
        stored = S3Object("gone", "k", upload.path, 5, upload.md5, "private", "", {}, datetime.now(UTC))
        with pytest.raises(ApiError) as caught:
            cloud.backend.store.put(stored)
    assert caught.value.code == "NoSuchBucket"


def test_a_cloud_that_is_not_started_has_no_identity(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="not started"):
        _ = Sandbox(folder).identity


def test_a_full_disk_is_answered_with_an_error(small_disk: Path, make_clients: Any, refusal: Any) -> None:
    with Sandbox(small_disk / "cloud") as cloud:
        s3 = make_clients(cloud).s3()
        s3.create_bucket(Bucket="images")
        refused = refusal(s3.put_object, Bucket="images", Key="k", Body=bytes(2 << 20))
        assert (refused.code, refused.status) == ("InternalError", 500)
        assert "No space left" in refused.message
        assert s3.put_object(Bucket="images", Key="k", Body=b"small")["ETag"]


@pytest.mark.parametrize("name", ["objects.sqlite", "registry.sqlite"])
def test_a_broken_database_is_reported(name: str, folder: Path) -> None:
    with Sandbox(folder):
        pass
    (folder / name).write_bytes(b"not a database" * 100)
    with pytest.raises(Halted, match="file is not a database"):
        Sandbox(folder).start()


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotPermitted, match="cannot keep a test cloud there"):
        Sandbox(tmp_path / "file" / "cloud").start()


def test_a_folder_of_a_later_version_is_left_alone(folder: Path) -> None:
    with Sandbox(folder):
        pass
    identity = folder / "identity.json"
    identity.write_text(identity.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(Halted, match="version 2, this program knows 1"):
        Sandbox(folder).start()


def test_a_database_of_a_later_version_is_left_alone(folder: Path) -> None:
    with Sandbox(folder):
        pass
    with closing(sqlite3.connect(folder / "registry.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 1000")
    with pytest.raises(Halted, match="it has version 1000, this program knows"):
        Sandbox(folder).start()


def test_a_cloud_key_that_is_not_rsa_is_refused(folder: Path) -> None:
    with Sandbox(folder):
        pass
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    (folder / "cloud-pk.pem").write_bytes(pem)
    with pytest.raises(Halted, match=r"cloud-pk\.pem is not an RSA key"):
        Sandbox(folder).start()
