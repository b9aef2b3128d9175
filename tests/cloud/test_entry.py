"""Which questions a cloud is asked on the way in, when something is known of it from earlier."""

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.x509 import load_pem_x509_certificate

from uecwatchd.cloud.credentials import gather
from uecwatchd.cloud.entry import entered
from uecwatchd.cloud.recognise import Remembered, address_of
from uecwatchd.errors import Halted
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.settings import CloudSettings


def settings_of(cloud: Sandbox) -> CloudSettings:
    return CloudSettings(name="default", eucarc=cloud.eucarc)


def remembered(settings: CloudSettings, dialect: str) -> dict[str, Remembered]:
    return {"default": Remembered(dialect, address_of(gather(settings)))}


def test_what_is_known_is_not_asked_for_again(tmp_path: Path) -> None:
    with Sandbox(tmp_path, dialect="euca3") as cloud:
        settings = settings_of(cloud)
        found = entered(settings, uploads=1, before=remembered(settings, "euca3"))
        assert found.dialect.name == "euca3"
        assert not cloud.requests


def test_another_cloud_of_the_same_name_is_asked_anew(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "old", dialect="uec") as old, Sandbox(tmp_path / "new", dialect="euca5") as new:
        before = remembered(settings_of(old), "uec")
        assert entered(settings_of(new), uploads=1, before=before).dialect.name == "euca5"


def test_what_is_configured_goes_before_what_was_found(tmp_path: Path) -> None:
    with Sandbox(tmp_path, dialect="euca5") as cloud:
        settings = replace(settings_of(cloud), dialect="openstack")
        before = remembered(settings, "euca5")
        assert entered(settings, uploads=1, before=before).dialect.name == "openstack"


def test_a_certificate_of_another_cloud_is_known_before_anything_is_sealed_for_it(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "a", dialect="euca4") as cloud, Sandbox(tmp_path / "b") as other:
        settings = replace(settings_of(cloud), cloud_cert=other.eucarc.parent / "cloud-cert.pem")
        with pytest.raises(Halted, match="the cloud certificate is another cloud's"):
            entered(settings, uploads=1, before={})


def test_a_certificate_is_fetched_where_none_is_named_and_the_cloud_gives_it(tmp_path: Path) -> None:
    with Sandbox(tmp_path, dialect="euca5") as cloud:
        lines = cloud.eucarc.read_text().splitlines()
        cloud.eucarc.write_text("\n".join(line for line in lines if "EUCALYPTUS_CERT=" not in line))
        found = entered(settings_of(cloud), uploads=1, before={})
        given = load_pem_x509_certificate(cloud.identity.cloud_certificate)
        assert found.account.cloud_cert == given
