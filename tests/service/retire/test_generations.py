"""Older images on each generation of cloud: with tags and without, with one deregistration and with two."""

from pathlib import Path

import pytest

from tests.support.host import cloud_host
from tests.support.published_sets import retain
from uecwatchd.demo.material import RealSet

pytestmark = pytest.mark.exhaustive


@pytest.mark.parametrize("dialect", ["uec", "euca3", "euca4", "euca5", "openstack"])
def test_images_leave_by_retention_and_by_request(dialect: str, tmp_path: Path, small_set: RealSet) -> None:
    with cloud_host(tmp_path, dialect) as host:
        retain(host, "keep = 2")
        host.drop_set(small_set)
        for number in range(3):
            with (host.spool / "karmic.img").open("ab") as image:
                image.write(bytes([number + 1]) * 4096)
            host.ask("once")

        def kinds() -> list[str]:
            return sorted(image.type for image in host.cloud.images if image.state == "available")

        assert kinds() == ["kernel", "machine", "machine", "ramdisk"]
        host.ask("withdraw", "karmic", "--yes")
        assert kinds() == ["kernel", "machine", "ramdisk"]
        host.ask("rollback", "karmic", "--yes")
        host.ask("withdraw", "karmic", "--yes")
        assert kinds() == []
        assert host.cloud.objects("uec-images") == ()
