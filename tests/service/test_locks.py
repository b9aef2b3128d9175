"""One daemon on one state directory and on one spool folder, and what the second one says."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import wait_for_line
from tests.support.host import Host, open_way
from tests.support.members import locking, theirs
from tests.support.waiting import PATIENCE_SECONDS
from uecwatchd.intake.spool.output_files import SPOOL_LOCK


@pytest.fixture
def daemon(host: Host) -> Iterator["subprocess.Popen[str]"]:
    """By an interpreter of its own: what holds the locks is shown by its command."""
    process = host.popen("run")
    try:
        wait_for_line(process, "Watching")
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_SECONDS)


@pytest.mark.parametrize("verb", ["run", "once"])
@pytest.mark.parametrize("shared", ["state directory", "spool folder"])
def test_a_second_daemon_ends_with_75_and_says_who_the_first_is(
    host: Host, daemon: "subprocess.Popen[str]", verb: str, shared: str
) -> None:
    other = host.folder / "other"
    other.mkdir()
    mine = host.state if shared == "spool folder" else host.spool
    host.configure(host.config.read_text().replace(str(mine), str(other)))
    second = host.run(verb)
    assert second.returncode == 75
    assert f"process {daemon.pid}" in second.stderr
    if shared == "spool folder":
        assert "uecwatchd run" in second.stderr, "the command, since the state directory is another"


def test_a_folder_is_free_again_when_its_holder_is_gone(host: Host, daemon: "subprocess.Popen[str]") -> None:
    daemon.kill()
    daemon.wait(PATIENCE_SECONDS)
    assert host.run("once").returncode == 0


def test_a_daemon_starts_and_works_while_a_member_locks_all_there_is(host: Host) -> None:
    open_way(host.folder)
    host.spool.chmod(0o3777)
    theirs(host.spool / SPOOL_LOCK.name)
    (host.spool / "karmic.toml").write_text('kernel = "none"\nconvert = "keep"\n')
    (host.spool / "karmic.img").write_bytes(b"\1" * (1 << 20))
    with locking(host.spool, host.spool / SPOOL_LOCK.name) as came:
        assert came == ["locked", "locked"]
        ended = host.run("once")
    assert ended.returncode == 0, ended.stderr
    assert (host.spool / "karmic.emi").exists()
    rows = host.run("status").stdout
    assert SPOOL_LOCK.name not in rows


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "other"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_two_folders_on_two_file_systems_are_both_served_and_their_files_archived_where_they_are(
    make_host: Callable[..., Host], other_disk: Path
) -> None:
    host = make_host()
    text = host.config.read_text().replace("folders = [", f'folders = ["{other_disk}", ')
    host.configure(text.replace("settle =", 'after = "archive"\nsettle ='))
    for number, folder in enumerate((host.spool, other_disk)):
        (folder / "karmic.toml").write_text('kernel = "none"\nconvert = "keep"\n')
        (folder / "karmic.img").write_bytes(bytes([number]) * (1 << 20))
        (folder / "lucid").mkdir()
        (folder / "lucid" / "image.toml").write_text('kernel = "none"\nconvert = "keep"\nmachine = "disk"\n')
        (folder / "lucid" / "disk").write_bytes(bytes([number + 2]) * (1 << 20))
    for _ in range(2):
        assert host.run("once").returncode == 0
    ids = {
        (folder / f"{name}.emi").read_text()
        for folder in (host.spool, other_disk)
        for name in ("karmic", "lucid")
    }
    assert len(ids) == len(host.cloud.images) == 4
    for folder in (host.spool, other_disk):
        kept = sorted(path.name for path in (folder / "done").rglob("*") if path.is_file())
        assert kept == ["disk", "image.toml", "karmic.img", "karmic.toml"]
        assert not (folder / "lucid").exists()
