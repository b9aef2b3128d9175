"""Hosts whose sets are complete at once, and one of the cloud that can do more than the others."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host import Host, cloud_host


@pytest.fixture
def host(host: Host) -> Host:
    host.configure(host.config.read_text().replace("settle = 0.3", "settle = 0.05"))
    return host


@pytest.fixture
def amazon(tmp_path: Path) -> Iterator[Host]:
    with cloud_host(tmp_path / "amazon", "aws") as host:
        yield host
