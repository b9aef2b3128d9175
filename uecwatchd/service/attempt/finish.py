"""The stages after registration: attributes, replacement of the older image, and publication.

A registered image stays registered, whatever happens here: failures become remarks in the log and in the
report.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from uecwatchd.clouds.attributes import Permissions, describe, permissions, share, tag, untag
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.objects import remove_object
from uecwatchd.clouds.patience import retry
from uecwatchd.clouds.registration import deregister
from uecwatchd.errors import Deferred, Stopped, UecError
from uecwatchd.events import Event, Kind, Level
from uecwatchd.images import digests
from uecwatchd.ledger.records import BundleRecord, Furnished, MemberRecord, SetRecord
from uecwatchd.outputs import result_files
from uecwatchd.outputs.wording import command
from uecwatchd.service.attempt.context import Job, Tools, lead, pause, stop_if_asked, tell, with_member
from uecwatchd.system.text import printable
from uecwatchd.types import Role


@dataclass(frozen=True, slots=True)
class Wish:
    """Something to be done for an image. `grant` does it, and returns a description of the result.

    An `urgent` wish must not be skipped if the cloud is busy: then the set is deferred.
    """

    grant: Callable[[], str]
    level: Level = "info"
    urgent: bool = False


NOT_AGAIN = "It is not tried again by itself. To have it done: {order}"


# --- attributes -------------------------------------------------------------------------------------------


def furnish(job: Job, tools: Tools) -> Job:
    """Apply the requested attributes to the images, and remove those that are no longer requested."""
    role = lead(job.found).role
    before = next((member.furnished for member in job.record.members if member.role == role), None)
    now = _furnished(job, tools)
    if before and before.image_id == now.image_id:
        now_or_before = replace(
            now,
            tags=tuple(dict.fromkeys((*before.tags, *now.tags))),
            described=now.described or before.described,
        )
        job = _noted(job, tools, now_or_before)
        for wish in _unwishes(job, before, now, tools):
            job = _granted(job, tools, wish)
    job = _noted(job, tools, now)
    for member in job.record.members:
        for wish in _wishes_for(job, member, tools):
            job = _granted(job, tools, wish)
    _tell_visibility(job)
    _tell_shared(job, tools)
    return job


def _furnished(job: Job, tools: Tools) -> Furnished:
    """Return the attributes of the main image, except permissions."""
    member = next(member for member in job.record.members if member.role == lead(job.found).role)
    tags = tuple(_fitting_tags(job, member, tools)) if job.entered().dialect.tag_limit else ()
    return Furnished(member.image_id, tags, described=job.found.sidecar.description is not None)


def _noted(job: Job, tools: Tools, furnished: Furnished) -> Job:
    """Record attributes before they are applied, so that they are known to be ours to remove."""
    role = lead(job.found).role
    if any(member.furnished == furnished for member in job.record.members if member.role == role):
        return job
    job = with_member(job, role, furnished=furnished)
    tools.ledger.put_set(job.record)
    return job


def _unwishes(job: Job, before: Furnished, now: Furnished, tools: Tools) -> Iterator[Wish]:
    """Yield removals of attributes. An attribute that another set gave too stays."""
    cloud, image_id = job.entered(), now.image_id
    others = [
        member.furnished
        for record in tools.ledger.sets()
        if _is_other(record, job)
        for member in record.members
        if member.furnished and member.furnished.image_id == image_id
    ]
    kept = {key for other in others for key in other.tags} | set(now.tags)
    if stale := [key for key in before.tags if key not in kept]:
        yield Wish(lambda: _untagged(cloud, image_id, stale))
    if before.described and not now.described and not any(other.described for other in others):
        yield Wish(lambda: _described(cloud, image_id, ""))


def _untagged(cloud: Cloud, image_id: str, keys: list[str]) -> str:
    untag(cloud, image_id, keys)
    return f"took the tags {', '.join(sorted(keys))} off {image_id}"


def _wishes_for(job: Job, member: MemberRecord, tools: Tools) -> Iterator[Wish]:
    cloud, sidecar, image_id = job.entered(), job.found.sidecar, member.image_id
    leading = member.role == lead(job.found).role and not _is_anothers_too(job, image_id, tools)
    if cloud.dialect.tag_limit or (leading and sidecar.tags):
        tags = _fitting_tags(job, member, tools)
        yield Wish(lambda: _tagged(cloud, image_id, tags), "debug")
    if leading and sidecar.description:
        text = sidecar.description
        yield Wish(lambda: _described(cloud, image_id, text), "debug")
    public = sidecar.public if "public" in sidecar.given else None
    accounts = sidecar.share if "share" in sidecar.given else None
    if public is not None or accounts is not None:

        def shared() -> str:
            given = share(cloud, image_id, public=public, accounts=accounts, widen=not leading)
            return f"{image_id} may be started by {_starters(given)}"

        yield Wish(shared, urgent=public is False)


def _is_anothers_too(job: Job, image_id: str, tools: Tools) -> bool:
    """Return True if a set of another owner has this image: then nothing is removed from it."""
    mine = job.found.owner
    others = (record for record in tools.ledger.sets() if _is_other(record, job))
    return mine is not None and any(
        record.owner not in (None, mine) and any(member.image_id == image_id for member in record.members)
        for record in others
    )


def _tagged(cloud: Cloud, image_id: str, tags: Mapping[str, str]) -> str:
    tag(cloud, image_id, tags)
    return f"tagged {image_id} with {', '.join(sorted(tags))}"


def _described(cloud: Cloud, image_id: str, text: str) -> str:
    describe(cloud, image_id, text)
    return f"{image_id} is described as: {text}" if text else f"took the description off {image_id}"


def _starters(given: Permissions) -> str:
    if given.public:
        return "everybody"
    return " and ".join(["its owner", *sorted(given.accounts)]) if given.accounts else "its owner alone"


def _tags(job: Job, member: MemberRecord, tools: Tools) -> Mapping[str, str]:
    """Return the tags of an image, the requested ones first, because the number is limited.

    With them, readers of the cloud's list find the source file. Kernels and ramdisks are shared, so they have
    no tags of one set.
    """
    sidecar = job.found.sidecar
    ours = {"owner": "uecwatchd", **digests.tag(member.digest), "host": tools.host}
    if member.role != lead(job.found).role:
        return ours
    # No cloud accepts a control character in a tag, and the user has not asked for this tag.
    named = {"source": printable(member.path.rsplit("/", 1)[-1]), "version": sidecar.version or ""}
    return {**sidecar.tags, **ours, **{key: value for key, value in named.items() if value}, **sidecar.tags}


def _fitting_tags(job: Job, member: MemberRecord, tools: Tools) -> Mapping[str, str]:
    return dict(list(_tags(job, member, tools).items())[: job.entered().dialect.tag_limit])


def _granted(job: Job, tools: Tools, wish: Wish) -> Job:
    """Grant a wish; on failure return the job with a remark."""
    check = partial(stop_if_asked, job, tools)
    check()
    try:
        done = retry(
            wish.grant,
            patience=tools.patience,
            sleep=lambda seconds: pause(seconds, tools, check),
            spread=tools.random,
        )
    except Stopped:
        raise
    except Deferred as error:
        if wish.urgent:
            raise
        hint = NOT_AGAIN.format(order=command("retry", job.record.id))
        return _remarked(job, error.what, error.why, hint, error.request_id)
    except UecError as error:
        return _remarked(job, error.what, error.why, error.hint, error.request_id)
    tell(job, Kind.REGISTERED, done, level=wish.level)
    return job


def _remarked(job: Job, what: str, why: str, hint: str, request_id: str = "") -> Job:
    fields = {"error": f"{what}: {why}", "hint": hint, "request_id": request_id}
    told = {key: value for key, value in fields.items() if value}
    sentence = f"it is registered, but not all is as it was asked for: {what}: {why}"
    tell(job, Kind.WORKING, sentence, level="warning", fields=told)
    remarks = (*job.record.remarks, f"{what}: {why}. {hint}")
    return replace(job, record=replace(job.record, remarks=remarks))


def _tell_shared(job: Job, tools: Tools) -> None:
    """Report that other sets have the same image, because it has only one set of permissions."""
    role = lead(job.found).role
    image_id = job.record.image_id(role)
    others = [r.name for r in tools.ledger.sets() if _is_other(r, job) and r.image_id(role) == image_id]
    if others and job.found.sidecar.given & {"public", "share"}:
        what = f"{image_id} is the image of {', '.join(others)} too: the permissions that were set last apply"
        tell(job, Kind.WORKING, what, level="warning")


def _tell_visibility(job: Job) -> None:
    """Report a public image on a cloud where new images are public, if this was not requested."""
    cloud, image_id = job.entered(), job.record.image_id(lead(job.found).role)
    if "public" in job.found.sidecar.given or not cloud.dialect.public_by_default:
        return
    with suppress(UecError):  # nobody has asked for this
        if permissions(cloud, image_id).public:
            what = f"{image_id} is public, as new images are on cloud {cloud.name}"
            tell(job, Kind.WORKING, f'{what}; "public = false" in the sidecar makes it private')


# --- the older image --------------------------------------------------------------------------------------


def succeed_older(job: Job, tools: Tools) -> Job:
    """Remove the previous image of the set from this host, if `on_existing = "replace"`."""
    image_id = job.record.image_id("machine")
    if job.found.sidecar.on_existing != "replace" or not image_id:
        return job
    older = tools.ledger.predecessor(
        image_id, cloud=job.record.cloud, made_for=job.made_for, owner=job.found.owner
    )
    if older is None:
        return job
    check = partial(stop_if_asked, job, tools)
    with tools.ledger.claim(f"{older.cloud}/{older.identity}", check=check):  # nobody adopts it meanwhile
        if any(_uses(record, older, job) for record in tools.ledger.sets()):
            return job
        return _granted(job, tools, Wish(lambda: _take_away(job, older, tools)))


def _uses(record: SetRecord, older: BundleRecord, job: Job) -> bool:
    """Return True if another set uses this image, or works on the same content and may use it soon."""
    if not _is_other(record, job):
        return False
    machine = next((member for member in record.members if member.role == "machine"), None)
    if machine is None:
        return False
    return machine.image_id == older.image_id or (not machine.image_id and machine.digest == older.digest)


def _is_other(record: SetRecord, job: Job) -> bool:
    same = record.id == job.record.id
    return not same and record.cloud == job.record.cloud


def _take_away(job: Job, older: BundleRecord, tools: Tools) -> str:
    """Deregister an image, then delete its bundle: an image without its parts cannot start.

    After an interruption it starts again from the beginning: the ledger keeps the bundle until the end.
    """
    cloud = job.entered()
    deregister(cloud, older.image_id)
    for stored in older.objects:
        stop_if_asked(job, tools)
        remove_object(cloud, older.bucket, stored.key)
    tools.ledger.drop_bundle(older)
    return f"deregistered {older.image_id}, which it replaces, and deleted its bundle {older.location}"


# --- publication ------------------------------------------------------------------------------------------


def publish(job: Job, tools: Tools) -> Job:
    """Report the result, then write the result files: first the log, then the JSON, then the ids."""
    ids = {m.role: m.image_id for m in job.record.members}
    seconds = round(tools.now() - job.record.since, 1)
    what = ids.get("machine") or ids.get("kernel") or ids.get("ramdisk", "")
    others = [f"{role} {ids[role]}" for role in ("kernel", "ramdisk") if role in ids and ids[role] != what]
    given = [f"{r} {i}" for r, i in (("kernel", job.found.kernel_id), ("ramdisk", job.found.ramdisk_id)) if i]
    with_them = f" with {' and '.join([*others, *given])}" if others or given else ""
    job.monitor.tell(
        Event(
            Kind.DONE,
            f"{job.found.name} is {what}{with_them}, {seconds} s after the attempt began",
            job.found.name,
            fields={**_id_fields(job.record), "cloud": job.record.cloud, "seconds": seconds},
        )
    )
    done = replace(job.record, state="done", stage="", since=tools.now())
    for taken in result_files.publish(done):
        job = _remarked(job, taken.what, taken.why, taken.hint)
    if job.record.remarks != done.remarks:  # the JSON gets them too, unless it is the file that failed
        result_files.publish(replace(done, remarks=job.record.remarks))
    return job


def _id_fields(record: SetRecord) -> dict[str, str]:
    names: tuple[tuple[str, Role], ...] = (("emi", "machine"), ("eki", "kernel"), ("eri", "ramdisk"))
    return {name: image_id for name, role in names if (image_id := record.image_id(role))}
