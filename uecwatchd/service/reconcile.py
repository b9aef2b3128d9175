"""Brings queue, records, reports and files in line with what a scan has found."""

from contextlib import suppress
from dataclasses import dataclass, replace

from uecwatchd.errors import UecError
from uecwatchd.intake.sets.records import FolderSets, ImageSet, defer_open_files
from uecwatchd.intake.spool import writers
from uecwatchd.ledger.records import Request, SetRecord
from uecwatchd.ledger.standing import combine, with_waits
from uecwatchd.outputs import result_files
from uecwatchd.outputs.wording import wait_events
from uecwatchd.service.file_removal import clear_vanished, files_to_retire, remove_leaving
from uecwatchd.service.late_outputs import write_late_outputs
from uecwatchd.service.leftover_files import report_leftover_files
from uecwatchd.service.policy import GONE, asked_clouds, with_held_clouds
from uecwatchd.service.removed_sets import are_files_removed, is_removed_by_owner
from uecwatchd.service.scanner import FolderScan
from uecwatchd.service.spooler_parts import ConfiguredParts, LastingParts


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Consequences of one scan of one folder."""

    parts: LastingParts
    setup: ConfiguredParts

    def reconcile(self, scanned: FolderScan) -> bool:
        """Do all that follows from a scan. Return True if there is a reason for another one."""
        folder, tools, conditions = scanned.folder, self.setup.tools, self.parts.conditions
        states, running = self.parts.states, self.parts.busy
        self._restore_returned(scanned)
        held = self.parts.requests.open.cloud_holds
        self._stop_boots(scanned)
        scanned = self._note_waits(replace(scanned, assembly=with_held_clouds(scanned.assembly, held)))
        idle = [record for record in scanned.present() if record.id not in running]
        write_late_outputs(idle, scanned.listing, states=states, conditions=conditions)
        assembly = self._queue(scanned)
        self.setup.found.put(folder, assembly)
        self.setup.reports.replace_folder(folder, assembly, lambda path: scanned.listing.stamp(path).ctime_ns)
        self.parts.requests.drop_impossible(folder, assembly, running, self._can_be_tried)
        report_leftover_files(
            folder, assembly.unmatched, conditions=conditions, listener=tools.reporting.listener
        )
        self._retire(scanned, assembly)
        vanished = [record for record in scanned.absent() if record.id not in running]
        linger = self.setup.settings.spool.linger
        self._withdraw_removed(scanned, vanished)
        leaving = self.parts.requests.open.leaving()
        vanished = [record for record in vanished if record.id not in leaving]
        return clear_vanished(
            vanished, states=states, conditions=conditions, now=tools.clocks.now(), linger=linger
        )

    def _restore_returned(self, scanned: FolderScan) -> None:
        """Note that files are there again, as after a file system was mounted again."""
        back = ((scanned.records.get(found.name), found.owner) for found in scanned.assembly.ready)
        gone = [(record, owner) for record, owner in back if record and record.reason == GONE]
        self.parts.states.put_all([replace(record, reason="", owner=owner) for record, owner in gone])
        self.parts.requests.drop_returned({record.id for record in scanned.present()})

    def _stop_boots(self, scanned: FolderScan) -> None:
        """Have the test boots stopped of sets without files, and on clouds that sets no longer go to."""
        clouds = {found.id: found.clouds for found in scanned.assembly.ready}
        clouds |= {record.id: () for record in scanned.absent()}
        boots = [key for key in self.parts.boots.open if key.set_id in clouds]
        self.parts.boots.stop(key for key in boots if key.cloud not in clouds[key.set_id])

    def _note_waits(self, scanned: FolderScan) -> FolderScan:
        """Note the clouds that sets do not go to yet, and report each reason once.

        Return the scan with the changed records.
        """
        tools, states, news = self.setup.tools, self.parts.states, list[SetRecord]()
        for found in scanned.assembly.ready:
            record = scanned.records.get(found.name)
            if record is None or record.stamp != found.stamp or record.id in self.parts.busy:
                continue
            noted = with_waits(record, found.waits, now=tools.clocks.now())
            if noted != record:
                news.append(combine(noted))
                for event in wait_events(record, noted):
                    tools.reporting.listener.tell(event)
        states.put_all(news)
        for record in news:
            with self.parts.conditions.guard(("set", *record.id), record.name):
                for taken in result_files.publish(record):
                    raise taken
        return replace(scanned, records=states.of_folder(scanned.folder)) if news else scanned

    def _queue(self, scanned: FolderScan) -> FolderSets:
        """Queue the due sets. Return all sets; a set with a file open for writing waits."""
        folder, records, tools = scanned.folder, scanned.records, self.setup.tools
        dispatcher, suspended = self.parts.dispatcher, tools.clouds.availability.suspended()
        now = tools.clocks.now()
        due_sets = [
            found
            for found in scanned.assembly.ready
            if dispatcher.is_due(found, records.get(found.name), now=now, suspended=suspended)
        ]
        opened = ((one.name, writers.open_for_writing(folder, one.files)) for one in due_sets)
        written = {name: path for name, path in opened if path}
        busy = self.parts.requests.open.leaving() | self.parts.retiring.running
        leaving = {name for place, name in busy if place == str(folder)}
        excluded = {*written, *self.parts.requests.held_names(folder), *leaving}
        begun = [found for found in due_sets if found.name not in excluded]
        dispatcher.queue(folder, begun, records, tell=tools.reporting.listener.tell)
        return defer_open_files(
            scanned.assembly, written, ready_at=self.setup.settled_at(self.parts.monotonic())
        )

    def _can_be_tried(self, found: ImageSet) -> bool:
        """Tell if a set goes to any of the clouds that it is asked for."""
        asked = self.parts.requests.asked_clouds(found.id)
        return bool(asked_clouds(self.parts.states.get(found.id), found, asked))

    def _withdraw_removed(self, scanned: FolderScan, vanished: list[SetRecord]) -> None:
        """Ask for the withdrawal of sets whose files have just been removed, if the configuration says so.

        Until it is due, the files may come back.
        """
        spool, requests = self.setup.settings.spool, self.parts.requests
        gone = [record.id for record in vanished if are_files_removed(record, scanned.listing)]
        requests.confirm_removed(scanned.folder, gone if spool.removed == "withdraw" else ())
        if spool.removed != "withdraw":
            return
        due = self.setup.tools.clocks.now() + spool.linger
        removed = [record for record in vanished if is_removed_by_owner(record, scanned.listing)]
        removed = [record for record in removed if record.id not in requests.open.leaving()]
        for record in removed:
            with suppress(UecError):  # it is noticed again at the next scan
                self.setup.tools.ledger.put_request(Request(record.id, "withdraw", due=due))
        if removed:
            requests.update()

    def _retire(self, scanned: FolderScan, assembly: FolderSets) -> None:
        """Archive or delete the files of finished sets, if the configuration says so."""
        folder, tools = scanned.folder, self.setup.tools
        if (removal := self.setup.settings.spool.after) == "keep":
            return
        held = self.parts.requests.held_names(folder)
        if leaving := files_to_retire(scanned.listing, assembly, scanned.records, held=held, removal=removal):
            tools.ledger.put_leaving(leaving)
            remove_leaving(folder, tools.ledger, self.parts.conditions, now=tools.clocks.now())
