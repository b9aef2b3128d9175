"""The members of a set on their way at once: what waits for what, and what becomes of the others."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

from tests.support.heard import Heard
from tests.support.host import Host
from tests.support.waiting import PATIENCE_SECONDS
from uecwatchd.config.load import load
from uecwatchd.demo.material import RealSet
from uecwatchd.errors import Deferred, Stopped
from uecwatchd.ledger.records import BundleRecord, BundleState, SetRecord
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.service.attempt.members import Turns
from uecwatchd.service.daemon import Service
from uecwatchd.system import failpoints
from uecwatchd.types import ContentDigest, Role

NAMES = ["tiny.img", "tiny.vmlinuz", "tiny.initrd"]


@pytest.fixture
def crossing() -> Iterator[Callable[[Callable[[str], None]], None]]:
    """Has a function called with each moment, in the thread that crosses it."""
    yield failpoints.listen
    failpoints.listen(lambda _: None)


@pytest.fixture
def first_generation(
    request: pytest.FixtureRequest, host_class: type[Host], tmp_path: Path
) -> Iterator[Host]:
    administrator = getattr(request, "param", True)
    with Sandbox(tmp_path / "cloud", dialect="uec", administrator=administrator) as cloud:
        host = host_class.made(tmp_path / "host", cloud)
        host.configure(host.config.read_text().replace('"sandbox"', '"uec"'))
        yield host


def drop(host: Host, made: RealSet, *, name: str = "tiny") -> None:
    names = [file.replace("tiny", name) for file in NAMES]
    host.drop(made.machine, made.kernel, made.ramdisk, names=names)


def once(host: Host, heard: Heard, *, name: str = "tiny") -> SetRecord:
    with closing(open_ledger(host.state)) as book:
        records = Service(load(host.config, environ={}), monitor=heard, ledger=book).once()
    (record,) = (record for record in records if record.name == name)
    return record


def sent(host: Host, what: str) -> list[str]:
    """Keys of the machine's objects that the cloud has taken."""
    paths = (Path(seen.path).name for seen in host.cloud.calls("PutObject") if not seen.code)
    return [name for name in paths if name.startswith("tiny-") and what in name]


def test_the_machine_goes_up_while_its_kernel_is_registered_and_its_manifest_waits_for_it(
    host: Host, real_set: RealSet, heard: Heard, crossing: Callable[..., None]
) -> None:
    parts_are_up, manifests_before = threading.Event(), []

    def cross(moment: str) -> None:
        if moment == "before RegisterImage" and not parts_are_up.is_set():
            assert parts_are_up.wait(PATIENCE_SECONDS), "the machine waits for its kernel"
            manifests_before.extend(sent(host, ".manifest."))
        if moment == "after put part" and sent(host, ".part."):
            parts_are_up.set()

    drop(host, real_set)
    crossing(cross)
    record = once(host, heard)
    assert record.state == "done", record.error
    assert manifests_before == []
    kernel, ramdisk = (record.image_id(role) for role in ("kernel", "ramdisk"))
    (machine,) = (image for image in host.cloud.images if image.type == "machine")
    assert (machine.kernel, machine.ramdisk) == (kernel, ramdisk)


def test_members_are_sent_one_after_the_other_and_the_machine_last(
    host: Host, real_set: RealSet, heard: Heard
) -> None:
    drop(host, real_set)
    assert once(host, heard).state == "done"
    puts = (Path(seen.path).name for seen in host.cloud.calls("PutObject") if not seen.code)
    bundles = [name for name, _ in groupby(re.sub(r"\.(part\.\d+|manifest\.xml)$", "", put) for put in puts)]
    assert len(bundles) == len(set(bundles)) == len(NAMES)
    assert bundles[-1].startswith("tiny-")
    stages = [stage for stage, _ in groupby(progress.stage for progress in heard.progresses)]
    sending = [stage for stage in stages if stage.startswith("upload ")]
    assert sending == ["upload the kernel", "upload the ramdisk", "upload the machine"]


ROLES: tuple[Role, ...] = ("kernel", "ramdisk", "machine")


def test_a_member_has_its_turn_when_all_before_it_have_sent_failed_or_need_not_send() -> None:
    turns, had = Turns(ROLES), list[str]()

    def machine() -> None:
        with turns.until_over("machine") as turn, turn(nothing):
            had.append("machine")

    waiting = threading.Thread(target=machine)
    waiting.start()
    with suppress(Deferred), turns.until_over("ramdisk"):
        raise Deferred("ramdisk", "it failed", "Again.")
    with turns.until_over("kernel") as turn:
        with turn(nothing):
            time.sleep(0.1)  # had it not waited, the machine would be through by now
            had.append("kernel")
        waiting.join(PATIENCE_SECONDS)  # the kernel is still on its way
        assert had == ["kernel", "machine"]


def test_who_waits_for_its_turn_can_be_asked_to_wait_no_more() -> None:
    def check() -> None:
        raise Stopped("machine", "somebody holds it", "Release it.")

    turns = Turns(ROLES)
    with pytest.raises(Stopped), turns.until_over("machine") as turn, turn(check):
        raise AssertionError("the kernel has not had its turn")


def nothing() -> None:
    pass


def test_a_kernel_that_fails_has_the_machine_put_down(
    host: Host, real_set: RealSet, heard: Heard, crossing: Callable[..., None]
) -> None:
    drop(host, real_set)
    host.cloud.faults.arm("image-fails", 1)
    record = once(host, heard)
    assert record.state == "rejected"
    assert record.error
    assert "registering uec-images/" in record.error.what
    assert "tiny-" not in record.error.what, "it is not the machine that failed"
    assert sent(host, ".manifest.") == []
    assert not [thread for thread in threading.enumerate() if "beside" in thread.name]


def machines(host: Host) -> dict[str, str | None]:
    """The kernel of each machine."""
    return {image.id: image.kernel for image in host.cloud.images if image.type == "machine"}


def test_a_kernel_that_came_back_under_another_id_gets_a_machine_of_its_own(
    first_generation: Host, real_set: RealSet, heard: Heard
) -> None:
    host = first_generation  # where images have no names that could be taken
    drop(host, real_set)
    first = once(host, heard)
    host.cloud.backend.registry.remove_image(first.image_id("kernel"))
    host.ask("forget", "tiny")
    second = once(host, heard)
    assert second.state == "done", second.error
    assert machines(host) == {one.image_id("machine"): one.image_id("kernel") for one in (first, second)}
    host.ask("forget", "tiny")
    assert once(host, heard).members == second.members
    assert len(host.cloud.images) == 4


def test_a_set_of_another_name_takes_no_machine_of_a_kernel_that_is_gone(
    first_generation: Host, real_set: RealSet, heard: Heard
) -> None:
    host = first_generation
    drop(host, real_set)
    first = once(host, heard)
    host.cloud.backend.registry.remove_image(first.image_id("kernel"))
    drop(host, real_set, name="other")
    other = once(host, heard, name="other")
    assert other.state == "done", other.error
    assert machines(host)[other.image_id("machine")] == other.image_id("kernel") != first.image_id("kernel")


def test_the_machine_of_a_kernel_that_came_back_is_found_once_the_older_one_is_gone(
    first_generation: Host, real_set: RealSet, heard: Heard
) -> None:
    host = first_generation
    drop(host, real_set)
    first = once(host, heard)
    for role in ("kernel", "machine"):
        host.cloud.backend.registry.remove_image(first.image_id(role))
        host.ask("forget", "tiny")
        last = once(host, heard)
        assert last.state == "done", last.error
    assert sorted(i.id for i in host.cloud.images) == sorted(m.image_id for m in last.members)


def test_a_kernel_that_is_given_by_its_id_is_the_one_that_we_registered(
    host: Host, real_set: RealSet, heard: Heard
) -> None:
    drop(host, real_set)
    first = once(host, heard)
    given = "".join(f'{role} = "{first.image_id(role)}"\n' for role in ("kernel", "ramdisk"))
    host.drop(real_set.machine, names=["other.img"])
    (host.spool / "other.toml").write_text(given)
    other = once(host, heard, name="other")
    assert other.state == "done", other.error
    assert other.image_id("machine") == first.image_id("machine")


@pytest.fixture
def meanwhile(
    make_host: Callable[[str], Host], real_set: RealSet, crossing: Callable[..., None]
) -> Callable[[str], Host]:
    """Another host of the account, which delivers the same kernel in the midst of ours, into that bucket."""

    def make(bucket: str) -> Host:
        other = make_host("other")
        other.configure(other.config.read_text().replace("uec-images", bucket))
        drop(other, real_set)
        with (other.spool / "tiny.img").open("r+b") as machine:  # or it would have this one's name
            machine.seek(-1, os.SEEK_END)
            machine.write(b"!")
        began = threading.Event()

        def cross(moment: str) -> None:
            if moment == "before put part" and not began.is_set():
                began.set()
                assert other.run("once").returncode == 0

        crossing(cross)
        return other

    return make


def test_a_kernel_that_another_host_registers_meanwhile_is_taken_over(
    host: Host, meanwhile: Callable[[str], Host], real_set: RealSet, heard: Heard
) -> None:
    drop(host, real_set)
    other = meanwhile("other-images")
    record = once(host, heard)
    assert record.state == "done", record.error
    kernel, ramdisk = ((other.spool / f"tiny.{suffix}").read_text().strip() for suffix in ("eki", "eri"))
    assert (record.image_id("kernel"), record.image_id("ramdisk")) == (kernel, ramdisk)
    assert sorted(image.type for image in host.cloud.images) == ["kernel", "machine", "machine", "ramdisk"]


def test_a_kernel_of_another_host_that_ours_went_up_into_is_made_whole(
    host: Host, meanwhile: Callable[[str], Host], real_set: RealSet, heard: Heard
) -> None:
    drop(host, real_set)
    other = meanwhile("uec-images")
    assert once(host, heard).state == "deferred"
    host.ask("retry", "tiny")
    record = once(host, heard)
    assert record.state == "done", record.error
    assert other.run("verify", "tiny").returncode == 0
    assert sorted(image.type for image in host.cloud.images) == ["kernel", "machine", "machine", "ramdisk"]


@pytest.mark.parametrize("first_generation", [False], indirect=True, ids=["no administrator"])
def test_no_byte_of_a_machine_goes_up_before_we_know_that_we_may_register_its_kernel(
    first_generation: Host, real_set: RealSet, heard: Heard
) -> None:
    drop(first_generation, real_set)
    record = once(first_generation, heard)
    assert record.state in ("rejected", "halted"), record.error
    assert sent(first_generation, "tiny") == []


@pytest.mark.parametrize("state", ["planned", "uploaded", "registering"])
def test_who_waits_for_an_earlier_content_that_another_set_works_on_can_be_stopped(
    host: Host, real_set: RealSet, heard: Heard, state: BundleState
) -> None:
    drop(host, real_set)
    left = BundleRecord("default", "b", "left", "kernel", ContentDigest("ab" * 32), "p", state)
    with closing(open_ledger(host.state)) as book:
        book.put_bundle(replace(left, made_for=f"{host.spool}/tiny"))
        service = Service(load(host.config, environ={}), monitor=heard, ledger=book)
        working = threading.Thread(target=service.once, daemon=True)
        with book.claim("default/left", check=nothing):
            working.start()
            while not any(record.stage.startswith("deliver") for record in book.sets()):
                working.join(0.05)
            working.join(1)  # until it waits
            service.stop()
            working.join(PATIENCE_SECONDS / 3)
            is_over = not working.is_alive()
        working.join()
        (record,) = book.sets()
    assert is_over
    assert record.state == "queued"
