"""A set that is prepared, and whose service is killed while it does that, is finished by the next one."""

from pathlib import Path

import pytest

from tests.crash.conftest import KINDS, Killer
from tests.support.host import cloud_host
from tests.support.prepared_sets import SIDECAR, unprepared_qcow2

pytestmark = pytest.mark.exhaustive

KILLED = -9
CHANGE = "change a copy of the metadata"
PREPARATIONS = 3  # of one attempt: for the look, for the digest, for the upload


def test_a_preparation_that_is_killed_leaves_nothing_and_is_done_again(
    killer: Killer, tmp_path: Path
) -> None:
    with cloud_host(tmp_path, "uec") as host:
        unprepared_qcow2(host.folder).rename(host.spool / "m.qcow2")
        (host.spool / "m.toml").write_text(SIDECAR)
        for count in range(1, PREPARATIONS + 1):
            death = (f"before {CHANGE}", f"after {CHANGE}", count)
            assert killer.run(host, "once", at=death) == KILLED, (host.folder / "stderr").read_text()
            assert not [path for path in (host.state / "work").rglob("*") if path.is_file()]
            assert not (host.spool / "m.emi").exists()
        assert killer.run(host, "once") == 0, (host.folder / "stderr").read_text()
        report = host.report("m")
        images = {image.type: image.id for image in host.cloud.images}
        assert sorted(images) == KINDS
        assert len(host.cloud.images) == len(KINDS), "each is registered once"
        assert report["ids"] == images
        (machine,) = [member for member in report["members"] if member["role"] == "machine"]
        assert "/etc/machine-id emptied: each instance makes its own" in machine["prepared"]
        assert host.run("verify", "m").returncode == 0
