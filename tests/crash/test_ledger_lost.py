"""A ledger that is damaged, gone, or may not be written: said clearly, and nothing is registered again."""

import json
import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.crash.conftest import KILLED, Killer, Scene
from tests.support.host import Host
from uecwatchd.errors import Deferred
from uecwatchd.ledger import schema
from uecwatchd.ledger.records import Request
from uecwatchd.ledger.schema import FILE_NAME
from uecwatchd.ledger.sqlite import open_ledger, read_ledger
from uecwatchd.ledger.state_folder import lock_state
from uecwatchd.types import SetId

pytestmark = pytest.mark.exhaustive

PAGE_BYTES = 4096
# A name that is another each second: what is found again is not found by its name.
SIDECAR = (
    'machine = "tiny.img"\nkernel = "tiny.vmlinuz"\nramdisk = "tiny.initrd"\nname = "{stem}-{date}-{time}"\n'
)


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def overwrite_header(path: Path) -> None:
    overwrite(path, 0, b"garbage " * 64)


def overwrite_middle(path: Path) -> None:
    overwrite(path, path.stat().st_size // PAGE_BYTES // 2 * PAGE_BYTES, b"\xa5" * PAGE_BYTES)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def spoil_row(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE sets SET error = '[{'")


def take_away(path: Path) -> None:
    path.unlink()


DAMAGES = [overwrite_header, overwrite_middle, truncate, spoil_row]


def named(function: Callable[..., object]) -> str:
    return function.__name__.replace("_", " ")


@pytest.fixture(scope="module")
def registered(scene: Scene, killer: Killer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the state directory as it was when the set was registered."""
    scene.begin_again()
    (scene.host.spool / "tiny.toml").write_text(SIDECAR)
    assert killer.run(scene.host, "once") == 0, scene.said()
    return Path(shutil.copytree(scene.host.state, tmp_path_factory.mktemp("state") / "copy"))


@pytest.fixture
def state(scene: Scene, registered: Path) -> Path:
    shutil.rmtree(scene.host.state, ignore_errors=True)
    shutil.copytree(registered, scene.host.state)
    (scene.host.folder / "stderr").unlink(missing_ok=True)
    scene.asked = len(scene.host.cloud.requests)
    return scene.host.state


@pytest.mark.parametrize("damage", [*DAMAGES, take_away], ids=named)
def test_registered_images_are_found_again_after_the_ledger_is_lost(
    scene: Scene, killer: Killer, state: Path, damage: Callable[[Path], None]
) -> None:
    before = scene.images()
    damage(state / FILE_NAME)
    assert killer.run(scene.host, "once") == 0, scene.said()
    assert scene.images() == before
    assert scene.puts() == {}
    assert not [seen for seen in scene.host.cloud.requests[scene.asked :] if seen.action == "RegisterImage"]
    assert [*scene.wrong_beside_the_files(), *scene.wrong_in_the_ledger()] == []
    assert "nothing is registered twice" in scene.said()
    asides = [path for path in state.iterdir() if ".damaged-" in path.name]
    assert len(asides) == (damage is not take_away)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 and path.name in scene.said() for path in asides)


@pytest.mark.parametrize("damage", DAMAGES, ids=named)
def test_status_says_that_the_ledger_is_damaged_and_leaves_it_alone(
    scene: Scene, killer: Killer, state: Path, damage: Callable[[Path], None]
) -> None:
    damage(state / FILE_NAME)
    before = (state / FILE_NAME).read_bytes()
    assert killer.run(scene.host, "status") == 74
    assert "it is damaged" in scene.said()
    assert (state / FILE_NAME).read_bytes() == before
    assert not [path.name for path in state.iterdir() if ".damaged-" in path.name]


def test_a_damaged_ledger_is_not_set_aside_under_a_daemon_that_has_it_open(state: Path) -> None:
    reports: list[str] = []
    overwrite_header(state / FILE_NAME)
    lock = lock_state(state)
    try:
        with pytest.raises(Deferred, match="another uecwatchd"):
            open_ledger(state, lost=reports.append)
    finally:
        os.close(lock)
    assert (state / FILE_NAME).exists()
    open_ledger(state, lost=reports.append).close()
    assert len(reports) == 1


def test_requests_of_users_are_recovered_from_a_damaged_ledger(state: Path) -> None:
    with closing(open_ledger(state)) as book:
        book.put_hold(SetId("/spool", "karmic"), since=5.0)
        book.put_request(Request(SetId("/spool", "jaunty"), "retry"))
    spoil_row(state / FILE_NAME)
    with closing(open_ledger(state, lost=lambda _: None)) as book:
        assert book.holds() == {("/spool", "karmic"): 5.0}
        assert [request.set_id.name for request in book.requests()] == ["jaunty"]
        assert book.sets() == ()


def test_records_only_in_the_write_ahead_log_are_recovered_too(state: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    with closing(open_ledger(state)) as book:
        book.put_hold(SetId("/spool", "karmic"), since=5.0)
        spoil_row(state / FILE_NAME)
        shutil.copytree(state, killed)  # as a killed process leaves it
    assert (killed / f"{FILE_NAME}-wal").stat().st_size
    with closing(open_ledger(killed, lost=lambda _: None)) as book:
        assert book.holds() == {("/spool", "karmic"): 5.0}


def test_two_ledgers_damaged_within_a_second_are_both_kept(state: Path) -> None:
    for _ in range(2):
        overwrite_header(state / FILE_NAME)
        open_ledger(state, lost=lambda _: None).close()
    assert len([path for path in state.iterdir() if ".damaged-" in path.name]) == 2


def test_a_temporary_error_does_not_replace_the_ledger(small_disk: Path) -> None:
    reports: list[str] = []
    open_ledger(small_disk).close()
    (small_disk / "filler").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * 4096))
    with pytest.raises(Deferred, match=r"full|I/O"):
        open_ledger(small_disk, lost=reports.append)
    assert reports == []
    assert not [path for path in small_disk.iterdir() if ".damaged-" in path.name]


def test_a_ledger_locked_by_another_process_is_not_replaced(state: Path) -> None:
    with closing(sqlite3.connect(state / FILE_NAME)) as other:
        other.execute("BEGIN IMMEDIATE")
        with (
            closing(sqlite3.connect(state / FILE_NAME, timeout=0)) as connection,
            pytest.raises(Deferred, match="Another process is writing"),
            schema.translate_errors(state),
        ):
            connection.execute("BEGIN IMMEDIATE")


@pytest.fixture
def read_only(small_disk: Path, registered: Path) -> Iterator[Path]:
    """The state directory on a file system that the kernel has made read-only, as it does after errors."""
    shutil.copytree(registered, small_disk / "state")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    yield small_disk / "state"
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)


def test_a_ledger_on_a_read_only_disk_can_be_read_and_defers_the_work(read_only: Path) -> None:
    with pytest.raises(Deferred, match="Mount it for writing"):
        open_ledger(read_only, lost=lambda _: None)
    book = read_ledger(read_only)
    assert book
    with closing(book):
        assert [record.state for record in book.sets()] == ["done"]


def test_a_ledger_that_may_not_be_written_says_whose_it_should_be(host: Host) -> None:
    host.state.mkdir()
    open_ledger(host.state).close()
    (host.state / FILE_NAME).chmod(0o444)
    ended = host.run_as_nobody("once")
    assert ended.returncode == 77
    assert "this user may not read and write " in ended.stderr


def test_a_crash_while_the_ledger_is_replaced_loses_nothing_more(
    scene: Scene, killer: Killer, state: Path
) -> None:
    before = scene.images()
    overwrite_header(state / FILE_NAME)
    at = ("after set the ledger aside", "before bring the ledger up to date", 1)
    assert killer.run(scene.host, "once", at=at) == KILLED
    assert killer.run(scene.host, "once") == 0, scene.said()
    assert scene.images() == before
    assert [*scene.wrong_beside_the_files(), *scene.wrong_in_the_ledger()] == []


def test_a_key_is_gone_from_the_disk_once_its_bundle_is_registered(scene: Scene, killer: Killer) -> None:
    scene.begin_again(("tiny.img",))
    (scene.host.spool / "tiny.toml").write_text('kernel = "none"\nramdisk = "none"\n')
    at = ("after note bundle uploaded", "before note bundle registering", 1)
    assert killer.run(scene.host, "once", at=at) == KILLED
    with closing(open_ledger(scene.host.state)) as book:
        (bundle,) = book.bundles("default")
    secrets = [secret for secret in (bundle.secret_key, bundle.secret_iv) if secret]
    assert len(secrets) == 2
    assert all(secret in _raw(scene.host.state) for secret in secrets)
    at = ("after empty the ledger's log", "before write .uec.json", 1)
    assert killer.run(scene.host, "once", at=at) == KILLED, "no orderly end tidies up"
    assert not [secret for secret in secrets if secret in _raw(scene.host.state)]
    assert killer.run(scene.host, "once") == 0
    assert json.loads((scene.host.spool / "tiny.uec.json").read_text())["state"] == "done"


def _raw(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())
