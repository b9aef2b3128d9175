"""The stages that ask programs of the administrator about a set: the hooks `pre` and `registered`.

A hook is asked once in each attempt that reaches it, so again after a crash or a stop. Its answer is its exit
code, and no answer is kept.
"""

from collections.abc import Mapping
from functools import partial

from uecwatchd.config.records import Command
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
from uecwatchd.service.attempt.trial import RefusedOnTrial, refuse
from uecwatchd.system.site_program import ProgramEnd, SiteProgram, run_site_program
from uecwatchd.types import ID_WORDS

REMEDY = "Correct what the hook says; all that it said is in the log of the set."


def ask_before_upload(job: Job, tools: AttemptTools) -> Job:
    """Ask the hook `pre`. Raises RefusedOnTrial, or Halted if it cannot be started."""
    end = _ask("pre", tools.hooks.pre, job, tools)
    if end.problem:
        what = _refused("pre", job)
        raise RefusedOnTrial(what, end.reason, f"Nothing was uploaded. {REMEDY}", job=job)
    return job


def ask_about_registered(job: Job, tools: AttemptTools) -> Job:
    """Ask the hook `registered`; withdraw what this set made if it refuses.

    Raises RefusedOnTrial, or Halted if it cannot be started.
    """
    end = _ask("registered", tools.hooks.registered, job, tools)
    if end.problem:
        raise refuse(job, tools, _refused("registered", job), end.reason, REMEDY)
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


def _refused(name: str, job: Job) -> str:
    return f"{job.found.name}: refused by hooks.{name}"
