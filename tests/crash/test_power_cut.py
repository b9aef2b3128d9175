"""The power fails: what was written and not brought to the disk is lost, and it goes on from the rest.

Spool and state are on a file system of their own, in a file. At a chosen moment the program is killed, and
the file is copied as it is: what that file system still held in memory is not in it. Its mount options keep
it from writing by itself what nobody asked it to write.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.conftest import KILLED, Killer, Scene, sweep
from tests.support.host import Host
from uecwatchd.demo.run import CONFIGURATION
from uecwatchd.ledger.records import LeavingFile
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.types import ContentDigest, FileStamp

pytestmark = pytest.mark.exhaustive

DISK_BYTES = 64 << 20
# Nothing goes to the disk for five minutes unless somebody asks, also not with a rename.
OPTIONS = "commit=300,noauto_da_alloc"


@dataclass
class Disk:
    """A file system in a file, mounted."""

    file: Path
    mount: Path
    device: str = ""

    def up(self) -> None:
        self.device = run("losetup", "--find", "--show", str(self.file)).strip()
        run("mount", "-o", OPTIONS, self.device, str(self.mount))

    def down(self) -> None:
        run("umount", str(self.mount))
        run("losetup", "--detach", self.device)

    def fail(self) -> None:
        """The power fails, and is back."""
        self.cut()
        self.come_back()

    def cut(self) -> None:
        run("cp", "--sparse=always", str(self.file), str(self.file.with_suffix(".cut")))

    def come_back(self) -> None:
        """With what was on the disk at the cut. All files there are closed before."""
        self.down()
        self.file.with_suffix(".cut").replace(self.file)
        self.up()


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def formatted(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file system that holds the set, and everything of it is on the disk."""
    folder = tmp_path_factory.mktemp("disk")
    disk = Disk(folder / "disk", folder / "mount")
    disk.mount.mkdir()
    with disk.file.open("wb") as file:
        file.truncate(DISK_BYTES)
    run("mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(disk.file))
    try:
        disk.up()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no file can be mounted here: {error.stderr.strip()}")
    (disk.mount / "spool").mkdir()
    for source in material.iterdir():
        run("cp", "--sparse=always", str(source), str(disk.mount / "spool"))
    disk.down()
    return disk.file


@pytest.fixture
def disk(formatted: Path, tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk", tmp_path / "mount")
    disk.mount.mkdir()
    run("cp", "--sparse=always", str(formatted), str(disk.file))
    disk.up()
    try:
        yield disk
    finally:
        disk.down()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


@pytest.fixture
def make(
    scene_class: type[Scene], host_class: type[Host], disk: Disk, cloud: Sandbox, tmp_path: Path
) -> Callable[[Path], Scene]:
    """Make the host with its spool on the disk; its state directory is given."""

    def make(state: Path) -> Scene:
        spool = disk.mount / "spool"
        host = host_class(tmp_path, spool, state, tmp_path / "uecwatchd.toml", cloud)
        text = CONFIGURATION.format(spool=spool, state=state, eucarc=cloud.eucarc, settle=0.05)
        host.configure(f"{text}\n[work]\nuploads = 1\n")
        scene = scene_class(host, spool)
        sweep(scene.host.cloud)
        scene.asked = len(cloud.requests)
        return scene

    return make


@pytest.mark.parametrize(
    "at",
    [
        ("after put part", "before put part", 2),
        ("after note bundle uploaded", "before note bundle registering", 3),
        ("after note bundle registering", "before RegisterImage", 3),
        ("after RegisterImage", "before append to .uec.log", 3),
        ("after place .emi", "before note set done", 1),
    ],
    ids=lambda at: f"{at[0]} ({at[2]})",
)
def test_a_power_cut_loses_nothing_that_was_announced(
    make: Callable[[Path], Scene], killer: Killer, disk: Disk, at: tuple[str, str, int]
) -> None:
    cut = make(disk.mount / "state")
    assert killer.run(cut.host, "once", at=at) == KILLED
    disk.fail()
    assert [*cut.broken_promises()] == []
    assert killer.run(cut.host, "once") == 0, cut.said()
    wrong = (cut.broken_promises, cut.wrong_on_the_list, cut.wrong_beside_the_files, cut.wrong_in_the_ledger)
    assert [found for check in wrong for found in check()] == []
    assert [key for key, count in cut.puts().items() if count > 1 and ".part." in key] == []


def test_ids_are_there_when_the_ledger_on_another_disk_says_so(
    make: Callable[[Path], Scene], killer: Killer, disk: Disk, tmp_path: Path
) -> None:
    """Nothing that is flushed for the ledger takes the files in the spool along."""
    cut = make(tmp_path / "state")
    assert killer.run(cut.host, "once") == 0, cut.said()
    disk.fail()
    assert [*cut.broken_promises()] == []
    assert sorted(path.suffix for path in cut.host.spool.glob("tiny.e*")) == [".eki", ".emi", ".eri"]


def test_ids_that_were_removed_do_not_come_back_with_the_power(
    make: Callable[[Path], Scene], killer: Killer, disk: Disk, tmp_path: Path
) -> None:
    """The set's content is another one, and its attempt fails after the power is back. The state directory,
    on another disk, says already that they were removed."""
    cut = make(tmp_path / "state")
    assert killer.run(cut.host, "once") == 0, cut.said()
    with (cut.host.spool / "tiny.img").open("r+b") as image:
        image.seek(-1, 2)
        image.write(b"!")
    run("sync", "-f", str(disk.mount))
    at = ("after note set working: deliver the machine image", "before append to .uec.log", 1)
    assert killer.run(cut.host, "once", at=at) == KILLED
    disk.fail()
    cut.host.cloud.faults.arm("down")
    assert killer.run(cut.host, "once") != 0
    cut.host.cloud.faults.clear()
    assert json.loads((cut.host.spool / "tiny.uec.json").read_text())["state"] == "deferred"
    assert not [path.name for path in cut.host.spool.iterdir() if path.suffix in (".emi", ".eri", ".eki")]


def test_files_that_are_about_to_leave_are_noted_for_good(disk: Disk) -> None:
    """Or what a power cut leaves of them in the spool, on another disk, is taken for another set."""
    state, stamp = disk.mount / "state", FileStamp(1, 2, 3, 4)
    leaving = LeavingFile("/spool", "tiny.img", stamp, "archive")
    with closing(open_ledger(state)) as book:
        book.put_digest(stamp, "file", ContentDigest("0" * 64))  # which need not last
        book.put_leaving([leaving])
        disk.cut()
    disk.come_back()
    with closing(open_ledger(state)) as book:
        assert book.leaving(Path("/spool")) == (leaving,)
