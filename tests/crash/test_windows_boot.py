"""A Windows set whose service is killed while its floppy is made is finished by the next one."""

from pathlib import Path

import pytest

from tests.crash.conftest import Killer
from tests.support.host import cloud_host
from tests.support.windows_sets import boot_files, windows_disk

pytestmark = pytest.mark.exhaustive

KILLED = -9
FLOPPY = 2  # made after memdisk


def test_a_floppy_is_made_again_after_a_crash_and_nothing_is_left_over(
    killer: Killer, tmp_path: Path
) -> None:
    with cloud_host(tmp_path, "uec") as host:
        windows_disk(host.folder / "disk").rename(host.spool / "win.img")
        boot_files(host.spool / "win-bootfiles")
        made = ("after write a file of the work folder", "before place a file of the work folder", FLOPPY)
        assert killer.run(host, "once", at=made) == KILLED
        assert killer.run(host, "once") == 0
        members = {member["role"]: member["file"] for member in host.report("win")["members"]}
        assert members["ramdisk"] == "win-bootfiles/boot-floppy.img"
        assert "was not tried with Microsoft's NTLDR" in (host.spool / "win.uec.log").read_text()
        assert list((host.state / "work" / "sets").iterdir()) == []
