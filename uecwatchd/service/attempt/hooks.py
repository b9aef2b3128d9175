"""The stages that ask programs of the administrator about a set: the hooks `pre` and `registered`.

A hook is asked once in each attempt that reaches it, so again after a crash or a stop. Its answer is its exit
code, and no answer is kept.
"""

from collections.abc import Mapping
from functools import partial

from uecwatchd.config.records import Command
from uecwatchd.errors import Rejected
from uecwatchd.events import Kind
from uecwatchd.intake.sets.records import Member
from uecwatchd.outputs import result_files
from uecwatchd.service.attempt.context import (
    AttemptTools,
    Job,
    folder_of,
    main_member,
    stop_if_asked,
    tell,
)
from uecwatchd.service.attempt.trial import withdraw
from uecwatchd.system.site_program import ProgramEnd, SiteProgram, run_site_program
from uecwatchd.types import ID_WORDS


class RefusedByHook(Rejected):
    """A hook has refused a set. `job` is its job as it is then, without withdrawn images."""

    def __init__(self, what: str, why: str, hint: str, *, job: Job) -> None:
        super().__init__(what, why, hint)
        self.job = job


def ask_before_upload(job: Job, tools: AttemptTools) -> Job:
    """Ask the hook `pre`. Raises RefusedByHook, or Halted if it cannot be started."""
    end = _ask("pre", tools.hooks.pre, job, tools)
    if end.problem:
        raise _refused("pre", end, job, "Nothing was uploaded.")
    return job


def ask_about_registered(job: Job, tools: AttemptTools) -> Job:
    """Ask the hook `registered`; withdraw what this set made if it refuses.

    Raises RefusedByHook, or Halted if it cannot be started.
    """
    end = _ask("registered", tools.hooks.registered, job, tools)
    if end.problem:
        result_files.retract_undone(job.record)  # first: an id beside the files promises an image
        job = withdraw(job, tools).with_target(remarks=())  # they are about an image that is gone
        raise _refused("registered", end, job, "What it made for this set is withdrawn.")
    return job


def _ask(name: str, command: Command, job: Job, tools: AttemptTools) -> ProgramEnd:
    setting = f"hooks.{name}"
    return run_site_program(
        SiteProgram(setting, command, tools.hooks.timeout),
        facts_of(job, tools, hook=name),
        tell=lambda line: tell(job, Kind.WORKING, f"{setting}: {line}"),
        check=partial(stop_if_asked, job, tools),
    )


def facts_of(job: Job, tools: AttemptTools, *, hook: str) -> Mapping[str, object]:
    """Return what a hook is told: the report of the set, as in `NAME.uec.json`, and its files."""
    found, record = job.found, job.record
    ids = {ID_WORDS[image.role]: image.image_id for image in job.target.images if image.image_id}
    given = {"eki": found.kernel_id, "eri": found.ramdisk_id}
    return {
        **result_files.as_json(record),
        "hook": hook,
        "folder": record.folder,
        "file": _path(job, main_member(found), tools),
        "files": {member.role: _path(job, member, tools) for member in found.members},
        "owner": found.owner,
        **{word: image_id for word, image_id in given.items() if image_id},
        **ids,
    }


def _path(job: Job, member: Member, tools: AttemptTools) -> str:
    return str(folder_of(job, member, tools) / member.path)


def _refused(name: str, end: ProgramEnd, job: Job, consequence: str) -> RefusedByHook:
    hint = f"{consequence} Correct what the hook says; all that it said is in the log of the set."
    return RefusedByHook(f"{job.found.name}: refused by hooks.{name}", end.reason, hint, job=job)
