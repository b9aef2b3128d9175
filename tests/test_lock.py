"""One daemon for one state directory and for one spool folder, and what the second one says."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from uecwatchd import spool
from uecwatchd.spool.lock import holder_in

if TYPE_CHECKING:
    from tests.conftest import Host
else:
    Host = Any

PATIENCE_SECONDS = 60.0


@pytest.fixture
def daemon(host: Host) -> Iterator["subprocess.Popen[str]"]:
    running = host.popen("run")
    assert running.stderr
    while "Watching" not in running.stderr.readline():
        assert running.poll() is None
    yield running
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=PATIENCE_SECONDS)


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


@pytest.mark.parametrize(
    ("line", "holder"),
    [
        ("1: FLOCK  ADVISORY  WRITE 841 {place} 0 EOF", 841),
        ("1: FLOCK  ADVISORY  WRITE 0 {place} 0 EOF", None),
        ("1: POSIX  ADVISORY  WRITE 841 {place} 0 EOF", None),
        ("1: -> FLOCK  ADVISORY  WRITE 841 {place} 0 EOF", None),
        ("1: FLOCK  ADVISORY  WRITE 841 fe:00:1 0 EOF", None),
        ("1: LEASE  ACTIVE    READ 841 {place} 0 EOF", None),
        ("", None),
    ],
    ids=["held", "not seen from here", "of another kind", "waited for", "another file", "lease", "no line"],
)
def test_the_holder_is_read_from_the_kernels_list(tmp_path: Path, line: str, holder: int | None) -> None:
    status = tmp_path.stat()
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    assert holder_in([line.format(place=place)], status) == holder


def test_a_folder_held_by_this_process_names_it(tmp_path: Path) -> None:
    held = spool.hold(tmp_path)
    with pytest.raises(spool.Occupied, match=rf"process {os.getpid()} \(.*py"):
        spool.hold(tmp_path)
    os.close(held)


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
