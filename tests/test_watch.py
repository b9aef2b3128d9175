import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from uecwatchd.watch import Watch, file_system_type

PATIENCE_SECONDS = 10.0


@pytest.fixture
def wake() -> threading.Event:
    return threading.Event()


@pytest.fixture
def watch(tmp_path: Path, wake: threading.Event) -> Iterator[Watch]:
    (tmp_path / "s").mkdir()
    made = Watch([tmp_path / "s"], wake, scan_every=60)
    made.start()
    yield made
    made.stop()


def _copy(folder: Path) -> None:
    (folder / "a.img").write_bytes(b"x")


def _move_in(folder: Path) -> None:
    (folder.parent / "b.img").write_bytes(b"x")
    (folder.parent / "b.img").rename(folder / "b.img")


def _move_folder_in(folder: Path) -> None:
    (folder.parent / "set").mkdir()
    (folder.parent / "set").rename(folder / "set")


@pytest.mark.parametrize("act", [_copy, _move_in, _move_folder_in], ids=["copy", "move", "move of a folder"])
@pytest.mark.usefixtures("watch")
def test_what_arrives_wakes_the_daemon(
    act: Callable[[Path], None], tmp_path: Path, wake: threading.Event
) -> None:
    act(tmp_path / "s")
    assert wake.wait(PATIENCE_SECONDS)


@pytest.mark.usefixtures("watch")
def test_reading_does_not_wake_the_daemon(tmp_path: Path, wake: threading.Event) -> None:
    (tmp_path / "s" / "a.img").write_bytes(b"x")
    assert wake.wait(PATIENCE_SECONDS)
    time.sleep(0.5)  # let every event of the writing arrive
    wake.clear()
    (tmp_path / "s" / "a.img").read_bytes()
    assert not wake.wait(0.5)


@pytest.mark.usefixtures("watch")
def test_what_is_written_beside_the_images_does_not_wake_the_daemon(
    tmp_path: Path, wake: threading.Event
) -> None:
    (tmp_path / "s" / ".a.uec.json.uec.0123abcd").write_bytes(b"x")
    (tmp_path / "s" / ".a.uec.json.uec.0123abcd").rename(tmp_path / "s" / "a.uec.json")
    (tmp_path / "s" / "a.uec.json").unlink()
    assert not wake.wait(0.5)
    (tmp_path / "s" / "a.uec.json").write_bytes(b"x")
    (tmp_path / "s" / "a.uec.json").rename(tmp_path / "s" / "a.img")
    assert wake.wait(PATIENCE_SECONDS), "what is renamed to an image is one"


def _delete(folder: Path) -> None:
    shutil.rmtree(folder)


def _replace(folder: Path) -> None:
    folder.rename(folder.with_name("old"))
    folder.mkdir()


@pytest.mark.parametrize("act", [_delete, _replace])
def test_a_folder_that_is_deleted_or_replaced_is_noticed(
    act: Callable[[Path], None], watch: Watch, tmp_path: Path, wake: threading.Event
) -> None:
    assert watch.lost() == ""
    act(tmp_path / "s")
    assert "was replaced" in watch.lost()
    (tmp_path / "s").mkdir(exist_ok=True)
    watch.restart()
    assert watch.lost() == ""
    time.sleep(0.3)
    wake.clear()
    _copy(tmp_path / "s")
    assert wake.wait(PATIENCE_SECONDS)


def test_a_folder_that_is_not_there_is_scanned_for(tmp_path: Path, wake: threading.Event) -> None:
    watch = Watch([tmp_path / "none"], wake, scan_every=60)
    watch.start()
    try:
        assert [way.events for way in watch.ways] == [False]
        assert str(watch.ways[0]) == f"{tmp_path}/none (not there: scan every 15 s)"
    finally:
        watch.stop()


def test_it_says_which_way_of_watching_is_on(watch: Watch, tmp_path: Path) -> None:
    assert str(watch.ways[0]) == f"{tmp_path}/s (inotify, full scan every 60 s)"


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
    assert file_system_type(Path(folder), MOUNTS) == kind


def test_the_real_mount_table_is_understood(tmp_path: Path) -> None:
    text = Path("/proc/self/mountinfo").read_text()
    assert file_system_type(Path("/proc"), text) == "proc"
    assert file_system_type(tmp_path, text) in text
    assert os.path.ismount("/proc")
