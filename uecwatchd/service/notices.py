"""Notices about refused and waiting sets, recorded and reported a few at a time.

Each takes several writes to the disk. Fifteen thousand files that are not images must not block the loop: in
between, it does everything else that is due.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from uecwatchd.errors import Halted
from uecwatchd.events import Event, Kind
from uecwatchd.intake.sets.records import Assembly, Refused, Waiting, being_written
from uecwatchd.intake.spool import writers
from uecwatchd.ledger.records import SetRecord
from uecwatchd.outputs import result_files
from uecwatchd.outputs.wording import waiting
from uecwatchd.service.attempt import context, run
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.policy import is_due_again
from uecwatchd.service.requests import Requests
from uecwatchd.service.retry import adjust_for_downtime, record_failure, with_fresh_retries
from uecwatchd.service.set_states import SetStates
from uecwatchd.types import SetId

# Notices in one transaction of the ledger.
HANDFUL = 20
# Time for notices in one turn of the loop.
TELLING_SECONDS = 0.25
# How long a settling set is only in memory: longer than most take to settle.
REMEMBERED_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Notice:
    """The fact that a set is refused, or waits."""

    folder: Path
    about: Refused | Waiting

    @property
    def refused(self) -> bool:
        return isinstance(self.about, Refused)

    @property
    def key(self) -> SetId:
        return SetId(str(self.folder), self.about.name)


class Notices:
    """Notices that are not reported yet. Belongs to the service's loop.

    `working` returns the sets at work, which are not reported. A file that is still being written is checked
    again after `settle` seconds of the `clock`.
    """

    def __init__(
        self,
        tools: context.Tools,
        *,
        states: SetStates,
        requests: Requests,
        conditions: Conditions,
        working: Callable[[], Collection[SetId]],
        clock: Callable[[], float],
        settle: float,
    ) -> None:
        self._clock = clock
        self._settle = settle
        self._tools = tools
        self._states = states
        self._requests = requests
        self._conditions = conditions
        self._working = working
        self._untold: dict[Path, dict[SetId, Notice]] = {}

    def expect(self, folder: Path, assembly: Assembly, changed: Callable[[str], int]) -> None:
        """Replace the notices of a folder by those of the latest scan.

        `changed` returns the change time of a file in nanoseconds.
        """
        held = self._requests.held_names(folder)
        said: tuple[Refused | Waiting, ...] = (*assembly.refused, *assembly.waiting)
        notices = (Notice(folder, one) for one in said if one.name not in held)
        news = [notice for notice in notices if self._judged(notice)]
        asked = [notice for notice in news if self._is_asked(notice.key)]
        by_age = sorted(news, key=lambda notice: max(map(changed, notice.about.files), default=0))
        told = {notice.key: notice for notice in (*asked, *_from_both_ends(by_age))}
        self._untold[folder] = {key: notice for key, notice in told.items() if not self._is_brief(notice)}
        brief = {SetId(str(folder), one.name) for one in assembly.waiting if one.brief}
        moment = self._tools.now() - REMEMBERED_SECONDS
        self._states.write_older(moment, among=brief.difference(self._working()))

    def dismiss(self, folder: Path) -> None:
        self._untold.pop(folder, None)

    def left(self) -> bool:
        """Return True if there are notices, and no stop was requested."""
        return any(self._untold.values()) and not self._tools.stopping.is_set()

    def work_off(self) -> Mapping[Path, Mapping[str, str]]:
        """Report some of the notices.

        Returns the sets that wait because one of their files is being written: by folder, the path by name of
        the set.
        """
        end, written = self._clock() + TELLING_SECONDS, dict[Path, dict[str, str]]()
        while self.left() and self._clock() < end:
            folder, notices = next((folder, found) for folder, found in self._untold.items() if found)
            handful = [notices.pop(key) for key in list(islice(notices, HANDFUL))]
            written.setdefault(folder, {}).update(self._say(handful))
        return written

    def _say(self, handful: Iterable[Notice]) -> Mapping[str, str]:
        told, written = [], {}
        for notice in handful:
            if notice.refused and (path := writers.open_for_writing(notice.folder, notice.about.files)):
                written[notice.about.name] = path
                wait = being_written(notice.about.name, path, self._clock() + self._settle)
                told.append(replace(notice, about=replace(wait, owner=notice.about.owner)))
            else:
                told.append(notice)
        before = {notice.key: self._states.get(notice.key) for notice in told}
        records = {notice.key: record for notice in told if (record := self._judged(notice))}
        self._states.put_all(records.values())
        for notice in told:
            if record := records.get(notice.key):
                self._show(notice, record, before[notice.key])
        return written

    def _is_brief(self, notice: Notice) -> bool:
        """Return True for a wait without a report; it is only kept in memory."""
        brief = isinstance(notice.about, Waiting) and notice.about.brief
        if brief and (record := self._judged(notice)):
            self._states.put_in_memory(record)
        return brief

    def _is_asked(self, key: SetId) -> bool:
        return self._requests.open.has(key, "retry")

    def _judged(self, notice: Notice) -> SetRecord | None:
        """Return the new record for a notice, None if it was reported before or needs no report."""
        if notice.key in self._working():
            return None
        record = self._states.get(notice.key)
        if isinstance(notice.about, Refused):
            return self._refused(notice, notice.about, record)
        return self._waiting(notice, notice.about, record)

    def _refused(self, notice: Notice, refused: Refused, record: SetRecord | None) -> SetRecord | None:
        """Return the record of a refused set. Our own mistakes do not change a finished set."""
        now, asked = self._tools.now(), self._is_asked(notice.key)
        same = record if record and record.stamp == refused.stamp else None
        if record and record.state == "done" and isinstance(refused.error, Halted):
            return None
        if same and not asked and not is_due_again(same, now):
            return None
        same = with_fresh_retries(same) if same and asked else same
        fresh = adjust_for_downtime(same, started=self._tools.started) if same else None
        fresh = fresh or SetRecord(*notice.key, refused.stamp, "waiting", now, owner=refused.owner)
        fresh = replace(fresh, attempt=fresh.attempt + 1, reason="")
        return record_failure(fresh, refused.error, now=now, spread=self._tools.random())

    def _waiting(self, notice: Notice, waiting: Waiting, record: SetRecord | None) -> SetRecord | None:
        """Return the record of a waiting set with a new reason. An edit does not change a finished set."""
        if record and (waiting.brief or record.state == "done" or record.reason == waiting.reason):
            return None
        now = self._tools.now()
        return SetRecord(*notice.key, "", "waiting", now, reason=waiting.reason, owner=waiting.owner)

    def _show(self, notice: Notice, record: SetRecord, before: SetRecord | None) -> None:
        name = notice.about.name
        if isinstance(notice.about, Refused):
            self._requests.finish(notice.key, "retry")
            run.show_refusal(record, self._tools, before=before)
        else:
            what = f"{name}: {waiting(record)}"
            self._tools.monitor.tell(Event(Kind.WAITING, what, name))
            with self._conditions.guard(("set", *notice.key), name):
                for taken in result_files.publish(record):
                    raise taken


def _from_both_ends(notices: Sequence[Notice]) -> Iterator[Notice]:
    """Yield the newest and the oldest in turn, so that nobody waits for thousands, or for ever."""
    for old, new in zip(notices, reversed(notices), strict=True):
        yield new
        yield old
