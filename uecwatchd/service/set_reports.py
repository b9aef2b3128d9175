"""Reports about refused and waiting sets, recorded and made a few at a time.

Each takes several writes to the disk. Fifteen thousand files that are not images must not block the loop: in
between, it does everything else that is due.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from uecwatchd.errors import Halted
from uecwatchd.events import Event, Kind
from uecwatchd.intake.sets.records import FolderSets, Refused, Waiting, wait_for_writer
from uecwatchd.intake.spool import writers
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.standing import count_done
from uecwatchd.outputs import result_files
from uecwatchd.outputs.wording import waiting_for
from uecwatchd.service.attempt import context, run
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.policy import is_due_again
from uecwatchd.service.requests import Requests
from uecwatchd.service.retry import adjust_for_downtime, record_failure, with_fresh_retries
from uecwatchd.service.set_states import SetStates
from uecwatchd.types import SetId

# Reports in one transaction of the ledger.
BATCH = 20
# Time for reports in one turn of the loop.
REPORTING_SECONDS = 0.25
# How long a settling set is only in memory: longer than most take to settle.
IN_MEMORY_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class SetReport:
    """The fact that a set is refused, or waits."""

    folder: Path
    about: Refused | Waiting

    @property
    def refused(self) -> bool:
        return isinstance(self.about, Refused)

    @property
    def key(self) -> SetId:
        return SetId(str(self.folder), self.about.name)


class SetReports:
    """Reports that are not made yet. Belongs to the service's loop.

    `working` returns the sets at work, which are not reported. A file that is still being written is checked
    again after `settle` seconds of the `clock`.
    """

    def __init__(
        self,
        tools: context.AttemptTools,
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
        self._pending: dict[Path, dict[SetId, SetReport]] = {}

    def replace_folder(self, folder: Path, assembly: FolderSets, changed: Callable[[str], int]) -> None:
        """Replace the reports of a folder by those of the latest scan.

        `changed` returns the change time of a file in nanoseconds.
        """
        held = self._requests.held_names(folder)
        outcomes: tuple[Refused | Waiting, ...] = (*assembly.refused, *assembly.waiting)
        reports = (SetReport(folder, one) for one in outcomes if one.name not in held)
        news = [report for report in reports if self._new_record(report)]
        requested = [report for report in news if self._is_requested(report.key)]
        by_age = sorted(news, key=lambda report: max(map(changed, report.about.files), default=0))
        pending = {report.key: report for report in (*requested, *_from_both_ends(by_age))}
        self._pending[folder] = {
            key: report for key, report in pending.items() if not self._stays_in_memory(report)
        }
        brief = {SetId(str(folder), one.name) for one in assembly.waiting if one.brief}
        moment = self._tools.clocks.now() - IN_MEMORY_SECONDS
        self._states.write_older(moment, among=brief.difference(self._working()))

    def clear_folder(self, folder: Path) -> None:
        self._pending.pop(folder, None)

    def has_pending(self) -> bool:
        """Return True if there are reports, and no stop was requested."""
        return any(self._pending.values()) and not self._tools.stopping.is_set()

    def make_some(self) -> Mapping[Path, Mapping[str, str]]:
        """Make some of the reports.

        Returns the sets that wait because one of their files is being written: by folder, the path by name of
        the set.
        """
        end, written = self._clock() + REPORTING_SECONDS, dict[Path, dict[str, str]]()
        while self.has_pending() and self._clock() < end:
            folder, reports = next((folder, found) for folder, found in self._pending.items() if found)
            batch = [reports.pop(key) for key in list(islice(reports, BATCH))]
            written.setdefault(folder, {}).update(self._report(batch))
        return written

    def _report(self, batch: Iterable[SetReport]) -> Mapping[str, str]:
        reports, written = [], {}
        for report in batch:
            if report.refused and (path := writers.open_for_writing(report.folder, report.about.files)):
                written[report.about.name] = path
                wait = wait_for_writer(report.about.name, path, self._clock() + self._settle)
                reports.append(replace(report, about=replace(wait, owner=report.about.owner)))
            else:
                reports.append(report)
        before = {report.key: self._states.get(report.key) for report in reports}
        records = {report.key: record for report in reports if (record := self._new_record(report))}
        self._states.put_all(records.values())
        for report in reports:
            if record := records.get(report.key):
                self._report_one(report, record, before[report.key])
        return written

    def _stays_in_memory(self, report: SetReport) -> bool:
        """Return True for a wait without a report; it is only kept in memory."""
        brief = isinstance(report.about, Waiting) and report.about.brief
        if brief and (record := self._new_record(report)):
            self._states.put_in_memory(record)
        return brief

    def _is_requested(self, key: SetId) -> bool:
        return self._requests.open.has(key, "retry")

    def _new_record(self, report: SetReport) -> SetRecord | None:
        """Return the new record for a report, None if it was made before or is not needed."""
        if report.key in self._working():
            return None
        record = self._states.get(report.key)
        if isinstance(report.about, Refused):
            return self._refused_record(report, report.about, record)
        return self._waiting_record(report, report.about, record)

    def _refused_record(
        self, report: SetReport, refused: Refused, record: SetRecord | None
    ) -> SetRecord | None:
        """Return the record of a refused set. Our own mistakes do not change a finished set."""
        now, requested = self._tools.clocks.now(), self._is_requested(report.key)
        same = record if record and record.stamp == refused.stamp else None
        if record and count_done(record)[0] and isinstance(refused.error, Halted):
            return None
        if same and not requested and not is_due_again(same, now):
            return None
        same = with_fresh_retries(same) if same and requested else same
        fresh = adjust_for_downtime(same, started=self._tools.started) if same else None
        build = record.build if record else None  # so that it is withdrawn
        fresh = fresh or SetRecord(
            report.key, refused.stamp, "waiting", now, owner=refused.owner, build=build
        )
        fresh = replace(fresh, attempt=fresh.attempt + 1, reason="")
        return record_failure(fresh, refused.error, now=now, spread=self._tools.clocks.random())

    def _waiting_record(
        self, report: SetReport, waiting: Waiting, record: SetRecord | None
    ) -> SetRecord | None:
        """Return the record of a waiting set with a new reason. An edit does not change a finished set."""
        if record and (waiting.brief or count_done(record)[0] or record.reason == waiting.reason):
            return None
        now, build = self._tools.clocks.now(), record.build if record else None  # so that it is withdrawn
        return SetRecord(
            report.key, "", "waiting", now, reason=waiting.reason, owner=waiting.owner, build=build
        )

    def _report_one(self, report: SetReport, record: SetRecord, before: SetRecord | None) -> None:
        name = report.about.name
        if isinstance(report.about, Refused):
            self._requests.finish(self._requests.open.of(report.key, "retry"))
            run.show_refusal(record, self._tools, before=before)
        else:
            what = f"{name}: {waiting_for(record)}"
            self._tools.reporting.listener.tell(Event(Kind.WAITING, what, report.key))
            with self._conditions.guard(("set", *report.key), name):
                if before and before.stamp != record.stamp:
                    result_files.retract(before)
                for taken in result_files.publish(record):
                    raise taken


def _from_both_ends(reports: Sequence[SetReport]) -> Iterator[SetReport]:
    """Yield the newest and the oldest in turn, so that nobody waits for thousands, or for ever."""
    for old, new in zip(reports, reversed(reports), strict=True):
        yield new
        yield old
