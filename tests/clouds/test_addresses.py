"""Addresses of clouds: those that only our client library would refuse, and what is said of the others."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cloud_keys import with_keys
from uecwatchd.clouds.connect import connect
from uecwatchd.clouds.credentials.account import gather
from uecwatchd.clouds.images import list_images
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import Halted
from uecwatchd.sandbox.server import Sandbox

# The embedded cloud answers whatever host is asked for, so it can be a proxy that knows them all.
HOSTS = ["_front_end_:8773", "Front_End.EXAMPLE:80", "bücher_1.example"]


def moved(cloud: Sandbox, host: str) -> CloudSettings:
    """The settings of a cloud whose credentials say that it is at another host."""
    eucarc = cloud.folder / "eucarc-moved"
    eucarc.write_text(cloud.eucarc.read_text().replace(f"127.0.0.1:{cloud.port}", host))
    return CloudSettings(name="default", eucarc=eucarc)


@pytest.mark.parametrize("generation", ["uec", "euca4", "openstack"])
def test_hosts_that_botocore_refuses_are_used_and_signed(
    generation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox(with_keys(tmp_path), dialect=generation) as cloud:
        monkeypatch.setenv("http_proxy", cloud.url)
        for number, host in enumerate(HOSTS):
            found = connect(moved(cloud, host), uploads=1, before={})
            assert found.dialect.name == generation
            assert list_images(found) == ()
            bucket = f"bucket-{number}"
            found.s3.create_bucket(Bucket=bucket)
            found.s3.put_object(Bucket=bucket, Key="k", Body=b"x")
            assert [one["Key"] for one in found.s3.list_objects(Bucket=bucket)["Contents"]] == ["k"]
            found.s3.delete_object(Bucket=bucket, Key="k")
            found.s3.delete_bucket(Bucket=bucket)
        refused = {seen.message for seen in cloud.refusals if "ignature" in seen.message}
        assert not any("match" in message for message in refused)


@pytest.mark.parametrize(
    ("host", "wrong"),
    [
        ("-bad.example:8773", "the part '-bad'"),
        ("cloud:99999", "its port"),
        ("me:s3cret@cloud:8773", "a user or a password"),
        ("front end:8773", "a space"),
        ("[::g]:8773", "its host"),
    ],
)
def test_a_wrong_address_is_reported_with_its_line(host: str, wrong: str, embedded_cloud: Sandbox) -> None:
    settings = moved(embedded_cloud, host)
    assert settings.eucarc
    text = settings.eucarc.read_text()
    settings.eucarc.write_text(
        text.replace("EC2_URL=http", "EC2_URL='http").replace("calyptus\n", "calyptus'\n", 1)
    )
    with pytest.raises(Halted) as caught:
        gather(settings)
    said = str(caught.value)
    line = next(n for n, one in enumerate(text.splitlines(), 1) if "EC2_URL=" in one)
    assert wrong in said
    assert f"EC2_URL in {settings.eucarc}, line {line}" in said
    assert "s3cret" not in said
    assert host.rpartition("@")[2] in said


@pytest.mark.parametrize("url", ["/services/Eucalyptus", "cloud:8773", "ftp://cloud", "http://-bad.example"])
def test_a_wrong_address_in_the_configuration_is_reported_at_once(
    url: str, make_host: Callable[..., object], embedded_cloud: Sandbox
) -> None:
    host = make_host()
    host.configure(host.config.read_text() + f'ec2_url = "{url}"\n')  # type: ignore[attr-defined]
    for verb in ("check", "once"):
        said = host.ask(verb, code=78)[1]  # type: ignore[attr-defined]
        assert "cloud.default.ec2_url must be a web address" in said
        assert url in said
