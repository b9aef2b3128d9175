"""Looks at a bucket of each generation of cloud, with a real folder."""

import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.buckets import BUCKET, PREFIX, DropBucket, bucket_host
from tests.support.waiting import PATIENCE_SECONDS, no_stop, until
from uecwatchd.clouds.dialects import DIALECTS
from uecwatchd.errors import Halted, NotPermitted, Stopped, UecError
from uecwatchd.mirror.look import FETCHES, RETRY_SECONDS, Mirror, MirroredFolder, MirrorLook
from uecwatchd.mirror.notes import NOTES, SPARE_LINES
from uecwatchd.mirror.transfer import PIECE_BYTES
from uecwatchd.types import BucketPlace

PLACE = BucketPlace(BUCKET, PREFIX)
DATA = b"an image"
OPEN_FILES = Path("/proc/self/fd")


@pytest.fixture
def drops(tmp_path: Path) -> Iterator[DropBucket]:
    with bucket_host(tmp_path, "uec") as drops:
        yield drops


@dataclass(frozen=True)
class Seen:
    """Findings of a look, and the names of the files that it has fetched."""

    look: MirrorLook
    fetched: list[str]
    failures: dict[str, UecError]


def look(drops: DropBucket, *, leave: bool = False, place: BucketPlace = PLACE) -> Seen:
    before = inodes(drops)
    folder = MirroredFolder(drops.host.spool, place, removed_files_leave=leave)
    with closing(Mirror(folder, check=no_stop)) as mirror:
        found = mirror.fetch_all(drops.cloud)
    return Seen(found, sorted(name for name, _ in inodes(drops) - before), mirror.failures)


def inodes(drops: DropBucket) -> set[tuple[str, int]]:
    return {(path.name, path.lstat().st_ino) for path in drops.host.spool.iterdir() if path.name != NOTES}


def files(drops: DropBucket) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in drops.host.spool.iterdir() if path.name != NOTES}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_objects_of_each_generation_come_whole_and_results_go_back(tmp_path: Path, dialect: str) -> None:
    large = random.Random(1).randbytes(2 * PIECE_BYTES + 5)  # noqa: S311 (only to be long)
    with bucket_host(tmp_path, dialect) as drops:
        for name, data in (("karmic.img", large), ("karmic.toml", b""), ("ü ß.img", DATA)):
            drops.put(name, data)
        assert look(drops).fetched == ["karmic.img", "karmic.toml", "ü ß.img"]
        assert files(drops) == {"karmic.img": large, "karmic.toml": b"", "ü ß.img": DATA}
        (drops.host.spool / "karmic.emi").write_text("emi-1\n")
        assert look(drops).fetched == []
        assert drops.read("karmic.emi") == b"emi-1\n"


def test_a_changed_object_is_fetched_again_and_a_removed_one_takes_its_file_along(drops: DropBucket) -> None:
    drops.put("karmic.img", DATA)
    drops.put("lucid.img", DATA)
    look(drops)
    drops.put("karmic.img", b"another")
    drops.remove("lucid.img")
    assert look(drops).fetched == ["karmic.img"]
    assert files(drops) == {"karmic.img": b"another"}


def test_a_file_from_elsewhere_is_left_alone_until_it_is_moved_away(drops: DropBucket) -> None:
    own = drops.host.spool / "karmic.img"
    own.write_bytes(b"mine")
    drops.put("karmic.img", DATA)
    assert look(drops).look == MirrorLook(foreign=("karmic.img",))
    drops.remove("karmic.img")
    assert look(drops).look == MirrorLook()
    assert own.read_bytes() == b"mine"
    drops.put("karmic.img", DATA)
    own.unlink()
    own.symlink_to("/etc/passwd")
    assert look(drops).look.foreign == ("karmic.img",)
    own.unlink()
    assert look(drops).fetched == ["karmic.img"]


def test_the_object_of_a_file_that_left_leaves_only_if_the_service_may_remove_files(
    drops: DropBucket,
) -> None:
    drops.put("karmic.img", DATA)
    look(drops)
    (drops.host.spool / "karmic.img").unlink()
    assert look(drops).fetched == ["karmic.img"]
    (drops.host.spool / "karmic.img").unlink()
    look(drops, leave=True)
    assert drops.names() == []


def test_a_result_is_sent_when_it_changes_and_leaves_with_its_file(drops: DropBucket) -> None:
    log = drops.host.spool / "karmic.uec.log"
    for text in ("one\n", "one\ntwo\n"):
        log.write_text(text)
        look(drops)
        assert drops.read("karmic.uec.log") == text.encode()
    sent = len([one for one in drops.host.cloud.requests if one.method == "PUT"])
    look(drops)
    assert len([one for one in drops.host.cloud.requests if one.method == "PUT"]) == sent
    log.unlink()
    look(drops)
    assert drops.names() == []


def test_an_output_that_is_no_file_of_ours_is_not_sent(drops: DropBucket) -> None:
    (drops.host.spool / "karmic.emi").symlink_to("/etc/hostname")
    foreign = drops.host.spool / "lucid.emi"
    foreign.write_text("emi-2")
    os.chown(foreign, 65534, 65534)
    look(drops)
    assert drops.names() == []


@pytest.mark.parametrize("name", ["karmic.img.part", "karmic.emi", "karmic.img~"])
def test_unfinished_files_and_results_of_others_are_not_fetched(drops: DropBucket, name: str) -> None:
    drops.put(name, DATA)
    assert look(drops).look == MirrorLook()
    assert files(drops) == {}


def test_objects_without_a_place_in_the_folder_are_counted(drops: DropBucket) -> None:
    for name in ("deep/karmic.img", ".hidden", "", "x" * 250):
        drops.put(name, DATA)
    assert look(drops).look == MirrorLook(others=3)


def test_a_lost_folder_is_filled_again_and_nothing_is_taken_for_removed(drops: DropBucket) -> None:
    drops.put("karmic.img", DATA)
    look(drops, leave=True)
    for path in drops.host.spool.iterdir():
        path.unlink()
    assert look(drops, leave=True).fetched == ["karmic.img"]
    assert drops.names() == ["karmic.img"]


def test_another_source_neither_removes_what_came_from_the_first_nor_takes_it_for_its_own(
    drops: DropBucket,
) -> None:
    drops.put("karmic.img", DATA)
    look(drops)
    other = BucketPlace(BUCKET, "other/")
    assert look(drops, leave=True, place=other).look == MirrorLook()
    assert files(drops) == {"karmic.img": DATA}


def test_a_stop_ends_a_fetch_and_leaves_nothing_behind(drops: DropBucket) -> None:
    drops.put("karmic.img", DATA)

    def stop() -> None:
        raise Stopped("fetching", "a stop was asked for", "")

    mirror = Mirror(MirroredFolder(drops.host.spool, PLACE), check=stop)
    with closing(mirror), pytest.raises(Stopped):
        mirror.fetch_all(drops.cloud)
    assert files(drops) == {}


def test_half_a_note_of_a_killed_process_does_no_harm_and_old_notes_are_written_anew(
    drops: DropBucket,
) -> None:
    drops.put("karmic.img", DATA)
    look(drops)
    notes = drops.host.spool / NOTES
    line = notes.read_bytes()
    notes.write_bytes(line * SPARE_LINES + b'["s3://drop/images/", "karm')
    drops.put("lucid.img", DATA)
    assert look(drops).fetched == ["lucid.img"]
    look(drops)
    assert len(notes.read_bytes()) < 10 * len(line)
    assert look(drops).look == MirrorLook()


def test_notes_that_somebody_else_has_made_are_refused(drops: DropBucket) -> None:
    notes = drops.host.spool / NOTES
    notes.write_text("")
    os.chown(notes, 65534, 65534)
    with pytest.raises(NotPermitted, match="were not made by the service"):
        look(drops)


def test_a_bucket_without_rights_or_not_there_is_a_sentence(drops: DropBucket) -> None:
    with pytest.raises(Halted, match="the bucket is not there"):
        look(drops, place=BucketPlace("missing", ""))


def test_a_large_object_keeps_no_small_one_waiting(drops: DropBucket) -> None:
    """The large one stops between its pieces until the small one is there."""
    drops.put("karmic.img", bytes(3 * PIECE_BYTES))
    small_is_there = threading.Event()
    mirror = Mirror(MirroredFolder(drops.host.spool, PLACE), check=lambda: assert_set(small_is_there))
    with closing(mirror):
        assert mirror.look(drops.cloud).fetching == ("karmic.img",)
        drops.put("lucid.toml", b"")
        assert mirror.look(drops.cloud).fetching == ("karmic.img", "lucid.toml")
        until((drops.host.spool / "lucid.toml").exists)
        small_is_there.set()
        mirror.fetch_all(drops.cloud)
    assert sorted(files(drops)) == ["karmic.img", "lucid.toml"]


def assert_set(event: threading.Event) -> None:
    assert event.wait(PATIENCE_SECONDS)


def test_an_object_that_cannot_be_fetched_harms_no_other_and_is_tried_again_after_a_pause(
    drops: DropBucket, small_disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,size=80m", str(small_disk)], check=True)
    drops.put("karmic.img", bytes(32 << 20))  # more than the disk has beside its reserve
    drops.put("lucid.img", DATA)
    now = 0.0
    mirror = Mirror(MirroredFolder(small_disk, PLACE), check=no_stop, clock=lambda: now)
    with closing(mirror):
        mirror.fetch_all(drops.cloud)
        assert (small_disk / "lucid.img").read_bytes() == DATA
        assert "no room in the spool folder" in str(mirror.failures["karmic.img"])
        assert mirror.look(drops.cloud).fetching == ()
        now = RETRY_SECONDS
        assert mirror.look(drops.cloud).fetching == ("karmic.img",)
        drops.remove("karmic.img")
        until(lambda: not mirror.look(drops.cloud).fetching)
        assert mirror.failures == {}


def test_a_failure_that_a_look_finds_lasts_until_its_pause_is_over(
    drops: DropBucket, small_disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,size=80m", str(small_disk)], check=True)
    drops.put("karmic.img", bytes(32 << 20))
    now = 0.0
    with closing(Mirror(MirroredFolder(small_disk, PLACE), check=no_stop, clock=lambda: now)) as mirror:
        until(lambda: not mirror.look(drops.cloud).fetching)
        assert "no room" in str(mirror.failures["karmic.img"])
        assert mirror.look(drops.cloud).fetching == ()
        now = RETRY_SECONDS
        assert mirror.look(drops.cloud).fetching == ("karmic.img",)
        assert "no room" in str(mirror.failures["karmic.img"]), "it lasts while it is tried again"


def test_objects_that_may_not_be_read_keep_no_other_waiting(drops: DropBucket) -> None:
    """As many of them as are fetched at once, and all smaller than the one that can be read."""
    closed = [f"a{number}.toml" for number in range(FETCHES)]
    for name in closed:
        drops.put(name, b"x")
    drops.put("lucid.img", DATA)
    drops.host.cloud.faults.arm("get-forbidden", FETCHES)
    seen = look(drops)
    assert seen.fetched == ["lucid.img"]
    assert sorted(seen.failures) == closed
    assert "may not do that in the bucket" in str(seen.failures[closed[0]])


def test_a_list_that_is_empty_for_a_moment_removes_no_file(drops: DropBucket) -> None:
    drops.put("karmic.img", DATA)
    look(drops)
    before = inodes(drops)
    drops.host.cloud.faults.arm("empty-list")
    look(drops)
    assert inodes(drops) == before
    assert look(drops).fetched == []


def test_an_object_that_is_replaced_after_the_list_is_not_removed_with_the_old_file(
    drops: DropBucket,
) -> None:
    drops.put("karmic.img", DATA)
    look(drops)
    (drops.host.spool / "karmic.img").unlink()
    listed = threading.Event()

    def replace_once(**_answer: object) -> None:
        if not listed.is_set():
            listed.set()
            drops.put("karmic.img", b"another")

    drops.cloud.s3.meta.events.register("after-call.s3.ListObjects", replace_once)
    folder = MirroredFolder(drops.host.spool, PLACE, removed_files_leave=True)
    with closing(Mirror(folder, check=no_stop)) as mirror:
        mirror.look(drops.cloud)
    assert drops.read("karmic.img") == b"another"
    assert look(drops).fetched == ["karmic.img"]


@pytest.mark.parametrize("is_update", [False, True])
def test_a_file_that_is_dropped_during_a_fetch_is_not_replaced(drops: DropBucket, *, is_update: bool) -> None:
    own = drops.host.spool / "karmic.img"
    drops.put("karmic.img", DATA)
    if is_update:
        look(drops)
        own.unlink()
        drops.put("karmic.img", b"another")
    folder = MirroredFolder(drops.host.spool, PLACE)
    with closing(Mirror(folder, check=lambda: own.write_bytes(b"mine"))) as mirror:
        found = mirror.fetch_all(drops.cloud)
    assert own.read_bytes() == b"mine"
    assert found.foreign == ("karmic.img",)
    assert list(files(drops)) == ["karmic.img"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/hostname")])
def test_what_is_no_file_of_notes_is_refused_and_nothing_stays_open(
    drops: DropBucket, make: Callable[[Path], None]
) -> None:
    make(drops.host.spool / NOTES)
    before = len(list(OPEN_FILES.iterdir()))
    with pytest.raises(NotPermitted, match="the notes about the bucket were not made by the service"):
        look(drops)
    assert len(list(OPEN_FILES.iterdir())) == before


def test_a_result_whose_name_the_cloud_refuses_keeps_nothing_else_from_its_way(drops: DropBucket) -> None:
    results = ("a\nb.emi", "karmic.emi")
    for name in results:
        (drops.host.spool / name).write_text("emi-1")
    drops.put("lucid.img", DATA)
    seen = look(drops)
    assert "control characters" in str(seen.failures[results[0]])
    assert (seen.fetched, list(seen.failures)) == (["lucid.img"], [results[0]])
    assert drops.read("karmic.emi") == b"emi-1"
    (drops.host.spool / results[0]).unlink()
    assert look(drops).failures == {}
