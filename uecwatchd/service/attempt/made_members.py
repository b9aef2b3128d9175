"""Members that are made for a set: each in its work folder, made once and found again."""

from collections.abc import Callable
from typing import BinaryIO

from uecwatchd.errors import UecError
from uecwatchd.intake.sets.origin import Origin
from uecwatchd.intake.sets.records import Member
from uecwatchd.intake.spool.contents import detect_file
from uecwatchd.service.attempt.context import AttemptTools, Job
from uecwatchd.service.work_folder import WHAT, drop_older_work, work_folder
from uecwatchd.system.made_files import make_file
from uecwatchd.types import Role


def make_member(
    job: Job,
    tools: AttemptTools,
    *,
    role: Role,
    path: str,
    origin: Origin,
    write: Callable[[BinaryIO], None],
    needs_bytes: int,
) -> Member:
    """Return a member that `write` makes, or that was made before of the same files.

    Its kind is detected from its content. `write` and `needs_bytes` are as for `make_file`. Raises Deferred
    without space, and the error of a content that cannot be read.
    """
    found = job.found
    drop_older_work(tools.work_folder, found.id, found.stamp)
    folder = work_folder(tools.work_folder, found.id, found.stamp)
    stamp = make_file(folder, path, write, needs_bytes=needs_bytes, what=WHAT)
    facts = detect_file(folder / path)
    if isinstance(facts, UecError):
        raise facts
    return Member(role, path, stamp.size, stamp, facts, origin=origin)
