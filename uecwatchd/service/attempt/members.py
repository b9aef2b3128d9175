"""The stage of the members: into the cloud with them, all at once as far as ids allow.

A machine's manifest names its kernel and its ramdisk by their ids; its parts name nothing. So the parts go up
while the cloud registers kernel and ramdisk, and the manifest waits for both. They are sent one after the
other all the same: the line and the processors are shared, and what is being sent needs memory.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile

from uecwatchd.delivery.deliver import bundle_and_register
from uecwatchd.delivery.request import NO_BOOT, Boot, BootIds, Order
from uecwatchd.errors import Pending, Rejected, Stopped
from uecwatchd.events import Monitor, Tee
from uecwatchd.intake.sets.records import ImageSet, Member
from uecwatchd.intake.spool import safe_open
from uecwatchd.ledger.api import CHECK_SECONDS
from uecwatchd.ledger.records import NOT_READ, BundleRecord
from uecwatchd.outputs.result_files import track_in_report
from uecwatchd.service.attempt.context import Job, Tools, lead, pause, stop_if_asked, wishes, with_member
from uecwatchd.service.attempt.prepare import registered_name
from uecwatchd.service.retry import FIRST_LOOK_SECONDS
from uecwatchd.types import FileStamp, Role

Deliveries = Mapping[Role, "Future[BundleRecord]"]
# Takes what is called while one waits, and raises when one need not wait any more.
Turn = Callable[[Callable[[], None]], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Way:
    """How a member goes: what it boots with, how it waits for its turn, and what raises when it is to be put
    down for what another one has met."""

    boot: Boot = NO_BOOT
    turn: Turn = nullcontext
    check: Callable[[], None] = lambda: None


def deliver(job: Job, tools: Tools) -> Job:
    """Bundle, upload and register all members of a set. None is left on its way when this ends.

    Raises what went wrong with one of them; the others are put down then.
    """
    way = _at_once if _may_begin(job, tools) else _one_by_one
    for role, bundle in way(job, tools).items():
        job = with_member(job, role, image_id=bundle.image_id, manifest=bundle.location)
    return job


def _may_begin(job: Job, tools: Tools) -> bool:
    """Where only administrators may register kernels, and we never have, no byte of a machine goes up before
    it has come out that we may. What the set has waited for before is looked at first as well."""
    cloud = job.entered()
    if job.waited:
        return False
    return not cloud.dialect.kernels_by_administrators or tools.ledger.has_registered_boot(cloud.name)


def _one_by_one(job: Job, tools: Tools) -> Mapping[Role, BundleRecord]:
    done: dict[Role, BundleRecord] = {}
    way = Way(_boot(job, tools, done.get))
    for member in job.found.members:  # the machine is the last of them
        done[member.role] = _take(job, tools, way, member)
    return done


def _at_once(job: Job, tools: Tools) -> Mapping[Role, BundleRecord]:
    main, given_up, needed = lead(job.found), threading.Event(), threading.Event()
    turns = Turns([member.role for member in job.found.members])
    others = [member for member in job.found.members if member is not main]

    def take(member: Member, way: Way) -> BundleRecord:
        with turns.until_over(member.role) as turn:
            return _take(job, tools, replace(way, turn=turn), member)

    def stay(member: Member, way: Way) -> BundleRecord:
        """A member that is pending is looked at again until the machine needs its id, and once more then."""
        while True:
            last = needed.is_set()
            try:
                return take(member, way)
            except Pending:
                if last:
                    raise
            _until(needed, FIRST_LOOK_SECONDS, partial(_check, job, tools, way))

    def id_of(role: Role) -> BundleRecord | None:
        needed.set()
        return beside[role].result() if role in beside else None

    with ThreadPoolExecutor(max(1, len(others)), "beside") as threads:
        way = Way(check=partial(_go_on, given_up))
        beside: Deliveries = {one.role: threads.submit(stay, one, way) for one in others}
        boot = _boot(job, tools, id_of)
        try:
            done = {main.role: take(main, Way(boot, check=partial(_must_go_well, beside)))}
            return done | {role: delivery.result() for role, delivery in beside.items()}
        except BaseException:
            given_up.set()
            raise


class Turns:
    """Who sends when: each member of a set once those before it have sent, will not, or have failed.

    Sets that share members cannot wait for each other for ever: of each role one has the claim, and its
    holder waits for none but roles before it.
    """

    def __init__(self, roles: Sequence[Role]) -> None:
        self._over = {role: threading.Event() for role in roles}

    @contextmanager
    def until_over(self, role: Role) -> Iterator[Turn]:
        """For all of a member's way: it may fail before its turn, or not need it."""
        try:
            yield partial(self._turn, role)
        finally:
            self._over[role].set()

    @contextmanager
    def _turn(self, role: Role, check: Callable[[], None]) -> Iterator[None]:
        for before in takewhile(lambda one: one != role, self._over):
            while not self._over[before].wait(CHECK_SECONDS):
                check()
        yield
        self._over[role].set()


def _shown(job: Job) -> Monitor:
    """Where the progress of one member is told, and written beside the image."""
    return Tee((job.monitor, track_in_report(job.record)))


def _go_on(given_up: threading.Event) -> None:
    if given_up.is_set():
        why = "another file of its set could not be delivered"
        raise Stopped("stopped", why, "It is taken up again with the set.")


def _must_go_well(beside: Deliveries) -> None:
    """Raises what went wrong beside us."""
    for delivery in beside.values():
        if delivery.done():
            delivery.result()


def _boot(job: Job, tools: Tools, registered: Callable[[Role], BundleRecord | None]) -> Boot:
    """What the machine boots with, each told by its content as far as we know that: a kernel is the same one
    whether it lies in the set or is given by its id. Of others there is the id alone."""
    given: Mapping[Role, str | None] = {"kernel": job.found.kernel_id, "ramdisk": job.found.ramdisk_id}

    def trait(role: Role) -> str:
        if image_id := given[role]:
            return tools.ledger.content(job.record.cloud, image_id) or image_id
        known = job.known(role)
        return known.digest if known else ""

    def image_id(role: Role) -> str | None:
        bundle = None if given[role] else registered(role)
        return bundle.image_id if bundle else given[role]

    traits = (trait("kernel"), trait("ramdisk"))
    return Boot(traits, lambda: BootIds(image_id("kernel"), image_id("ramdisk")))


def _take(job: Job, tools: Tools, way: Way, member: Member) -> BundleRecord:
    """One member all the way."""

    check = partial(_check, job, tools, way)
    with safe_open.open_image(job.found.folder, member.path, stamp=member.stamp) as source:
        order = _order(job, tools, replace(way, check=check), member)
        if member.role == "machine":
            order = _with_a_machines(order, job, tools, way.boot)
        return bundle_and_register(order, source, tools.ledger)


def _check(job: Job, tools: Tools, way: Way) -> None:
    stop_if_asked(job, tools)
    way.check()


def _until(event: threading.Event, seconds: float, check: Callable[[], None]) -> None:
    """Wait for an event, for so many seconds; `check` raises when it need not be waited for any more."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not event.wait(CHECK_SECONDS):
        check()


def _order(job: Job, tools: Tools, way: Way, member: Member) -> Order:
    """What is said of every member."""

    known = job.known(member.role)
    return Order(
        set_name=job.found.name,
        member=member,
        digest=known.digest if known else NOT_READ,
        cloud=job.entered(),
        bucket=job.record.bucket,
        arch=job.found.arch,
        made_for=job.made_for,
        owner=job.found.owner,
        unique=job.found.sidecar.on_existing == "fail" and member == lead(job.found),
        full=tools.work.verify == "full",
        slots=tools.slots,
        sparse=tools.work.sparse,
        compression=tools.work.compression,
        monitor=_shown(job),
        check=way.check,
        turn=way.turn,
        unchanged=lambda: _must_be_unchanged(job.found),
        sleep=lambda seconds: pause(seconds, tools, way.check),
        waited=job.waited,
        arrived=partial(job.reach.arrived, member.role),
        patience=tools.patience,
        spread=tools.random,
        now=tools.now,
    )


def _with_a_machines(order: Order, job: Job, tools: Tools, boot: Boot) -> Order:
    """What only machines have. Of kernels and ramdisks, which many sets share, no set says anything."""
    found = job.found
    return replace(
        order,
        boot=boot,
        name=registered_name(job, tools),
        description=found.sidecar.description,
        wishes=wishes(found) if order.cloud.dialect.name_pattern else (),
        virtualization=found.virtualization,
        platform=found.sidecar.platform,
        whole_disk=found.virtualization != "hvm" and order.member.facts.layout == "disk",
    )


def _must_be_unchanged(found: ImageSet) -> None:
    """Raises Deferred when a member is not any more what was listed, be it another than the one at hand."""
    for member in found.members:
        try:
            with safe_open.open_member(found.folder, member.path) as file:
                stamp = FileStamp.of(os.fstat(file.fileno()))
        except Rejected as error:  # removed, or something else in its place
            raise safe_open.changed(member.path) from error
        if stamp != member.stamp:
            raise safe_open.changed(member.path)
