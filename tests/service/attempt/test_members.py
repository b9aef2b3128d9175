"""The members of a set on their way into the cloud: their order, and what happens to the others."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

from tests.support.daemon import stop_while_waiting
from tests.support.host import Host, cloud_host
from tests.support.listener import Recorder
from uecwatchd.config.load import load
from uecwatchd.demo.material import RealSet
from uecwatchd.events import Kind
from uecwatchd.ledger.records import BundleRecord, BundleState, SetRecord
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.service.attempt.members import LOOK_SECONDS
from uecwatchd.service.daemon import Service
from uecwatchd.system import failpoints
from uecwatchd.system.clocks import Clocks
from uecwatchd.types import ContentDigest, SetId

NAMES = ["tiny.img", "tiny.vmlinuz", "tiny.initrd"]
PART_BYTES = 10 << 20
MANY_PARTS = 5  # several times as many as go up at once


@pytest.fixture
def crossing() -> Iterator[Callable[[Callable[[str], None]], None]]:
    """Has a function called with each moment, in the thread that crosses it."""
    yield failpoints.listen
    failpoints.listen(lambda _: None)


@pytest.fixture
def first_generation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    administrator = getattr(request, "param", True)
    with cloud_host(tmp_path, "uec", administrator=administrator) as host:
        yield host


@pytest.fixture
def openstack(tmp_path: Path) -> Iterator[Host]:
    """Make the build host of a cloud that is still at work on images after it has registered them."""
    with cloud_host(tmp_path, "openstack") as host:
        yield host


def once(host: Host, listener: Recorder, *, name: str = "tiny") -> SetRecord:
    with closing(open_ledger(host.state)) as book:
        records = Service(load(host.config, environ={}), listener=listener, ledger=book).once()
    (record,) = (record for record in records if record.name == name)
    return record


def sent(host: Host, what: str) -> list[str]:
    """List the keys of the machine's objects that the cloud has taken."""
    paths = (Path(seen.path).name for seen in host.cloud.calls("PutObject") if not seen.code)
    return [name for name in paths if name.startswith("tiny-") and what in name]


def asked(host: Host) -> list[str]:
    """List uploads and registrations in order; uploads by the beginning of their keys, once in a row."""
    steps = []
    for seen in host.cloud.requests:
        if seen.action == "PutObject":
            steps.append(f"upload {Path(seen.path).name.split('-')[0]}")
        elif seen.action == "RegisterImage":
            steps.append("register")
    return [step for step, _ in groupby(steps)]


def test_kernel_and_ramdisk_are_registered_before_the_machine_goes_up(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    host.drop_set(small_set, "tiny")
    record = once(host, listener)
    assert record.state == "done", record.error
    one_by_one = ("upload vmlinuz", "register", "upload initrd", "register", "upload tiny", "register")
    assert asked(host) == list(one_by_one)
    (machine,) = (image for image in host.cloud.images if image.type == "machine")
    assert (machine.kernel, machine.ramdisk) == (record.image_id("kernel"), record.image_id("ramdisk"))
    stages = [stage for stage, _ in groupby(progress.stage for progress in listener.progresses)]
    sending = [stage for stage in stages if stage.startswith("upload ")]
    assert sending == ["upload the kernel", "upload the ramdisk", "upload the machine"]


def test_the_machine_goes_up_while_its_kernel_is_pending_and_is_registered_once_that_is_available(
    openstack: Host, small_set: RealSet, listener: Recorder, crossing: Callable[..., None]
) -> None:
    cloud, before_parts, before_registrations = openstack.cloud, [], []

    def states() -> list[tuple[str, str]]:
        return sorted((image.type, image.state) for image in cloud.images)

    def cross(moment: str) -> None:
        if moment == "before put part":
            before_parts.append(states())
        if moment == "before RegisterImage":
            before_registrations.append(states())
        if moment == "after put manifest" and sent(openstack, ".manifest."):
            cloud.faults.clear()
            for image in cloud.images:
                cloud.backend.registry.set_image_state(image.id, "available")

    openstack.drop_set(small_set, "tiny")
    cloud.faults.arm("pending", 1e6)
    crossing(cross)
    record = once(openstack, listener)
    assert record.state == "done", record.error
    assert before_parts[-1] == [("kernel", "pending"), ("ramdisk", "pending")]
    assert before_registrations[-1] == [("kernel", "available"), ("ramdisk", "available")]


def test_nothing_is_made_of_a_kernel_that_fails_while_it_is_pending(
    openstack: Host, small_set: RealSet, listener: Recorder
) -> None:
    openstack.drop_set(small_set, "tiny")
    openstack.cloud.faults.arm("image-fails", 1)
    record = once(openstack, listener)
    assert record.state == "rejected"
    assert record.error
    assert "registering uec-images/vmlinuz-" in record.error.what
    assert [image.type for image in openstack.cloud.images] == ["kernel", "ramdisk"]
    assert not list(openstack.spool.glob("tiny.e?i"))
    openstack.ask("retry", "tiny")
    record = once(openstack, listener)
    assert record.state == "done", record.error
    assert sorted(image.state for image in openstack.cloud.images) == ["available"] * len(NAMES)


def test_the_upload_of_a_machine_ends_when_its_kernel_has_failed(
    openstack: Host, small_set: RealSet, listener: Recorder, crossing: Callable[..., None]
) -> None:
    openstack.drop_set(small_set, "tiny")
    with (openstack.spool / "tiny.img").open("ab") as image:
        image.write(os.urandom(MANY_PARTS * PART_BYTES))
    cloud, advance = openstack.cloud, [0.0]

    def cross(moment: str) -> None:
        kernels = [image.id for image in cloud.images if image.type == "kernel"]
        if moment == "before put part" and len(cloud.images) == 2:
            cloud.backend.registry.set_image_state(kernels[0], "failed")
            advance[0] = 2 * LOOK_SECONDS

    cloud.faults.arm("pending", 1e6)
    crossing(cross)
    with closing(open_ledger(openstack.state)) as book:
        settings = load(openstack.config, environ={"UECWATCHD_WORK__UPLOADS": "1"})
        clock = lambda: time.time() + advance[0]  # noqa: E731
        (record,) = Service(settings, listener=listener, ledger=book, clocks=Clocks(now=clock)).once()
    assert record.state == "rejected"
    assert record.error
    assert "registering uec-images/vmlinuz-" in record.error.what
    assert 0 < len(sent(openstack, ".part.")) < MANY_PARTS
    assert not list(openstack.spool.glob("tiny.e?i"))


def test_a_ramdisk_that_has_failed_is_reported_although_the_kernel_is_pending(
    openstack: Host, small_set: RealSet, listener: Recorder, crossing: Callable[..., None]
) -> None:
    openstack.drop_set(small_set, "tiny")
    cloud = openstack.cloud

    def cross(moment: str) -> None:
        for image in cloud.images if moment == "after put manifest" else ():
            if image.type == "ramdisk":
                cloud.backend.registry.set_image_state(image.id, "failed")

    cloud.faults.arm("pending", 1e6)
    crossing(cross)
    record = once(openstack, listener)
    assert record.state == "rejected"
    assert record.error
    assert "registering uec-images/initrd-" in record.error.what


def test_two_sets_that_share_a_pending_kernel_register_it_once_and_tell_it_once(
    openstack: Host, small_set: RealSet, listener: Recorder
) -> None:
    openstack.drop_set(small_set, "tiny")
    openstack.drop_set(small_set, "other")
    change_last_byte(openstack.spool / "other.img")
    openstack.cloud.faults.arm("pending", 3)
    assert once(openstack, listener).state == "done"
    assert sorted(image.type for image in openstack.cloud.images) == [
        "kernel",
        "machine",
        "machine",
        "ramdisk",
    ]
    sentences = [
        sentence for sentence in listener.sentences(Kind.REGISTERED) if "registered kernel" in sentence
    ]
    assert len(sentences) == 1


def change_last_byte(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")


def machines(host: Host) -> dict[str, str | None]:
    """The kernel of each machine."""
    return {image.id: image.kernel for image in host.cloud.images if image.type == "machine"}


def test_a_kernel_that_came_back_under_another_id_gets_a_machine_of_its_own(
    first_generation: Host, small_set: RealSet, listener: Recorder
) -> None:
    host = first_generation  # where images have no names that could be taken
    host.drop_set(small_set, "tiny")
    first = once(host, listener)
    host.cloud.backend.registry.remove_image(first.image_id("kernel"))
    host.ask("forget", "tiny")
    second = once(host, listener)
    assert second.state == "done", second.error
    assert machines(host) == {one.image_id("machine"): one.image_id("kernel") for one in (first, second)}
    host.ask("forget", "tiny")
    assert once(host, listener).members == second.members
    assert len(host.cloud.images) == 4


def test_a_set_of_another_name_takes_no_machine_of_a_kernel_that_is_gone(
    first_generation: Host, small_set: RealSet, listener: Recorder
) -> None:
    host = first_generation
    host.drop_set(small_set, "tiny")
    first = once(host, listener)
    host.cloud.backend.registry.remove_image(first.image_id("kernel"))
    host.drop_set(small_set, "other")
    other = once(host, listener, name="other")
    assert other.state == "done", other.error
    assert machines(host)[other.image_id("machine")] == other.image_id("kernel") != first.image_id("kernel")


def test_the_machine_of_a_kernel_that_came_back_is_found_once_the_older_one_is_gone(
    first_generation: Host, small_set: RealSet, listener: Recorder
) -> None:
    host = first_generation
    host.drop_set(small_set, "tiny")
    first = once(host, listener)
    for role in ("kernel", "machine"):
        host.cloud.backend.registry.remove_image(first.image_id(role))
        host.ask("forget", "tiny")
        last = once(host, listener)
        assert last.state == "done", last.error
    assert sorted(i.id for i in host.cloud.images) == sorted(image.image_id for image in last.target.images)


def test_a_kernel_that_is_given_by_its_id_is_the_one_that_we_registered(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    host.drop_set(small_set, "tiny")
    first = once(host, listener)
    given = "".join(f'{role} = "{first.image_id(role)}"\n' for role in ("kernel", "ramdisk"))
    host.drop(small_set.machine, names=["other.img"])
    (host.spool / "other.toml").write_text(given)
    other = once(host, listener, name="other")
    assert other.state == "done", other.error
    assert other.image_id("machine") == first.image_id("machine")


@pytest.fixture
def other_host(
    make_host: Callable[[str], Host], real_set: RealSet, crossing: Callable[..., None]
) -> Callable[[str], Host]:
    """Another host of the account, which delivers the same kernel in the midst of ours, into that bucket.

    It is the real one, which has several parts.
    """

    def make(bucket: str) -> Host:
        other = make_host("other")
        other.configure(other.config.read_text().replace("uec-images", bucket))
        other.drop_set(real_set, "tiny")
        change_last_byte(other.spool / "tiny.img")  # or it would have this one's name
        began = threading.Event()

        def cross(moment: str) -> None:
            if moment == "before put part" and not began.is_set():
                began.set()
                assert other.run("once").returncode == 0

        crossing(cross)
        return other

    return make


def test_a_kernel_that_another_host_registers_first_is_taken_over(
    host: Host, other_host: Callable[[str], Host], real_set: RealSet, listener: Recorder
) -> None:
    host.drop_set(real_set, "tiny")
    other = other_host("other-images")
    record = once(host, listener)
    assert record.state == "done", record.error
    kernel, ramdisk = ((other.spool / f"tiny.{suffix}").read_text().strip() for suffix in ("eki", "eri"))
    assert (record.image_id("kernel"), record.image_id("ramdisk")) == (kernel, ramdisk)
    assert sorted(image.type for image in host.cloud.images) == ["kernel", "machine", "machine", "ramdisk"]


def test_a_kernel_of_another_host_that_ours_went_up_into_is_made_whole(
    host: Host, other_host: Callable[[str], Host], real_set: RealSet, listener: Recorder
) -> None:
    host.drop_set(real_set, "tiny")
    other = other_host("uec-images")
    assert once(host, listener).state == "deferred"
    host.ask("retry", "tiny")
    record = once(host, listener)
    assert record.state == "done", record.error
    assert other.run("verify", "tiny").returncode == 0
    assert sorted(image.type for image in host.cloud.images) == ["kernel", "machine", "machine", "ramdisk"]


@pytest.mark.parametrize("first_generation", [False], indirect=True, ids=["no administrator"])
def test_no_byte_of_a_machine_goes_up_when_its_kernel_is_refused(
    first_generation: Host, small_set: RealSet, listener: Recorder
) -> None:
    first_generation.drop_set(small_set, "tiny")
    record = once(first_generation, listener)
    assert record.state in ("rejected", "halted"), record.error
    assert sent(first_generation, "tiny") == []


@pytest.mark.parametrize("state", ["planned", "uploaded", "registering"])
def test_who_waits_for_an_earlier_content_that_another_set_works_on_can_be_stopped(
    host: Host, small_set: RealSet, listener: Recorder, state: BundleState
) -> None:
    host.drop_set(small_set, "tiny")
    left = BundleRecord("default", "b", "left", "kernel", ContentDigest("ab" * 32), "p", state)
    with closing(open_ledger(host.state)) as book:
        book.put_bundle(replace(left, made_for=SetId(str(host.spool), "tiny")))
        service = Service(load(host.config, environ={}), listener=listener, ledger=book)
        record = stop_while_waiting(service, book, claimed="default/left", stage="deliver")
    assert record.state == "queued"
