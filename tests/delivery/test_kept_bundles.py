"""A set for several clouds is bundled once, and what happens to one of them keeps it from no other."""

import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.host import Host
from tests.support.listener import Recorder
from uecwatchd.clouds.request_retry import RetryPolicy
from uecwatchd.config.load import load
from uecwatchd.events import Kind
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.ledger.standing import by_cloud
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.sandbox.state.identity import ensure_identity
from uecwatchd.service.daemon import Service
from uecwatchd.system import failpoints
from uecwatchd.system.clocks import Clocks

HOUR = 3600.0
DISK_BYTES = 11 << 20  # two parts: it is noise
BUCKET = "uec-images"
CLOUD = '\n[cloud.far]\ndialect = "sandbox"\neucarc = "{eucarc}"\n'
ALONE = 'kernel = "none"\nconvert = "keep"\n'

Turn = Callable[..., dict[str, str]]
AtMoment = Callable[[str, int, Callable[[], object]], None]


@pytest.fixture(scope="module")
def noise() -> bytes:
    return random.Random(7).randbytes(DISK_BYTES)  # noqa: S311 (only not to be compressible)


@pytest.fixture(scope="module")
def other_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of a second account: two clouds of one account are refused."""
    folder = tmp_path_factory.mktemp("keys")
    ensure_identity(folder, now=datetime.now(UTC))
    return folder


@pytest.fixture
def far(tmp_path: Path, host: Host, other_keys: Path, noise: bytes) -> Iterator[Sandbox]:
    """A second cloud, and a set that goes to both."""
    with Sandbox(shutil.copytree(other_keys, tmp_path / "far")) as cloud:
        host.configure(host.config.read_text() + CLOUD.format(eucarc=cloud.eucarc))
        (host.spool / "karmic.img").write_bytes(noise)
        (host.spool / "karmic.toml").write_text(f'{ALONE}clouds = ["default", "far"]\n')
        yield cloud


@pytest.fixture
def turn(host: Host, listener: Recorder) -> Turn:
    """Each call is a run of `once` as many hours later, and gives the state of the set on each cloud."""

    def once(hours: float = 0.0) -> dict[str, str]:
        settings = load(host.config, environ={})
        with closing(open_ledger(settings.state.dir)) as book:
            now = time.time() + hours * HOUR
            patience = RetryPolicy(tries=())
            record: SetRecord
            (record,) = Service(
                settings, listener=listener, ledger=book, clocks=Clocks(now=lambda: now), patience=patience
            ).once()
            return {one.cloud: one.state for one in by_cloud(record)}

    return once


@pytest.fixture
def at_moment() -> Iterator[AtMoment]:
    """Has something done when a moment is crossed for the nth time."""

    def arm(moment: str, nth: int, act: Callable[[], object]) -> None:
        crossed: list[str] = []

        def cross(name: str) -> None:
            crossed.append(name)
            if name == moment and crossed.count(name) == nth:
                act()

        failpoints.listen(cross)

    yield arm
    failpoints.listen(lambda _: None)


def parts(cloud: Sandbox) -> list[str]:
    """List the digests of the parts in a bucket, in their order."""
    there = {one.key: one.etag for one in cloud.backend.store.objects(BUCKET) if ".part." in one.key}
    return [there[key] for key in sorted(there)]


def sent(cloud: Sandbox) -> list[str]:
    """List the parts that a cloud has taken, in the order of its answers."""
    keys = (seen.path.rsplit("/", 1)[-1] for seen in cloud.calls("PutObject") if not seen.code)
    return [key.partition(".part.")[2] for key in keys if ".part." in key]


def manifest(cloud: Sandbox) -> str:
    (found,) = (one for one in cloud.backend.store.objects(BUCKET) if ".manifest." in one.key)
    return found.path.read_text()


def bundled(listener: Recorder) -> int:
    return len(listener.sentences(Kind.BUNDLED))


def test_two_clouds_get_the_same_parts_of_one_bundling(
    host: Host, far: Sandbox, turn: Turn, listener: Recorder
) -> None:
    assert turn() == {"default": "done", "far": "done"}
    assert bundled(listener) == 1
    assert parts(far) == parts(host.cloud)
    assert sorted(sent(far)) == ["0", "1"]
    names = [re.findall("<name>(karmic-[0-9a-f]{16})</name>", manifest(cloud)) for cloud in (host.cloud, far)]
    assert len(names[0]) == 1
    assert names[0] == names[1]
    assert all(names[0][0] not in one.key for one in host.cloud.backend.store.objects(BUCKET))
    keys = [re.findall("<ec2_encrypted_key[^>]*>([0-9a-f]+)<", manifest(one)) for one in (host.cloud, far)]
    assert keys[0] != keys[1], "each is encrypted for its cloud"
    assert not list((host.state / "work").iterdir())


def test_a_set_for_one_cloud_is_not_written_to_the_disk(
    host: Host, far: Sandbox, turn: Turn, listener: Recorder
) -> None:
    (host.spool / "karmic.toml").write_text(ALONE)
    assert turn() == {"default": "done"}
    assert bundled(listener) == 1
    assert not (host.state / "work").exists()


def test_an_upload_that_an_older_version_began_keeps_the_name_in_its_archive(
    host: Host, far: Sandbox, turn: Turn
) -> None:
    (host.spool / "karmic.toml").write_text(ALONE)
    host.cloud.faults.arm("put-503", 9)
    assert turn() == {"default": "deferred"}
    with closing(open_ledger(host.state)) as book:
        (begun,) = book.bundles("default")
        book.put_bundle(replace(begun, archive_name=""))
    host.cloud.faults.clear()
    host.cloud.faults.arm("put-503", 9, spare=1)
    assert turn(1) == {"default": "deferred"}
    host.cloud.faults.clear()
    assert turn(3) == {"default": "done"}
    assert f"<name>{begun.prefix}</name>" in manifest(host.cloud)
    assert sorted(sent(host.cloud)) == ["0", "1"]


def test_a_cloud_that_fails_in_the_middle_leaves_nothing_for_the_next(
    host: Host, far: Sandbox, turn: Turn, listener: Recorder
) -> None:
    host.cloud.faults.arm("put-503", 9, spare=1)
    assert turn() == {"default": "deferred", "far": "done"}
    assert bundled(listener) == 1, "the first cloud has no whole bundle"
    host.cloud.faults.clear()
    assert turn(1) == {"default": "done", "far": "done"}
    assert bundled(listener) == 2
    assert sorted(sent(host.cloud)) == ["0", "1"]


def test_a_shared_upload_that_was_broken_off_continues_from_the_image_with_the_same_bytes(
    host: Host, far: Sandbox, turn: Turn, listener: Recorder
) -> None:
    far.faults.arm("put-503", 9, spare=1)
    assert turn() == {"default": "done", "far": "deferred"}
    far.faults.clear()
    assert turn(1) == {"default": "done", "far": "done"}
    assert bundled(listener) == 2
    assert sorted(sent(far)) == ["0", "1"]
    assert parts(far) == parts(host.cloud)


def test_clouds_that_were_away_together_share_a_bundle_once_they_are_back(
    host: Host, far: Sandbox, turn: Turn, listener: Recorder
) -> None:
    for cloud in (host.cloud, far):
        cloud.faults.arm("put-503", 9)
    assert turn() == {"default": "deferred", "far": "deferred"}
    for cloud in (host.cloud, far):
        cloud.faults.clear()
    before = bundled(listener)
    assert turn(1) == {"default": "done", "far": "done"}
    assert bundled(listener) - before == 1
    assert parts(far) == parts(host.cloud)


def test_without_room_the_bundle_is_made_for_each_cloud_and_the_log_says_why(
    host: Host, far: Sandbox, turn: Turn, listener: Recorder, small_disk: Path
) -> None:
    text = host.config.read_text()
    host.configure(text.replace("[state]\n", f'[state]\nwork = "{small_disk}"\n'))
    assert turn() == {"default": "done", "far": "done"}
    assert bundled(listener) == 2
    assert parts(far) != parts(host.cloud)
    log = (host.spool / "karmic.uec.log").read_text()
    assert f"karmic.img is bundled again for the next cloud: {small_disk}: no room in the work folder" in log


def test_a_bundle_that_a_cloud_cannot_open_is_given_to_no_other(
    host: Host, far: Sandbox, turn: Turn, listener: Recorder, at_moment: AtMoment
) -> None:
    def damage() -> None:
        for one in host.cloud.backend.store.objects(BUCKET):
            if one.key.endswith(".part.0"):
                one.path.write_bytes(bytes(one.size))

    at_moment("after put manifest", 1, damage)
    assert turn() == {"default": "rejected", "far": "done"}
    assert bundled(listener) == 2


def test_a_copy_that_the_disk_has_damaged_is_not_sent_and_made_again(
    host: Host, far: Sandbox, turn: Turn, listener: Recorder, at_moment: AtMoment
) -> None:
    def damage() -> None:
        """Overwrite the copy, which only this process can open."""
        links = (link for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
        (copy,) = (link for link in links if link.readlink().is_relative_to(host.state / "work"))
        os.pwrite(int(copy.name), bytes(1000), 0)

    at_moment("after note bundle registered", 1, damage)
    assert turn() == {"default": "done", "far": "deferred"}
    assert "it is not what was written" in (host.spool / "karmic.uec.error").read_text()
    assert not sent(far)
    assert turn(1) == {"default": "done", "far": "done"}
    assert parts(far) == parts(host.cloud)
