"""Images that a cloud takes its time over, or fails to make, after it has registered them."""

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.host import Host, cloud_host
from tests.support.listener import Recorder
from tests.support.spool_files import drop_image
from tests.support.waiting import until
from uecwatchd.bundle.upload_slots import UploadSlots
from uecwatchd.clouds.access import CloudAccess
from uecwatchd.clouds.request_retry import RetryPolicy
from uecwatchd.config.load import load
from uecwatchd.config.records import WorkSettings
from uecwatchd.delivery.pending import UNLISTED_SECONDS, WAIT_SECONDS
from uecwatchd.demo.material import RealSet
from uecwatchd.events import Kind
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import Failure, SetRecord
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.sandbox.state.identity import ensure_identity
from uecwatchd.service.attempt.context import AttemptTools
from uecwatchd.service.reporting import Reporting
from uecwatchd.service.retry import FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS, next_check_at
from uecwatchd.service.set_states import SetStates
from uecwatchd.service.spooler import Spooler
from uecwatchd.system import failpoints
from uecwatchd.system.clocks import Clocks

FOR_EVER = 1e6
ONE_LOOK = RetryPolicy(looks=())


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A build host of a cloud that is at work on an image after it has registered it."""
    with cloud_host(tmp_path, "openstack") as host:
        yield host


def drop(host: Host, name: str = "karmic", *, seed: int = 1) -> None:
    drop_image(host.spool, name, random.Random(seed).randbytes(4096))  # noqa: S311


class Scene:
    """The service's spooler by a clock of our own, with one worker, which looks at an image just once."""

    def __init__(self, host: Host, listener: Recorder, book: Ledger, patience: RetryPolicy) -> None:
        self.host, self.book, self.jumped = host, book, 0.0
        self.now = max([1e9, *(record.next_retry or 0.0 for record in book.sets())])
        settings = load(host.config, environ={})
        self.settings = replace(settings, work=replace(settings.work, sets=1))
        self.tools = AttemptTools(
            book,
            settings.state.dir,
            CloudAccess(
                self.settings.clouds, uploads=1, bucket="uec-images", clock=lambda: self.now - self.jumped
            ),
            Reporting(listener),
            threading.Event(),
            work=WorkSettings(),
            slots=UploadSlots(1),
            configured_bucket="uec-images",
            clocks=Clocks(now=lambda: self.now, monotonic=lambda: self.now - self.jumped),
            patience=patience,
        )
        self.spooler = Spooler(
            self.settings,
            states=SetStates(book),
            tools=self.tools,
            ended=lambda: None,
        )

    def after(self, seconds: float, name: str = "karmic") -> SetRecord:
        """The record of a set when so much time has passed, and everything that was due then is done."""
        self.now += seconds
        for _ in range(2):  # files settle in between
            self.spooler.scan()
            self.spooler.drain()
            self.now += 0.5
        (record,) = (record for record in self.spooler.schedule.present() if record.name == name)
        return record

    def ready(self) -> None:
        """The cloud is done with whatever is pending."""
        for image in self.host.cloud.images:
            if image.state == "pending":
                self.host.cloud.backend.registry.set_image_state(image.id, "available")


@contextmanager
def scene(host: Host, listener: Recorder, patience: RetryPolicy = ONE_LOOK) -> Iterator[Scene]:
    with closing(open_ledger(host.state)) as book:
        made = Scene(host, listener, book, patience)
        try:
            yield made
        finally:
            made.spooler.close()


def ask(host: Host, *arguments: str) -> str:
    """Run a verb. It has a clock of its own; for that the files are new at first."""
    until(lambda: "to be unchanged" not in host.ask("status")[0], "the files to settle")
    return host.ask(*arguments)[0]


def registrations(host: Host) -> int:
    return len(host.cloud.calls("RegisterImage"))


def parts_put(host: Host) -> int:
    return len([seen for seen in host.cloud.calls("PutObject") if ".part." in seen.path])


def test_a_set_whose_image_is_pending_has_no_worker(host: Host, listener: Recorder) -> None:
    drop(host)
    host.cloud.faults.arm("pending", FOR_EVER)
    with scene(host, listener) as made:
        waiting = made.after(0)
        assert (waiting.state, waiting.attempt, waiting.error) == ("waiting", 1, None)
        host.cloud.faults.clear()
        drop(host, "jaunty", seed=2)
        made.after(0, "jaunty")
        assert made.after(10, "jaunty").state == "done"
        assert made.after(0).state == "waiting"
        made.ready()
        assert made.after(LONGEST_LOOK_SECONDS).state == "done"
    assert registrations(host) == 2
    assert (host.spool / "karmic.emi").exists()


def test_a_pending_image_leaves_when_its_file_is_replaced(host: Host, listener: Recorder) -> None:
    drop(host)
    host.cloud.faults.arm("pending", FOR_EVER)
    with scene(host, listener) as made:
        assert made.after(0).state == "waiting"
        host.cloud.faults.clear()
        drop(host, seed=2)
        assert made.after(10).state == "done"
    (image,) = host.cloud.images
    assert image.id == (host.spool / "karmic.emi").read_text().strip()


def test_the_reason_for_the_wait_is_reported_once_and_shown_by_status(host: Host, listener: Recorder) -> None:
    drop(host)
    host.cloud.faults.arm("pending", FOR_EVER)
    with scene(host, listener) as made:
        made.after(0)
        (image,) = host.cloud.images
        reported = len(listener.events)
        log = (host.spool / "karmic.uec.log").read_text()
        for _ in range(10):
            record = made.after(LONGEST_LOOK_SECONDS)
        assert (record.state, record.attempt, len(listener.events)) == ("waiting", 1, reported)
        assert (host.spool / "karmic.uec.log").read_text() == log
    sentence = f"karmic: waiting for {image.id}, pending since 2001-09-09 01:46:40 UTC on cloud default"
    assert listener.sentences(Kind.WAITING)[-1] == sentence
    assert sentence in log
    line = next(line for line in ask(host, "status").splitlines() if line.startswith("karmic "))
    assert f"for {image.id}, pending since 2001-09-09 01:46:40 UTC; looked at " in line
    report = host.report("karmic")
    assert (report["state"], report["waiting_for"]) == ("waiting", f"{image.id}, pending")
    assert report["ids"]["machine"] is None


def test_a_pending_image_is_asked_for_with_one_request_and_less_and_less_often(
    host: Host, listener: Recorder
) -> None:
    drop(host)
    host.cloud.faults.arm("pending", FOR_EVER)
    with scene(host, listener) as made:
        made.after(0)
        asked = len(host.cloud.requests)
        made.after(FIRST_LOOK_SECONDS)
        assert [seen.action for seen in host.cloud.requests[asked:]] == ["DescribeImages"]
    assert [next_check_at(0, now=now) - now for now in (0, 50, 300, 1700)] == [5, 5, 30, 60]


def test_after_one_time_out_it_is_registered_again_once_and_then_deferred(
    host: Host, listener: Recorder
) -> None:
    drop(host)
    host.cloud.faults.arm("pending", FOR_EVER)
    with scene(host, listener) as made:
        made.after(0)
        (first,) = host.cloud.images
        parts = parts_put(host)
        again = made.after(WAIT_SECONDS)
        (second,) = host.cloud.images
        assert (again.state, again.reason) == ("waiting", f"{second.id}, pending")
        assert second.id != first.id
        deferred = made.after(WAIT_SECONDS)
        assert deferred.state == "deferred"
        assert deferred.error
        assert f"waiting for {second.id}" in deferred.error.what
        assert made.after(60).state == "waiting", "it is looked at on"
        assert made.after(WAIT_SECONDS).state == "deferred"
        assert made.after(60 * 60).deferrals == 2, "and not for ever"
        made.ready()
        done = made.after(LONGEST_LOOK_SECONDS)
        assert (done.state, done.image_id("machine")) == ("done", second.id)
    assert registrations(host) == 2
    assert parts_put(host) == parts


def test_an_image_that_vanishes_while_pending_is_registered_again_once(
    host: Host, listener: Recorder
) -> None:
    drop(host)
    host.cloud.faults.arm("pending", FOR_EVER)
    with scene(host, listener) as made:
        for number, state in ((1, "waiting"), (2, "deferred")):
            assert made.after(5).state == "waiting"
            assert registrations(host) == number
            (image,) = host.cloud.images
            host.cloud.backend.registry.remove_image(image.id)
            assert made.after(LONGEST_LOOK_SECONDS).state == "waiting", "a list may lag behind"
            assert made.after(UNLISTED_SECONDS).state == state
        host.cloud.faults.clear()
        made.after(60)
        made.ready()
        assert made.after(60).state == "done"


def test_a_machine_goes_up_while_its_kernel_is_pending_and_waits_for_it_without_a_worker(
    host: Host, listener: Recorder, small_set: RealSet
) -> None:
    host.drop_set(small_set, "tiny")
    host.cloud.faults.arm("pending", FOR_EVER)
    with scene(host, listener) as made:
        waiting = made.after(0, "tiny")
        parts = parts_put(host)
        assert waiting.state == "waiting"
        assert waiting.reason.startswith(("aki-", "ari-"))
        assert any("/tiny-" in seen.path for seen in host.cloud.calls("PutObject"))
        assert sorted(image.type for image in host.cloud.images) == ["kernel", "ramdisk"]
        for _ in range(3):
            assert made.after(LONGEST_LOOK_SECONDS, "tiny").state == "waiting"
        made.ready()
        for _ in range(3):  # what is found ready is not asked about again, but the next one is
            record = made.after(LONGEST_LOOK_SECONDS, "tiny")
        assert record.reason.startswith("ami-")
        made.ready()
        assert made.after(LONGEST_LOOK_SECONDS, "tiny").state == "done"
        assert parts_put(host) == parts
    assert registrations(host) == len(host.cloud.images) == 3


def finish(host: Host, kind: str, state: str = "available") -> None:
    """Let the cloud be done with an image of one type."""
    (image,) = (image for image in host.cloud.images if image.type == kind)
    host.cloud.backend.registry.set_image_state(image.id, state)


@pytest.mark.parametrize(("ready", "other"), [("kernel", "ari-"), ("ramdisk", "aki-")])
def test_kernel_and_ramdisk_that_are_both_pending_have_each_its_wait(
    host: Host, listener: Recorder, small_set: RealSet, ready: str, other: str
) -> None:
    host.drop_set(small_set, "tiny")
    host.cloud.faults.arm("pending", FOR_EVER)
    with scene(host, listener) as made:
        both = made.after(0, "tiny")
        assert sorted(image.pending[:4] for image in both.target.images) == ["", "aki-", "ari-"]
        made.after(WAIT_SECONDS / 2, "tiny")
        finish(host, ready)
        one = made.after(LONGEST_LOOK_SECONDS, "tiny")
        assert one.reason.startswith(other)
        assert one.since == pytest.approx(both.since, abs=10), "it has not begun to wait now"
        assert registrations(host) == 2
        made.after(WAIT_SECONDS / 2, "tiny")
        assert registrations(host) == 3, "it is registered again half an hour after it was registered"


def test_a_ramdisk_that_fails_while_its_kernel_is_pending_is_made_again_at_the_next_look(
    host: Host, listener: Recorder, small_set: RealSet
) -> None:
    host.drop_set(small_set, "tiny")
    host.cloud.faults.arm("pending", FOR_EVER)
    with scene(host, listener) as made:
        made.after(0, "tiny")
        finish(host, "ramdisk", "failed")
        assert made.after(LONGEST_LOOK_SECONDS, "tiny").state == "waiting"
    assert registrations(host) == 3
    assert sorted((i.type, i.state) for i in host.cloud.images) == [
        ("kernel", "pending"),
        ("ramdisk", "pending"),
    ]


def test_no_machine_is_registered_with_a_kernel_that_another_set_registers_again(
    host: Host, listener: Recorder, small_set: RealSet
) -> None:
    host.drop_set(small_set, "tiny")
    host.cloud.faults.arm("pending", FOR_EVER)
    with scene(host, listener) as made:

        def cross(moment: str) -> None:
            if moment == "after note bundle uploaded":
                for bundle in made.book.bundles("default"):
                    if bundle.role == "kernel" and bundle.image_id:
                        made.book.put_bundle(replace(bundle, image_id="aki-0000abcd"))

        failpoints.listen(cross)
        try:
            record = made.after(0, "tiny")
        finally:
            failpoints.listen(lambda _: None)
    assert record.state == "waiting"
    assert "aki-0000abcd" in record.reason
    assert sorted(image.type for image in host.cloud.images) == ["kernel", "ramdisk"]


@pytest.mark.parametrize("order", ["hold", "forget", "reload", "restart", "outage", "touch"])
def test_a_pending_set_ends_registered_once_after_any_event(
    host: Host, listener: Recorder, order: str
) -> None:
    drop(host)
    host.cloud.faults.arm("pending", FOR_EVER)
    with scene(host, listener) as made:
        assert made.after(0).state == "waiting"
        if order == "reload":
            made.spooler.configure(made.settings, made.tools)
        elif order == "outage":
            host.cloud.stop()
            assert made.after(60).state == "deferred"
            host.cloud.start()
            made.now += 600
            made.tools.clouds.probe()
            assert made.after(60).state == "waiting"
        elif order == "touch":
            os.utime(host.spool / "karmic.img")
        elif order != "restart":
            ask(host, order, "karmic")
        asked = len(host.cloud.requests)
        made.after(60)
        if order == "hold":
            assert len(host.cloud.requests) == asked
            host.ask("release", "karmic")
        made.ready()
        if order == "restart":
            made.spooler.close()
            made = Scene(host, listener, made.book, RetryPolicy(looks=()))
        assert made.after(60).state == "done"
    assert registrations(host) == len(host.cloud.images) == 1


@pytest.mark.parametrize("jump", [-86400.0, 86400.0], ids=["back", "ahead"])
def test_a_clock_that_is_set_does_not_change_the_wait(host: Host, listener: Recorder, jump: float) -> None:
    drop(host)
    host.cloud.faults.arm("pending", FOR_EVER)
    with scene(host, listener) as made:
        made.after(0)
        before = made.after(0)
        made.now += jump
        made.jumped += jump
        after = made.after(0)
        assert after.since - before.since == pytest.approx(jump, abs=5)
        assert registrations(host) == 1


# --- an image that fails ----------------------------------------------------------------------------------


def with_certificate(host: Host, path: Path) -> None:
    plain = "\n".join(line for line in host.config.read_text().splitlines() if "cloud_cert" not in line)
    host.configure(plain.replace('dialect = "openstack"', f'dialect = "openstack"\ncloud_cert = "{path}"'))


def run(host: Host, listener: Recorder) -> SetRecord:
    """Run a service several times with the configuration as it is now."""
    with scene(host, listener, RetryPolicy(looks=(0.1,))) as made:
        made.after(0)
        return made.after(LONGEST_LOOK_SECONDS)


@pytest.fixture(scope="module")
def foreign_certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    other = tmp_path_factory.mktemp("other-cloud")
    ensure_identity(other, now=datetime.now(UTC))
    return other / "cloud-cert.pem"


@pytest.fixture
def wrongly_sealed(host: Host, listener: Recorder, foreign_certificate: Path) -> Callable[[], SetRecord]:
    """Drops a set, and has its bundle sealed for somebody else."""

    def seal() -> SetRecord:
        drop(host)
        with_certificate(host, foreign_certificate)
        return run(host, listener)

    return seal


def right_again(host: Host) -> None:
    with_certificate(host, host.cloud.folder / "cloud-cert.pem")


@pytest.mark.parametrize("order", ["retry", "forget", "touch"])
def test_a_bundle_that_no_image_could_be_made_of_is_made_again(
    host: Host, listener: Recorder, wrongly_sealed: Callable[[], SetRecord], order: str
) -> None:
    failed = wrongly_sealed()
    assert failed.state == "rejected"
    assert failed.error
    assert "is failed" in failed.error.why
    assert "cloud_cert under [cloud.default]" in failed.error.hint
    (old,) = host.cloud.images
    right_again(host)
    if order == "touch":
        os.utime(host.spool / "karmic.img")
    else:
        ask(host, order, "karmic")
    done = run(host, listener)
    assert done.state == "done", done.error
    (image,) = host.cloud.images
    assert image.id != old.id
    assert "Resuming karmic at upload" not in (host.spool / "karmic.uec.log").read_text()


def test_a_failed_image_in_an_older_ledger_is_not_registered_again(
    host: Host, listener: Recorder, wrongly_sealed: Callable[[], SetRecord]
) -> None:
    host.cloud.faults.arm("pending", FOR_EVER)
    sealed = wrongly_sealed()
    assert sealed.state == "waiting", sealed.error
    with closing(open_ledger(host.state)) as book:
        (record,), (bundle,) = book.sets(), book.bundles("default")
        assert bundle.state == "registering"
        book.put_bundle(replace(bundle, image_id="", sealed=""))
        images = tuple(replace(image, pending="") for image in record.target.images)
        target = replace(record.target, images=images)
        error = Failure("rejected", "registering karmic", "ami-1 is failed", "See that it boots.")
        book.put_set(replace(record, state="rejected", error=error).with_target(target))
    host.cloud.faults.clear()
    (image,) = host.cloud.images
    host.cloud.backend.registry.set_image_state(image.id, "failed")
    right_again(host)
    ask(host, "retry", "karmic")
    done = run(host, listener)
    assert done.state == "done", done.error


@pytest.mark.parametrize("state", ["error", "deregistered", "failed"])
def test_an_image_that_fails_after_a_long_wait_has_its_bundle_made_again(
    host: Host, listener: Recorder, wrongly_sealed: Callable[[], SetRecord], state: str
) -> None:
    host.cloud.faults.arm("pending", FOR_EVER)
    assert wrongly_sealed().state == "waiting"
    host.cloud.faults.clear()
    (old,) = host.cloud.images
    host.cloud.backend.registry.set_image_state(old.id, state)
    right_again(host)
    assert run(host, listener).state == "done"
    (image,) = host.cloud.images
    assert image.id != old.id


def test_a_manifest_is_made_again_when_the_certificate_changes_before_it_is_registered(
    host: Host, listener: Recorder
) -> None:
    host.cloud.faults.arm("lost-answer", 1)
    drop(host)
    right_again(host)
    with scene(host, listener, RetryPolicy(tries=(), looks=())) as made:
        assert made.after(0).state == "deferred"
    (image,) = host.cloud.images
    host.cloud.backend.registry.remove_image(image.id)  # as if it had never been carried out
    parts = parts_put(host)
    with closing(open_ledger(host.state)) as book:
        (bundle,) = book.bundles("default")
        book.put_bundle(replace(bundle, sealed="that of another certificate"))
    assert run(host, listener).state == "done"
    assert parts_put(host) == parts, "the parts are sealed by nobody"


@pytest.mark.parametrize("role", ["kernel", "ramdisk", "machine"])
def test_any_member_may_fail_and_is_made_again_after_a_retry(
    host: Host, listener: Recorder, small_set: RealSet, role: str
) -> None:
    host.drop_set(small_set, "tiny")
    spare = ["kernel", "ramdisk", "machine"].index(role)
    host.cloud.faults.arm("image-fails", 1, spare=spare)
    with scene(host, listener, RetryPolicy(looks=(0.1, 0.1))) as made:
        assert made.after(0, "tiny").state == "rejected"
    ask(host, "retry", "tiny")
    with scene(host, listener, RetryPolicy(looks=(0.1, 0.1))) as made:
        for _ in range(3):
            record = made.after(LONGEST_LOOK_SECONDS, "tiny")
    assert record.state == "done", record.error
    assert sorted(image.state for image in host.cloud.images) == ["available"] * 3
