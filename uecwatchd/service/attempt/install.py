"""The stage that has the system of a set installed, and takes the disk.

The service does not run the machine itself: the stage hands in a request and ends the attempt, and the set
waits without a worker (`uecwatchd.service.builds`). When the build is over, the next attempt comes here. A
build is known by a key of its inputs, so that the same ones are not built twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from posixpath import basename

from uecwatchd.config.installation import InstallSettings
from uecwatchd.errors import Building, Deferred, NotYet, Rejected, UecError
from uecwatchd.events import Event, Kind, Progress
from uecwatchd.images.file_facts import Facts
from uecwatchd.install.recipe import InstallRecipe
from uecwatchd.install.request import (
    DISK,
    BuildFailure,
    BuildRequest,
    BuildStatus,
    RecipeFile,
    build_key,
    is_withdrawn,
    read_status,
    write_request,
)
from uecwatchd.intake.sets.installed import judge_installed
from uecwatchd.intake.sets.records import Member, RecipeFiles
from uecwatchd.intake.spool import safe_open
from uecwatchd.intake.spool.contents import detect_file
from uecwatchd.intake.spool.scan import Entry
from uecwatchd.ledger.records import BuildSource, SetBuild, SetRecord
from uecwatchd.outputs import result_files
from uecwatchd.outputs.wording import duration, waiting_for
from uecwatchd.service.attempt.context import AttemptTools, Job, stop_if_asked, tell, with_members
from uecwatchd.service.attempt.digests import check_sum
from uecwatchd.service.builds import BUILD_REASON, copy_screenshot, first_look_at, withdraw_unneeded
from uecwatchd.system.made_files import cannot_use, make_folder
from uecwatchd.system.text import format_size
from uecwatchd.types import ContentDigest, FileStamp, SetId

# States of a set that has waited for its build. Any other has failed since, and builds again.
_WAITED = ("waiting", "queued", "working")


@dataclass(frozen=True, slots=True)
class FileOfRecipe:
    """A file that a system is installed from. `path` is relative to the folder."""

    use: str  #: its key in the recipe
    name: str  #: for people: that of the file, or of the set that is the base
    folder: Path
    path: str
    stamp: FileStamp


def install(job: Job, tools: AttemptTools) -> Job:
    """Return the job with the installed disk as machine image, if it is there.

    Raises Building until then, and afterwards the error of a build that has failed.
    """
    recipe = job.found.recipe
    if recipe is None:
        return job
    try:
        return _install(job, recipe, tools)
    except Rejected:
        result_files.retract(job.record)
        raise


def _install(job: Job, recipe: RecipeFiles, tools: AttemptTools) -> Job:
    check_limits(job.found.name, recipe.recipe, tools.install)
    files = [*_dropped_files(job, recipe), *_file_of_base(job, recipe, tools)]
    digests = {one.use: _digest(job, one, tools) for one in files}
    _check_sums(job, recipe, tools)
    key = build_key(recipe.recipe, digests)
    withdraw_former(job, tools, key=key)
    status = _read_status(key, tools)
    before = job.before.build if job.before and job.before.state in _WAITED else None
    if status and status.state == "failed" and before and before.key == key and status.failure:
        raise _failed(job, status, status.failure, tools)
    sources = tuple(BuildSource(one.use, one.name, digests[one.use]) for one in files)
    build = SetBuild(key, sources, keeps_disk=recipe.recipe.keep, began=tools.clocks.now())
    if before and before.key == key and status:
        build = replace(before, keeps_disk=recipe.recipe.keep)
    if status and status.state == "done" and (disk := _find_disk(key, tools)):
        return _with_disk(job, recipe, disk, status, replace(build, state="done"), tools)
    raise _hand_in(job, recipe, files, replace(build, state="queued"), tools)


def withdraw_former(job: Job, tools: AttemptTools, *, key: str = "") -> None:
    """Give back the build of an earlier recipe of the set, or of one that is not there any more."""
    former = job.before.build if job.before else None
    if former and former.key != key:
        same = tools.ledger.sets_with_build(former.key)
        others = (one for one in same if one.id != job.record.id)
        withdraw_unneeded(tools.install.builds, former.key, others)


def check_limits(name: str, recipe: InstallRecipe, settings: InstallSettings) -> None:
    """Raise Rejected for a recipe that asks for more than the administrator allows."""
    asked = (
        ("memory", recipe.memory, settings.memory_limit, format_size),
        ("cpus", recipe.cpus, settings.cpu_limit, str),
    )
    for key, wanted, limit, words in asked:
        if wanted > limit:
            raise Rejected(
                f"{name}: its recipe asks for more than there is: {key}",
                f"it asks for {words(wanted)}, and the configuration allows {words(limit)} ([install])",
                f"Lower install.{key} in the sidecar, or ask the administrator.",
            )


# --- the files --------------------------------------------------------------------------------------------


def _dropped_files(job: Job, recipe: RecipeFiles) -> Iterator[FileOfRecipe]:
    for use, (path, stamp) in recipe.files.items():
        yield FileOfRecipe(use, basename(path), job.found.folder, path, stamp)


def _file_of_base(job: Job, recipe: RecipeFiles, tools: AttemptTools) -> Iterator[FileOfRecipe]:
    """Yield the image of the set that this one is added to, if it is one.

    Raises NotYet while it is not done, Rejected if its image is not there any more.
    """
    if not recipe.base_set:
        return
    base = tools.ledger.set(SetId(str(job.found.folder), recipe.base_set))
    if base is None or base.state != "done":
        raise NotYet(f"the set {recipe.base_set} to be done, its base", until=None)
    machine = next((member for member in base.members if member.role == "machine"), None)
    if machine is None:
        what, why = f"{base.name}: it cannot be a base", "it has no machine image"
        raise Rejected(what, why, f"Name another base in the sidecar of {job.found.name}.")
    if base.build is not None:
        if _find_disk(base.build.key, tools) is None:
            raise _base_not_kept(base)
        yield FileOfRecipe("base", base.name, tools.install.builds, machine.path, machine.stamp)
    elif machine.origin:
        what, why = (
            f"{base.name}: it cannot be a base",
            f"its image is {machine.origin}, and not kept unpacked",
        )
        raise Rejected(what, why, "Unpack the image, and drop it beside the recipe.")
    else:
        yield FileOfRecipe("base", base.name, job.found.folder, machine.path, machine.stamp)


def _base_not_kept(base: SetRecord) -> Rejected:
    return Rejected(
        f"{base.name}: it cannot be a base",
        "the disk that was installed for it is not kept",
        "Take keep = false out of its sidecar: then it is installed again, and kept.",
    )


def _digest(job: Job, source: FileOfRecipe, tools: AttemptTools) -> ContentDigest:
    """Return the digest of a file, computed once for each content."""
    digest = tools.ledger.digest(source.stamp, "file")
    if digest is None:
        digest = safe_open.digest(
            source.folder, source.path, stamp=source.stamp, progress=partial(_report, job, source, tools)
        )
        tools.ledger.put_digest(source.stamp, "file", digest)
    return digest


def _report(job: Job, source: FileOfRecipe, tools: AttemptTools, done: int) -> None:
    stop_if_asked(job, tools)
    stage, size = job.record.stage, source.stamp.size
    job.listener.progress(Progress(job.found.id, stage, source.name, done, size))


def _check_sums(job: Job, recipe: RecipeFiles, tools: AttemptTools) -> None:
    """Compare the files of the recipe with their declared sums. Raises as `check_sum` does."""
    for path, stamp in recipe.files.values():
        check_sum(job, Member("machine", path, stamp.size, stamp, Facts("unknown")), None, tools)


# --- the build --------------------------------------------------------------------------------------------


def _read_status(key: str, tools: AttemptTools) -> BuildStatus | None:
    """Return the status of a build; None if it has none, or one that a new request replaces."""
    if is_withdrawn(tools.install.builds, key):
        return None
    try:
        return read_status(tools.install.builds, key)
    except Deferred:  # what is wrong with the folder itself is found by the request
        return None


def _hand_in(
    job: Job, recipe: RecipeFiles, files: list[FileOfRecipe], build: SetBuild, tools: AttemptTools
) -> Building:
    """Ask for a build, and return what ends the attempt. Raises Deferred.

    The record is written first: what is in the folder without a record would stay there for ever.
    """
    builds = tools.install.builds
    if tools.install.worker == "child":  # the one of a unit belongs to other users as well
        try:
            make_folder(builds)
        except OSError as error:
            raise cannot_use(builds, error) from error
    record = tools.ledger.put_set(replace(job.record, build=build))
    result_files.remove_screenshot(record)
    # One that is withdrawn has to be removed first: otherwise the new request might go with it.
    if not is_withdrawn(builds, build.key):
        paths = {one.use: RecipeFile((one.folder / one.path).absolute(), one.stamp) for one in files}
        request = BuildRequest(
            build.key, job.found.name, recipe.recipe, paths, accelerator=tools.install.accelerator
        )
        if write_request(builds, request):
            words = " with ".join(one.name for one in files)
            tell(job, Kind.WORKING, f"its system is to be installed from {words}")
    return Building(build.key)


def defer_build(job: Job, tools: AttemptTools) -> tuple[SetRecord, Event]:
    """Return the record of a set that waits for its system, and the event.

    It keeps its stage and its number of deferrals, because nothing has failed or ended.
    """
    known, now = tools.ledger.set(job.record.id), tools.clocks.now()
    build = known.build if known else None
    since = build.began if build else now
    record = replace(
        job.record,
        state="waiting",
        since=since,
        reason=BUILD_REASON,
        next_retry=first_look_at(now),
        build=build,
    )
    return record, Event(Kind.WAITING, f"{record.name}: {waiting_for(record)}", record.id)


def _failed(job: Job, status: BuildStatus, failure: BuildFailure, tools: AttemptTools) -> UecError:
    """Return the error of a failed build, with the end of its console; its screen goes beside the files."""
    picture = copy_screenshot(job.record, status, tools.install.builds)
    kind = Rejected if failure.kind == "rejected" else Deferred
    hint = f"{failure.hint} Its screen is in {picture}." if picture else failure.hint
    error = kind(f"{job.found.name}: {failure.what}", failure.why, hint)
    error.console = status.console
    return error


def _find_disk(key: str, tools: AttemptTools) -> Entry | None:
    """Return the disk of a finished build, None if it is not there any more."""
    path = tools.install.builds / key / DISK
    try:
        status = path.lstat()
    except OSError:
        return None
    name = f"{key}/{DISK}"
    return Entry(name, "file", status.st_size, FileStamp.of(status), 0.0, owner=status.st_uid)


def _with_disk(
    job: Job, recipe: RecipeFiles, disk: Entry, status: BuildStatus, build: SetBuild, tools: AttemptTools
) -> Job:
    """Return the job with the installed disk, judged by the rules. Raises their error."""
    found = judge_installed(job.found, recipe, disk, detect_file(tools.install.builds / disk.name))
    took = duration(status.ended - status.began)
    what = f"its system is installed: a disk of {format_size(disk.size)}, in {took} ({status.accelerator})"
    tell(job, Kind.WORKING, what)
    for member in found.members:
        tell(job, Kind.WORKING, f"to be registered: {member.role} {member.origin or member.path}")
    job = with_members(job, found)
    return replace(job, record=replace(job.record, build=build))
