"""A bucket as drop folder: from the objects of a set to its EMI beside them."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.buckets import DropBucket, bucket_host
from tests.support.daemon import daemon_process, stop_daemon, wait_for_line
from tests.support.spool_files import KEEP
from tests.support.waiting import until
from uecwatchd.demo.material import RealSet

NOISE = random.Random(1).randbytes(4096)  # noqa: S311 (only to be an image)


@pytest.fixture
def drops(tmp_path: Path) -> Iterator[DropBucket]:
    with bucket_host(tmp_path, "uec") as drops:
        yield drops


def put_image(drops: DropBucket, name: str, data: bytes = NOISE) -> None:
    drops.put(f"{name}.toml", KEEP.encode())
    drops.put(f"{name}.img", data)


def test_a_real_set_in_a_bucket_is_registered_and_its_ids_lie_beside_it(
    drops: DropBucket, small_set: RealSet
) -> None:
    members = {"img": small_set.machine, "vmlinuz": small_set.kernel, "initrd": small_set.ramdisk}
    for ending, path in members.items():
        drops.put(f"tiny.{ending}", path.read_bytes())
    drops.host.ask("once")
    results = {name for name in drops.names() if name.startswith("tiny.")}
    assert {"tiny.emi", "tiny.eki", "tiny.eri", "tiny.uec.json", "tiny.uec.log"} < results
    assert drops.read("tiny.emi").decode().startswith("emi-")


def test_a_daemon_sees_new_changed_and_removed_objects(drops: DropBucket) -> None:
    with daemon_process(drops.host) as daemon:
        put_image(drops, "karmic")
        until(lambda: "karmic.emi" in drops.names(), "the EMI of the first image")
        first = drops.read("karmic.emi")
        drops.put("karmic.img", NOISE[::-1])
        until(lambda: drops.read("karmic.emi") != first, "the EMI of the second image")
        for name in ("karmic.img", "karmic.toml"):
            drops.remove(name)
        until(lambda: not (drops.host.spool / "karmic.img").exists(), "the removal of the files")
        stop_daemon(daemon)


@pytest.mark.parametrize(("after", "left"), [("delete", False), ("archive", False), ("keep", True)])
def test_the_objects_of_a_finished_set_leave_if_its_files_do(
    drops: DropBucket, after: str, *, left: bool
) -> None:
    text = drops.host.config.read_text()
    drops.host.configure(text.replace("[spool]\n", f'[spool]\nafter = "{after}"\n', 1))
    put_image(drops, "karmic")
    for _ in range(2):  # files leave when the set is done and they are seen again
        drops.host.ask("once")
    assert ("karmic.img" in drops.names()) == left
    assert "karmic.emi" in drops.names()
    assert bool(list(drops.host.spool.glob("done/*/*/*/karmic.img"))) == (after == "archive")


def test_a_bucket_that_is_not_there_is_said_and_other_work_goes_on(drops: DropBucket) -> None:
    text = drops.host.config.read_text()
    drops.host.configure(text.replace("s3://drop/", "s3://missing/"))
    _, talk = drops.host.ask("once", code=78)
    assert "listing missing/images/*: the bucket is not there" in talk
    with daemon_process(drops.host) as daemon:
        wait_for_line(daemon, "the bucket is not there")
        (drops.host.spool / "karmic.toml").write_text(KEEP)
        (drops.host.spool / "karmic.img").write_bytes(NOISE)
        until((drops.host.spool / "karmic.emi").exists)


def test_check_lists_the_bucket_and_leaves_nothing_there(drops: DropBucket) -> None:
    put_image(drops, "karmic")
    found, _ = drops.host.ask("check")
    assert "s3://drop/images/ can be listed (objects: 2), and takes and deletes results" in found
    assert drops.names() == ["karmic.img", "karmic.toml"]
    drops.host.configure(drops.host.config.read_text().replace("s3://drop/", "s3://missing/"))
    found, _ = drops.host.ask("check", code=78)
    assert "the bucket is not there" in found


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('source = "drop/images"', "must be the address of a bucket, such as s3://BUCKET/PREFIX"),
        ('source = "s3://"', "must be the address of a bucket"),
        ('source = "s3://drop"\nsource_cloud = "defualt"', "an unknown cloud (did you mean default?)"),
        ("source = 1", "must be the address of a bucket"),
    ],
)
def test_a_wrong_source_is_a_mistake_in_the_configuration(
    drops: DropBucket, line: str, sentence: str
) -> None:
    text = drops.host.config.read_text()
    drops.host.configure(text.replace('source = "s3://drop/images/"', line))
    _, talk = drops.host.ask("status", code=78)
    assert sentence in talk


def test_a_daemon_that_starts_while_its_cloud_is_away_says_so_once_and_fetches_later(
    drops: DropBucket,
) -> None:
    put_image(drops, "karmic")
    drops.host.cloud.faults.arm("down")
    with daemon_process(drops.host) as daemon:
        wait_for_line(daemon, "cloud default")
        drops.host.cloud.faults.clear()
        until(lambda: "karmic.emi" in drops.names(), "the EMI of the image")
        stop_daemon(daemon)
