"""Installations that sets wait for: a look at each now and then, and no worker in use meanwhile.

A look reads one small file of the worker of installations, and what its console has got since the last look.
While the build is not over, nothing is started or counted. What no set needs any more is withdrawn by each
look, whatever the reason: the set is held or forgotten, its files or its base have changed or were
removed, it is done.
"""

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from uecwatchd.errors import Deferred, UecError
from uecwatchd.events import Event, Kind, Listener, Tee
from uecwatchd.images.console import without_sequences
from uecwatchd.install.request import (
    CONSOLE,
    REQUEST,
    SCREENSHOT,
    BuildStatus,
    end_build,
    is_withdrawn,
    read_status,
    withdraw_request,
)
from uecwatchd.intake.spool import safe_open
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import SetBuild, SetRecord
from uecwatchd.ledger.standing import by_cloud, with_each
from uecwatchd.outputs import result_files
from uecwatchd.service.policy import GONE
from uecwatchd.service.set_states import SetStates
from uecwatchd.service.work_folder import FINAL_STATES
from uecwatchd.types import SetId

BUILD_REASON = "its system to be installed"
# The first lines appear at once; for an installation of an hour, ten seconds late is soon enough.
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 1.0, 10.0
# Of one console at one look, and of one build in all: a guest may write without end.
LOOK_BYTES = 32 * 1024
LOGGED_BYTES = 2 * 1024 * 1024
LINE_CHARACTERS = 500
# A screen of 1280 by 800 takes at most 3 MiB, without compression.
SCREENSHOT_BYTES = 8 * 1024 * 1024


def first_look_at(now: float) -> float:
    return now + FIRST_LOOK_SECONDS


def next_look_at(build: SetBuild, now: float) -> float:
    """Return when to look at a build again: soon at first, later less often."""
    return now + min(LONGEST_LOOK_SECONDS, max(FIRST_LOOK_SECONDS, (now - build.began) / 20))


# --- what is needed ---------------------------------------------------------------------------------------


def needs_build(record: SetRecord) -> bool:
    """Tell if a set needs its build, or the disk of it, if it is not held."""
    if record.build is None or record.reason == GONE:
        return False
    if record.build.is_open and not record.stamp:  # it waits for another file or base
        return False
    is_final = all(one.state in FINAL_STATES for one in by_cloud(record))
    return not is_final or (record.build.state == "done" and record.build.keeps_disk)


def is_wanted(record: SetRecord, held: Collection[SetId]) -> bool:
    """Tell if a build is to stay. A held set keeps a finished disk, as it keeps its uploaded parts."""
    return needs_build(record) and not (record.id in held and record.awaits_build)


def withdraw_unneeded(
    builds: Path, key: str, others: Iterable[SetRecord], held: Collection[SetId] = ()
) -> None:
    """End and remove a build that none of these sets needs. Raises Deferred.

    One that is over is removed here and now: the worker has nothing to do with it any more.
    """
    if any(one.build and one.build.key == key and is_wanted(one, held) for one in others):
        return
    if not is_withdrawn(builds, key):
        withdraw_request(builds, key)
    with suppress(OSError, Deferred):  # the worker can, if it has made folders or the status cannot be used
        if (status := read_status(builds, key)) and status.is_over:
            end_build(builds, key)


# --- looks ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BuildWatch:
    """Looks at the builds of all sets. `listener` hears what is on their consoles."""

    states: SetStates
    ledger: Ledger
    builds: Path
    listener: Listener

    def look(self, *, held: Collection[SetId], running: Collection[SetId], now: float) -> None:
        """Bring the records of waiting sets up to date, and withdraw builds that nobody needs."""
        with_build = [one for one in self.states.records() if one.build and one.id not in running]
        for record in with_build:
            if not record.build:
                continue
            if not is_wanted(record, held):
                if record.build.state == "running":  # the next one begins from nothing
                    self.states.put(replace(record, build=_not_begun(record.build)))
                with suppress(UecError):  # it is withdrawn at a later look
                    # A set at work may have begun to use the same build, and only its worker knows.
                    at_work = filter(None, map(self.ledger.set, running))
                    withdraw_unneeded(self.builds, record.build.key, [*with_build, *at_work], held)
            elif record.awaits_build and (record.next_retry or 0.0) <= now:
                self._update(record, record.build, now)

    def _update(self, record: SetRecord, build: SetBuild, now: float) -> None:
        try:
            seen = look_at(self.builds, build)
        except UecError:  # an attempt gets the same error, and reports it
            seen = replace(build, state="failed")
        lines, seen = read_console(self.builds, seen)
        self._tell(record, build, seen, lines)
        at = next_look_at(seen, now) if seen.is_open else now
        # The build is of the set, and each of its clouds waits for it.
        record = replace(record, build=seen)
        record = self.states.put(with_each(record, lambda one: replace(one, next_retry=at)))
        if replace(seen, logged=0) != replace(build, logged=0):
            with suppress(UecError):  # the copy beside the files is a courtesy
                result_files.publish(record)

    def _tell(self, record: SetRecord, before: SetBuild, seen: SetBuild, lines: Iterable[str]) -> None:
        log, lines = result_files.LogFile(record.id), tuple(lines)
        if lines:
            log.add_lines(f"console: {line}" for line in lines)
        for line in lines:
            self.listener.tell(Event(Kind.CONSOLE, f"{record.name}: console: {line}", record.id))
        if seen.stage != before.stage and seen.is_open:
            what = f"{record.name}: {STAGE_WORDS[seen.stage]}"
            fields = {"stage": seen.stage}
            Tee((log, self.listener)).tell(Event(Kind.WORKING, what, record.id, fields=fields))


def _not_begun(build: SetBuild) -> SetBuild:
    return replace(build, state="queued", stage="", last_line="", logged=0)


STAGE_WORDS = {
    "prepare": "the machine for its installation is being prepared",
    "install": "its system is being installed",
    "second boot": "its system boots from the new disk",
}


def look_at(builds: Path, build: SetBuild) -> SetBuild:
    """Return a build as it is now. One that is not there any more has failed. Raises Deferred."""
    status = read_status(builds, build.key)
    if status is None or is_withdrawn(builds, build.key):
        is_there = os.path.lexists(builds / build.key / REQUEST)
        return replace(build, state="queued" if is_there else "failed")
    return replace(
        build,
        state=status.state,
        stage=status.stage,
        stage_began=status.stage_began,
        last_line=status.last_line,
    )


def read_console(builds: Path, build: SetBuild) -> tuple[list[str], SetBuild]:
    """Return the lines of the console since the last look, and the build with their number of bytes.

    Only whole lines are taken, until the build is over. Of very many, only the first and a remark. Before it
    has begun, there may be the console of an earlier attempt, which the worker removes.
    """
    if build.state == "queued" or build.logged >= LOGGED_BYTES:
        return [], build
    try:
        with safe_open.open_member(builds, f"{build.key}/{CONSOLE}") as file:
            if os.fstat(file.fileno()).st_size < build.logged:  # the worker has begun again
                build = replace(build, logged=0)
            data = os.pread(file.fileno(), LOOK_BYTES, build.logged)
    except UecError:  # there is none yet
        return [], build
    whole = data if not build.is_open or len(data) == LOOK_BYTES else data[: data.rfind(b"\n") + 1]
    logged = build.logged + len(whole)
    lines = without_sequences(whole.decode(errors="replace")).split("\n")
    if logged >= LOGGED_BYTES:
        lines.append(f"(it goes on; the rest is not in this log, but in {builds / build.key / CONSOLE})")
    return [line[:LINE_CHARACTERS] for line in lines if line.strip()], replace(build, logged=logged)


def copy_screenshot(record: SetRecord, status: BuildStatus, builds: Path) -> str:
    """Copy the screen of a failed build beside the files of its set. Returns its name, "" without it."""
    if not status.screenshot:
        return ""
    with suppress(UecError):  # it is a help, and not needed
        with safe_open.open_member(builds, f"{status.key}/{SCREENSHOT}") as file:
            content = file.read(SCREENSHOT_BYTES)
        return result_files.write_screenshot(record, content)
    return ""
