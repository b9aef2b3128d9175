"""An upload continues where it was, a lost answer is looked for, and what changes is thrown away."""

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from io import FileIO
from os import kill
from pathlib import Path

import pytest

from tests.crash.conftest import KILLED, Killer, Scene
from tests.support.host import Host
from tests.support.listener import Recorder
from uecwatchd.bundle.bundler import Bundling, Secret, max_parts
from uecwatchd.clouds.request_retry import RetryPolicy
from uecwatchd.config.load import load
from uecwatchd.demo.material import RealSet
from uecwatchd.images.block_source import FileSource
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.schema import FILE_NAME
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.service.daemon import Service
from uecwatchd.system import failpoints
from uecwatchd.system.clocks import Clocks

pytestmark = pytest.mark.exhaustive

HOUR = 3600.0
DISK_BYTES = 15 << 20  # two parts: it is noise
KEPT = 'kernel = "none"\nramdisk = "none"\nconvert = "keep"\n'

Turn = Callable[..., SetRecord]


# --- an upload that was broken off ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "sentence"),
    [
        (("after put part", "before put part", 2), "Resuming tiny at upload, part 3 of at most 3"),
        (("after append to .uec.log", "before put manifest", 3), "Resuming tiny at upload, the manifest"),
    ],
    ids=["in the middle", "before the manifest"],
)
def test_an_upload_resumes_at_the_missing_part(
    scene: Scene, killer: Killer, at: tuple[str, str, int], sentence: str
) -> None:
    scene.begin_again()
    assert killer.run(scene.host, "once", at=at) == KILLED
    asked = len(scene.host.cloud.requests)
    assert killer.run(scene.host, "once") == 0
    assert sentence in scene.said()
    assert sentence in (scene.host.spool / "tiny.uec.log").read_text()
    assert not sent_twice(scene)
    assert "HeadObject" not in {seen.action for seen in scene.host.cloud.requests[asked:]}


def test_only_a_part_with_another_etag_is_sent_again(scene: Scene, killer: Killer) -> None:
    scene.begin_again()
    assert killer.run(scene.host, "once", at=("after put part", "before put part", 2)) == KILLED
    store = scene.host.cloud.backend.store
    (there,) = [
        one for one in store.objects("uec-images") if one.key.endswith(".part.0") and "tiny" in one.key
    ]
    upload = store.receive([bytes(there.size)])
    store.put(replace(there, path=upload.path, etag=upload.md5))
    assert killer.run(scene.host, "once") == 0
    assert {key for key, count in scene.puts().items() if count > 1} == {there.key}
    assert scene.host.run("verify", "tiny").returncode == 0


def test_after_a_retry_all_parts_are_sent_if_one_is_damaged_under_the_same_etag(
    scene: Scene, killer: Killer
) -> None:
    """The bucket shows it as right, and the cloud finds the mistake when it is asked to register."""
    scene.begin_again()
    at = ("after note bundle uploaded", "before note bundle registering", 3)
    assert killer.run(scene.host, "once", at=at) == KILLED
    store = scene.host.cloud.backend.store
    (there,) = [
        one for one in store.objects("uec-images") if one.key.endswith(".part.0") and "tiny" in one.key
    ]
    there.path.write_bytes(bytes(there.size))
    assert killer.run(scene.host, "once") == 65
    assert scene.host.run("retry", "tiny").returncode == 0
    assert killer.run(scene.host, "once") == 0
    assert scene.host.run("verify", "tiny").returncode == 0
    assert len(scene.images()) == 3


@pytest.mark.parametrize(("suffix", "command"), [("xz", "xz -0 -T2 --block-size=2MiB"), ("gz", "gzip -1")])
def test_a_compressed_disk_goes_on_at_the_part_that_lacks(
    scene: Scene, killer: Killer, suffix: str, command: str
) -> None:
    scene.begin_again(("tiny.vmlinuz", "tiny.initrd"))
    made = scene.host.spool / f"tiny.img.{suffix}"
    with made.open("wb") as target, (scene.material / "tiny.img").open("rb") as disk:
        subprocess.run(command.split(), stdin=disk, stdout=target, check=True)
    assert killer.run(scene.host, "once", at=("after put part", "before put part", 2)) == KILLED
    assert killer.run(scene.host, "once") == 0
    assert f"{made.name} is unpacked again from its beginning" in scene.said()
    assert "Resuming tiny at upload, part 3 of at most 3" in scene.said()
    assert not sent_twice(scene)
    assert scene.host.run("verify", "tiny").returncode == 0


def test_a_killed_daemon_resumes_too(scene: Scene, killer: Killer) -> None:
    scene.begin_again()
    killer.begin(scene.host, "run", at=("after put part", "before put part", 2))
    assert killer.ended() == KILLED
    pid = killer.begin(scene.host, "run")
    scene.await_state("done")
    kill(pid, signal.SIGTERM)
    assert killer.ended() == 0
    assert "Resuming tiny at: deliver the machine image" in scene.said()
    assert "Resuming tiny at upload, part 3 of at most 3" in scene.said()
    assert not sent_twice(scene)


def sent_twice(scene: Scene) -> list[str]:
    return [key for key, count in scene.puts().items() if count > 1]


def test_a_kernel_that_has_left_the_cloud_changes_only_the_manifest(scene: Scene, killer: Killer) -> None:
    """The machine's manifest names the id that it had, and its parts name none."""
    scene.begin_again()
    at = ("after note bundle uploaded", "before note bundle registering", 3)
    assert killer.run(scene.host, "once", at=at) == KILLED
    ((_, left),) = (image for image in scene.images() if image[0] == "kernel")
    scene.host.cloud.backend.registry.remove_image(left)
    before = scene.puts()
    assert killer.run(scene.host, "once") == 0, scene.said()
    again = scene.puts() - before
    assert [key for key in again if key.startswith("tiny-")] == [
        key for key in before if key.startswith("tiny-") and ".manifest." in key
    ]
    (machine,) = (image for image in scene.host.cloud.images if image.type == "machine")
    assert (machine.kernel,) == tuple(one for kind, one in scene.images() if kind == "kernel") != (left,)


@pytest.mark.parametrize("size", [1, (10 << 20) - 3000, 10 << 20])
def test_no_image_has_more_parts_than_estimated(size: int, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(random.Random(size).randbytes(size))  # noqa: S311 (not to be compressible)
    with closing(FileSource(FileIO(tmp_path / "noise"))) as noise:
        bundling = Bundling(noise, name="n", prefix="p", secret=Secret.random())
        assert sum(1 for _ in bundling) == max_parts(size)


# --- within this process ----------------------------------------------------------------------------------


@pytest.fixture
def turn(host: Host, listener: Recorder) -> Turn:
    """Each call is a run of `once` as many hours later, and gives the record of the set of that name."""

    def once(hours: float = 0.0, name: str = "karmic") -> SetRecord:
        settings = load(host.config, environ={})
        with closing(open_ledger(settings.state.dir)) as book:
            now = time.time() + hours * HOUR
            records = Service(
                settings,
                listener=listener,
                ledger=book,
                clocks=Clocks(now=lambda: now),
                patience=RetryPolicy(tries=()),
            ).once()
            return next(record for record in records if record.name == name)

    return once


@pytest.fixture
def at_moment() -> Iterator[Callable[[str, int, Callable[[], object]], None]]:
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


def drop_noise(host: Host, name: str = "karmic", seed: int = 1) -> None:
    (host.spool / f"{name}.toml").write_text(KEPT)
    noise = random.Random(seed).randbytes(DISK_BYTES)  # noqa: S311 (only not to be compressible)
    (host.spool / f"{name}.img").write_bytes(noise)


def edit(host: Host, name: str) -> None:
    with (host.spool / name).open("r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("lost", [False, True], ids=["with the ledger", "without it"])
@pytest.mark.parametrize("spare", [0, 2], ids=["kernel", "machine"])
def test_a_registration_whose_answer_was_lost_is_looked_for(
    host: Host, turn: Turn, small_set: RealSet, spare: int, *, lost: bool
) -> None:
    host.drop_set(small_set, "k")
    host.cloud.faults.arm("lost-answer", 1, spare=spare)
    assert turn(name="k").state == "deferred"
    assert len(host.cloud.images) == spare + 1
    if lost:
        (host.state / FILE_NAME).unlink()
    done = turn(1, name="k")
    assert done.state == "done"
    assert {image.image_id for image in done.target.images} == {image.id for image in host.cloud.images}
    assert len(host.cloud.calls("RegisterImage")) == 3


@pytest.mark.parametrize(
    "moment",
    ["after put part", "before put manifest", "after note bundle uploaded"],
)
def test_a_member_that_changes_is_not_registered_and_leaves_nothing(
    host: Host, turn: Turn, at_moment: Callable[..., None], moment: str
) -> None:
    drop_noise(host)
    at_moment(moment, 1, lambda: edit(host, "karmic.img"))
    deferred = turn()
    assert deferred.state == "deferred"
    assert deferred.error
    assert "changed while it was read" in deferred.error.what
    assert not host.cloud.calls("RegisterImage")
    before = {one.key for one in host.cloud.objects("uec-images")}
    done = turn()
    assert done.state == "done", done.error
    after = {one.key for one in host.cloud.objects("uec-images")}
    assert before
    assert not before & after
    assert len(after) == 3
    with closing(open_ledger(host.state)) as book:
        assert [bundle.state for bundle in book.bundles("default")] == ["registered"]
    assert f"removed {len(before)} objects" in (host.spool / "karmic.uec.log").read_text()


def test_no_machine_is_registered_when_its_kernel_has_changed(
    host: Host, turn: Turn, small_set: RealSet, at_moment: Callable[..., None]
) -> None:
    host.drop_set(small_set, "k")
    at_moment("before put manifest", 3, lambda: edit(host, "k.vmlinuz"))
    assert turn(name="k").state == "deferred"
    assert {image.type for image in host.cloud.images} == {"kernel", "ramdisk"}


def test_a_bundle_that_another_set_resumes_is_not_removed(
    host: Host, turn: Turn, at_moment: Callable[..., None]
) -> None:
    drop_noise(host)
    host.cloud.faults.arm("put-503", 1, spare=1)
    assert turn().state == "deferred"
    (part,) = host.cloud.objects("uec-images")
    drop_noise(host, name="twin")
    host.cloud.faults.arm("put-503", 9)
    assert turn(name="twin").state == "deferred"
    host.cloud.faults.clear()
    edit(host, "karmic.img")
    assert turn().state == "done"
    assert part.key in {one.key for one in host.cloud.objects("uec-images")}
    assert turn(1, name="twin").state == "done"
    assert [seen.path for seen in host.cloud.calls("PutObject") if not seen.code].count(
        f"/uec-images/{part.key}"
    ) <= 1
