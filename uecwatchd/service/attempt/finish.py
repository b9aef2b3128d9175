"""The stages after registration: attributes, replacement of the older image, and publication.

A registered image stays registered, whatever happens here: failures become remarks in the log and in the
report.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from posixpath import basename

from uecwatchd.clouds.attributes import Permissions, describe, permissions, share, tag, untag
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.request_retry import retry
from uecwatchd.errors import Deferred, Stopped, UecError, problem
from uecwatchd.events import Event, Fields, Kind, Level
from uecwatchd.images import digests
from uecwatchd.ledger.records import (
    AppliedAttributes,
    BundleRecord,
    MemberRecord,
    SetRecord,
    TargetImage,
)
from uecwatchd.ledger.standing import count_done
from uecwatchd.outputs import result_files
from uecwatchd.outputs.wording import command, on_cloud, problem_and_hint
from uecwatchd.service.attempt.context import (
    AttemptTools,
    Job,
    main_member,
    pause,
    stop_if_asked,
    tell,
    with_image,
)
from uecwatchd.service.attempt.removal import is_other, is_used_elsewhere, remove_image
from uecwatchd.service.attempt.trial import end_trial
from uecwatchd.service.attempt.versions import note_removed, note_version
from uecwatchd.system.text import printable
from uecwatchd.types import ID_WORDS


@dataclass(frozen=True, slots=True)
class Change:
    """A change to an image in the cloud."""

    make: Callable[[], str]  #: makes the change, and returns a description of the result
    level: Level = "info"  #: of that description
    fields: Fields = field(default_factory=dict)  #: of the event
    is_urgent: bool = False  #: must not be skipped if the cloud is busy: then the set is deferred


NOT_AGAIN = "It is not tried again automatically. To do it: {command}"


# --- attributes -------------------------------------------------------------------------------------------


def apply_attributes(job: Job, tools: AttemptTools) -> Job:
    """Apply the requested attributes to the images, and remove those that are no longer requested."""
    before, now = _main_image(job).attributes, _requested(job, tools)
    if before and before.image_id == now.image_id:
        both = tuple(dict.fromkeys((*before.tags, *now.tags)))
        job = _note(job, tools, replace(now, tags=both, described=now.described or before.described))
        for change in _removals(job, before, now, tools):
            job = _make(job, tools, change)
    job = _note(job, tools, now)
    for member in job.record.members:
        for change in _additions(job, member, tools):
            job = _make(job, tools, change)
    _tell_visibility(job)
    _tell_shared(job, tools)
    return job


def _main_image(job: Job) -> TargetImage:
    return job.target.image(main_member(job.found).role)


def _requested(job: Job, tools: AttemptTools) -> AppliedAttributes:
    """Return the attributes of the main image, except permissions."""
    image = _main_image(job)
    member = next(member for member in job.record.members if member.role == image.role)
    tags = tuple(_fitting_tags(job, member, tools)) if job.cloud.dialect.tag_limit else ()
    return AppliedAttributes(image.image_id, tags, described=job.found.sidecar.description is not None)


def _note(job: Job, tools: AttemptTools, attributes: AppliedAttributes) -> Job:
    """Record attributes before they are applied, so that they are known to be ours to remove."""
    if _main_image(job).attributes == attributes:
        return job
    job = with_image(job, main_member(job.found).role, attributes=attributes)
    tools.ledger.put_set(job.record)
    return job


def _removals(
    job: Job, before: AppliedAttributes, now: AppliedAttributes, tools: AttemptTools
) -> Iterator[Change]:
    """Yield removals of attributes. An attribute that another set gave too stays."""
    cloud, image_id = job.cloud, now.image_id
    kept, is_described = set(now.tags), now.described
    for other in _given_by_others(job, image_id, tools):
        kept |= set(other.tags)
        is_described = is_described or other.described
    if stale := [key for key in before.tags if key not in kept]:
        yield Change(lambda: _untagged(cloud, image_id, stale))
    if before.described and not is_described:
        yield Change(lambda: _described(cloud, image_id, ""))


def _given_by_others(job: Job, image_id: str, tools: AttemptTools) -> Iterator[AppliedAttributes]:
    """Yield the attributes that other sets gave this image."""
    for record in tools.ledger.sets_with_image(job.target.cloud, image_id):
        if not is_other(record, job):
            continue
        for image in record.target_on(job.target.cloud).images:
            if image.attributes and image.attributes.image_id == image_id:
                yield image.attributes


def _untagged(cloud: Cloud, image_id: str, keys: list[str]) -> str:
    untag(cloud, image_id, keys)
    return f"took the tags {', '.join(sorted(keys))} off {image_id}"


def _additions(job: Job, member: MemberRecord, tools: AttemptTools) -> Iterator[Change]:
    cloud, sidecar, image_id = job.cloud, job.found.sidecar, job.record.image_id(member.role)

    def is_ours() -> bool:
        """Nothing is taken from an image that a set of another owner has too."""
        return member.role == main_member(job.found).role and not _has_other_owner(job, image_id, tools)

    if cloud.dialect.tag_limit or (sidecar.tags and is_ours()):
        tags = _fitting_tags(job, member, tools)
        yield Change(lambda: _tagged(cloud, image_id, tags), "debug")
    if sidecar.description and is_ours():
        text = sidecar.description
        yield Change(lambda: _described(cloud, image_id, text), "debug")
    public = sidecar.public if "public" in sidecar.given else None
    accounts = sidecar.share if "share" in sidecar.given else None
    if public is not None or accounts is not None:
        widen = not is_ours()

        def shared() -> str:
            given = share(cloud, image_id, public=public, accounts=accounts, widen=widen)
            return f"{image_id} may be started by {_who_may_start(given)}"

        yield Change(shared, is_urgent=public is False)


def _has_other_owner(job: Job, image_id: str, tools: AttemptTools) -> bool:
    """Return True if a set of another owner has this image: then nothing is removed from it."""
    owner = job.found.owner
    sets = tools.ledger.sets_with_image(job.target.cloud, image_id)
    others = (record for record in sets if is_other(record, job))
    return owner is not None and any(
        record.owner not in (None, owner)
        and any(image.image_id == image_id for image in record.target_on(job.target.cloud).images)
        for record in others
    )


def _tagged(cloud: Cloud, image_id: str, tags: Mapping[str, str]) -> str:
    tag(cloud, image_id, tags)
    return f"tagged {image_id} with {', '.join(sorted(tags))}"


def _described(cloud: Cloud, image_id: str, text: str) -> str:
    describe(cloud, image_id, text)
    return f"{image_id} is described as: {text}" if text else f"took the description off {image_id}"


def _who_may_start(given: Permissions) -> str:
    if given.public:
        return "everybody"
    return " and ".join(["its owner", *sorted(given.accounts)]) if given.accounts else "its owner alone"


def _tags(job: Job, member: MemberRecord, tools: AttemptTools) -> Mapping[str, str]:
    """Return the tags of an image, the requested ones first, because the number is limited.

    With them, readers of the cloud's list find the source file. Kernels and ramdisks are shared, so they have
    no tags of one set.
    """
    sidecar = job.found.sidecar
    ours = {"owner": "uecwatchd", **digests.tag(member.digest), "host": tools.host}
    if member.role != main_member(job.found).role:
        return ours
    # No cloud accepts a control character in a tag, and the user has not asked for this tag.
    named = {
        "prepared": "uecwatchd" if member.prepared is not None else "",
        "source": printable(basename(member.path)),
        "version": sidecar.version or "",
    }
    return {**sidecar.tags, **ours, **{key: value for key, value in named.items() if value}, **sidecar.tags}


def _fitting_tags(job: Job, member: MemberRecord, tools: AttemptTools) -> Mapping[str, str]:
    return dict(list(_tags(job, member, tools).items())[: job.cloud.dialect.tag_limit])


def _make(job: Job, tools: AttemptTools, change: Change) -> Job:
    """Make one change to an image; on failure return the job with a remark."""
    check = partial(stop_if_asked, job, tools)
    check()
    try:
        done = retry(
            change.make,
            patience=tools.patience,
            sleep=lambda seconds: pause(seconds, tools, check),
            spread=tools.clocks.random,
        )
    except Stopped:
        raise
    except Deferred as error:
        if change.is_urgent:
            raise
        hint = NOT_AGAIN.format(command=command("retry", job.record.id))
        return _add_remark(job, Deferred(error.what, error.why, hint, request_id=error.request_id))
    except UecError as error:
        return _add_remark(job, error)
    tell(job, Kind.REGISTERED, done, level=change.level, fields=change.fields)
    return job


def _add_remark(job: Job, error: UecError) -> Job:
    known = {"error": problem(error), "hint": error.hint, "request_id": error.request_id}
    fields = {key: value for key, value in known.items() if value}
    sentence = f"it is registered, but something requested is missing: {problem(error)}"
    tell(job, Kind.WORKING, sentence, level="warning", fields=fields)
    return job.with_target(remarks=(*job.target.remarks, problem_and_hint(error)))


def _tell_shared(job: Job, tools: AttemptTools) -> None:
    """Report that other sets have the same image, because it has only one set of permissions."""
    if not job.found.sidecar.given & {"public", "share"}:
        return
    role = main_member(job.found).role
    image_id = job.record.image_id(role)
    sets = tools.ledger.sets_with_image(job.target.cloud, image_id)
    cloud = job.target.cloud
    theirs = [r for r in sets if r.target_on(cloud).image(role).image_id == image_id]
    others = [r.name for r in theirs if is_other(r, job)]
    if others:
        what = f"{image_id} is the image of {', '.join(others)} too: the permissions that were set last apply"
        tell(job, Kind.WORKING, what, level="warning")


def _tell_visibility(job: Job) -> None:
    """Report a public image on a cloud where new images are public, if this was not requested."""
    cloud, image_id = job.cloud, job.record.image_id(main_member(job.found).role)
    if "public" in job.found.sidecar.given or not cloud.dialect.public_by_default:
        return
    with suppress(UecError):  # nobody has asked for this
        if permissions(cloud, image_id).public:
            what = f"{image_id} is public, as new images are on cloud {cloud.name}"
            tell(job, Kind.WORKING, f'{what}; "public = false" in the sidecar makes it private')


# --- the older image --------------------------------------------------------------------------------------


def replace_older(job: Job, tools: AttemptTools) -> Job:
    """Remove the previous image of the set from this host, if `on_existing = "replace"`."""
    image_id = job.record.image_id("machine")
    if job.found.sidecar.on_existing != "replace" or not image_id:
        return job
    older = tools.ledger.predecessor(
        image_id, cloud=job.target.cloud, made_for=job.made_for, owner=job.found.owner
    )
    if older is None:
        return job
    check = partial(stop_if_asked, job, tools)
    with tools.ledger.claim(older.claim, check=check):  # nobody adopts it now
        if is_used_elsewhere(older, job, tools):
            return job
        return _make(
            job, tools, Change(lambda: _replaced(job, older, tools), fields={"replaced": older.image_id})
        )


def _replaced(job: Job, older: BundleRecord, tools: AttemptTools) -> str:
    remove_image(job, older, tools)
    note_removed(job, older, tools)
    return f"deregistered {older.image_id}, which it replaces, and deleted its bundle {older.location}"


# --- publication ------------------------------------------------------------------------------------------


def publish(job: Job, tools: AttemptTools) -> Job:
    """Report the result, then write the result files: first the log, then the JSON, then the ids.

    Of a set that is not done on another required cloud only the ids on this cloud are written.
    """
    done = replace(job.record, state="done", stage="", since=tools.clocks.now())
    ids = {image.role: image.image_id for image in job.target.images}
    seconds = round(max(0.0, tools.clocks.now() - job.record.began), 1)
    what = ids.get("machine") or ids.get("kernel") or ids.get("ramdisk", "")
    others = [f"{role} {ids[role]}" for role in ("kernel", "ramdisk") if role in ids and ids[role] != what]
    given = [f"{r} {i}" for r, i in (("kernel", job.found.kernel_id), ("ramdisk", job.found.ramdisk_id)) if i]
    by_word = {word: ids[role] for role, word in ID_WORDS.items() if ids.get(role)}
    with_them = f" with {' and '.join([*others, *given])}" if others or given else ""
    job.listener.tell(
        Event(
            Kind.DONE,
            f"{job.found.name} is {what}{with_them}{_where(done)}, {seconds} s after the attempt began",
            job.found.id,
            fields={**by_word, "cloud": job.target.cloud, "seconds": seconds},
        )
    )
    for taken in result_files.publish(done):
        job = _add_remark(job, taken)
    end_trial(job, tools)
    job = note_version(job, tools)
    if job.target != done.target:  # the JSON gets the remarks too, unless it is the file that failed
        result_files.publish(done.with_target(job.target))
    return job


def _where(done: SetRecord) -> str:
    """Return the cloud, and how many are finished, if there are several."""
    number, every = count_done(done)
    return f"{on_cloud(done)} ({number} of {every} clouds)" if every > 1 else ""
