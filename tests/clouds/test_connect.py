"""Questions to a cloud on connecting, when its dialect is known from earlier."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.x509 import load_pem_x509_certificate

from tests.support.cloud_keys import with_keys
from uecwatchd.clouds.connect import connect
from uecwatchd.clouds.credentials.account import gather
from uecwatchd.clouds.detect import address_of
from uecwatchd.clouds.images import list_images
from uecwatchd.clouds.objects import ensure_bucket
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import Halted
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.types import DetectedCloud


def settings_of(cloud: Sandbox) -> CloudSettings:
    return CloudSettings(name="default", eucarc=cloud.eucarc)


def remembered(settings: CloudSettings, dialect: str) -> dict[str, DetectedCloud]:
    return {"default": DetectedCloud(dialect, address_of(gather(settings)))}


def test_a_known_generation_is_not_detected_again(tmp_path: Path) -> None:
    with Sandbox(with_keys(tmp_path), dialect="euca3") as cloud:
        settings = settings_of(cloud)
        found = connect(settings, uploads=1, before=remembered(settings, "euca3"))
        assert found.dialect.name == "euca3"
        assert not cloud.requests


def test_another_cloud_of_the_same_name_is_asked_again(tmp_path: Path) -> None:
    with (
        Sandbox(with_keys(tmp_path / "old"), dialect="uec") as old,
        Sandbox(tmp_path / "new", dialect="euca5") as new,
    ):
        before = remembered(settings_of(old), "uec")
        assert connect(settings_of(new), uploads=1, before=before).dialect.name == "euca5"


def test_a_configured_generation_overrides_the_detected_one(tmp_path: Path) -> None:
    with Sandbox(with_keys(tmp_path), dialect="euca5") as cloud:
        settings = replace(settings_of(cloud), dialect="openstack")
        before = remembered(settings, "euca5")
        assert connect(settings, uploads=1, before=before).dialect.name == "openstack"


def test_a_certificate_of_another_cloud_is_known_before_anything_is_sealed_for_it(tmp_path: Path) -> None:
    with Sandbox(with_keys(tmp_path / "a"), dialect="euca4") as cloud, Sandbox(tmp_path / "b") as other:
        settings = replace(settings_of(cloud), cloud_cert=other.eucarc.parent / "cloud-cert.pem")
        with pytest.raises(Halted, match="the cloud certificate is another cloud's"):
            connect(settings, uploads=1, before={})


def test_a_certificate_is_fetched_where_none_is_named_and_the_cloud_gives_it(tmp_path: Path) -> None:
    with Sandbox(with_keys(tmp_path), dialect="euca5") as cloud:
        lines = cloud.eucarc.read_text().splitlines()
        cloud.eucarc.write_text("\n".join(line for line in lines if "EUCALYPTUS_CERT=" not in line))
        found = connect(settings_of(cloud), uploads=1, before={})
        given = load_pem_x509_certificate(cloud.identity.cloud_certificate)
        assert found.account.cloud_cert == given


def pumped(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def over_ipv6() -> Iterator[Callable[[Sandbox, str], CloudSettings]]:
    """Has a cloud asked by way of this machine's IPv6 address, and written in a way of its own."""
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
        except OSError:
            pytest.skip("there is no IPv6 here")
        target: list[int] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    caller = stack.enter_context(listener.accept()[0])
                    called = stack.enter_context(socket.create_connection(("127.0.0.1", target[0])))
                    for pair in ((caller, called), (called, caller)):
                        threading.Thread(target=pumped, args=pair, daemon=True).start()

        def settings(cloud: Sandbox, host: str) -> CloudSettings:
            target.append(cloud.port)
            port = listener.getsockname()[1]
            text = cloud.eucarc.read_text()
            cloud.eucarc.write_text(text.replace(f"127.0.0.1:{cloud.port}", f"{host}:{port}"))
            return settings_of(cloud)

        threading.Thread(target=serve, daemon=True).start()
        yield settings
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("host", ["[::1]", "[0:0:0:0:0:0:0:1]"])
@pytest.mark.parametrize("dialect", ["euca4", "euca5", "openstack", "sandbox"])
def test_a_cloud_is_asked_at_an_ipv6_address_where_it_takes_a_signature_for_one(
    tmp_path: Path, over_ipv6: Callable[[Sandbox, str], CloudSettings], dialect: str, host: str
) -> None:
    with Sandbox(with_keys(tmp_path), dialect=dialect) as cloud:
        found = connect(over_ipv6(cloud, host), uploads=1, before={})
        assert list(list_images(found)) == []
        ensure_bucket(found, "images")


@pytest.mark.parametrize("known", [False, True], ids=["before it is known", "when it is known"])
@pytest.mark.parametrize("dialect", ["uec", "euca3"])
def test_a_cloud_that_takes_no_signature_for_an_ipv6_address_is_not_blamed_on_the_keys(
    tmp_path: Path, over_ipv6: Callable[[Sandbox, str], CloudSettings], dialect: str, *, known: bool
) -> None:
    with Sandbox(with_keys(tmp_path), dialect=dialect) as cloud:
        settings = over_ipv6(cloud, "[::1]")
        settings = replace(settings, dialect=dialect) if known else settings
        with pytest.raises(Halted, match=r"no signature for a host .* IPv6 address.*Write a name in ec2_url"):
            connect(settings, uploads=1, before={})
