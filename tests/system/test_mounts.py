"""The list of mounts; the state directory on a disk of this machine, or where locks do not hold."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.host import Host
from uecwatchd.cli.check.host import examine_state
from uecwatchd.config.records import Settings, StateSettings
from uecwatchd.errors import Deferred
from uecwatchd.ledger.schema import FILE_NAME, open_file
from uecwatchd.system.mounts import Mount, file_system_of, find_mount, is_shared, parse_mounts, read_mounts

STRACE = shutil.which("strace") or ""


@pytest.mark.parametrize(
    "kind",
    ["nfs4", "smb3", "vboxsf", "prl_fs", "lustre", "beegfs", "fuse.sshfs", "fuseblk", "virtiofs", "9p"],
)
def test_a_file_system_that_others_write_to_is_known_as_that(kind: str) -> None:
    assert is_shared(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "bcachefs", "ntfs3", ""])
def test_a_disk_of_this_machine_is_its_own(kind: str) -> None:
    assert not is_shared(kind)


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /srv/with\\040space rw - nfs4 host:/x rw
31 22 0:41 / /srv rw - tmpfs tmpfs rw
32 31 0:42 / /srv/a rw - fuse.sshfs x rw
33 31 0:43 / /srv/a rw - xfs /dev/sdb rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var", "ext4"),
        ("/srv", "tmpfs"),
        ("/srv/b", "tmpfs"),
        ("/srv/with space/x", "nfs4"),
        ("/srvx", "ext4"),
        ("/srv/a/b", "xfs"),
    ],
    ids=["root", "the mount itself", "below", "a space", "a name that begins alike", "mounted over"],
)
def test_the_file_system_is_that_of_the_nearest_mount(folder: str, kind: str) -> None:
    mount = find_mount(Path(folder), parse_mounts(MOUNTS))
    assert mount
    assert mount.file_system == kind


def test_the_real_mount_table_is_understood(tmp_path: Path) -> None:
    assert file_system_of(Path("/proc")) == "proc"
    assert file_system_of(tmp_path) in {mount.file_system for mount in read_mounts()}


def test_every_escape_of_the_mount_table_is_understood() -> None:
    line = "30 22 0:4 /\\040 /srv/a\\011b\\134c\u2028 rw - cifs //x/y rw"
    assert parse_mounts(line) == (Mount("30", "0:4", "/ ", "/srv/a\tb\\c\u2028", "cifs"),)


def test_check_warns_of_a_state_directory_that_others_share(fuse: Path, tmp_path: Path) -> None:
    levels = [finding.level for finding in examine_state(Settings(state=StateSettings(tmp_path)))]
    (_, warning) = examine_state(Settings(state=StateSettings(fuse / "state")))
    assert levels == ["ok"]
    assert (warning.level, file_system_of(fuse) in warning.what) == ("warning", True)
    assert "Set dir under [state]" in warning.hint


# Imports first: the interpreter may be in a folder that only root can read.
EXAMINED_AS = """
import os, sys, encodings.idna
from pathlib import Path
from uecwatchd.cli.check.host import examine_state
from uecwatchd.config.records import Settings, StateSettings
os.setgroups([]); os.setuid(int(sys.argv[1]))
print(*[finding.hint for finding in examine_state(Settings(state=StateSettings(Path(sys.argv[2]))))])
"""


@pytest.mark.parametrize(("uid", "name"), [(54321, "54321"), (60_001, "60001"), (1, "daemon")])
def test_the_command_for_a_state_directory_names_any_user(tmp_path: Path, uid: int, name: str) -> None:
    state = tmp_path / "state"
    tmp_path.chmod(0o755)
    program = [sys.executable, "-c", EXAMINED_AS, str(uid), str(state)]
    said = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    assert said == f"Try: sudo install -d -o {name} -m 0700 {state}\n"


@pytest.mark.skipif(not STRACE, reason="strace is not installed")
@pytest.mark.parametrize(
    ("call", "error"),
    [("fcntl", "ENOLCK"), ("flock", "ENOLCK"), ("flock", "EOPNOTSUPP"), ("fcntl", "ENOSYS")],
)
def test_a_state_directory_without_locks_is_a_mistake_of_ours_and_reported_at_once(
    host: Host, call: str, error: str
) -> None:
    faulty = ("-e", f"trace={call}", "-e", f"inject={call}:error={error}")
    paths = [word for name in (FILE_NAME, "lock") for word in ("-P", str(host.state / name))]
    program = (sys.executable, "-m", "uecwatchd", "once", "--config", str(host.config))
    host.state.mkdir()
    run = subprocess.run(
        [STRACE, "-f", "-qq", "-o", os.devnull, *faulty, *paths, *program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 78, run.stderr
    assert "keeps no locks" in run.stderr
    assert "Set dir under [state]" in run.stderr


LOCKER = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute(sys.argv[2])
held.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    "way", ["PRAGMA locking_mode = EXCLUSIVE", "PRAGMA journal_mode = DELETE", "PRAGMA journal_mode = MEMORY"]
)
@pytest.mark.parametrize("known", [False, True], ids=["a new ledger", "one that is known"])
def test_a_ledger_that_somebody_keeps_locked_is_reported_in_time(
    tmp_path: Path, way: str, *, known: bool
) -> None:
    if known:
        open_file(tmp_path).close()
    else:
        with closing(sqlite3.connect(tmp_path / FILE_NAME)) as other:
            other.execute("VACUUM")
    command = [sys.executable, "-c", LOCKER, str(tmp_path / FILE_NAME), way]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        began = time.monotonic()
        with pytest.raises(Deferred, match="Another process is writing to it"):
            open_file(tmp_path, busy=0.2)
        took = time.monotonic() - began
        holder.communicate()
    assert took < 10
    open_file(tmp_path).close()
